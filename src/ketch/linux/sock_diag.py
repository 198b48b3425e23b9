"""What sock_diag(7) tells of the unix(7) sockets of a network namespace."""

import _socket
import struct

from ketch.errors import SyscallError
from ketch.linux import netlink

NETLINK_SOCK_DIAG = 4

SOCK_DIAG_BY_FAMILY = 20

UDIAG_SHOW_NAME = 0x01
UDIAG_SHOW_UID = 0x40  # Linux 5.3

UNIX_DIAG_NAME = 0
UNIX_DIAG_UID = 7

# struct unix_diag_req: family, protocol, states, inode, what to show, cookie.
_REQUEST = struct.Struct("=BBxxIIIII")
_ANSWER_BYTES = 16  # struct unix_diag_msg
_EVERY = 0xFFFFFFFF


def owner_of(name: bytes) -> int | None:
    """The user who made the socket of a name, as the caller's user namespace has them.

    Args:
        name: an abstract one, with its zero byte in front.

    Returns:
        None where no socket has the name, or where the kernel does not tell.
    """
    payload = _REQUEST.pack(
        _socket.AF_UNIX, 0, _EVERY, 0, UDIAG_SHOW_NAME | UDIAG_SHOW_UID, _EVERY, _EVERY
    )
    request = netlink.Request(
        "SOCK_DIAG_BY_FAMILY", SOCK_DIAG_BY_FAMILY, 0, payload, "list unix sockets"
    )
    try:
        with netlink.Socket(NETLINK_SOCK_DIAG) as kernel:
            answers = kernel.dump(request)
    except (SyscallError, OSError):  # built without unix_diag, or without the family
        return None
    for answer in answers:
        found = dict(netlink.attributes(answer.payload, _ANSWER_BYTES))
        if found.get(UNIX_DIAG_NAME) == name and UNIX_DIAG_UID in found:
            return netlink.number(found[UNIX_DIAG_UID])
    return None
