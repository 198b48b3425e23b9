"""Renaming that replaces nothing unseen: renameat2(2), Linux 3.15."""

import ctypes

from ketch.linux import libc

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_renameat2 = libc.function(
    "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)


def renameat2(directory: int, name: bytes, new_name: bytes, flags: int) -> None:
    """Rename something within a directory.

    Args:
        directory: descriptor of the directory.
        name: its name there.
        new_name: what it is to be called.
        flags: RENAME_NOREPLACE: the new name must be free; RENAME_EXCHANGE: what has it gets the
            old one.

    Raises:
        SyscallError: EEXIST where the name is taken; EINVAL where the file system cannot do it.
    """
    detail = f"{name!r} to {new_name!r}"
    _renameat2(detail, directory, name, directory, new_name, flags)
