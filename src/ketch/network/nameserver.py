"""The sockets of a container's name server: 127.0.0.11, port 53, in its own network namespace.

They are in the container's namespace and served from outside of it, so who asks is known by the
socket and cannot be forged. Nothing is bound to port 53, which is the container's own to use: a
name server of its own on all addresses would find the port taken. Packets for port 53 of this one
address are led to a socket on another port by a program of the kernel's socket lookup, and a raw
socket sends the answers from port 53 (TCP answers from the port that it was called on). Where the
kernel has no such programs, or does not let the caller attach one, port 53 it is.
"""

import _socket
import os
import struct
import sys

from ketch.errors import SyscallError
from ketch.linux import namespaces, sk_lookup
from ketch.linux.scopes import owned
from ketch.spec import bpf

ADDRESS = "127.0.0.11"  # Docker's
PORT = 53

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Peer = tuple[str, int]

_BACKLOG = 128
_UDP_HEADER = struct.Struct("!HHHH")
_IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_DONT_FRAGMENT = 0x4000
_TTL = 64


def open_sockets(namespace: int) -> list[int]:
    """Make a name server's sockets in a container's network namespace.

    What is asked before they are served waits in them. To be called in the host's namespace by a
    process with one thread; it is there again afterwards.

    Args:
        namespace: descriptor of the container's network namespace, its loopback up.

    Returns:
        Descriptors, close-on-exec, owned by the caller, for a ``NameServer`` in any process: of a
        UDP socket, a listening TCP socket and, unless these are bound to port 53, of a raw socket
        and of what leads packets to the former.

    Raises:
        OSError: the kernel refused.
    """
    sockets: list[_socket.socket] = []
    try:
        with namespaces.network_entered(namespace):
            sockets += _bound(0)
            sockets.append(_inside(_socket.SOCK_RAW, _socket.IPPROTO_RAW))
            try:
                attachment = _lead(namespace, sockets[0].fileno(), sockets[1].fileno())
            except SyscallError:
                _close(sockets)
                sockets += _bound(PORT)
                return [socket.detach() for socket in sockets]
    except BaseException:
        _close(sockets)
        raise
    return [*(socket.detach() for socket in sockets), attachment]


class NameServer:
    """A container's name server, as the process has it that answers.

    Args:
        descriptors: what ``open_sockets`` made; they belong to the name server from now on.

    Attributes:
        udp: takes datagrams; does not block.
        tcp: takes connections; does not block.
    """

    __slots__ = ("_attachment", "_raw", "tcp", "udp")

    def __init__(self, descriptors: "Sequence[int]") -> None:
        udp, tcp, *rest = descriptors
        self.udp = _socket.socket(fileno=udp)
        self.tcp = _socket.socket(fileno=tcp)
        self._raw = _socket.socket(fileno=rest[0]) if rest else None
        self._attachment = rest[1] if rest else -1
        for socket in (self.udp, self.tcp, self._raw):
            if socket is not None:
                socket.setblocking(False)

    def accept(self) -> int:
        """Take a connection; returns its descriptor, close-on-exec, owned by the caller.

        Raises:
            OSError: none is waiting.
        """
        descriptor, _ = self.tcp._accept()  # type: ignore[attr-defined]
        return int(descriptor)

    def reply(self, payload: bytes, peer: "Peer") -> None:
        """Send a datagram from port 53 to whoever asked.

        Raises:
            OSError: it cannot be sent; whoever asked will ask again.
        """
        if self._raw is None:
            self.udp.sendto(payload, peer)
        else:
            self._raw.sendto(_datagram(payload, peer), (peer[0], 0))

    def close(self) -> None:
        """Close the sockets; nothing answers any more."""
        _close([self.udp, self.tcp] if self._raw is None else [self.udp, self.tcp, self._raw])
        if self._attachment >= 0:
            os.close(self._attachment)
            self._attachment = -1


def _bound(port: int) -> list[_socket.socket]:
    udp = _inside(_socket.SOCK_DGRAM)
    tcp = _inside(_socket.SOCK_STREAM)
    udp.bind((ADDRESS, port))
    tcp.bind((ADDRESS, port))
    tcp.listen(_BACKLOG)
    return [udp, tcp]


