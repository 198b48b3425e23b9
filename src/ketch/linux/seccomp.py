"""System call filters: seccomp(2)."""

import ctypes

from ketch.linux import libc

FILTER_FLAG_LOG = 0x02
FILTER_FLAG_SPEC_ALLOW = 0x04
FILTER_FLAG_NEW_LISTENER = 0x08
FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20

MAX_INSTRUCTIONS = 4096
INSTRUCTION_BYTES = 8

_SET_MODE_FILTER = 1


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, flags: int = 0) -> int:
    """Put the calling thread, and what it executes, under a filter: seccomp(2).

    Needs no_new_privs, or CAP_SYS_ADMIN in the user namespace. Touches no file. Whatever the
    process does from here on, to its last step before execve(2), the filter must allow.

    Args:
        program: ``struct sock_filter`` instructions in the machine's byte order.
        flags: FILTER_FLAG_*.

    Returns:
        With FILTER_FLAG_NEW_LISTENER the descriptor on which a supervisor receives notifications
        (close-on-exec), otherwise 0.

    Raises:
        SyscallError: EACCES without the privilege; EINVAL for a malformed program, or for a flag
            that this kernel does not know.
    """
    argument = _Program(len(program) // INSTRUCTION_BYTES, program)
    detail = f"filter of {argument.length} instructions, flags {flags:#x}"
    return libc.syscall("seccomp", detail, _SET_MODE_FILTER, flags, ctypes.byref(argument))
