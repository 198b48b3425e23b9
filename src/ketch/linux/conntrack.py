"""Connection tracking: linux/netfilter/nfnetlink_conntrack.h.

What a connection's first packet was translated to holds for all that follow, so entries outlive
the rule that made them: a UDP client that goes on sending would for ever be led to an address that
has become somebody else's.
"""

import contextlib
import errno
import struct
from ipaddress import ip_address

from ketch.linux import netlink
from ketch.linux.netlink import Request, attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address

_NETLINK_NETFILTER = 12
_GET = 0x0101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_DELETE = 0x0102

_TUPLE_ORIG = 1
_TUPLE_REPLY = 2
_FILTER = 25
_TUPLE_IP = 1
_TUPLE_PROTO = 2
_PROTO_NUMBER = 1
_PROTO_DESTINATION = 3
_IP_SRC = {4: 1, 6: 3}
_IP_DST = {4: 2, 6: 4}
_FILTER_FLAGS = {_TUPLE_ORIG: 1, _TUPLE_REPLY: 2}
_FILTER_IP_SRC = 1 << 0  # linux/netfilter/nf_internals.h
_FILTER_PROTO_NUMBER = 1 << 3
_FILTER_PROTO_DESTINATION = 1 << 5
_PORTS_ONE_BY_ONE = 16  # each a walk through the kernel's whole table

_FAMILIES = {4: 2, 6: 10}
_HEADER = struct.Struct("!BBH")  # nfgenmsg: family, version, resource


def forget(address: "Address") -> None:
    """Forget the connections from and to an address, translated ones included.

    A kernel without connection tracking has none; one that cannot filter (before Linux 5.8) keeps
    them until they time out.

    Raises:
        SyscallError: the caller may not do this.
    """
    with _socket() as socket:
        for direction in (_TUPLE_ORIG, _TUPLE_REPLY) if socket else ():
            assert socket is not None
            wanted = _matching(address, direction)
            failure = socket.attempt(_request("DELETE", _DELETE, address.version, wanted))[0]
            if failure is None:
                continue
            if failure.errno not in _CANNOT:
                raise failure
            # Linux 6.6 and older do not delete by a filter, only list.
            found = _listed(socket, address.version, wanted)
            socket.attempt(*(_deletion(address.version, original) for original in found))


def forget_ports(
    protocol: int,
    ports: "Collection[int]",
    version: int,
    is_meant: "Callable[[Address, int], bool]",
) -> None:
    """Forget the connections to ports of the host, which others may have sent to before.

    Args:
        protocol: number of the protocol, which must have ports.
        ports: the ports.
        version: of IP.
        is_meant: whether an address and a port are the host's and count: who speaks to such a port
            of somebody else is left alone.

    Raises:
        SyscallError: the caller may not do this.
    """
    number = attribute(_PROTO_NUMBER, bytes([protocol]))
    wanted = [_by_protocol(number, _FILTER_PROTO_NUMBER)]
    if len(ports) <= _PORTS_ONE_BY_ONE:
        flags = _FILTER_PROTO_NUMBER | _FILTER_PROTO_DESTINATION
        places = [attribute(_PROTO_DESTINATION, port.to_bytes(2, "big")) for port in ports]
        wanted = [_by_protocol(number + place, flags) for place in places]
    with _socket() as socket:
        for each in wanted if socket else ():
            assert socket is not None
            found = [
                original for original in _listed(socket, version, each)
                if is_meant(*_destination(original, version))
            ]  # fmt: skip
            socket.attempt(*(_deletion(version, original) for original in found))


@contextlib.contextmanager
def _socket() -> "Iterator[netlink.Socket | None]":
    """A socket, or None where the kernel tracks no connections."""
    try:
        socket = netlink.Socket(_NETLINK_NETFILTER)
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        yield None
        return
    with socket:
        yield socket


def _listed(socket: netlink.Socket, version: int, wanted: bytes) -> list[bytes]:
    """What the first packets of connections said; none where the kernel does not filter."""
    try:
        found = socket.dump(_request("GET", _GET, version, wanted))
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return []
    return [dict(attributes(message.payload, _HEADER.size))[_TUPLE_ORIG] for message in found]


_CANNOT = {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP}


def _matching(address: "Address", direction: int) -> bytes:
    source = attribute(_IP_SRC[address.version], address.packed)
    flags = attribute(_FILTER_FLAGS[direction], struct.pack("=I", _FILTER_IP_SRC))
    return nested(direction, nested(_TUPLE_IP, source)) + nested(_FILTER, flags)


def _by_protocol(values: bytes, flags: int) -> bytes:
    filtered = attribute(_FILTER_FLAGS[_TUPLE_ORIG], struct.pack("=I", flags))
    return nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, values)) + nested(_FILTER, filtered)


def _destination(original: bytes, version: int) -> "tuple[Address, int]":
    parts = dict(attributes(original))
    address = dict(attributes(parts[_TUPLE_IP]))[_IP_DST[version]]
    port = dict(attributes(parts[_TUPLE_PROTO])).get(_PROTO_DESTINATION, b"")
    return ip_address(address), int.from_bytes(port, "big")


def _deletion(version: int, original: bytes) -> Request:
    return _request("DELETE", _DELETE, version, nested(_TUPLE_ORIG, original))


def _request(name: str, kind: int, version: int, payload: bytes) -> Request:
    header = _HEADER.pack(_FAMILIES[version], 0, 0)
    return Request(f"IPCTNL_MSG_CT_{name}", kind, 0, header + payload, "tracked connections")
