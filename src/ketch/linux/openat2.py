"""Opening paths that a hostile container may have prepared: openat2(2)."""

import ctypes
import errno
import os

from ketch.errors import SyscallError
from ketch.linux import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_TRIES = 128


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(
    directory: int, path: str | bytes, flags: int, mode: int = 0, *, resolve: int = RESOLVE_IN_ROOT
) -> int:
    """Open a path with the kernel's own restrictions on how it is resolved.

    Args:
        directory: descriptor of the directory that the path is relative to, and which is the root
            of the resolution under RESOLVE_IN_ROOT.
        path: the path; absolute paths and ``..`` stay beneath the root under RESOLVE_IN_ROOT.
        flags: ``os.O_*``; close-on-exec is added.
        mode: permission bits of a file that is created (only with O_CREAT).
        resolve: ``RESOLVE_*`` flags. Magic links are refused whatever is given.

    Returns:
        A new descriptor, close-on-exec, which the caller owns.

    Raises:
        SyscallError: the path cannot be opened under these restrictions (ELOOP, EXDEV, ENOENT...).

    Source: openat2(2), Linux 5.6.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    if b"\0" in name:  # as os.open() does: the kernel would take what comes before it
        raise SyscallError(errno.EINVAL, "openat2", ascii(path))
    for tries_left in reversed(range(_TRIES)):
        try:
            return libc.syscall(
                "openat2", os.fsdecode(name), directory, name, ctypes.byref(how), ctypes.sizeof(how)
            )
        except OSError as error:
            # openat2(2): with a ".." in the path, a rename anywhere on the system may make the
            # kernel ask again. A container that renames for ever gets so many tries and no more.
            if error.errno != errno.EAGAIN or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")
