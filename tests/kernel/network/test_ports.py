"""Published ports: who reaches them, by which address, and who keeps their numbers."""

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_network
from pathlib import Path

import pytest

from ketch.engine.networks import releasing
from ketch.linux import rtnetlink
from ketch.network import firewall, ports
from ketch.network.bridge import Bridge
from ketch.network.ports import Port
from ketch.network.sandbox import Endpoint, Interface, Sandbox
from tests.kernel.network import frames, machines
from tests.kernel.network.machines import client_of, container, entered, reaches, server

pytestmark = pytest.mark.root

ANY = IPv4Address("0.0.0.0")
WEB = IPv4Address("172.17.0.2")
OTHER = Bridge("ketch1", [IPv4Interface("172.18.0.1/16")])


def publish(bridge: Bridge, *published: Port) -> None:
    machines.filter_packets(bridge, ports=published)


def to(address: str, port: int, descriptor: int, listening: socket.socket) -> str:
    """Connect to a published port; returns the client's address as the server saw it."""
    with entered(descriptor):
        talking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with talking:
        talking.settimeout(machines.TIMEOUT_SECONDS)
        talking.connect((address, port))
        accepted, (seen, *_) = listening.accept()
        with accepted:
            talking.sendall(b"hello")
            accepted.settimeout(machines.TIMEOUT_SECONDS)
            assert accepted.recv(5) == b"hello"
    return str(seen)


def refused(address: str, port: int, descriptor: int) -> bool:
    with entered(descriptor):
        talking = socket.socket()
    with talking:
        talking.settimeout(0.3)
        try:
            talking.connect((address, port))
        except OSError:
            return True
    return False


@pytest.fixture(params=["bridges filtered", "bridges not filtered"])
def filtering(request: pytest.FixtureRequest) -> None:
    path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if path.exists():
        path.write_text("1" if request.param == "bridges filtered" else "0")
    elif request.param == "bridges filtered":
        pytest.skip("this kernel has no br_netfilter loaded")


@pytest.fixture
def world(bridge: Bridge, filtering: None) -> Iterator[int]:
    with machines.internet() as descriptor:
        yield descriptor


def test_everybody_reaches_a_published_port(bridge: Bridge, host: int, world: int) -> None:
    with (
        container(bridge, str(WEB)) as web,
        container(bridge, "172.17.0.3") as neighbour,
        container(OTHER, "172.18.0.2") as stranger,
        server(web, 80) as listening,
    ):
        publish(bridge, Port("tcp", ANY, 8080, WEB, 80))
        # The client's address is kept, but where the answer would not find back.
        assert to(machines.HOST_OUTSIDE, 8080, world, listening) == machines.INTERNET
        assert to("127.0.0.1", 8080, host, listening) == "172.17.0.1"
        assert to(machines.HOST_OUTSIDE, 8080, host, listening) == machines.HOST_OUTSIDE
        assert to("172.17.0.1", 8080, host, listening) == "172.17.0.1"
        assert to(machines.HOST_OUTSIDE, 8080, stranger, listening) == "172.18.0.2"
        assert to("172.17.0.1", 8080, neighbour, listening) in {"172.17.0.1", "172.17.0.3"}
        assert to(machines.HOST_OUTSIDE, 8080, neighbour, listening) in {
            "172.17.0.1",
            "172.17.0.3",
        }
        assert to("172.17.0.1", 8080, web, listening) == "172.17.0.1"
        # Nobody gets there by another port.
        assert not reaches(stranger, str(WEB), listening)


def test_a_withdrawn_port_is_gone(bridge: Bridge, host: int) -> None:
    with container(bridge, str(WEB)) as web, server(web, 80) as listening:
        port = Port("tcp", ANY, 8080, WEB, 80, owner="ketch0 web")
        publish(bridge, port)
        assert to("127.0.0.1", 8080, host, listening)
        for _ in range(2):
            firewall.withdraw([port])
        assert refused("127.0.0.1", 8080, host)


def test_an_element_that_a_dead_engine_left_is_replaced(bridge: Bridge, host: int) -> None:
    with container(bridge, str(WEB)) as web, server(web, 80) as listening:
        publish(bridge, Port("tcp", ANY, 8080, IPv4Address("172.17.0.99"), 81, owner="gone"))
        publish(bridge, Port("tcp", ANY, 8080, WEB, 80))
        assert to("127.0.0.1", 8080, host, listening)


