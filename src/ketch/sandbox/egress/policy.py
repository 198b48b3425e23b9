"""What a sandbox may reach: rules as they are written, and what they mean for a name or an address.

Nothing is looked up here, nothing opened. A rule is ``NAME[@NETWORK][:PORT]`` or
``NETWORK[:PORT]``. NAME may begin with ``*.``, for all names below; ``@NETWORK`` says where it may
be found beside the public internet, without which a name that leads to a private address leads
nowhere. NETWORK is an address or a prefix of one. Without PORT, 80 and 443 are meant; ``*`` is any.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

WEB = frozenset({80, 443})
VIRTUAL = IPv4Network("198.18.0.0/15")
"""Where names seem to be: RFC 2544's addresses, which are nobody's."""

RULES_MAX = 1024
_NAME_BYTES_MAX = 253
_LABEL_BYTES_MAX = 63
_PORT_MAX = 65535
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")

_METADATA = {
    ip_address(text) for text in (
        "169.254.169.254", "fe80::a9fe:a9fe", "169.254.170.2", "169.254.170.23", "169.254.42.42",
        "169.254.0.23", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254",
        "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",
    )
}  # fmt: skip
# IANA's registries of special addresses, as far as nobody on the public internet has them.
_CLOSED = [
    ip_network(text) for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20",
        "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
_6TO4 = IPv6Network("2002::/16")


class Rule(NamedTuple):
    """One thing that may be reached.

    Attributes:
        text: as it was written.
        name: the name, or what all names end with that are meant, a dot and more; empty where the
            rule is about addresses.
        network: the addresses that are meant; of a name, where it may be beside the internet.
        ports: the ports, None for all.
    """

    text: str
    name: str
    network: Network | None
    ports: frozenset[int] | None

    def names(self, name: str) -> bool:
        """Whether a name, as ``normal`` has it, is meant."""
        if self.name.startswith("."):
            return name.endswith(self.name) and len(name) > len(self.name)
        return bool(name) and name == self.name

    def opens(self, port: int) -> bool:
        """Whether a port is meant."""
        return self.ports is None or port in self.ports


class Policy:
    """All that a sandbox may reach.

    Args:
        rules: the rules.
    """

    def __init__(self, rules: "Iterable[Rule]" = ()) -> None:
        self.rules = list(dict.fromkeys(rules))
        if len(self.rules) > RULES_MAX:
            raise InvalidArgumentError(f"egress: more than {RULES_MAX} rules")

    def knows(self, name: str) -> bool:
        """Whether a name, as ``normal`` has it, may be looked up."""
        return any(rule.names(name) for rule in self.rules)

    def by_name(self, name: str, port: int) -> list[Rule]:
        """Returns the rules that let a name's port be reached."""
        return [rule for rule in self.rules if rule.names(name) and rule.opens(port)]

    def by_address(self, address: Address, port: int) -> list[Rule]:
        """Returns the rules that let an address's port be reached without a name."""
        address = unmapped(address)
        return [
            rule for rule in self.rules
            if not rule.name and _holds(rule.network, address) and rule.opens(port)
        ]  # fmt: skip


def parse(text: str) -> Rule:
    """Read a rule.

    Raises:
        InvalidArgumentError: it is none; why.
    """
    where, port = _split(text)
    ports = _ports(text, port)
    name, found, network = where.partition("@")
    if not found:
        literal = _network(where)
        if literal is not None:
            return Rule(text, "", literal, ports)
    beside = None
    if found:
        beside = _network(network)
        if beside is None:
            raise _wrong(text, f"{network!r} is no address, and no network of any")
    below = name.startswith("*.")
    normal_name = normal(name.removeprefix("*."))
    if normal_name is None or (below and "." not in normal_name and not found):
        raise _wrong(text, _reason(name, below=below and normal_name is not None))
    return Rule(text, f".{normal_name}" if below else normal_name, beside, ports)


