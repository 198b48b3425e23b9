"""Reaching what some rules allow: the name is looked up, the address judged, and connected to.

There is one place where that is done, in the machine's own network.
"""

import socket
from typing import TYPE_CHECKING

from ketch.linux import rtnetlink
from ketch.sandbox.egress import policy
from ketch.sandbox.egress.resolving import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ketch.sandbox.egress.policy import Address, Rule

_CONNECT_SECONDS = 10.0  # for one address
_ADDRESSES_MAX = 4  # that are tried


class RefusedError(Exception):
    """The rules do not let it through; its text is the reason."""


class Network:
    """The machine's network, as a relay uses it.

    Args:
        servers: tells which name servers to ask.
    """

    def __init__(self, servers: "Callable[[], Sequence[str]]") -> None:
        self._resolver = Resolver(servers)

    def reach(
        self, where: "str | Address", port: int, rules: "Sequence[Rule]"
    ) -> tuple[socket.socket, str]:
        """Connect to what some rules allow, and nowhere else.

        Returns:
            The connection, and where it leads.

        Raises:
            RefusedError: it is where nobody may get to.
            OSError: it cannot be reached.
        """
        found = self._resolver.addresses(where) if isinstance(where, str) else [where]
        if not found:
            raise OSError("there is no such name")
        own = _own(found)
        reasons = [(one, policy.refusal(rules, one, own)) for one in found]
        open_ones = [one for one, reason in reasons if reason is None]
        if not open_ones:
            raise RefusedError(f"{reasons[0][0]}: {reasons[0][1]}")
        problem = OSError("it cannot be reached")
        for address in open_ones[:_ADDRESSES_MAX]:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            server = socket.socket(family, socket.SOCK_STREAM)
            try:
                server.settimeout(_CONNECT_SECONDS)
                server.connect((str(address), port))
            except OSError as error:
                server.close()
                problem = OSError(f"{address}: {error.strerror or error}")
            else:
                return server, place(address, port)
        raise problem


def _own(found: "Iterable[Address]") -> "Collection[Address]":
    """Those that are this machine's own: what is sent there arrives here.

    Not only those that its links have: a load balancer's, of which a machine takes what is sent
    there, is in no list of addresses.
    """
    with rtnetlink.Socket() as kernel:
        routes = [(one, kernel.route_to(policy.unmapped(one))) for one in found]
    return [
        policy.unmapped(one) for one, route in routes
        if route is not None and route.kind == rtnetlink.RTN_LOCAL
    ]  # fmt: skip


def place(address: "Address", port: int) -> str:
    """An address and a port, as they are written."""
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
