"""Links on one of the host's own: macvlan here, ipvlan where the kernel has it."""

from ipaddress import IPv4Interface, ip_address

import pytest

from ketch.errors import ConflictError, NotFoundError, UnsupportedError
from ketch.linux import rtnetlink
from ketch.network import parent as parents
from ketch.network.parent import Parent
from ketch.network.sandbox import Endpoint, Sandbox, cut
from tests.kernel.network import machines
from tests.kernel.network.machines import client_of, reaches, server

pytestmark = pytest.mark.root

OUTSIDE = "198.51.100.1"


def endpoint(parent: Parent, number: int) -> Endpoint:
    address = IPv4Interface(f"198.51.100.{number}/24")
    mac = "" if parent.kind == "ipvlan" else f"02:42:00:00:00:{number:02x}"
    hop = ip_address(OUTSIDE)
    return Endpoint(f"{number:x}", "lan", parent, [address], mac, routes={4: hop})


def skip(error: UnsupportedError, what: str) -> None:
    """Skip a test whose kernel lacks something, if it is told by its name."""
    if what not in error.message:
        raise error
    pytest.skip(error.message)


def connect(sandbox: Sandbox, parent: Parent, number: int) -> None:
    try:
        sandbox.connect(endpoint(parent, number))
    except UnsupportedError as error:
        skip(error, parent.kind)


@pytest.mark.parametrize(
    ("kind", "mode", "neighbours"),
    [
        ("macvlan", "bridge", True),
        ("macvlan", "private", False),
        ("macvlan", "vepa", False),  # the switch outside sends nothing back
        ("ipvlan", "l2", True),
        ("ipvlan", "l3", True),
    ],
)
@pytest.mark.vm
def test_containers_are_machines_of_the_hosts_network(
    host: int, kind: str, mode: str, neighbours: bool
) -> None:
    parent = Parent(kind, "uplink", mode)
    with machines.internet() as world, Sandbox() as one, Sandbox() as two:
        connect(one, parent, 11)
        connect(two, parent, 12)
        with server(world) as listening:
            if mode != "l3":  # which speaks to nobody unasked: the way back is routed
                assert client_of(one.descriptor, OUTSIDE, listening) == "198.51.100.11"
        with server(two.descriptor) as listening:
            assert reaches(one.descriptor, "198.51.100.12", listening) == neighbours


def test_one_container_takes_its_parent_whole(host: int) -> None:
    parent = Parent("macvlan", "uplink", "passthru")
    with machines.internet(), Sandbox() as one, Sandbox() as two:
        one.connect(endpoint(parent, 11))
        with pytest.raises(ConflictError, match="cannot carry a macvlan link in mode passthru"):
            two.connect(endpoint(parent, 12))


@pytest.mark.vm
def test_a_vlans_link_is_made_on_its_parent(host: int, kernel: rtnetlink.Socket) -> None:
    parent = Parent("macvlan", "uplink.50", "bridge")
    with machines.internet():
        try:
            index, made = parent.ensure(kernel)
        except UnsupportedError as error:
            skip(error, "VLAN")
        assert made
        assert parent.ensure(kernel) == (index, False)
        link = kernel.link("uplink.50")
        assert link is not None
        assert link.kind == "vlan"
        parents.delete(kernel, "uplink.50")
        assert kernel.link("uplink.50") is None


@pytest.mark.vm
def test_a_network_without_a_parent_has_one_of_its_own(host: int, kernel: rtnetlink.Socket) -> None:
    parent = Parent("macvlan", "dm-0123456789ab", "bridge", dummy=True)
    with Sandbox() as one, Sandbox() as two:
        try:
            parent.ensure(kernel)
        except UnsupportedError as error:
            skip(error, "dummy")
        one.connect(endpoint(parent, 11))
        two.connect(endpoint(parent, 12))
        with server(two.descriptor) as listening:
            assert reaches(one.descriptor, "198.51.100.12", listening)
    parents.delete(kernel, "dm-0123456789ab")


@pytest.mark.parametrize("name", ["nothing", "nothing.5", "lo.4095"])
def test_a_missing_parent_is_told(kernel: rtnetlink.Socket, name: str) -> None:
    with pytest.raises(NotFoundError, match="requested parent interface was not found"):
        Parent("macvlan", name, "bridge").ensure(kernel)


@pytest.mark.parametrize("kind", ["macvlan", "ipvlan"])
@pytest.mark.vm
def test_an_ended_containers_place_is_free_though_its_namespace_lives(host: int, kind: str) -> None:
    parent = Parent(kind, "uplink", "bridge" if kind == "macvlan" else "l2")
    with machines.internet() as world, Sandbox() as dead:
        connect(dead, parent, 11)
        cut([endpoint(parent, 11)], dead.descriptor)
        with Sandbox() as other, server(world) as listening:
            connect(other, parent, 11)
            assert client_of(other.descriptor, OUTSIDE, listening) == "198.51.100.11"