def normal(name: str) -> str | None:
    """A host's name in the one form in which names are compared; None where it is none.

    Small letters, no dot at its end, other scripts in Punycode (RFC 3490). What a C library would
    read as an address, ``2130706433`` or ``0x7f.1``, is no name.
    """
    name = name.removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    name = name.lower()
    labels = name.split(".")
    if len(name) > _NAME_BYTES_MAX or not all(map(_is_label, labels)):
        return None
    last = labels[-1]
    if last.isdecimal() or (last.startswith("0x") and _is_hexadecimal(last[2:])):
        return None
    return name


def unmapped(address: Address) -> Address:
    """An address as the kernel takes it: an IPv4 one that is written as an IPv6 one is that."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def closed(address: Address, own: "Collection[Address]" = ()) -> str | None:
    """Why an address is closed to whoever does not name it; None where it is open.

    Args:
        address: where something is to be reached.
        own: this machine's addresses.
    """
    address = unmapped(address)
    if address in own or address.is_loopback:
        return "it is this machine's own"
    if address in _METADATA:
        return "it serves a cloud's metadata"
    if isinstance(address, IPv6Address):
        number = int(address)
        if address in _NAT64:
            return closed(IPv4Address(number & 0xFFFFFFFF), own)
        if address in _6TO4:
            return closed(IPv4Address(number >> 80 & 0xFFFFFFFF), own)
    if _private(address) is not None:
        return "it is no public address"
    return None


def refusal(rules: "Iterable[Rule]", address: Address, own: "Collection[Address]") -> str | None:
    """Why an address may not be reached by some rules; None where it may.

    A closed address is named by itself, or by a network that is closed as a whole; this machine's
    own, and those that serve metadata, by themselves alone, or by one of loopback addresses.

    Args:
        rules: those that name the port and the name, or the address.
        address: where it is to be reached.
        own: this machine's addresses.
    """
    address = unmapped(address)
    reason = closed(address, own)
    if reason is None:
        return None
    around = _private(address)
    special = not address.is_loopback and (address in own or address in _METADATA)
    for rule in rules:
        network = rule.network
        if network is None or not _holds(network, address):
            continue
        alone = network.prefixlen == network.max_prefixlen
        if alone or (not special and around is not None and _within(network, around)):
            return None
    return reason


def _private(address: Address) -> Network | None:
    """The widest network of addresses that are not public which an address is in."""
    for network in _CLOSED:
        if network.version == address.version and address in network:
            return network
    return None


def _within(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def _holds(network: Network | None, address: Address) -> bool:
    return network is not None and network.version == address.version and address in network


def _split(text: str) -> tuple[str, str]:
    """What is before the port, and the port; IPv6 addresses with one are in brackets."""
    head, bracket, rest = text.rpartition("]")
    if bracket:
        before, opening, inner = head.rpartition("[")
        if not opening or (rest and not rest.startswith(":")):
            raise _wrong(text, "brackets are for IPv6 addresses")
        return before + inner, rest[1:]
    if text.count(":") > 1:
        return text, ""
    where, _, port = text.partition(":")
    return where, port


def _ports(text: str, port: str) -> frozenset[int] | None:
    if not port:
        if text.endswith(":") and not text.endswith("::"):
            raise _wrong(text, "a port is missing")
        return WEB
    if port == "*":
        return None
    number = decimal(port)
    if not number or number > _PORT_MAX:
        raise _wrong(text, f"{port!r} is no port")
    return frozenset({number})


def _network(text: str) -> Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        if network.prefixlen < 96:
            return None
        return ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _is_label(label: str) -> bool:
    return (
        0 < len(label) <= _LABEL_BYTES_MAX
        and _LETTERS.issuperset(label)
        and not label.startswith("-")
        and not label.endswith("-")
    )


def _is_hexadecimal(text: str) -> bool:
    return set(text) <= set("0123456789abcdef")


def _reason(name: str, *, below: bool) -> str:
    if name == "*":
        return "everything is egress=None"
    if below:
        return "all names below a top-level domain are too many"
    if "*" in name:
        return "a star stands at the beginning, before a dot"
    return f"{name!r} is neither a host's name nor an address"


def _wrong(text: str, reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"egress: {text!r}: {reason}",
        "NAME[@NETWORK][:PORT] or NETWORK[:PORT], such as packages.example, *.files.example:443,"
        " 10.1.0.0/16:5432",
    )
