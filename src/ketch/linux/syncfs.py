"""Writing one file system's changes to its disk: syncfs(2)."""

import ctypes

from ketch.linux import libc

_syncfs = libc.function("syncfs", ctypes.c_int)


def syncfs(descriptor: int) -> None:
    """Wait until all changes of the file system that holds an open file are on its disk.

    Raises:
        SyscallError: some could not be written.
    """
    _syncfs(str(descriptor), descriptor)
