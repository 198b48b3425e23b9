"""Who says on a bridge that he is somebody else is not heard, and who has reason to is.

Each attack is tried on a network whose ports are not pinned as well, where it succeeds.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from ketch.linux import rtnetlink
from ketch.network import pinning
from ketch.network.bridge import Bridge, Interface
from tests.kernel.network import frames, machines
from tests.kernel.network.machines import client_of, container, entered, server

pytestmark = pytest.mark.root

GATEWAY, WEB, THIEF, SPARE = "172.17.0.1", "172.17.0.2", "172.17.0.3", "172.17.0.4"
WEB_MAC, THIEF_MAC, GATEWAY_MAC = (
    f"02:42:ac:11:00:0{number}" for number in (2, 3, 1)
)  # fmt: skip
WEB6, THIEF6 = "fd00:9::2", "fd00:9::3"
# Two tags of VLAN 0 are taken off by whoever gets the frame, one by the filter already.
TAGS = (0, 1, 2)

pinned_or_not = pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "not pinned"])


def network(*, pinned: bool = True, isolated: bool = False) -> Bridge:
    addresses: list[Interface] = [IPv4Interface(f"{GATEWAY}/16"), IPv6Interface("fd00:9::1/64")]
    return Bridge("ketch0", addresses, pinned=pinned, isolated=isolated)


def known(address: str) -> str:
    """What the host has of a neighbour's hardware address."""
    listed = subprocess.run(
        ["ip", "neighbour", "show", address, "dev", "ketch0"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    return listed[listed.index("lladdr") + 1] if "lladdr" in listed else ""


def behind(mac: str) -> str:
    """The bridge's port behind which it has a hardware address."""
    listed = subprocess.run(
        ["bridge", "fdb", "show", "br", "ketch0"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return next((line.split()[2] for line in listed if line.split()[0] == mac), "")


@contextmanager
def listening(port: int, address: str = "0.0.0.0") -> Iterator[socket.socket]:
    """A datagram socket of the machine that the thread is on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as heard:
        heard.bind((address, port))
        heard.settimeout(machines.TIMEOUT_SECONDS)
        yield heard


def hears(heard: socket.socket) -> list[bytes]:
    """What has come by now."""
    found = []
    heard.setblocking(False)
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        try:
            found.append(heard.recv(100))
        except BlockingIOError:
            time.sleep(0.005)
    return found


@pytest.mark.parametrize("isolated", [False, True], ids=["together", "apart"])
@pinned_or_not
def test_a_neighbours_address_stays_the_neighbours(host: int, pinned: bool, isolated: bool) -> None:
    bridge = network(pinned=pinned, isolated=isolated)
    with (
        container(bridge, WEB, WEB6) as web,
        container(bridge, THIEF, THIEF6) as thief,
        server(web, 80) as web_server,
    ):
        assert client_of(host, WEB, web_server) == GATEWAY
        with entered(web), listening(7, WEB6) as heard, entered(host), listening(8, "::") as asking:
            asking.sendto(b"who are you?", (WEB6, 7))
            assert heard.recv(100)
        assert {known(WEB), known(WEB6)} == {WEB_MAC}
        link_local = str(pinning.link_local(THIEF_MAC))
        frames.send(
            thief,
            *(frames.arp(THIEF_MAC, WEB, tags=tags) for tags in TAGS),
            frames.arp(THIEF_MAC, WEB, to=GATEWAY_MAC),
            frames.neighbour(THIEF_MAC, THIEF6, WEB6),
            frames.neighbour(THIEF_MAC, link_local, WEB6, to=GATEWAY_MAC),
        )
        expected = WEB_MAC if pinned else THIEF_MAC
        assert (known(WEB), known(WEB6)) == (expected, expected)
        if pinned:
            assert client_of(host, WEB, web_server) == GATEWAY


@pinned_or_not
def test_a_neighbours_hardware_address_stays_behind_its_port(host: int, pinned: bool) -> None:
    bridge = network(pinned=pinned)
    with (
        container(bridge, WEB) as web,
        container(bridge, THIEF) as thief,
        server(web, 80) as web_server,
    ):
        assert client_of(host, WEB, web_server) == GATEWAY
        port = behind(WEB_MAC)
        assert port
        # The last of these is shown to no packet filter; no bridge of ketch's learns by it.
        frames.send(thief, frames.ethernet(frames.LINK_LOCAL, WEB_MAC, 0x88CC, b"lldp"))
        assert behind(WEB_MAC) == port
        for tags in TAGS:
            frames.send(
                thief,
                frames.arp(WEB_MAC, WEB, tags=tags),
                frames.ethernet(frames.EVERYBODY, WEB_MAC, 0x9000, b"anything", tags=tags),
            )
        assert (behind(WEB_MAC) == port) == pinned
        if pinned:
            assert client_of(host, WEB, web_server) == GATEWAY


@pinned_or_not
def test_a_source_is_the_senders_own(host: int, pinned: bool) -> None:
    bridge = network(pinned=pinned)
    with (
        container(bridge, WEB, WEB6),
        container(bridge, THIEF, THIEF6) as thief,
        listening(7000) as heard,
        listening(7000, "fd00:9::1") as heard6,
    ):
        for tags in TAGS:
            for source in (WEB, SPARE, GATEWAY, "127.0.0.1", "198.51.100.9", THIEF):
                told = f"{source} {tags}".encode()
                frames.send(
                    thief,
                    frames.udp(
                        GATEWAY_MAC, THIEF_MAC, (source, 7), (GATEWAY, 7000), told, tags=tags
                    ),
                )
        for source in (WEB6, "fd00:9::7", "fd00:9::1", "::1", "2001:db8::1", THIEF6):
            told = source.encode()
            frames.send(
                thief,
                frames.udp(GATEWAY_MAC, THIEF_MAC, (source, 7), ("fd00:9::1", 7000), told),
            )
        came = {told.decode() for told in hears(heard) + hears(heard6)}
        own = {f"{THIEF} 0", f"{THIEF} 1", THIEF6}
        assert own <= came
        if pinned:
            assert came == own
        else:
            assert {f"{WEB} 2", WEB6} <= came


@pytest.mark.parametrize("how", ["pinned", "free", "not pinned"])
def test_nobody_joins_another_networks_conversation(host: int, how: str) -> None:
    """By the address of somebody beyond the host with whom a container there speaks."""
    other = Bridge("ketch1", [IPv4Interface("172.18.0.1/16")], pinned=how != "not pinned")
    with ExitStack() as stack:
        world = stack.enter_context(machines.internet())
        victim = stack.enter_context(container(network(), WEB))
        thief = stack.enter_context(container(other, "172.18.0.2", free=how == "free"))
        with entered(world):
            server = stack.enter_context(listening(53))
        with entered(victim):
            client = stack.enter_context(listening(5555))
        client.sendto(b"question", (machines.INTERNET, 53))
        question, asker = server.recvfrom(100)
        assert (question, asker[0]) == (b"question", machines.HOST_OUTSIDE)
        # To the host, to all, and to somebody else: what is translated is the host's to pass on.
        for to in ("02:42:ac:12:00:01", frames.EVERYBODY, "02:42:ac:12:00:09"):
            frames.send(
                thief,
                frames.udp(
                    to, "02:42:ac:12:00:02", (machines.INTERNET, 53),
                    (machines.HOST_OUTSIDE, asker[1]), b"forged",
                ),
            )  # fmt: skip
        server.sendto(b"answer", asker)
        assert client.recv(100) == b"answer"
        assert hears(client) == []


def test_one_who_configures_his_network_has_addresses_of_his_own_choice(host: int) -> None:
    bridge = network()
    with (
        container(bridge, WEB, WEB6) as web,
        container(bridge, THIEF, THIEF6, free=True) as free,
        machines.internet() as world,
        server(world) as outside,
        server(web, 80) as web_server,
    ):
        with entered(free):
            for command in (
                "ip address add 172.17.0.4/32 dev eth0",
                "ip link add inside link eth0 type macvlan mode bridge",
                "ip address add 172.17.0.5/16 dev inside",
                "ip link set inside up",
            ):
                subprocess.run(command.split(), check=True)
        # A service address that moves, as keepalived's do, and one of a link of his own.
        frames.send(free, frames.arp(THIEF_MAC, SPARE))
        with server(free, 8080) as listening_here:
            for address in (SPARE, "172.17.0.5"):
                assert client_of(web, address, listening_here) == WEB
                assert client_of(host, address, listening_here) == GATEWAY
        assert client_of(free, machines.INTERNET, outside) == machines.HOST_OUTSIDE
        # But nobody else's.
        assert client_of(host, WEB, web_server) == GATEWAY
        port = behind(WEB_MAC)
        frames.send(
            free,
            frames.arp(THIEF_MAC, WEB),
            frames.neighbour(THIEF_MAC, THIEF6, WEB6),
            frames.arp(THIEF_MAC, GATEWAY),
            frames.ethernet(frames.EVERYBODY, WEB_MAC, 0x9000, b"anything"),
            frames.ethernet(frames.EVERYBODY, GATEWAY_MAC, 0x9000, b"anything"),
        )
        assert known(WEB) == WEB_MAC
        assert behind(WEB_MAC) == port
        with listening(7000) as heard:
            for source in (WEB, "198.51.100.9", SPARE):
                datagram = frames.udp(
                    GATEWAY_MAC, THIEF_MAC, (source, 7), (GATEWAY, 7000), source.encode()
                )
                frames.send(free, datagram)
            assert hears(heard) == [SPARE.encode()]


def test_a_container_answers_by_any_of_its_networks(host: int) -> None:
    """The answer to what came by one network may leave by the other, as its routes say."""
    first, second = network(), Bridge("ketch1", [IPv4Interface("172.18.0.1/16")])
    one = machines.endpoint(first, WEB)
    two = machines.endpoint(second, "172.18.0.2", way_out=False)
    two.interface = "eth1"
    from ketch.network import firewall
    from ketch.network.sandbox import Sandbox

    with Sandbox() as sandbox, listening(7000) as heard:
        transaction = firewall.ensure(
            firewall.Wanted([first, second], (), pinning.of_container([one, two], free=False))
        )
        assert transaction is not None
        transaction.wait()
        sandbox.connect(one)
        sandbox.connect(two)
        frames.send(
            sandbox.descriptor,
            frames.udp(GATEWAY_MAC, WEB_MAC, ("172.18.0.2", 7), (GATEWAY, 7000), b"by the first"),
        )
        assert heard.recv(100) == b"by the first"


def test_an_internal_network_has_no_way_out_by_frames_that_bridges_keep(host: int) -> None:
    """The host would take such a frame as one that its end of the container's link received."""
    inside = Bridge("ketch0", [IPv4Interface(f"{GATEWAY}/16")], internal=True)
    with machines.internet() as world, container(inside, THIEF) as thief:
        with entered(world):
            heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with heard:
            heard.bind(("0.0.0.0", 7))
            for to in (GATEWAY_MAC, frames.LINK_LOCAL, "01:80:c2:00:00:03"):
                frames.send(
                    thief, frames.udp(to, THIEF_MAC, (THIEF, 7), (machines.INTERNET, 7), b"out")
                )
            assert hears(heard) == []


def test_what_bridges_have_is_there_and_goes(host: int, kernel: rtnetlink.Socket) -> None:
    from ketch.network import firewall

    bridge = network()
    place = machines.endpoint(bridge, WEB, WEB6)
    pins = pinning.of_container([place], free=True, owner="ketch0 web")
    for _ in range(2):
        transaction = firewall.ensure(firewall.Wanted([bridge], (), pins))
        if transaction is not None:
            transaction.wait()
    assert transaction is None
    table = ruleset()
    assert place.port in table
    assert "ketch0 web" in table
    for _ in range(2):
        firewall.withdraw((), pins)
    assert place.port not in ruleset()
    assert WEB not in ruleset()
    firewall.forget(bridge.name, bridge)
    assert GATEWAY not in ruleset()


def ruleset() -> str:
    return subprocess.run(
        ["nft", "list", "ruleset"], check=True, capture_output=True, text=True
    ).stdout
