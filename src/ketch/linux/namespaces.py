"""Namespaces: namespaces(7), unshare(2), setns(2)."""

import ctypes
import fcntl
import os

from ketch.linux import libc
from ketch.linux.scopes import owned

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200  # no namespace, but what unshare(2) takes as well: root and directory
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

_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
_NS_GET_USERNS = 0xB701

_unshare = libc.function("unshare", ctypes.c_int)
_setns = libc.function("setns", ctypes.c_int, ctypes.c_int)


def in_initial_user_namespace() -> bool:
    """Whether the caller is in the machine's first user namespace: PROC_USER_INIT_INO."""
    return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE


def owns(kind: str) -> bool:
    """Whether a namespace that the caller is in belongs to its user namespace: ioctl_ns(2).

    Args:
        kind: its name under /proc/self/ns.
    """
    with open(f"/proc/self/ns/{kind}", "rb", buffering=0) as namespace:
        try:
            owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
        except PermissionError:  # beyond the caller's own, and those below it
            return False
    with owned(owner):
        return os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user"))


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


class network_kept:  # noqa: N801 - a block, not a kind of thing
    """Be in the thread's own network namespace again after a block, whichever it enters.

    Raises:
        SyscallError: the kernel refused the way back.
    """

    __slots__ = ("_home",)

    def __enter__(self) -> None:
        """Remember where the thread is."""
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def __exit__(self, *_: object) -> None:
        """Go back there."""
        with owned(self._home):
            setns(self._home, CLONE_NEWNET)


class network_entered(network_kept):  # noqa: N801 - likewise
    """Be in a network namespace for the length of a block.

    Sockets that are made there stay there, and so do netlink sockets' answers.

    Args:
        descriptor: of the namespace.

    Raises:
        SyscallError: the kernel refused.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        """Enter it."""
        super().__enter__()
        try:
            setns(self._descriptor, CLONE_NEWNET)
        except BaseException:
            os.close(self._home)
            raise


def _described(flags: int) -> str:
    return "|".join(kind for kind, (flag, _) in KINDS.items() if flags & flag)
