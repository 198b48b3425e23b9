"""A process's capability sets: capabilities(7), capget(2), capset(2), prctl(2).

A set is an integer, bit n for capability number n. Nothing here reads a file, so that a process
can change its sets as the last thing before it becomes somebody else's program.
"""

import ctypes
import errno

from ketch.linux import libc, process

PR_CAPBSET_READ = 23

_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522
_LOW = 0xFFFFFFFF


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def get() -> tuple[int, int, int]:
    """The calling thread's effective, permitted and inheritable sets: capget(2)."""
    data = (_Data * 2)()
    libc.syscall("capget", "self", ctypes.byref(_Header(_VERSION_3, 0)), data)
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def set_(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's effective, permitted and inheritable sets: capset(2).

    Raises:
        SyscallError: EPERM where a set would gain what the process may not give itself.
    """
    data = (_Data * 2)(
        _Data(effective & _LOW, permitted & _LOW, inheritable & _LOW),
        _Data(effective >> 32, permitted >> 32, inheritable >> 32),
    )
    detail = f"effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}"
    libc.syscall("capset", detail, ctypes.byref(_Header(_VERSION_3, 0)), data)


def available() -> int:
    """What the calling process can give to a program: its permitted and bounded capabilities."""
    return get()[1] & _read_bounding()[0]


def every() -> int:
    """All capabilities that this kernel knows: what a process has in a new user namespace."""
    return (1 << _read_bounding()[1] + 1) - 1


def restrict(bounding: int) -> None:
    """Drop everything else from the bounding set, and keep the permitted set over setuid(2).

    The first of two steps: dropping needs CAP_SETPCAP, which leaves with uid 0.

    Args:
        bounding: what the bounding set shall keep at most.
    """
    present, highest = _read_bounding()
    for number in range(highest + 1):
        if present >> number & 1 and not bounding >> number & 1:
            process.prctl(process.PR_CAPBSET_DROP, number)
    process.prctl(process.PR_SET_KEEPCAPS, 1)


def apply(effective: int, permitted: int, inheritable: int, ambient: int) -> None:
    """Set the remaining sets, the second step, after setuid(2).

    Args:
        effective: a subset of ``permitted``.
        permitted: a subset of what the process has.
        inheritable: a subset of what the process has.
        ambient: a subset of both ``permitted`` and ``inheritable``.

    Raises:
        SyscallError: the kernel refused a set.
    """
    process.prctl(process.PR_SET_KEEPCAPS, 0)
    set_(effective, permitted, inheritable)
    # Ambient capabilities survive a change of the other sets only where they are in both, and
    # the caller's own must not pass on to the program.
    process.prctl(process.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(ambient.bit_length()):
        if ambient >> number & 1:
            process.prctl(process.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def _read_bounding() -> tuple[int, int]:
    """The bounding set and the highest number that the kernel knows."""
    result = 0
    for number in range(64):
        try:
            result |= process.prctl(PR_CAPBSET_READ, number) << number
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return result, number - 1
    return result, 63
