"""The kernel understands our requests, and we its answers."""

import contextlib
import errno
import os
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network

import pytest

from ketch.errors import SyscallError
from ketch.linux import netlink, rtnetlink
from tests.kernel.network import machines

pytestmark = pytest.mark.root

MAC = "02:42:0a:00:00:01"


def index_of(kernel: rtnetlink.Socket, name: str) -> int:
    link = kernel.link(name)
    assert link is not None
    return link.index


def inheritable() -> set[int]:
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if os.get_inheritable(descriptor):
                found.add(descriptor)
    return found


def veth(
    name: str, peer: str, namespace: int, bridge: int, mtu_bytes: int = 1500
) -> netlink.Request:
    return rtnetlink.add_veth(
        name,
        peer,
        namespace=namespace,
        bridge=bridge,
        mac="02:42:0a:00:00:02",
        mtu_bytes=mtu_bytes,
    )


def test_a_bridge_is_made_as_described(kernel: rtnetlink.Socket) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1400))
    link = kernel.link("ketch0")
    assert link is not None
    assert (link.name, link.kind, link.mac, link.mtu_bytes, link.up) == (
        "ketch0",
        "bridge",
        MAC,
        1400,
        True,
    )
    by_index = kernel.link(link.index)
    assert by_index is not None
    assert by_index.name == "ketch0"
    assert kernel.link("ketch1") is None


def test_a_peer_begins_its_life_in_the_other_namespace(kernel: rtnetlink.Socket) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
    bridge = index_of(kernel, "ketch0")
    with machines.machine() as other:
        kernel.execute(veth("veth1", "eth0", other, bridge, 1300))
        near = kernel.link("veth1")
        assert near is not None
        assert (near.kind, near.master, near.mtu_bytes, near.up) == ("veth", bridge, 1300, True)
        assert kernel.link("eth0") is None
        with machines.entered(other), rtnetlink.Socket() as inside:
            far = inside.link("eth0")
            assert far is not None
            assert (far.mac, far.mtu_bytes, far.up) == ("02:42:0a:00:00:02", 1300, False)
            assert far.peer == near.index


def test_links_change_in_one_request_and_are_deleted(kernel: rtnetlink.Socket) -> None:
    kernel.execute(rtnetlink.add_bridge("one", MAC, 1500))
    with machines.machine() as other:
        kernel.execute(veth("veth1", "eth0", other, index_of(kernel, "one")))
        index = index_of(kernel, "veth1")
        kernel.execute(
            rtnetlink.set_link("veth1", up=False),
            rtnetlink.set_link(
                index, name="renamed", mac="02:00:00:00:00:09", mtu_bytes=1280, master=0
            ),
        )
        link = kernel.link("renamed")
        assert link is not None
        assert (link.index, link.mac, link.mtu_bytes, link.master, link.up) == (
            index,
            "02:00:00:00:00:09",
            1280,
            0,
            False,
        )
        kernel.execute(rtnetlink.set_link(index, namespace=other))
        assert kernel.link("renamed") is None
        with machines.entered(other), rtnetlink.Socket() as inside:
            inside.execute(rtnetlink.delete_link(index_of(inside, "renamed")))
            assert [link.name for link in inside.links() if link.kind == "veth"] == []


@pytest.mark.parametrize("text", ["10.0.0.1/24", "fd00::1/64"])
def test_addresses_come_and_go_any_number_of_times(kernel: rtnetlink.Socket, text: str) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
    index = index_of(kernel, "ketch0")
    address = ip_interface(text)
    for _ in range(2):
        kernel.execute(rtnetlink.add_address(index, address))
        assert address in kernel.addresses(index)
        assert address in kernel.addresses(version=address.version)
        assert address not in kernel.addresses(1)
        assert address not in kernel.addresses(version=10 - address.version)
    for _ in range(2):
        kernel.execute(rtnetlink.delete_address(index, address))
        assert address not in kernel.addresses(index)


def test_routes_are_added_and_read(kernel: rtnetlink.Socket) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
    index = index_of(kernel, "ketch0")
    kernel.execute(
        rtnetlink.add_address(index, IPv4Interface("10.0.0.1/24")),
        rtnetlink.add_address(index, IPv6Interface("fd00::1/64")),
        rtnetlink.add_route(ip_network("0.0.0.0/0"), ip_address("10.0.0.9")),
        rtnetlink.add_route(ip_network("0.0.0.0/0"), ip_address("10.0.0.9")),
        rtnetlink.add_route(ip_network("10.2.0.0/16"), index=index, priority=7),
        rtnetlink.add_route(ip_network("::/0"), ip_address("fd00::9"), index=index),
    )
    found = {
        (str(route.destination), route.gateway and str(route.gateway), route.index)
        for version in (4, 6)
        for route in kernel.routes(version)
        if route.table == rtnetlink.RT_TABLE_MAIN
    }
    assert {
        ("0.0.0.0/0", "10.0.0.9", index),
        ("10.0.0.0/24", None, index),
        ("10.2.0.0/16", None, index),
        ("::/0", "fd00::9", index),
        ("fd00::/64", None, index),
    } <= found
    (chosen,) = [route for route in kernel.routes(4) if str(route.destination) == "10.2.0.0/16"]
    assert chosen.priority == 7


def test_a_dump_of_many_datagrams_is_complete(kernel: rtnetlink.Socket) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
    index = index_of(kernel, "ketch0")
    wanted = {IPv4Interface(f"10.{high}.{low}.1/32") for high in range(4) for low in range(250)}
    kernel.execute(*(rtnetlink.add_address(index, address) for address in wanted))
    assert wanted == set(kernel.addresses(index))


def test_failures_tell_the_request_and_the_kernels_reason(kernel: rtnetlink.Socket) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
    with pytest.raises(SyscallError) as caught:
        kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
    assert str(caught.value).endswith("RTM_NEWLINK(make bridge ketch0): File exists")
    assert caught.value.errno == errno.EEXIST
    assert caught.value.call == "RTM_NEWLINK"
    # The words in the middle are the kernel's own (an extended acknowledgement).
    with pytest.raises(SyscallError, match=r"mtu 5: (?i:mtu) less than device minimum"):
        kernel.execute(rtnetlink.set_link(index_of(kernel, "ketch0"), mtu_bytes=5))


def test_requests_after_a_failed_one_are_carried_out(kernel: rtnetlink.Socket) -> None:
    failures = kernel.attempt(
        rtnetlink.add_bridge("one", MAC, 1500),
        rtnetlink.set_link(4000, up=True),
        rtnetlink.add_bridge("two", MAC, 1500),
        rtnetlink.set_link(4001, up=True),
    )
    assert [failure and failure.errno for failure in failures] == [
        None,
        errno.ENODEV,
        None,
        errno.ENODEV,
    ]
    assert {"one", "two"} <= {link.name for link in kernel.links()}


def test_a_socket_stays_in_its_namespace_and_is_not_inherited(kernel: rtnetlink.Socket) -> None:
    before = inheritable()
    with machines.machine() as other, machines.entered(other):
        kernel.execute(rtnetlink.add_bridge("ketch0", MAC, 1500))
        with rtnetlink.Socket() as inside:
            assert inside.link("ketch0") is None
            assert inheritable() == before
    assert kernel.link("ketch0") is not None
