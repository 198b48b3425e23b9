"""Requests as bytes, and descriptions read from bytes; what the kernel makes of them is tested
in tests/kernel.
"""

import struct
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.linux import netlink, rtnetlink
from ketch.linux.netlink import Message, attribute, nested, text, u32


def payload_of(request: netlink.Request, structure_bytes: int) -> dict[int, bytes]:
    return dict(netlink.attributes(request.payload, structure_bytes))


def test_a_veths_peer_is_described_within_it() -> None:
    request = rtnetlink.add_veth(
        "veth1", "eth0", namespace=9, bridge=4, mac="02:42:ac:11:00:02", mtu_bytes=1400
    )
    assert request.flags == netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    outer = payload_of(request, 16)
    assert netlink.string(outer[rtnetlink.IFLA_IFNAME]) == "veth1"
    assert netlink.number(outer[rtnetlink.IFLA_MASTER]) == 4
    assert netlink.number(outer[rtnetlink.IFLA_NUM_TX_QUEUES]) == 1
    information = dict(netlink.attributes(outer[rtnetlink.IFLA_LINKINFO]))
    assert netlink.string(information[rtnetlink.IFLA_INFO_KIND]) == "veth"
    data = dict(netlink.attributes(information[rtnetlink.IFLA_INFO_DATA]))
    peer = dict(netlink.attributes(data[rtnetlink.VETH_INFO_PEER], 16))
    assert netlink.string(peer[rtnetlink.IFLA_IFNAME]) == "eth0"
    assert netlink.number(peer[rtnetlink.IFLA_NET_NS_FD]) == 9
    assert netlink.number(peer[rtnetlink.IFLA_MTU]) == 1400
    assert peer[rtnetlink.IFLA_ADDRESS].hex() == "0242ac110002"
    assert netlink.number(peer[rtnetlink.IFLA_NUM_TX_QUEUES]) == 1


@pytest.mark.parametrize(
    ("address", "broadcast"),
    [("10.0.0.2/24", "10.0.0.255"), ("10.0.0.2/31", None), ("10.0.0.2/32", None)],
)
def test_an_ipv4_address_has_a_broadcast_address_where_there_is_one(
    address: str, broadcast: str | None
) -> None:
    request = rtnetlink.add_address(5, IPv4Interface(address))
    found = payload_of(request, 8).get(rtnetlink.IFA_BROADCAST)
    assert found == (broadcast and ip_address(broadcast).packed)


def test_an_ipv6_address_is_used_at_once() -> None:
    request = rtnetlink.add_address(5, IPv6Interface("fd00::2/64"))
    assert struct.unpack_from("=BB", request.payload) == (10, 64)
    flags = payload_of(request, 8)[rtnetlink.IFA_FLAGS]
    assert netlink.number(flags) & rtnetlink.IFA_F_NODAD


def test_a_default_route_has_no_destination() -> None:
    request = rtnetlink.add_route(ip_network("0.0.0.0/0"), ip_address("10.0.0.1"))
    values = payload_of(request, 12)
    assert rtnetlink.RTA_DST not in values
    assert values[rtnetlink.RTA_GATEWAY] == ip_address("10.0.0.1").packed


@pytest.mark.parametrize("name", ["", "a" * 16, "é" * 8, "a/b", ".", ".."])
def test_names_that_no_link_can_have_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be a link's name"):
        rtnetlink.add_bridge(name, "02:42:ac:11:00:01", 1500)


@pytest.mark.parametrize("mac", ["", "02:42", "02:42:ac:11:00:0g", "02:42:ac:11:00:01:02"])
def test_malformed_mac_addresses_are_refused(mac: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no MAC address"):
        rtnetlink.add_bridge("ketch0", mac, 1500)


@given(
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**32 - 1),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15),
    st.binary(min_size=6, max_size=6),
    st.integers(68, 65535),
)
def test_a_links_description_is_read(
    index: int, flags: int, name: str, mac: bytes, mtu_bytes: int
) -> None:
    message = Message(
        rtnetlink.RTM_NEWLINK,
        0,
        struct.pack("=BxHiII", 0, 1, index, flags, 0)
        + text(rtnetlink.IFLA_IFNAME, name)
        + attribute(rtnetlink.IFLA_ADDRESS, mac)
        + u32(rtnetlink.IFLA_MTU, mtu_bytes)
        + nested(rtnetlink.IFLA_LINKINFO, text(rtnetlink.IFLA_INFO_KIND, "bridge")),
    )
    link = rtnetlink.Link(message)
    assert (link.index, link.flags, link.name, link.mtu_bytes, link.kind) == (
        index,
        flags,
        name,
        mtu_bytes,
        "bridge",
    )
    assert bytes.fromhex(link.mac.replace(":", "")) == mac
    assert link.up == bool(flags & 1)
    assert (link.master, link.peer) == (0, 0)


def test_a_routes_description_is_read() -> None:
    structure = struct.pack("=BBBBBBBBI", 2, 16, 0, 0, 252, 4, 0, 1, 0)
    route = rtnetlink.Route(
        Message(
            rtnetlink.RTM_NEWROUTE,
            0,
            structure
            + attribute(rtnetlink.RTA_DST, ip_address("172.17.0.0").packed)
            + attribute(rtnetlink.RTA_GATEWAY, ip_address("10.0.0.1").packed)
            + u32(rtnetlink.RTA_OIF, 3)
            # Tables beyond 255 do not fit the structure.
            + u32(rtnetlink.RTA_TABLE, 1000),
        )
    )
    assert route.destination == ip_network("172.17.0.0/16")
    assert route.gateway == ip_address("10.0.0.1")
    assert (route.index, route.table, route.kind) == (3, 1000, rtnetlink.RTN_UNICAST)
    default = rtnetlink.Route(
        Message(rtnetlink.RTM_NEWROUTE, 0, struct.pack("=BBBBBBBBI", 10, 0, 0, 0, 254, 4, 0, 1, 0))
    )
    assert default.destination == ip_network("::/0")
    assert default.gateway is None


def test_changes_of_a_link_are_told_in_words() -> None:
    request = rtnetlink.set_link(4, up=False, name="eth1", mtu_bytes=1400, master=0)
    assert request.detail == "set link 4: down, name eth1, mtu 1400, master 0"
    assert struct.unpack_from("=BxHiII", request.payload) == (0, 0, 4, 0, 1)
    with pytest.raises(InvalidArgumentError, match="renamed by its index"):
        rtnetlink.set_link("eth0", name="eth1")
