"""Signals: what Python's module offers, without its enums, and what the C library keeps back.

The C functions take and give plain numbers. The package ``signal`` makes enums of them, which costs
its import 7 ms: a quarter of a runtime command's life.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403

# SIGCANCEL and SIGSETXID of nptl(7). posix_spawn(3) leaves them ignored in what it starts.
_INTERNAL = (32, 33)
_DEFAULT_ACTION = bytes(32)  # the kernel's struct sigaction: SIG_DFL, no flags, an empty mask
_SET_BYTES = 8
_SIGSET_BYTES = 128  # the C library's
_SFD_CLOEXEC = 0o2000000


def reset_internal() -> None:
    """Give the C library's own signals their default action, which execve(2) passes on."""
    from ketch.linux import libc  # noqa: PLC0415 most who import this module send signals only

    for number in _INTERNAL:
        libc.syscall("rt_sigaction", f"signal {number}", number, _DEFAULT_ACTION, None, _SET_BYTES)


def signalfd() -> int:
    """Open a descriptor that each blocked signal can be read from: signalfd(2).

    A read gives 128 bytes, whose first four are the signal's number. It is close-on-exec.
    """
    import ctypes  # noqa: PLC0415 as above

    from ketch.linux import libc  # noqa: PLC0415

    bound = libc.function("signalfd", ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    return bound("all", -1, b"\xff" * _SIGSET_BYTES, _SFD_CLOEXEC)
