"""Signal actions that the C library keeps from its users: sigaction(2)."""

from ketch.linux import libc

# SIGCANCEL and SIGSETXID of nptl(7). posix_spawn(3) leaves them ignored in what it starts.
_INTERNAL = (32, 33)
_DEFAULT_ACTION = bytes(32)  # the kernel's struct sigaction: SIG_DFL, no flags, an empty mask
_SET_BYTES = 8


def reset_internal() -> None:
    """Give the C library's own signals their default action, which execve(2) passes on."""
    for number in _INTERNAL:
        libc.syscall("rt_sigaction", f"signal {number}", number, _DEFAULT_ACTION, None, _SET_BYTES)
