"""Namespaces: namespaces(7), unshare(2), setns(2)."""

import contextlib
import ctypes
import os

from ketch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# The runtime specification's name of each kind, its clone flag and its name under /proc/PID/ns.
KINDS = {
    "user": (CLONE_NEWUSER, "user"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "time": (CLONE_NEWTIME, "time"),
    "mount": (CLONE_NEWNS, "mnt"),
}

_unshare = libc.function("unshare", ctypes.c_int)
_setns = libc.function("setns", ctypes.c_int, ctypes.c_int)


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* flags for new ones: unshare(2).

    Raises:
        SyscallError: the kernel refused; EINVAL for CLONE_NEWUSER in a process with threads.
    """
    _unshare(_described(flags), flags)


def setns(descriptor: int, flags: int = 0) -> None:
    """Enter the namespace behind a descriptor, or several of a pidfd's process: setns(2).

    Args:
        descriptor: of a /proc/PID/ns file, or a pidfd.
        flags: CLONE_NEW*: with a namespace descriptor a check of its kind (0 for none), with a
            pidfd the namespaces to enter.
    """
    _setns(_described(flags), descriptor, flags)


@contextlib.contextmanager
def network_kept() -> "Iterator[None]":
    """Be in the thread's own network namespace again after a block, whichever it enters.

    Raises:
        SyscallError: the kernel refused the way back.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


@contextlib.contextmanager
def network_entered(descriptor: int) -> "Iterator[None]":
    """Be in a network namespace for the length of a block.

    Sockets that are made there stay there, and so do netlink sockets' answers.

    Raises:
        SyscallError: the kernel refused.
    """
    with network_kept():
        setns(descriptor, CLONE_NEWNET)
        yield


def _described(flags: int) -> str:
    return "|".join(kind for kind, (flag, _) in KINDS.items() if flags & flag)
