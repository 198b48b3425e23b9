"""System calls through ctypes, with ``errno`` turned into SyscallError.

``function`` binds what glibc exports, ``syscall`` reaches the rest by number. Both keep the GIL
(``PyDLL``): the calls are short, and a raw ``clone3`` must return in the child with the GIL held.
"""

import ctypes
import os
import sys

from ketch.errors import SyscallError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_RECURSIVE = 0x8000

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# What uname(2) says under setarch(8) to a process that makes the calls of the 64-bit machine.
_SHOWN_AS = {
    "i386": "x86_64", "i486": "x86_64", "i586": "x86_64", "i686": "x86_64", "armv7l": "aarch64",
    "armv8l": "aarch64", "ppc": "ppc64", "ppcle": "ppc64le", "s390": "s390x",
}  # fmt: skip
_shown = os.uname().machine

# Whose system calls this process makes, by uname(2)'s names.
MACHINE = _SHOWN_AS.get(_shown, _shown) if sys.maxsize > 1 << 32 else _shown

# include/uapi/asm-generic/unistd.h in the kernel.
_GENERIC = {
    "pivot_root": 41, "seccomp": 277, "bpf": 280,
    "add_key": 217, "request_key": 218, "keyctl": 219,
    "execveat": 281, "capget": 90,
    "capset": 91, "ioprio_set": 30, "set_mempolicy": 237, "sched_setattr": 274, "rt_sigaction": 134,
}  # fmt: skip
# arch/powerpc/kernel/syscalls/syscall.tbl
_POWERPC = {
    "pivot_root": 203, "seccomp": 358, "bpf": 361,
    "add_key": 269, "request_key": 270, "keyctl": 271,
    "execveat": 362, "capget": 183,
    "capset": 184, "ioprio_set": 273, "set_mempolicy": 261, "sched_setattr": 355,
    "rt_sigaction": 173,
}  # fmt: skip
# Since Linux 5.0 new system calls have one number on every architecture; older ones differ.
_OLDER_NUMBERS: "dict[str, dict[str, int]]" = {
    # arch/x86/entry/syscalls/syscall_64.tbl
    "x86_64": {"pivot_root": 155, "seccomp": 317, "bpf": 321,
               "add_key": 248, "request_key": 249, "keyctl": 250,
               "execveat": 322,
               "capget": 125, "capset": 126, "ioprio_set": 251, "set_mempolicy": 238,
               "sched_setattr": 314, "rt_sigaction": 13},
    "aarch64": _GENERIC, "loongarch64": _GENERIC, "riscv64": _GENERIC,
    "ppc64": _POWERPC, "ppc64le": _POWERPC,
    # arch/s390/kernel/syscalls/syscall.tbl
    "s390x": {"pivot_root": 217, "seccomp": 348, "bpf": 351,
              "add_key": 278, "request_key": 279, "keyctl": 280,
              "execveat": 354,
              "capget": 184, "capset": 185, "ioprio_set": 282, "set_mempolicy": 270,
              "sched_setattr": 345, "rt_sigaction": 174},
}  # fmt: skip
_NUMBERS: "dict[str, int]" = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437,
    "pidfd_getfd": 438, "faccessat2": 439, "mount_setattr": 442, "quotactl_fd": 443,
    **_OLDER_NUMBERS.get(MACHINE, {}),
}  # fmt: skip


def function(name: str, *argument_types: "Any") -> "Callable[..., int]":
    """Bind a glibc function that returns -1 and sets errno on failure.

    Args:
        name: the function, also the name of the call in errors.
        argument_types: its ctypes argument types, in order.

    Returns:
        A callable that takes a description of what it is to do (for errors) and then the
        function's own arguments, returns the function's result, and raises SyscallError.
    """
    bound = _libc[name]
    bound.argtypes = argument_types

    def call(detail: str, *arguments: "Any") -> int:
        result: int = bound(*arguments)
        if result < 0:
            raise _failure(name, detail)
        return result

    return call


def syscall(name: str, detail: str, *arguments: "Any") -> int:
    """Make a system call by its name.

    Args:
        name: the kernel's name of the call; it must stand in this module's table.
        detail: what the call is to do, for errors.
        arguments: integers, bytes, or ctypes objects. Wrap an integer that may exceed 32 bits in
            the ctypes type that the kernel expects.

    Raises:
        SyscallError: the kernel refused.
        UnsupportedError: this architecture's number for the call is not known.
    """
    number = _NUMBERS.get(name)
    if number is None:
        raise UnsupportedError(f"system call {name}: number unknown on {MACHINE}")
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise _failure(name, detail)
    return result


# As with OSError itself, ENOENT can be caught as FileNotFoundError, and so on.
_KINDS: dict[type[OSError], type[SyscallError]] = {
    kind: type("SyscallError", (SyscallError, kind), {})
    for kind in (
        BlockingIOError, BrokenPipeError, ChildProcessError, FileExistsError, FileNotFoundError,
        InterruptedError, IsADirectoryError, NotADirectoryError, PermissionError,
        ProcessLookupError,
    )
}  # fmt: skip


def _failure(call: str, detail: str) -> SyscallError:
    """The error that ``errno`` stands for."""
    number = ctypes.get_errno()
    return _KINDS.get(type(OSError(number, "")), SyscallError)(number, call, detail)