def _inside(kind: int, protocol: int = 0) -> _socket.socket:
    return _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC, protocol)


def _close(sockets: list[_socket.socket]) -> None:
    while sockets:
        sockets.pop().close()


def _lead(namespace: int, udp: int, tcp: int) -> int:
    """Lead what arrives for our address and port to these sockets, as long as the result lives."""
    with owned(sk_lookup.socket_map([udp, tcp])) as chosen:
        return sk_lookup.attach(namespace, _program(chosen))


def _program(sockets: int) -> bytes:
    """``if (port == 53 && ip == 127.0.0.11) assign(sockets[protocol != UDP]); return PASS``."""
    address = int.from_bytes(_socket.inet_aton(ADDRESS), sys.byteorder, signed=True)
    result, first, second, third = 0, 1, 2, 3  # registers: a function's result and arguments
    context, socket = 6, 7  # registers that a function leaves alone
    place = -4  # on the stack: the index into the map
    assign = [
        bpf.instruction(bpf.MOVE, socket, source=result),
        bpf.instruction(bpf.MOVE, first, source=context),
        bpf.instruction(bpf.MOVE, second, source=socket),
        bpf.instruction(bpf.MOVE_IMMEDIATE, third, 0),
        bpf.instruction(bpf.CALL, value=sk_lookup.SK_ASSIGN),
        bpf.instruction(bpf.MOVE, first, source=socket),
        bpf.instruction(bpf.CALL, value=sk_lookup.SK_RELEASE),
    ]
    choose = [
        bpf.instruction(bpf.LOAD_WORD, first, source=context, offset=sk_lookup.PROTOCOL),
        bpf.instruction(bpf.MOVE_IMMEDIATE, second, 0),
        bpf.instruction(bpf.JUMP_EQUAL, first, _socket.IPPROTO_UDP, offset=1),
        bpf.instruction(bpf.MOVE_IMMEDIATE, second, 1),
        bpf.instruction(bpf.STORE_WORD, bpf.FRAME, source=second, offset=place),
        bpf.instruction(bpf.LOAD_MAP, first, sockets, source=1),
        bpf.instruction(0),
        bpf.instruction(bpf.MOVE, second, source=bpf.FRAME),
        bpf.instruction(bpf.ADD_IMMEDIATE, second, place),
        bpf.instruction(bpf.CALL, value=sk_lookup.MAP_LOOKUP_ELEM),
        bpf.instruction(bpf.JUMP_EQUAL, result, 0, offset=len(assign)),
        *assign,
    ]
    return b"".join(
        [
            bpf.instruction(bpf.MOVE, context, source=first),
            bpf.instruction(bpf.LOAD_WORD, first, source=context, offset=sk_lookup.LOCAL_PORT),
            bpf.instruction(bpf.JUMP_NOT_EQUAL, first, PORT, offset=len(choose) + 2),
            bpf.instruction(bpf.LOAD_WORD, first, source=context, offset=sk_lookup.LOCAL_IP4),
            bpf.instruction(bpf.JUMP_NOT_EQUAL_32, first, address, offset=len(choose)),
            *choose,
            bpf.instruction(bpf.MOVE_IMMEDIATE, result, sk_lookup.SK_PASS),
            bpf.instruction(bpf.EXIT),
        ]
    )


def _datagram(payload: bytes, peer: "Peer") -> bytes:
    """A whole IPv4 packet; the kernel fills in its checksum, and UDP's is optional (RFC 768)."""
    length = _UDP_HEADER.size + len(payload)
    source, destination = _socket.inet_aton(ADDRESS), _socket.inet_aton(peer[0])
    return (
        _IPV4_HEADER.pack(0x45, 0, _IPV4_HEADER.size + length, 0, _DONT_FRAGMENT, _TTL,
                          _socket.IPPROTO_UDP, 0, source, destination)
        + _UDP_HEADER.pack(PORT, peer[1], length, 0)
        + payload
    )  # fmt: skip
