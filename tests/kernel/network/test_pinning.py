"""Who says on a bridge that he is somebody else is not heard, and who has reason to is.

Each attack is tried on a network whose ports are not pinned as well, where it succeeds.
"""

import errno
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from ketch.linux import nftables, rtnetlink
from ketch.network import firewall, pinning
from ketch.network.bridge import Bridge, Interface
from ketch.network.sandbox import Sandbox
from tests.kernel.network import frames, machines
from tests.kernel.network.machines import client_of, entered, server

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


@contextmanager
def container(bridge: Bridge, *addresses: str, free: bool = False) -> Iterator[int]:
    """A container whose port has begun to pass frames, a moment after its link is up."""
    with machines.container(bridge, *addresses, free=free) as descriptor:
        deadline = time.monotonic() + 10
        while True:
            with entered(descriptor):
                talking = socket.socket()
            with talking:
                talking.settimeout(0.3)
                if talking.connect_ex((str(bridge.addresses[0].ip), 9)) == errno.ECONNREFUSED:
                    break
            assert time.monotonic() < deadline
        yield descriptor


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
        # The host's end of the link would take these for itself, as no bridge forwards them. It is
        # told not to, whoever is pinned; the rule is looked at where it is not.
        kept = frames.udp(frames.LINK_LOCAL, THIEF_MAC, (THIEF, 7), (GATEWAY, 7000), b"hardened")
        frames.send(thief, kept)
        sysctls = pathlib.Path("/proc/sys/net/ipv4/conf", behind(THIEF_MAC))
        (sysctls / "drop_unicast_in_l2_multicast").write_text("0")
        for source in (WEB, "198.51.100.9", THIEF):
            for to in (frames.LINK_LOCAL, "01:80:c2:00:00:03"):
                told = f"{source} kept".encode()
                frames.send(thief, frames.udp(to, THIEF_MAC, (source, 7), (GATEWAY, 7000), told))
        for source in (WEB6, "fd00:9::7", "fd00:9::1", "::1", "2001:db8::1", THIEF6):
            told = source.encode()
            frames.send(
                thief,
                frames.udp(GATEWAY_MAC, THIEF_MAC, (source, 7), ("fd00:9::1", 7000), told),
            )
        came = {told.decode() for told in hears(heard) + hears(heard6)}
        own = {f"{THIEF} 0", THIEF6}
        assert "hardened" not in came
        assert own <= came
        if pinned:
            assert came == own
        else:
            assert {f"{WEB} 2", f"{WEB} kept", WEB6} <= came


@pinned_or_not
def test_nobody_is_its_neighbours_router(host: int, pinned: bool) -> None:
    bridge = network(pinned=pinned)
    with container(bridge, WEB, WEB6) as web, container(bridge, THIEF, THIEF6) as thief:
        source = str(pinning.link_local(THIEF_MAC))
        for tags in TAGS:
            frames.send(thief, frames.advertisement(THIEF_MAC, source, "2001:db8::", tags=tags))
        with entered(web), rtnetlink.Socket() as inside:
            gateways = {
                str(route.gateway) for route in inside.routes(6)
                if not route.destination.prefixlen and route.kind == rtnetlink.RTN_UNICAST
            }  # fmt: skip
        assert (source in gateways) != pinned
        assert "fd00:9::1" in gateways


