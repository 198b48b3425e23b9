"""Which subnet a network gets, and which address a container gets in it. Pure.

The rules are Docker's (libnetwork's default IPAM driver), but for which free address comes next:
Docker takes the lowest, ketch the one after the last that was given, so that the address of a
container that just ended is not at once another's, whom the first one's peers then talk to.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ketch.errors import ConflictError, InvalidArgumentError, UnavailableError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Pool:
    """A range of addresses from which networks are cut.

    Args:
        base: the range, such as ``192.168.0.0/16``.
        size: prefix length of each network, such as 20.

    Raises:
        InvalidArgumentError: no network of that size fits.
    """

    __slots__ = ("base", "size")

    def __init__(self, base: str, size: int) -> None:
        try:
            self.base: Network = ip_network(base)
        except ValueError as error:
            raise InvalidArgumentError(f"address pool {base}: {error}") from error
        self.size = size
        if not self.base.prefixlen <= size <= self.base.max_prefixlen:
            raise InvalidArgumentError(
                f"address pool {base}: no network of size {size} fits",
                f"give a size from {self.base.prefixlen} to {self.base.max_prefixlen}",
            )

    def networks(self) -> Iterator[Network]:
        """The networks of the pool, lowest first."""
        yield from self.base.subnets(new_prefix=self.size)


# Docker's, see docs.docker.com/engine/network, "Default address pools".
DEFAULT_POOLS = (
    Pool("172.17.0.0/16", 16),
    Pool("172.18.0.0/16", 16),
    Pool("172.19.0.0/16", 16),
    Pool("172.20.0.0/14", 16),
    Pool("172.24.0.0/14", 16),
    Pool("172.28.0.0/14", 16),
    Pool("192.168.0.0/16", 20),
)


def pools_ipv6(seed: bytes) -> tuple[Pool, ...]:
    """Pools of unique local IPv6 subnets (RFC 4193).

    Args:
        seed: 5 bytes that no other host has: its global ID.
    """
    base = IPv6Network((b"\xfd" + seed[:5].ljust(5, b"\0") + bytes(10), 48))
    return (Pool(str(base), 64),)


def choose_subnet(pools: Iterable[Pool], taken: Iterable[Network]) -> Network:
    """The first network of the pools that overlaps none that is taken.

    Args:
        pools: where to look, in order.
        taken: destinations of the host's routes, and other networks. A default route, being
            everywhere, takes nothing.

    Raises:
        UnavailableError: there is none left.
    """
    obstacles = [network for network in taken if network.prefixlen]
    for pool in pools:
        for candidate in pool.networks():
            if not any(overlap(candidate, obstacle) for obstacle in obstacles):
                return candidate
    raise UnavailableError(
        "every subnet of the address pools is in use by a network or a route of this host",
        "remove unused networks, or name a subnet with --subnet",
    )


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks share an address; those of different IP versions do not."""
    return one.version == other.version and one.overlaps(other)


def gateway_of(
    subnet: Network, ip_range: Network | None = None, reserved: Collection[Address] = ()
) -> Address:
    """The address that a network's own end has when none is asked for: its first usable one.

    Args:
        subnet: the network.
        ip_range: the part of it that containers get; Docker takes the gateway from there too.
        reserved: addresses that are somebody else's.

    Raises:
        UnavailableError: there is none left.
    """
    for address in _usable(subnet, ip_range or subnet, None):
        if address not in reserved:
            return address
    raise UnavailableError(f"no address is free in {ip_range or subnet} for a gateway")


def choose_address(
    subnet: Network,
    *,
    leased: Callable[[Address], bool],
    reserved: Collection[Address],
    ip_range: Network | None = None,
    last: Address | None = None,
) -> Address:
    """The free address after the last one given, from the beginning again at the end.

    Args:
        subnet: the network. Its network address is never given, an IPv4 network's broadcast
            address neither.
        leased: whether somebody has an address.
        reserved: the gateway and auxiliary addresses.
        ip_range: the part of the subnet to choose from.
        last: the address given before this one, or None to begin with the first.

    Raises:
        UnavailableError: all are given.
    """
    for address in _usable(subnet, ip_range or subnet, last):
        if address not in reserved and not leased(address):
            return address
    raise UnavailableError(
        f"no address is free in {ip_range or subnet}",
        "stop containers of this network, or make one with a larger --subnet",
    )


def check_address(
    text: str, subnet: Network, *, leased: Callable[[Address], bool], reserved: Collection[Address]
) -> Address:
    """An address that a user asks for by ``--ip``.

    Raises:
        InvalidArgumentError: it is no address, or not one that a container in the subnet can have.
        ConflictError: somebody has it.
    """
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{text!r} is no IP address") from error
    first, last = _bounds(subnet)
    if address.version != subnet.version or not first <= int(address) <= last:
        raise InvalidArgumentError(
            f"address {address} is not usable in subnet {subnet}",
            f"choose one from {ip_address(subnet[0] + 1)} on" if subnet.num_addresses > 2 else "",
        )
    if address in reserved or leased(address):
        raise ConflictError(f"address {address} is in use", "choose another, or leave --ip away")
    return address


def mac_of(address: Address) -> str:
    """A MAC address made from an IP address: ``02:42:`` and its last four bytes.

    As Docker had it until 28, which draws random ones and announces each (RFC 5227). Derived ones
    need no announcement: an address that comes back in another container comes back with the same
    MAC, so no neighbour's cache is ever wrong.
    """
    return (b"\x02\x42" + address.packed[-4:]).hex(":")


def _bounds(subnet: Network) -> tuple[int, int]:
    """First and last address that a subnet's members can have, as numbers."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        # RFC 3021 and RFC 6164: a link of two has no network and no broadcast address.
        return first, last
    # IPv6 has no broadcast; its lowest address is the routers' anycast address (RFC 4291, 2.6.1).
    return first + 1, last - (subnet.version == 4)


def _usable(subnet: Network, ip_range: Network, last: Address | None) -> Iterator[Address]:
    """Addresses of a range, each once, beginning after the last one given."""
    low, high = _bounds(subnet)
    low = max(low, int(ip_range.network_address))
    high = min(high, int(ip_range.broadcast_address))
    make = type(subnet.network_address)
    start = low if last is None or not low <= int(last) < high else int(last) + 1
    for number in range(start, high + 1):
        yield make(number)
    for number in range(low, start):
        yield make(number)
