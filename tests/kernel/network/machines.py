"""Machines for network tests: throw-away network namespaces, and sockets opened in them."""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network

from ketch.linux import namespaces, rtnetlink
from ketch.network import firewall, ipam, pinning
from ketch.network.bridge import Bridge
from ketch.network.ports import Port
from ketch.network.sandbox import Address, Endpoint, Sandbox

HOST_OUTSIDE = "198.51.100.2"
INTERNET = "198.51.100.1"
TIMEOUT_SECONDS = 2.0


entered = namespaces.network_entered


@contextlib.contextmanager
def machine() -> Iterator[int]:
    """A network namespace with its loopback up; its descriptor."""
    with Sandbox(ipv6=True) as sandbox:
        yield sandbox.descriptor


@contextlib.contextmanager
def internet() -> Iterator[int]:
    """A machine beyond the host's uplink, with no way back but to the host's own address."""
    with machine() as descriptor, rtnetlink.Socket() as host:
        host.execute(rtnetlink.add_bridge("uplink", "02:00:00:00:00:01", 1500))
        uplink = host.link("uplink")
        assert uplink is not None
        host.execute(
            rtnetlink.add_veth(
                "uplink0",
                "eth0",
                namespace=descriptor,
                bridge=uplink.index,
                mac="02:00:00:00:00:02",
                mtu_bytes=1500,
            ),
            rtnetlink.add_address(uplink.index, IPv4Interface(f"{HOST_OUTSIDE}/24")),
            rtnetlink.add_route(ip_network("0.0.0.0/0"), ip_address(INTERNET)),
        )
        with entered(descriptor), rtnetlink.Socket() as inside:
            link = inside.link("eth0")
            assert link is not None
            inside.execute(
                rtnetlink.set_link(link.index, up=True),
                rtnetlink.add_address(link.index, IPv4Interface(f"{INTERNET}/24")),
            )
        yield descriptor


@contextlib.contextmanager
def container(
    bridge: Bridge, *addresses: str, way_out: bool = True, free: bool = False
) -> Iterator[int]:
    """A container's namespace, connected to a bridge and pinned there; its descriptor."""
    place = endpoint(bridge, *addresses, way_out=way_out)
    with Sandbox(ipv6=any(":" in one for one in addresses)) as sandbox:
        pins = pinning.of_container([place], free=free)
        transaction = firewall.ensure(firewall.Wanted([bridge], (), pins))
        if transaction is not None:
            transaction.wait()
        sandbox.connect(place)
        yield sandbox.descriptor


def endpoint(bridge: Bridge, *addresses: str, way_out: bool = True) -> Endpoint:
    """A place in a bridge's network."""
    routes: dict[int, Address | None] = {}
    versions = {ip_address(one).version for one in addresses}
    if way_out:
        routes.update({one.version: one.ip for one in bridge.addresses if one.version in versions})
    lengths = {one.version: one.network.prefixlen for one in bridge.addresses}
    own = [ip_interface(f"{one}/{lengths[ip_address(one).version]}") for one in addresses]
    mac = ipam.mac_of(own[0].ip)
    return Endpoint(os.urandom(4).hex(), "test", bridge, own, mac, routes=routes)


def filter_packets(*bridges: Bridge, ports: Sequence[Port] = ()) -> bool:
    """Have bridges' rules and ports in place; whether anything was to be done."""
    transaction = firewall.ensure(firewall.Wanted(bridges, ports))
    if transaction is not None:
        transaction.wait()
    return transaction is not None


@contextlib.contextmanager
def server(descriptor: int, port: int = 8000) -> Iterator[socket.socket]:
    """A TCP server on all addresses of a machine."""
    with entered(descriptor):
        listening = socket.create_server(("0.0.0.0", port))
    with listening:
        listening.settimeout(TIMEOUT_SECONDS)
        yield listening


def client_of(descriptor: int, address: str, listening: socket.socket) -> str:
    """Connect from a machine and say something; returns the client's address as the server saw it.

    Raises:
        OSError: there is no way; TimeoutError where packets are dropped.
    """
    with entered(descriptor):
        talking = socket.socket()
    with talking:
        talking.settimeout(TIMEOUT_SECONDS)
        talking.connect((address, listening.getsockname()[1]))
        accepted, (seen, _) = listening.accept()
        with accepted:
            accepted.settimeout(TIMEOUT_SECONDS)
            talking.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
            accepted.sendall(b"hi")
            assert talking.recv(2) == b"hi"
    return str(seen)


def reaches(descriptor: int, address: str, listening: socket.socket) -> bool:
    """Whether a connection can be made within a moment."""
    with entered(descriptor):
        talking = socket.socket()
    with talking:
        # Long enough for any answer within one machine, short enough for tests of what is dropped.
        talking.settimeout(0.3)
        try:
            talking.connect((address, listening.getsockname()[1]))
        except OSError:
            return False
    return True
