"""Published ports: how one is written in the packet filter, and how it is kept from others.

A published port is no process and no connection passes through one: the packet filter leads
packets to the container. What keeps other programs of the host from its number is a socket that is
bound and never sees a packet, since the filter is asked first.
"""

import _socket
import contextlib
import errno
import os
from ipaddress import IPv4Address, IPv6Address

from ketch.linux.nftables import Element, padded

TYPE_CHECKING = False
if TYPE_CHECKING:
    Address = IPv4Address | IPv6Address

NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_KINDS = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM, "sctp": _socket.SOCK_STREAM}


class Port:
    """A published port.

    Args:
        protocol: ``tcp``, ``udp`` or ``sctp``.
        host_address: the host's, unspecified for every one.
        host_port: the host's.
        address: the container's.
        port: the container's.
        owner: whose it is, for whoever looks at the packet filter.
        routed: packets come to the container's own address and port; the host's has no part in it.
    """

    __slots__ = ("address", "host_address", "host_port", "owner", "port", "protocol", "routed")

    def __init__(
        self,
        protocol: str,
        host_address: "Address",
        host_port: int,
        address: "Address",
        port: int,
        *,
        owner: str = "",
        routed: bool = False,
    ) -> None:
        self.protocol = protocol
        self.host_address = host_address
        self.host_port = host_port
        self.address = address
        self.port = port
        self.owner = owner
        self.routed = routed

    def same(self, other: "Port") -> bool:
        """Whether another one is the same port, led to the same place."""
        mine, theirs = ((one.key(), one.address, one.port) for one in (self, other))
        return mine == theirs

    @property
    def place(self) -> tuple[str, str, int]:
        """The host's, as ``place`` says it of a socket."""
        return self.protocol, str(self.host_address), self.host_port

    @property
    def is_near(self) -> bool:
        """Whether the host's loopback addresses lead to it."""
        at = self.host_address
        return not self.routed and at.version == 4 and (at.is_unspecified or at.is_loopback)

    @property
    def is_private(self) -> bool:
        """Whether a program that is the container's alone leads there, not the packet filter.

        Whatever addresses the container has then, it has no others' company: none is said.
        """
        return self.address.is_unspecified

    def element(self) -> Element:
        """What the packet filter has of it: the container's place by the host's."""
        name, words, key = self._key()
        if self.routed:
            return Element(name, key, comment=self.owner, words=words)
        return Element(
            name,
            key,
            self.address.packed + padded(self.port.to_bytes(2, "big")),
            self.owner,
            words=words,
            leads=f"{self.address} . {self.port}",
        )

    def near(self, gateway: "Address") -> Element:
        """As whom loopback's clients come to the container, where it ``is_near``.

        Args:
            gateway: the host's own address on the container's network.
        """
        name, words, key = self._key()
        return Element(
            f"near_{name}", key, gateway.packed, self.owner, words=words, leads=str(gateway)
        )

    def itself(self) -> Element:
        """That the container may come to itself by it.

        Where bridges are filtered, such a packet is led back within the bridge, and only its
        addresses tell that it is one.
        """
        words = f"{self.address} . {self.address}"
        return Element(f"self{self.address.version}", self.address.packed * 2, words=words)

    def key(self) -> tuple[str, bytes]:
        """The set or map and the key in it, as the kernel stores it."""
        name, _, key = self._key()
        return name, key

    def _key(self) -> tuple[str, str, bytes]:
        address, port = self.host_address, self.host_port
        if self.routed:
            address, port = self.address, self.port
        words = f"{self.protocol} . {port}"
        key = padded(bytes([NUMBERS[self.protocol]])) + padded(port.to_bytes(2, "big"))
        version = self.address.version
        if self.routed:
            return f"open{version}", f"{address} . {words}", address.packed + key
        if address.is_unspecified:
            return f"any{version}", words, key
        return f"at{version}", f"{address} . {words}", address.packed + key


def bind(protocol: str, address: "Address", port: int) -> int | None:
    """Take a port of the host, so that nobody else can.

    Returns:
        The socket's descriptor, close-on-exec; None where the kernel does not speak the protocol
        and so nobody can have the port.

    Raises:
        OSError: somebody has it (EADDRINUSE), or the address is not the host's (EADDRNOTAVAIL).
    """
    family = _socket.AF_INET if address.version == 4 else _socket.AF_INET6
    try:
        taken = _socket.socket(family, _KINDS[protocol], NUMBERS[protocol])
    except OSError as error:
        if error.errno in {errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT}:
            return None
        raise
    try:
        if address.version == 6:
            taken.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        _bind(taken, protocol, (str(address), port))
        return taken.detach()
    except BaseException:
        taken.close()
        raise


def _bind(taken: "_socket.socket", protocol: str, place: tuple[str, int]) -> None:
    """Bind a socket so that nobody else can, whatever options they set.

    It does not listen: what comes to it past the packet filter is refused at once.
    """
    try:
        taken.bind(place)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or protocol != "tcp":
            raise
        # What a former owner of the port left in TIME_WAIT is in nobody's way. Having said so, the
        # socket must listen, or whoever says the same could have the port as well.
        taken.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        taken.bind(place)
        taken.listen(0)


def place(descriptor: int) -> tuple[str, str, int]:
    """What a socket that ``bind`` has made is bound to: protocol, address and port."""
    bound = _socket.socket(fileno=os.dup(descriptor))
    try:
        address, port, *_ = bound.getsockname()
        names = {number: name for name, number in NUMBERS.items()}
        return names[bound.proto], address, port
    finally:
        bound.close()


def advice(protocol: str, port: int, error: OSError) -> str:
    """What whoever asked ``bind`` for a port may do about its error; empty where nothing is known.

    To be called in the network where it was asked for.
    """
    if error.errno == errno.EADDRINUSE:
        who = holder(protocol, port)
        return f"{who} has it" if who else ""
    if error.errno == errno.EACCES:
        with open(_UNPRIVILEGED, encoding="ascii") as file:
            first = file.read().strip()
        return (
            f"an ordinary user has ports from {first} on; as root: "
            f"sysctl net.ipv4.ip_unprivileged_port_start={port}"
        )
    return ""


def holder(protocol: str, port: int) -> str:
    """Who of the host's processes listens on a port, as ``nginx (process 7)``, as far as we see."""
    inodes = set()
    for version in ("", "6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{protocol}{version}") as table:
            for line in table.read().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(f":{port:04X}") and fields[3] in {"0A", "07"}:
                    inodes.add(f"socket:[{fields[9]}]")
    for pid in os.listdir("/proc") if inodes else ():
        if pid.isdecimal() and _has_open(pid, inodes):
            comm = f"/proc/{pid}/comm"
            with contextlib.suppress(OSError), open(comm, encoding="utf-8") as file:
                return f"{file.read().strip()} (process {pid})"
    return ""


def _has_open(pid: str, inodes: set[str]) -> bool:
    """Whether a process has one of these sockets, as far as we may look."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in inodes:
                    return True
    return False
