"""What kind of file system an open file is on: fstatfs(2)."""

import ctypes

from ketch.linux import libc

PROC_SUPER_MAGIC = 0x9FA0
TMPFS_MAGIC = 0x01021994
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_fstatfs = libc.function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def kind(descriptor: int) -> int:
    """The file system's magic number, such as PROC_SUPER_MAGIC; ``descriptor`` may be O_PATH."""
    facts = (ctypes.c_long * 16)()  # struct statfs: 120 bytes, f_type first
    _fstatfs(str(descriptor), descriptor, facts)
    return facts[0]
