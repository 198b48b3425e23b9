"""Taking room on the disk before it is needed: fallocate(2)."""

import ctypes

from ketch.linux import libc

_KEEP_SIZE = 0x01  # FALLOC_FL_KEEP_SIZE

_fallocate = libc.function(
    "fallocate64", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
)


def reserve(descriptor: int, size_bytes: int) -> None:
    """Have the blocks of a file's first bytes be its own, written or not; its length stays.

    Args:
        descriptor: of the file, open for writing.
        size_bytes: how many bytes.

    Raises:
        SyscallError: there is no room (ENOSPC), or the file system cannot (EOPNOTSUPP).
    """
    _fallocate(f"{size_bytes} bytes", descriptor, _KEEP_SIZE, 0, size_bytes)
