"""Session keyrings: keyctl(2), keyrings(7)."""

import ctypes
import errno

from ketch.errors import SyscallError
from ketch.linux import libc

# Bits of a key's permission mask: searching it, for its user and for everybody else.
USER_SEARCH = 0x080000
OTHER_SEARCH = 0x000008

_JOIN_SESSION_KEYRING = 1
_SETPERM = 5
_DESCRIBE = 6
_DESCRIPTION_BYTES = 512


def join_session(name: str) -> int:
    """Leave the session keyring for the one of this name, which is made when there is none.

    Returns:
        The keyring's serial number.

    Raises:
        SyscallError: ENOSYS where the kernel has no keyrings; EDQUOT when the user has too many.
    """
    return libc.syscall("keyctl", f"join session {name}", _JOIN_SESSION_KEYRING, name.encode())


def is_denied() -> bool:
    """Whether a filter lets nobody add or ask for a key: EPERM, before the kernel has looked."""
    for call in ("add_key", "request_key"):
        try:
            libc.syscall(call, "nothing", None, None, None, 0, 0)
        except SyscallError as error:
            if error.errno != errno.EPERM:
                return False
    return True


def allow(key: int, permissions: int) -> None:
    """Add permissions to a key's mask, so that others than its possessor may, say, search it."""
    buffer = ctypes.create_string_buffer(_DESCRIPTION_BYTES)
    libc.syscall("keyctl", f"describe {key}", _DESCRIBE, key, buffer, _DESCRIPTION_BYTES)
    # "keyring;uid;gid;permissions in hexadecimal;description"
    present = int(buffer.value.split(b";")[3], 16)
    libc.syscall(
        "keyctl", f"permissions of {key}", _SETPERM, key, ctypes.c_uint32(present | permissions)
    )
