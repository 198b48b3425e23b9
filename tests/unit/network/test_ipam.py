"""Which subnet and which address come next."""

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import ConflictError, InvalidArgumentError, UnavailableError
from ketch.network import ipam
from ketch.network.ipam import Address, Network, Pool

networks = st.builds(
    lambda number, length: ip_network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@st.composite
def subnets_with_ranges(draw: st.DrawFn) -> tuple[IPv4Network, IPv4Network | None]:
    length = draw(st.integers(20, 32))
    subnet = ip_network((draw(st.integers(0, 2**32 - 1)), length), strict=False)
    assert isinstance(subnet, IPv4Network)
    if not draw(st.booleans()):
        return subnet, None
    inner = draw(st.integers(length, 32))
    host = draw(st.integers(0, subnet.num_addresses - 1))
    ip_range = ip_network((int(subnet.network_address) + host, inner), strict=False)
    assert isinstance(ip_range, IPv4Network)
    return subnet, ip_range


def test_docker_s_pools_come_in_docker_s_order() -> None:
    every = [str(network) for pool in ipam.DEFAULT_POOLS for network in pool.networks()]
    assert every[0] == "172.17.0.0/16"
    assert every[14:17] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    assert len(every) == 31
    assert len(set(every)) == 31


def test_routes_and_networks_are_avoided_but_not_default_routes() -> None:
    taken: list[Network] = [
        ip_network("0.0.0.0/0"),
        ip_network("::/0"),
        ip_network("172.17.5.0/24"),
        ip_network("172.18.0.0/15"),
        ip_network("172.20.0.1/32"),
    ]
    assert ipam.choose_subnet(ipam.DEFAULT_POOLS, taken) == ip_network("172.21.0.0/16")


@given(st.lists(networks, max_size=12))
def test_a_chosen_subnet_overlaps_nothing_and_is_the_first(taken: list[Network]) -> None:
    obstacles = [network for network in taken if network.prefixlen]
    candidates = [network for pool in ipam.DEFAULT_POOLS for network in pool.networks()]
    free = [
        network
        for network in candidates
        if not any(network.overlaps(obstacle) for obstacle in obstacles)
    ]
    if free:
        assert ipam.choose_subnet(ipam.DEFAULT_POOLS, taken) == free[0]
    else:
        with pytest.raises(UnavailableError, match="every subnet"):
            ipam.choose_subnet(ipam.DEFAULT_POOLS, taken)


@pytest.mark.parametrize(
    ("base", "size"), [("10.0.0.0/8", 7), ("10.0.0.0/8", 33), ("10.0.0.1/8", 16), ("ten", 16)]
)
def test_impossible_pools_are_refused(base: str, size: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"address pool {base}"):
        Pool(base, size)


@given(subnets_with_ranges(), st.data())
def test_addresses_are_given_once_each_and_then_no_more(
    place: tuple[IPv4Network, IPv4Network | None], data: st.DataObject
) -> None:
    subnet, ip_range = place
    pool = ip_range or subnet
    reserved = {
        pool[at]
        for at in data.draw(st.lists(st.integers(0, min(pool.num_addresses, 40) - 1), max_size=3))
    }
    last: Address | None = data.draw(
        st.none() | st.builds(lambda at: subnet[at], st.integers(0, subnet.num_addresses - 1))
    )
    given_out: set[Address] = set()
    for _ in range(min(pool.num_addresses, 30)):
        try:
            last = ipam.choose_address(
                subnet,
                leased=given_out.__contains__,
                reserved=reserved,
                ip_range=ip_range,
                last=last,
            )
        except UnavailableError:
            usable = set(pool) - reserved
            if subnet.prefixlen < 31:
                usable -= {subnet.network_address, subnet.broadcast_address}
            assert given_out == usable
            return
        assert last in pool
        assert last not in given_out
        assert last not in reserved
        if subnet.prefixlen < 31:
            assert last not in {subnet.network_address, subnet.broadcast_address}
        given_out.add(last)


def test_an_address_is_not_given_again_at_once() -> None:
    subnet = ip_network("10.0.0.0/29")
    reserved = {ip_address("10.0.0.1")}
    order: list[str] = []
    last: Address | None = None
    for _ in range(7):
        last = ipam.choose_address(subnet, leased=lambda _: False, reserved=reserved, last=last)
        order.append(str(last))
    assert [address[-1] for address in order] == ["2", "3", "4", "5", "6", "2", "3"]


@pytest.mark.parametrize(
    ("subnet", "ip_range", "gateway"),
    [
        ("172.17.0.0/16", None, "172.17.0.1"),
        ("10.0.0.0/24", "10.0.0.128/25", "10.0.0.128"),
        ("10.0.0.0/31", None, "10.0.0.0"),
        ("fd00::/64", None, "fd00::1"),
    ],
)
def test_the_gateway_is_the_first_usable_address(
    subnet: str, ip_range: str | None, gateway: str
) -> None:
    inner = ip_network(ip_range) if ip_range else None
    assert str(ipam.gateway_of(ip_network(subnet), inner)) == gateway


def test_an_address_asked_for_must_be_usable_and_free() -> None:
    subnet = ip_network("10.0.0.0/24")

    def check(text: str) -> str:
        return str(
            ipam.check_address(
                text,
                subnet,
                leased=lambda address: address == ip_address("10.0.0.9"),
                reserved={ip_address("10.0.0.1")},
            )
        )

    assert check("10.0.0.77") == "10.0.0.77"
    for taken in ("10.0.0.1", "10.0.0.9"):
        with pytest.raises(ConflictError, match="in use"):
            check(taken)
    for useless in ("10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1"):
        with pytest.raises(InvalidArgumentError, match=r"not usable in subnet 10\.0\.0\.0/24"):
            check(useless)
    with pytest.raises(InvalidArgumentError, match="'ten' is no IP address"):
        check("ten")


@given(st.integers(0, 2**32 - 1))
def test_a_mac_address_tells_the_address(number: int) -> None:
    address = IPv4Address(number)
    packed = bytes.fromhex(ipam.mac_of(address).replace(":", ""))
    assert packed[2:] == address.packed
    # Unicast, and administered locally (IEEE 802).
    assert packed[0] & 0b11 == 0b10