def test_a_port_on_loopback_is_the_hosts_alone(bridge: Bridge, host: int, world: int) -> None:
    with (
        container(bridge, str(WEB)) as web,
        container(bridge, "172.17.0.3") as neighbour,
        server(web, 80) as listening,
        server(host, 9000) as hosts_own,
    ):
        publish(bridge, Port("tcp", IPv4Address("127.0.0.1"), 8080, WEB, 80))
        assert to("127.0.0.1", 8080, host, listening)
        assert refused(machines.HOST_OUTSIDE, 8080, world)
        # A neighbour of the host sends packets to its loopback address by hand.
        for machine in (world, neighbour):
            with entered(machine), rtnetlink.Socket() as outside:
                Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1")
                subprocess.run(["ip", "address", "delete", "127.0.0.1/8", "dev", "lo"], check=True)
                gateway = machines.HOST_OUTSIDE if machine == world else "172.17.0.1"
                outside.execute(rtnetlink.add_route(ip_network("127.0.0.0/8"), ip_address(gateway)))
            assert refused("127.0.0.1", 8080, machine)
            assert refused("127.0.0.1", 9000, machine)
        assert to("127.0.0.1", 9000, host, hosts_own) == "127.0.0.1"


@pytest.mark.parametrize("flushed", [False, True], ids=["rules", "no rules"])
def test_loopback_is_nobody_elses_whatever_the_rules(
    bridge: Bridge, host: int, world: int, flushed: bool
) -> None:
    """Neither a container nor the host's neighbours get there, while ports are published there."""
    with (
        container(bridge, str(WEB)) as web,
        container(bridge, "172.17.0.3", free=True) as free,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard,
        server(web, 80) as listening,
    ):
        heard.bind(("127.0.0.1", 9000))
        publish(bridge, Port("tcp", IPv4Address("127.0.0.1"), 8080, WEB, 80))
        publish(bridge, Port("udp", ANY, 9001, WEB, 80))
        assert to("127.0.0.1", 8080, host, listening) == "172.17.0.1"
        if flushed:
            subprocess.run(["nft", "flush", "ruleset"], check=True)
        for link in os.listdir("/proc/sys/net/ipv4/conf"):
            assert Path(f"/proc/sys/net/ipv4/conf/{link}/route_localnet").read_text() == "0\n"
        for machine, mac, to_mac, own in (
            (web, "02:42:ac:11:00:02", "02:42:ac:11:00:01", str(WEB)),
            (free, "02:42:ac:11:00:03", "02:42:ac:11:00:01", "172.17.0.3"),
            (world, "02:00:00:00:00:02", "02:00:00:00:00:01", machines.INTERNET),
        ):
            frames.send(
                machine,
                *(
                    frames.udp(where, mac, (source, 7), ("127.0.0.1", 9000), b"let me in")
                    for source in (own, "127.0.0.1", "127.0.0.5")
                    for where in (to_mac, frames.EVERYBODY, frames.LINK_LOCAL)
                ),
            )
        # What was sent before has come, if it was to come, before what is sent now.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"from the host", ("127.0.0.1", 9000))
        heard.settimeout(machines.TIMEOUT_SECONDS)
        assert heard.recv(100) == b"from the host"


def test_loopbacks_clients_have_any_address_of_it(bridge: Bridge, host: int) -> None:
    with (
        container(bridge, str(WEB)) as web,
        server(web, 80) as listening,
        server(host, 9000) as hosts_own,
    ):
        publish(bridge, Port("tcp", ANY, 8080, WEB, 80))
        publish(bridge, Port("tcp", IPv4Address("127.0.0.2"), 8081, WEB, 80))
        assert to("127.0.0.1", 8080, host, listening) == "172.17.0.1"
        assert to("127.0.0.9", 8080, host, listening) == "172.17.0.1"
        assert to("127.0.0.2", 8081, host, listening) == "172.17.0.1"
        assert refused("127.0.0.1", 8081, host)
        # One that is not led anywhere is refused at once.
        with socket.socket() as bound:
            bound.bind(("127.0.0.3", 0))
            bound.settimeout(machines.TIMEOUT_SECONDS)
            assert bound.connect_ex(("127.0.0.1", 8080)) == errno.ECONNREFUSED
        # What is nobody's port is left alone.
        assert to("127.0.0.1", 9000, host, hosts_own) == "127.0.0.1"