@pytest.mark.parametrize("free", [False, True], ids=["pinned", "free"])
def test_what_a_neighbour_gets_to_see(host: int, free: bool) -> None:
    everybody6, spare6 = "33:33:00:00:00:01", "fd00:9::77"
    own_link_local = str(pinning.link_local(THIEF_MAC))

    def datagram(source: str) -> bytes:
        target = ("ff02::1" if ":" in source else "172.17.255.255", 7)
        to = everybody6 if ":" in source else frames.EVERYBODY
        return frames.udp(to, THIEF_MAC, (source, 7), target, b"long enough for a frame")

    def tagged(vlan: int) -> bytes:
        return frames.ethernet(
            frames.EVERYBODY, THIEF_MAC, 0x9000, b"tag %d" % vlan, tags=1, vlan=vlan
        )

    always = [
        frames.arp(THIEF_MAC, THIEF),
        frames.arp(THIEF_MAC, "0.0.0.0"),  # asked before an address is taken (RFC 5227)
        frames.solicitation(THIEF_MAC, "::", THIEF6),
        frames.solicitation(THIEF_MAC, "::", "fe80::77"),
        frames.solicitation(THIEF_MAC, own_link_local, WEB6),
        frames.neighbour(THIEF_MAC, THIEF6, THIEF6),
        frames.neighbour(THIEF_MAC, "fe80::77", "fe80::77"),
        datagram(THIEF), datagram(THIEF6), datagram(own_link_local), datagram("fe80::77"),
    ]  # fmt: skip
    of_choice = [
        frames.arp(THIEF_MAC, SPARE),
        frames.solicitation(THIEF_MAC, "::", spare6),
        frames.neighbour(THIEF_MAC, THIEF6, spare6),
        frames.ethernet(frames.EVERYBODY, "02:00:00:00:00:77", 0x9000, b"a link of its own"),
        datagram(SPARE), datagram(spare6), tagged(5),
    ]  # fmt: skip
    never = [tagged(0), frames.ethernet(frames.EVERYBODY, WEB_MAC, 0x9000, b"")]
    for others, others6 in ((WEB, WEB6), (GATEWAY, "fd00:9::1")):
        mac = WEB_MAC if others == WEB else GATEWAY_MAC
        link_local = str(pinning.link_local(mac))
        never += [
            frames.arp(THIEF_MAC, others), datagram(others), datagram(others6),
            datagram(link_local),
        ]  # fmt: skip
        for address in (others6, link_local):
            never += [
                frames.solicitation(THIEF_MAC, "::", address),
                frames.neighbour(THIEF_MAC, THIEF6, address),
            ]
    with (
        container(network(), WEB, WEB6) as web,
        container(network(), THIEF, THIEF6, free=free) as thief,
    ):
        with entered(web):
            watching = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with watching:
            last = frames.ethernet(frames.EVERYBODY, THIEF_MAC, 0x9000, b"last")
            frames.send(thief, *always, *of_choice, *never, last)
            watching.settimeout(machines.TIMEOUT_SECONDS)
            seen = [watching.recv(2048)]
            while seen[-1] != last:
                seen.append(watching.recv(2048))
    # The kernel hands a tag over beside its frame.
    behind_tags = {vlan: frames.ethernet(frames.EVERYBODY, THIEF_MAC, 0x9000, b"tag %d" % vlan)
                   for vlan in (0, 5)}  # fmt: skip
    seen += [tagged(vlan) for vlan, frame in behind_tags.items() if frame in seen]
    assert [one.hex() for one in always if one not in seen] == []
    assert [one.hex() for one in never if one in seen] == []
    assert [one in seen for one in of_choice] == [free] * len(of_choice)


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
    second = Bridge("ketch1", [IPv4Interface("172.18.0.1/16"), IPv6Interface("fd00:8::1/64")])
    one = machines.endpoint(network(), WEB, WEB6)
    two = machines.endpoint(second, "172.18.0.2", "fd00:8::2", way_out=False)
    two.interface = "eth1"
    with Sandbox(ipv6=True) as sandbox, ExitStack() as stack:
        pins = pinning.of_container([one, two], free=False)
        transaction = firewall.ensure(firewall.Wanted([network(), second], (), pins))
        assert transaction is not None
        transaction.wait()
        sandbox.connect(one)
        sandbox.connect(two)
        heard = stack.enter_context(listening(7000))
        heard6 = stack.enter_context(listening(7000, "fd00:9::1"))
        deadline = time.monotonic() + 10
        came: set[bytes] = set()
        while came != {b"by IPv4", b"by IPv6"}:  # until the port passes frames
            assert time.monotonic() < deadline
            frames.send(
                sandbox.descriptor,
                frames.udp(GATEWAY_MAC, WEB_MAC, ("172.18.0.2", 7), (GATEWAY, 7000), b"by IPv4"),
                frames.udp(GATEWAY_MAC, WEB_MAC, ("fd00:8::2", 7), ("fd00:9::1", 7000), b"by IPv6"),
            )
            came |= {*hears(heard), *hears(heard6)}


def test_a_kernel_that_cannot_look_at_bridges(host: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers start there too, and sources of other networks are refused all the same."""
    monkeypatch.setattr(nftables, "check", lambda _script: False)
    bridge = network()
    with container(bridge, THIEF) as thief, listening(7000) as heard:
        assert "table bridge" not in ruleset()
        assert firewall.ensure(firewall.Wanted([bridge])) is None
        for source in ("198.51.100.9", "172.18.0.2", THIEF):
            frames.send(
                thief,
                frames.udp(GATEWAY_MAC, THIEF_MAC, (source, 7), (GATEWAY, 7000), source.encode()),
            )
        assert hears(heard) == [THIEF.encode()]


def test_an_internal_network_has_no_way_out_by_frames_that_bridges_keep(host: int) -> None:
    """The host would take such a frame for one that its end of the container's link received."""
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


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_an_end_asks_for_little_of_what_it_takes_away(
    host: int, kernel: rtnetlink.Socket, monkeypatch: pytest.MonkeyPatch, *, free: bool, gone: bool
) -> None:
    """But for what is seldom there it is taken for there, until the kernel says otherwise."""
    place = machines.endpoint(network(), WEB, WEB6)
    pins = pinning.of_container([place], free=free)
    transaction = firewall.ensure(firewall.Wanted([network()], (), pins))
    if transaction is not None:
        transaction.wait()
    if gone:
        one = next(each for each in pins if each.name == "macs")
        firewall.withdraw((), [one])
    asked: list[int] = []
    there = nftables.Socket.there

    def counted(self: nftables.Socket, table: str, elements: list[nftables.Element]) -> list[bool]:
        asked.append(len(elements))
        return there(self, table, elements)

    monkeypatch.setattr(nftables.Socket, "there", counted)
    every = pinning.of_container([place], free=True)
    firewall.withdraw((), every)
    assert asked == ([2, len(every)] if gone else [2])
    assert place.port not in ruleset()
    assert WEB not in ruleset()


def ruleset() -> str:
    return subprocess.run(
        ["nft", "list", "ruleset"], check=True, capture_output=True, text=True
    ).stdout
