"""Connection tracking: linux/netfilter/nfnetlink_conntrack.h.

What a connection's first packet was translated to holds for all that follow, so entries outlive
the rule that made them: a UDP client that goes on sending would for ever be led to an address that
has become somebody else's.
"""

import errno
import struct

from ketch.linux import netlink
from ketch.linux.netlink import Message, Request, attribute, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_NETLINK_NETFILTER = 12
_GET = 0x0101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_DELETE = 0x0102

_TUPLE_ORIG = 1
_TUPLE_REPLY = 2
_FILTER = 25
_TUPLE_IP = 1
_IP_SRC = {4: 1, 6: 3}
_FILTER_FLAGS = {_TUPLE_ORIG: 1, _TUPLE_REPLY: 2}
_FILTER_IP_SRC = 1

_FAMILIES = {4: 2, 6: 10}
_HEADER = struct.Struct("!BBH")  # nfgenmsg: family, version, resource


def forget(address: "IPv4Address | IPv6Address") -> None:
    """Forget the connections from and to an address, translated ones included.

    A kernel without connection tracking has none; one that cannot filter (before Linux 5.8) keeps
    them until they time out.

    Raises:
        SyscallError: the caller may not do this.
    """
    try:
        socket = netlink.Socket(_NETLINK_NETFILTER)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return
        raise
    with socket:
        for direction in (_TUPLE_ORIG, _TUPLE_REPLY):
            wanted = _matching(address, direction)
            failure = socket.attempt(_request("DELETE", _DELETE, address, wanted))[0]
            if failure is None:
                continue
            if failure.errno not in _CANNOT:
                raise failure
            # Linux 6.6 and older do not delete by a filter, only list.
            try:
                found = socket.dump(_request("GET", _GET, address, wanted))
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                return
            socket.attempt(*(_deletion(address, message) for message in found))


_CANNOT = {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP}


def _matching(address: "IPv4Address | IPv6Address", direction: int) -> bytes:
    source = attribute(_IP_SRC[address.version], address.packed)
    flags = attribute(_FILTER_FLAGS[direction], struct.pack("=I", _FILTER_IP_SRC))
    return nested(direction, nested(_TUPLE_IP, source)) + nested(_FILTER, flags)


def _deletion(address: "IPv4Address | IPv6Address", message: Message) -> Request:
    original = dict(netlink.attributes(message.payload, _HEADER.size))[_TUPLE_ORIG]
    return _request("DELETE", _DELETE, address, nested(_TUPLE_ORIG, original))


def _request(name: str, kind: int, address: "IPv4Address | IPv6Address", payload: bytes) -> Request:
    header = _HEADER.pack(_FAMILIES[address.version], 0, 0)
    return Request(f"IPCTNL_MSG_CT_{name}", kind, 0, header + payload, f"connections of {address}")
