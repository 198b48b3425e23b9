"""Processes: clone3(2), pidfd_open(2), prctl(2), close_range(2), descriptors passed by cmsg(3)."""

import _socket
import ctypes
import os
import struct

from ketch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x200000000

_CREDENTIALS = struct.Struct("iII")  # struct ucred

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47

_CLOSE_RANGE_CLOEXEC = 4
_SIGCHLD = 17

# proc_pid_stat(5), counted from the state, the first field after the name.
_ARG_START, _ARG_END = 45, 46

_prctl = libc.function(
    "prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong
)
_ALL_PROCESSORS = b"\xff" * 1024  # as many as a kernel can be built for
_sched_setaffinity = libc.function(
    "sched_setaffinity", ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
)


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def clone3(flags: int, *, cgroup: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces: clone3(2), Linux 5.5.

    Like fork(2) the child goes on from here with a copy of everything, so the caller must be
    single-threaded.

    Args:
        flags: CLONE_NEW* and CLONE_PARENT; CLONE_PIDFD is added.
        cgroup: descriptor of a cgroup v2 directory to be born in (CLONE_INTO_CGROUP, Linux 5.7).

    Returns:
        The child's pid and pidfd in the parent, ``(0, -1)`` in the child. A child made with
        CLONE_PARENT is the caller's sibling.

    Raises:
        SyscallError: the kernel refused.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        # clone3 refuses an exit signal beside CLONE_PARENT: the sibling inherits the caller's.
        exit_signal=0 if flags & CLONE_PARENT else _SIGCHLD,
    )
    if cgroup is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = libc.syscall(
        "clone3", f"flags {flags:#x}", ctypes.byref(arguments), ctypes.sizeof(arguments)
    )
    return pid, pidfd.value if pid else -1


def pidfd_open(pid: int) -> int:
    """Open a process: pidfd_open(2). Raises SyscallError with ESRCH when there is none."""
    return libc.syscall("pidfd_open", f"pid {pid}", pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal to exactly the process that was opened: pidfd_send_signal(2)."""
    libc.syscall("pidfd_send_signal", f"signal {signal}", pidfd, signal, None, 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """Copy a descriptor out of another process: pidfd_getfd(2), Linux 5.6.

    Needs what ptrace(2) needs. The copy is close-on-exec and the caller's.
    """
    return libc.syscall("pidfd_getfd", f"descriptor {number}", pidfd, number, 0)


def prctl(option: int, second: int = 0, third: int = 0) -> int:
    """Operate on the calling process: prctl(2)."""
    return _prctl(f"option {option}", option, second, third, 0, 0)


def allow_all_processors() -> None:
    """Let the calling process run wherever its cpuset lets it: sched_setaffinity(2).

    Else it is bound as its parent is, since Linux 6.2 also once it is in another cpuset.
    """
    _sched_setaffinity("all", 0, len(_ALL_PROCESSORS), _ALL_PROCESSORS)


def set_name(name: str) -> None:
    """Set the calling process's name as ps shows it, cut to 15 bytes: PR_SET_NAME."""
    buffer = ctypes.create_string_buffer(os.fsencode(name)[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def set_command_line(words: list[str]) -> None:
    """Write a command line over the process's own, as far as there is room: proc_pid_cmdline(5).

    Raises:
        OSError: /proc is not to be seen.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from ``first`` on close-on-exec: close_range(2), Linux 5.11."""
    libc.syscall(
        "close_range",
        f"from {first}",
        ctypes.c_uint(first),
        ctypes.c_uint(0xFFFFFFFF),
        _CLOSE_RANGE_CLOEXEC,
    )


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor of the process but those given: close_range(2)."""
    first = 0
    for descriptor in [*sorted(keep), 0xFFFFFFFF + 1]:
        if first < descriptor:
            libc.syscall(
                "close_range", "all", ctypes.c_uint(first), ctypes.c_uint(descriptor - 1), 0
            )
        first = descriptor + 1


def exec_descriptor(descriptor: int, arguments: list[str], environment: dict[str, str]) -> None:
    """Execute the program behind a descriptor: execveat(2) with AT_EMPTY_PATH.

    Does not return.

    Raises:
        SyscallError: the program could not be executed.
    """
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*(os.fsencode(a) for a in arguments), None)
    envp = (ctypes.c_char_p * (len(environment) + 1))(
        *(os.fsencode(f"{name}={value}") for name, value in environment.items()), None
    )
    libc.syscall(
        "execveat", arguments[0], descriptor, b"", argv, envp, ctypes.c_int(libc.AT_EMPTY_PATH)
    )


def peer(connection: "_socket.socket") -> tuple[int, int, int]:
    """Who made, or listened for, a connection: pid, user and group, by SO_PEERCRED of unix(7)."""
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, group = _CREDENTIALS.unpack(credentials)
    return pid, user, group


def rights(*descriptors: int) -> list[tuple[int, int, bytes]]:
    """Descriptors as sendmsg(2) hands them to another process over a unix(7) socket."""
    packed = struct.pack(f"{len(descriptors)}i", *descriptors)
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]


def received(ancillary: "Sequence[tuple[int, int, bytes]]") -> int | None:
    """The one descriptor that recvmsg(2) brought, which is the caller's now; None without any."""
    return struct.unpack("i", ancillary[0][2][:4])[0] if ancillary else None
