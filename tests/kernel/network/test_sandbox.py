"""Packets: between containers, out into the world, and not where they do not belong."""

import os
import socket
import subprocess
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path

import pytest

from ketch.errors import UnavailableError
from ketch.linux import rtnetlink
from ketch.network import bridge as bridges
from ketch.network.bridge import Bridge
from ketch.network.sandbox import Endpoint, Sandbox, bury, cut
from tests.kernel.network import machines
from tests.kernel.network.machines import client_of, container, endpoint, entered, reaches, server
from tests.support.descriptors import open_now

pytestmark = pytest.mark.root

OTHER = Bridge("ketch1", [IPv4Interface("172.18.0.1/16")])


def test_a_sandbox_alone_has_a_loopback_that_works(host: int) -> None:
    before = os.readlink("/proc/self/ns/net")
    with Sandbox() as sandbox:
        assert os.readlink("/proc/self/ns/net") == before
        assert os.readlink(f"/proc/self/fd/{sandbox.descriptor}") != before
        assert not os.get_inheritable(sandbox.descriptor)
        with entered(sandbox.descriptor), rtnetlink.Socket() as inside:
            assert [link.name for link in inside.links() if link.up] == ["lo"]
            assert {str(address) for address in inside.addresses()} == {"127.0.0.1/8", "::1/128"}
            assert [route for route in inside.routes(4) if route.table == 254] == []
        with server(sandbox.descriptor) as listening:
            assert client_of(sandbox.descriptor, "127.0.0.1", listening) == "127.0.0.1"


