"""Whom a request comes from: programs may ask, pages in somebody's browser may not.

A browser sends what a page tells it to anywhere, with its user's certificate, and from any machine
that its user can reach. What gives it away are headers that no page can change: ``Origin`` and
``Sec-Fetch-Site`` with what pages of others ask, and ``Host``, which is the page's own name where
that name was made to lead here (DNS rebinding). Source: the Fetch standard, sections 3.2 and 3.7;
W3C, Fetch Metadata Request Headers.
"""

import ipaddress
import re
from typing import TYPE_CHECKING

from ketch.errors import PermissionDeniedError
from ketch.spec.certificates import vouches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.api.http import Exchange

_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:/@\s]+))(?::[0-9]*)?")
_OF_OTHERS = {"cross-site", "same-site"}


def check(exchange: "Exchange", names: "Sequence[str] | None") -> None:
    """Refuse what a page of a browser asks.

    Args:
        exchange: the request.
        names: the names of this server, as in certificates; None where any will do, since nobody
            gets to the socket by a name.

    Raises:
        PermissionDeniedError: a page asks, or it is asked for under a name that is not its own.
    """
    host = _authority(exchange)
    if names is not None and host and not _is_own(_name(host), names):
        raise PermissionDeniedError(
            f"Host header {host[:200]!r} names another server than this one: use an address or a "
            "name that its certificate vouches for, or have it listen on that name"
        )
    for origin in exchange.values("origin"):
        scheme, _, of_page = origin.lower().partition("://")
        if names is None:
            own = _is_loopback(_name(of_page))
        else:
            own = scheme == "https" and of_page == host
        if not own:
            raise PermissionDeniedError(
                f"Origin header {origin[:200]!r}: pages in a browser may not use this server"
            )
    if _OF_OTHERS.intersection(exchange.values("sec-fetch-site")):
        raise PermissionDeniedError("pages in a browser may not use this server")


def _authority(exchange: "Exchange") -> str:
    """What the request is addressed to: RFC 9112, section 3.2.2. Empty where it does not say."""
    scheme, separator, rest = exchange.target.partition("://")
    if separator and scheme.lower() in {"http", "https"}:
        return rest.partition("/")[0].partition("?")[0].lower()
    return "".join(exchange.values("host")).lower()


def _name(authority: str) -> str:
    """A host without its port and an IPv6 address's brackets; empty where it is malformed."""
    match = _AUTHORITY.fullmatch(authority)
    return (match[1] or match[2].removesuffix(".")) if match else ""


def _is_own(host: str, names: "Sequence[str]") -> bool:
    # A page is found by a name: its browser sends an address only where that is its own.
    return (
        _address(host) is not None
        or _is_loopback(host)
        or any(vouches(name, host) for name in names)
    )


def _is_loopback(host: str) -> bool:
    """RFC 6761, section 6.3: such names lead nowhere else."""
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback


def _address(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
