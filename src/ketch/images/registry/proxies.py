"""Which proxy leads to a URL: the environment variables that Go's programs, Docker's too, obey.

Source: golang.org/x/net/http/httpproxy. Added: ``ALL_PROXY``, as curl has it.
"""

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES = ("http", "https", "socks5", "socks5h", "socks4", "socks4a")


def proxy_for(scheme: str, host: str, port: int, environment: "Mapping[str, str]") -> str:
    """Returns the URL of the proxy for a request; empty where there is to be none.

    Args:
        scheme: ``http`` or ``https``.
        host: the target, without brackets.
        port: the target's port.
        environment: the variables, in either case; the lower one is used where both are there.

    Raises:
        InvalidArgumentError: the variable that counts holds no URL of a proxy.
    """
    text = _variable(environment, f"{scheme}_proxy") or _variable(environment, "all_proxy")
    if not text or not _applies(host.lower().rstrip("."), port, _variable(environment, "no_proxy")):
        return ""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InvalidArgumentError(
            f"invalid proxy address in the environment's {scheme}_proxy or all_proxy",
            f"it is a URL with one of the schemes {', '.join(_SCHEMES)}",
        )
    return url


def _variable(environment: "Mapping[str, str]", name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _applies(host: str, port: int, exceptions: str) -> bool:
    """Whether a host is behind the proxy: this machine itself never is."""
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    return not any(_matches(entry, host, port, address) for entry in exceptions.lower().split(","))


def _matches(
    entry: str,
    host: str,
    port: int,
    address: "ipaddress.IPv4Address | ipaddress.IPv6Address | None",
) -> bool:
    entry = entry.strip()
    if not entry:
        return False
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, only_port = entry, None
    if _address(entry) is None:
        head, colon, tail = entry.rpartition(":")
        if colon and (number := decimal(tail, 5)) is not None:
            name, only_port = head, number
    if only_port is not None and only_port != port:
        return False
    if address is not None:
        return _address(name.strip("[]")) == address
    name = name.removeprefix("*")
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _address(text: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