def test_a_failed_sandbox_leaves_its_maker_where_it_was(
    monkeypatch: pytest.MonkeyPatch, host: int
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    before = os.readlink("/proc/self/ns/net")
    descriptors = len(open_now())
    monkeypatch.setattr("ketch.network.sandbox._write", fail)
    with pytest.raises(ZeroDivisionError):
        Sandbox()
    assert os.readlink("/proc/self/ns/net") == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_network_that_is_full_says_so(bridge: Bridge) -> None:
    with rtnetlink.Socket() as opened:
        bridges.ensure(opened, bridge)
    links = ["link add full0 type veth peer name beyond"]
    links += [f"link add full{at} type veth peer name full{at + 1}" for at in range(1, 1023, 2)]
    links += [f"link set full{at} master {bridge.name}" for at in range(1023)]
    subprocess.run(["ip", "-batch", "-"], check=True, text=True, input="\n".join(links))
    place = endpoint(bridge, "172.17.0.2")
    with Sandbox() as sandbox:
        with pytest.raises(UnavailableError) as caught:
            sandbox.connect(place)
        assert f"network {place.network} is full" in caught.value.message
        assert "1023 ports" in caught.value.message
        assert "ketch network create" in caught.value.hint

        subprocess.run(["ip", "link", "del", "full0"], check=True)
        sandbox.connect(place)
        with entered(sandbox.descriptor), rtnetlink.Socket() as inside:
            assert inside.link("eth0") is not None


def test_a_connected_container_has_what_docker_gives_it(bridge: Bridge) -> None:
    with container(bridge, "172.17.0.2") as one, entered(one), rtnetlink.Socket() as inside:
        link = inside.link("eth0")
        assert link is not None
        assert (link.kind, link.mac, link.mtu_bytes, link.up) == (
            "veth",
            "02:42:ac:11:00:02",
            1500,
            True,
        )
        assert [str(address) for address in inside.addresses(link.index)] == ["172.17.0.2/16"]
        routes = {
            str(route.destination): route.gateway and str(route.gateway)
            for route in inside.routes()
            if route.index == link.index and route.table == rtnetlink.RT_TABLE_MAIN
        }
        assert routes == {"0.0.0.0/0": "172.17.0.1", "172.17.0.0/16": None}
        disabled = Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").read_text()
        assert disabled == "1\n"


def test_containers_of_a_network_and_the_host_reach_each_other(bridge: Bridge, host: int) -> None:
    with container(bridge, "172.17.0.2") as one, container(bridge, "172.17.0.3") as two:
        with server(two) as listening:
            assert client_of(one, "172.17.0.3", listening) == "172.17.0.2"
            assert client_of(host, "172.17.0.3", listening) == "172.17.0.1"
        with server(host) as listening:
            assert client_of(two, "172.17.0.1", listening) == "172.17.0.3"


def test_containers_reach_the_world_under_the_hosts_address(bridge: Bridge) -> None:
    with machines.internet() as world, server(world) as listening:
        with container(bridge, "172.17.0.2") as one:
            assert client_of(one, machines.INTERNET, listening) == machines.HOST_OUTSIDE
        without = Bridge("ketch1", OTHER.addresses, masquerade=False)
        with container(without, "172.18.0.2") as two:
            # Its packets arrive, but answers to them know no way.
            assert not reaches(two, machines.INTERNET, listening)


def test_the_world_does_not_reach_containers(bridge: Bridge) -> None:
    with machines.internet() as world, container(bridge, "172.17.0.2") as one:
        with entered(world), rtnetlink.Socket() as outside:
            outside.execute(
                rtnetlink.add_route(
                    ip_network("172.17.0.0/16"),
                    ip_address(machines.HOST_OUTSIDE),
                )
            )
        with server(one) as listening:
            assert not reaches(world, "172.17.0.2", listening)


def test_networks_are_apart(bridge: Bridge) -> None:
    with container(bridge, "172.17.0.2") as one, container(OTHER, "172.18.0.2") as two:
        with server(two) as listening:
            assert not reaches(one, "172.18.0.2", listening)
        with server(one) as listening:
            assert not reaches(two, "172.17.0.2", listening)


def test_an_internal_network_has_no_way_out() -> None:
    internal = Bridge("ketch1", OTHER.addresses, internal=True)
    with (
        machines.internet() as world,
        container(internal, "172.18.0.2") as one,
        container(internal, "172.18.0.3") as two,
    ):
        with server(world) as listening:
            assert not reaches(one, machines.INTERNET, listening)
        with server(two) as listening:
            assert client_of(one, "172.18.0.3", listening) == "172.18.0.2"


@pytest.mark.parametrize("first", ["docker", "ketch"])
def test_packets_pass_where_docker_drops_what_it_does_not_know(bridge: Bridge, first: str) -> None:
    def docker() -> None:
        for command in (
            "-P FORWARD DROP",
            "-N DOCKER-USER",
            "-A DOCKER-USER -j RETURN",
            "-I FORWARD -j DOCKER-USER",
        ):
            subprocess.run(["iptables-nft", *command.split()], check=True)

    if first == "docker":
        docker()
    with machines.internet() as world, container(bridge, "172.17.0.2") as one:
        if first == "ketch":
            docker()
        # Docker's policy may come at any time; the next start notices.
        with (
            container(bridge, "172.17.0.3") as two,
            container(OTHER, "172.18.0.2") as other,
            server(world) as listening,
        ):
            assert client_of(one, machines.INTERNET, listening) == machines.HOST_OUTSIDE
            with server(two) as neighbour:
                assert client_of(one, "172.17.0.3", neighbour) == "172.17.0.2"
                assert not reaches(other, "172.17.0.3", neighbour)
    shown = subprocess.run(
        ["iptables-nft", "-S", "FORWARD"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert shown[:2] == ["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER"]
    assert [line.split()[2:4] for line in shown[2:]] == [["-i", "ketch+"], ["-o", "ketch+"]]


def test_nothing_is_left_when_the_last_holder_is_gone(
    bridge: Bridge, kernel: rtnetlink.Socket
) -> None:
    with container(bridge, "172.17.0.2"):
        assert [link.kind for link in kernel.links()].count("veth") == 1
    for _ in range(200):
        # The kernel takes a namespace down after its last user, in its own time.
        if not any(link.kind == "veth" for link in kernel.links()):
            break
        subprocess.run(["sleep", "0.02"], check=True)
    assert [link.name for link in kernel.links() if link.kind] == ["ketch0"]


def test_a_container_that_is_cut_off_is_reached_no_more(bridge: Bridge, host: int) -> None:
    place = endpoint(bridge, "172.17.0.2")
    with Sandbox() as dead, server(dead.descriptor) as listening:
        dead.connect(place)
        assert client_of(host, "172.17.0.2", listening) == "172.17.0.1"
        cut([place])
        assert not reaches(host, "172.17.0.2", listening)
        # It is not even asked who has the address, and the bridge forgets where its MAC was.
        with container(bridge, "172.17.0.2") as other, server(other) as new:
            assert client_of(host, "172.17.0.2", new) == "172.17.0.1"
        cut([place])  # as often as one likes


def test_links_are_deleted_where_connections_keep_a_namespace_alive(
    bridge: Bridge, kernel: rtnetlink.Socket, host: int
) -> None:
    place = endpoint(bridge, "172.17.0.2")
    with Sandbox() as dead:
        dead.connect(place)
        bury(dead.descriptor)
        assert kernel.link(place.port) is not None, "it would have gone by itself"
        with server(host) as listening:
            with entered(dead.descriptor):
                talking = socket.create_connection(("172.17.0.1", listening.getsockname()[1]))
            cut([place])
            talking.send(b"that nobody acknowledges")
            talking.close()
        bury(dead.descriptor)
        assert kernel.link(place.port) is None


def test_a_second_network_has_its_own_link(bridge: Bridge) -> None:
    with Sandbox() as sandbox:
        for number, network in enumerate((bridge, OTHER)):
            address = IPv4Interface((int(network.addresses[0].ip) + 8, 16))
            sandbox.connect(
                Endpoint(
                    f"{number}",
                    f"network {number}",
                    network,
                    [address],
                    f"02:42:00:00:00:0{number}",
                    routes={4: network.addresses[0].ip} if not number else {},
                    interface=f"eth{number}",
                )
            )
        machines.filter_packets(bridge, OTHER)
        with entered(sandbox.descriptor), rtnetlink.Socket() as inside:
            assert {link.name for link in inside.links() if link.up} == {"lo", "eth0", "eth1"}
        with container(OTHER, "172.18.0.2") as other, server(other) as listening:
            assert client_of(sandbox.descriptor, "172.18.0.2", listening) == "172.18.0.9"


def test_a_bridge_that_was_deleted_is_made_for_the_next_container(
    bridge: Bridge, kernel: rtnetlink.Socket
) -> None:
    with container(bridge, "172.17.0.2"):
        pass
    link = kernel.link("ketch0")
    assert link is not None
    kernel.execute(rtnetlink.delete_link(link.index))
    with container(bridge, "172.17.0.2") as one, container(bridge, "172.17.0.3") as two:
        assert bridges.ensure(kernel, bridge)
        with server(two) as listening:
            assert client_of(one, "172.17.0.3", listening) == "172.17.0.2"
