"""As whom a container is asked: as the client itself, where its answer finds back.

The relay binds what it asks with to the client's address, which is none of the user's network
(IP_TRANSPARENT). The container answers by its gateway, which is the user's network; there the
answer is to be taken in, though it is for somebody else. By connection tracking it is known: what
such a socket sends is marked, and who answers has that mark back before a route is looked for.

Nobody is pretended to be whom the user's network has on a link of its own, since the container
would answer there, nor loopback's clients, since loopback addresses go to no other network: these
have the gateway's address, as in Docker.
"""

import errno
import socket
from contextlib import suppress
from ipaddress import ip_address

from ketch.errors import KetchError
from ketch.linux import nftables, policy_routing, rtnetlink
from ketch.network.uplink import programs

Place = tuple[str, int]

# Of the socket, and of those who answer. Nobody else marks packets in a user's network; these are
# not small numbers, in case somebody does.
_ASKED = 0x6B657401
_ANSWERED = 0x6B657402
_TABLE = 107
_PRIORITY = 107
_IP_TRANSPARENT = 19  # linux/in.h
_IPV6_TRANSPARENT = 75  # linux/in6.h
_SO_MARK = 36  # asm-generic/socket.h
_OWN = {str(programs.ADDRESS.ip), str(programs.ADDRESS_6.ip)}
_FAR_ERRORS = (errno.ENETUNREACH, errno.EHOSTUNREACH)
# Somebody with this address and port speaks to the same place already.
_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)

_RULES = f"""\
add table inet ketch-ports
add chain inet ketch-ports asked {{ type filter hook output priority mangle; }}
add chain inet ketch-ports answered {{ type filter hook prerouting priority mangle; }}
flush chain inet ketch-ports asked
flush chain inet ketch-ports answered
add rule inet ketch-ports asked meta mark {_ASKED} ct mark set {_ANSWERED}
add rule inet ketch-ports answered ct direction reply ct mark {_ANSWERED} meta mark set ct mark
"""


class Origins:
    """Makes the sockets by which containers are asked.

    Args:
        works: whether clients' addresses can be had: whether ``prepared``.
    """

    __slots__ = ("_works",)

    def __init__(self, *, works: bool) -> None:
        self._works = works

    def connect(self, kind: int, client: tuple[object, ...], target: Place) -> socket.socket:
        """Begin to connect to a container, as the client where that can be.

        Args:
            kind: SOCK_STREAM or SOCK_DGRAM.
            client: its address as a socket tells it.
            target: the container's address and port.

        Returns:
            A socket that does not block.

        Raises:
            OSError: the kernel refused.
        """
        place = (str(client[0]), int(str(client[1])))
        if self._works and _is_far(place[0]):
            for port in (place[1], 0):
                try:
                    return _connect(kind, target, (place[0], port))
                except OSError as error:
                    if error.errno not in _TAKEN:
                        break
        return _connect(kind, target, None)


def prepare() -> Origins:
    """Have answers come back, in the network that the caller is in; where that cannot be, none."""
    try:
        nftables.Transaction(_RULES, "take in answers to clients of published ports").wait()
        with rtnetlink.Socket() as network:
            for version in (4, 6):
                # There may be no IPv6.
                failures = network.attempt(
                    *policy_routing.take_in(version, _ANSWERED, _TABLE, _PRIORITY)
                )
                if any(failures) and version == 4:
                    return Origins(works=False)
    except (KetchError, OSError):
        return Origins(works=False)
    return Origins(works=True)


def _is_far(client: str) -> bool:
    """Whether the user's network reaches a client by its way out alone, or not at all."""
    address = ip_address(client.partition("%")[0])
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # Nothing is sent: to connect is to look up the route (udp(7)).
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((client, 9))
            return asking.getsockname()[0] in _OWN
    except OSError as error:
        return error.errno in _FAR_ERRORS


def _connect(kind: int, target: Place, source: Place | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    inner = socket.socket(family, kind)
    try:
        inner.setblocking(False)
        if source is not None:
            if family == socket.AF_INET:
                inner.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
            else:
                inner.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            inner.setsockopt(socket.SOL_SOCKET, _SO_MARK, _ASKED)
            if kind == socket.SOCK_STREAM:  # one client may ask several containers by one port
                inner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            inner.bind(source)
        with suppress(BlockingIOError):
            inner.connect(target)
    except BaseException:
        inner.close()
        raise
    return inner