def test_udp(bridge: Bridge, host: int) -> None:
    with container(bridge, str(WEB)) as web:
        publish(bridge, Port("udp", ANY, 5353, WEB, 53))
        with entered(web):
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with listening, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            listening.bind(("0.0.0.0", 53))
            listening.settimeout(machines.TIMEOUT_SECONDS)
            asking.settimeout(machines.TIMEOUT_SECONDS)
            asking.sendto(b"name?", ("127.0.0.1", 5353))
            question, client = listening.recvfrom(16)
            listening.sendto(question.upper(), client)
            assert asking.recvfrom(16) == (b"NAME?", ("127.0.0.1", 5353))


def test_a_client_is_led_to_the_next_container_of_its_port(bridge: Bridge, host: int) -> None:
    second = IPv4Address("172.17.0.3")
    with (
        container(bridge, str(WEB)) as one,
        container(bridge, str(second)) as two,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for machine, address in ((one, WEB), (two, second)):
            port = Port("udp", ANY, 5353, address, 53)
            publish(bridge, port)
            with entered(machine):
                listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with listening:
                listening.bind(("0.0.0.0", 53))
                listening.settimeout(machines.TIMEOUT_SECONDS)
                client.sendto(b"hello", ("172.17.0.1", 5353))
                assert listening.recv(16) == b"hello"
            releasing.withdraw([port])


def test_ipv6(host: int) -> None:
    network = Bridge("ketch6", [IPv4Interface("172.19.0.1/16"), IPv6Interface("fd00:9::1/64")])
    address = IPv6Address("fd00:9::2")
    with Sandbox(ipv6=True) as sandbox, machines.internet() as world:
        addresses: list[Interface] = [
            IPv4Interface("172.19.0.2/16"),
            IPv6Interface(f"{address}/64"),
        ]
        routes: dict[int, ports.Address | None] = {one.version: one.ip for one in network.addresses}
        sandbox.connect(
            Endpoint("6", "six", network, addresses, "02:42:00:00:00:02", routes=routes)
        )
        publish(network, Port("tcp", IPv6Address("::"), 8080, address, 80))
        with entered(sandbox.descriptor):
            listening = socket.create_server(("::", 80), family=socket.AF_INET6)
        with listening, rtnetlink.Socket() as here:
            listening.settimeout(machines.TIMEOUT_SECONDS)
            assert to("fd00:9::1", 8080, host, listening) == "fd00:9::1"
            uplink = here.link("uplink")
            assert uplink is not None
            here.execute(rtnetlink.add_address(uplink.index, IPv6Interface("2001:db8::2/64")))
            with entered(world), rtnetlink.Socket() as outside:
                link = outside.link("eth0")
                assert link is not None
                outside.execute(
                    rtnetlink.add_address(link.index, IPv6Interface("2001:db8::1/64")),
                    rtnetlink.add_route(ip_network("fd00:9::/64"), ip_address("2001:db8::2")),
                )
            assert to("2001:db8::2", 8080, world, listening) == "2001:db8::1"
            assert to("2001:db8::2", 8080, sandbox.descriptor, listening)
            with pytest.raises(OSError, match="timed out"):
                to("fd00:9::2", 80, world, listening)
            # IPv6 has no way for loopback addresses out of the host: refused, never left waiting.
            with pytest.raises(ConnectionRefusedError):
                to("::1", 8080, host, listening)
        with entered(world):
            over = socket.create_server(("::", 7), family=socket.AF_INET6)
        with over:
            over.settimeout(machines.TIMEOUT_SECONDS)
            assert to("2001:db8::1", 7, sandbox.descriptor, over) == "2001:db8::2"


def test_an_operators_own_chain_sees_packets_first(bridge: Bridge, world: int) -> None:
    with container(bridge, str(WEB)) as web, server(web, 80) as listening:
        publish(bridge, Port("tcp", ANY, 8080, WEB, 80))
        assert to(machines.HOST_OUTSIDE, 8080, world, listening)
        rule = f"ip saddr {machines.INTERNET} meta l4proto tcp ct original proto-dst 8080 drop"
        subprocess.run(
            ["nft", "add", "rule", "inet", "ketch", "user-forward", *rule.split()], check=True
        )
        assert refused(machines.HOST_OUTSIDE, 8080, world)
        # What ketch does next leaves the chain alone.
        publish(bridge, Port("tcp", ANY, 8081, WEB, 80))
        machines.filter_packets(OTHER)
        firewall.forget(OTHER.name)
        assert refused(machines.HOST_OUTSIDE, 8080, world)
        assert to(machines.HOST_OUTSIDE, 8081, world, listening)


def test_containers_that_are_not_to_see_each_other(bridge: Bridge, host: int, world: int) -> None:
    apart = Bridge(bridge.name, bridge.addresses, isolated=True)
    with (
        container(apart, str(WEB)) as web,
        container(apart, "172.17.0.3") as neighbour,
        server(web, 80) as listening,
        server(world, 80) as outside,
    ):
        assert not reaches(neighbour, str(WEB), listening)
        assert client_of(host, str(WEB), listening) == "172.17.0.1"
        assert client_of(neighbour, machines.INTERNET, outside) == machines.HOST_OUTSIDE


def test_a_routed_network_keeps_addresses(host: int) -> None:
    routed = Bridge("ketch1", [IPv4Interface("172.18.0.1/16")], routed=[4])
    address = IPv4Address("172.18.0.2")
    with machines.internet() as world, container(routed, str(address)) as web:
        with entered(world), rtnetlink.Socket() as outside:
            outside.execute(
                rtnetlink.add_route(ip_network("172.18.0.0/16"), ip_address(machines.HOST_OUTSIDE))
            )
        publish(routed, Port("tcp", ANY, 0, address, 80, routed=True))
        with server(web, 80) as listening:
            assert to(str(address), 80, world, listening) == machines.INTERNET
        with server(web, 81) as closed:
            assert not reaches(world, str(address), closed)
        with server(world, 80) as listening:
            assert client_of(web, machines.INTERNET, listening) == str(address)


def test_packets_leave_under_a_chosen_address(host: int, kernel: rtnetlink.Socket) -> None:
    chosen = Bridge(
        "ketch1", [IPv4Interface("172.18.0.1/16")], sources=[IPv4Address("198.51.100.77")]
    )
    with machines.internet() as world, container(chosen, "172.18.0.2") as one:
        uplink = kernel.link("uplink")
        assert uplink is not None
        kernel.execute(rtnetlink.add_address(uplink.index, IPv4Interface("198.51.100.77/24")))
        with server(world) as listening:
            assert client_of(one, machines.INTERNET, listening) == "198.51.100.77"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_taken_port_is_nobody_elses(host: int, protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    descriptor = ports.bind(protocol, ANY, 8080)
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)
    for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with socket.socket(socket.AF_INET, kind) as other:
            if option is not None:
                other.setsockopt(socket.SOL_SOCKET, option, 1)
            with pytest.raises(OSError, match="Address already in use"):
                other.bind(("127.0.0.1", 8080))
    os.close(descriptor)
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 8080))


def test_who_holds_a_port_is_told(host: int) -> None:
    with server(host, 8080):
        with pytest.raises(OSError, match="Address already in use"):
            ports.bind("tcp", ANY, 8080)
        assert ports.holder("tcp", 8080).endswith(f"(process {os.getpid()})")
    assert ports.holder("tcp", 8080) == ""


def test_a_former_owners_connections_are_in_nobodys_way(host: int) -> None:
    with server(host, 8080) as listening:
        talking = socket.create_connection(("127.0.0.1", 8080))
        accepted, _ = listening.accept()
        accepted.close()  # the server closes first, and so keeps the connection in TIME_WAIT
        talking.close()
    descriptor = ports.bind("tcp", ANY, 8080)
    assert descriptor is not None
    # And who says the same does not get it as well.
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(("0.0.0.0", 8080))
    os.close(descriptor)
