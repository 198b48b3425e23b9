"""The host learns nothing from those behind its links, and is no router but for containers."""

import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from ketch.engine.engine import Engine
from ketch.engine.networks.kernel import let_through
from ketch.engine.settings import Settings
from ketch.errors import UnsupportedError
from ketch.linux import rtnetlink
from ketch.network import bridge as bridges
from ketch.network import hardening, ip_forward, pinning
from ketch.network.bridge import Bridge
from ketch.network.parent import Parent
from tests.kernel.network import frames, machines
from tests.kernel.network.machines import client_of, container, entered, server
from tests.support import trusting

pytestmark = pytest.mark.root

THIEF, MAC = "172.17.0.3", "02:42:ac:11:00:03"
EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
PREFIX = "2001:db8:666::"
_CONFIGURATION = Path("/proc/sys/net")


@pytest.fixture(autouse=True)
def trusting_host(host: int) -> None:
    """Have the host trust new links in everything, as far as it can be told to."""
    for version, settings in trusting.TRUSTING.items():
        for name, value in settings.items():
            (_CONFIGURATION / f"ipv{version}/conf/default/{name}").write_text(str(value))


def setting(link: str, version: int, name: str) -> str:
    return (_CONFIGURATION / f"ipv{version}/conf/{link}/{name}").read_text().strip()


def trusted(link: str) -> list[str]:
    """What of a link's settings has the host learn from those behind it."""
    return trusting.trusted(
        link, lambda paths: [(_CONFIGURATION / one).read_text() for one in paths]
    )


def learnt(kernel: rtnetlink.Socket) -> list[str]:
    """Default routes and addresses that router advertisements have left."""
    return [
        *(str(route.gateway) for route in kernel.routes(6) if not route.destination.prefixlen
          and route.kind == rtnetlink.RTN_UNICAST),
        *(str(one) for one in kernel.addresses(version=6) if one.ip in ip_network(f"{PREFIX}/64")),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["default", "internal", "routed", "IPv6 as well"])
def test_a_bridge_teaches_the_host_nothing(kernel: rtnetlink.Socket, kind: str) -> None:
    addresses = [IPv4Interface("172.17.0.1/16")]
    six = kind == "IPv6 as well"
    bridge = Bridge(
        "ketch0",
        [*addresses, IPv6Interface("fd00:9::1/64")] if six else addresses,
        internal=kind == "internal",
        routed=[4] if kind == "routed" else (),
        pinned=False,
    )
    with container(bridge, THIEF) as thief:
        assert trusted("ketch0") == []
        source = str(pinning.link_local(MAC))
        forged = [
            frames.advertisement(MAC, source, PREFIX, to=to)
            for to in ("33:33:00:00:00:01", "02:42:ac:11:00:01", frames.LINK_LOCAL)
        ]
        frames.send(thief, *forged)
        assert learnt(kernel) == []
        # With the packet filter gone nothing changes.
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        frames.send(thief, *forged)
        assert learnt(kernel) == []
        # The test can fail.
        for name in ("accept_ra", "accept_ra_defrtr", "accept_ra_pinfo", "autoconf"):
            (_CONFIGURATION / f"ipv6/conf/ketch0/{name}").write_text("2")
        frames.send(thief, *forged)
        assert learnt(kernel) != []


def test_a_bridge_of_an_older_ketch_learns_no_more(kernel: rtnetlink.Socket) -> None:
    bridge = Bridge("ketch0", [IPv4Interface("172.17.0.1/16")])
    kernel.execute(rtnetlink.add_bridge("ketch0", bridge.mac, 1500))
    assert trusted("ketch0") != []
    link = kernel.link("ketch0")
    assert link is not None
    assert link.learns_from_link_local
    for _ in range(2):
        bridges.ensure(kernel, bridge)
        assert trusted("ketch0") == []
        link = kernel.link("ketch0")
        assert link is not None
        assert not link.learns_from_link_local
        # Deleted by hand, or by a reboot.
        bridges.delete(kernel, "ketch0")
        bridges.ensure(kernel, bridge)
    # Somebody else's bridge is his affair.
    kernel.execute(rtnetlink.add_bridge("theirs", "02:00:00:00:00:09", 1500))
    bridges.ensure(kernel, Bridge("theirs", [IPv4Interface("172.18.0.1/16")], kept=True))
    assert "ipv6/conf/theirs/accept_ra" in trusted("theirs")


def test_what_is_hardened_costs_a_start_nothing(
    kernel: rtnetlink.Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge("ketch0", [IPv4Interface("172.17.0.1/16")])
    bridges.ensure(kernel, bridge)
    written: list[str] = []
    monkeypatch.setattr(hardening, "_write", lambda path, _: written.append(path))
    bridges.ensure(kernel, bridge)
    assert written == []
    (_CONFIGURATION / "ipv6/conf/ketch0/accept_ra").write_text("1")
    bridges.ensure(kernel, bridge)
    assert written == ["/proc/sys/net/ipv6/conf/ketch0/accept_ra"]


@pytest.mark.parametrize("kind", ["VLAN", "dummy"])
@pytest.mark.vm
def test_a_parent_that_is_made_teaches_the_host_nothing(
    kernel: rtnetlink.Socket, kind: str
) -> None:
    with machines.internet():
        name = "uplink.50" if kind == "VLAN" else "dm-1"
        parent = Parent("macvlan", name, "bridge", dummy=kind == "dummy", made=True)
        try:
            parent.ensure(kernel)
        except UnsupportedError as error:
            pytest.skip(error.message)
        link = kernel.link(name)
        assert link is not None
        assert link.up
        assert trusted(name) == []
        (_CONFIGURATION / f"ipv6/conf/{name}/accept_ra").write_text("1")
        parent.ensure(kernel)
        assert trusted(name) == []


# Forwarding


class Router:
    """A host between two networks, and an engine on it.

    Args:
        kernel: rtnetlink socket of the host.
        world: descriptor of a machine of one network.
        other: of one of the other.
        directory: where the engine keeps what it has.
    """

    def __init__(self, kernel: rtnetlink.Socket, world: int, other: int, directory: Path) -> None:
        self.kernel = kernel
        self.world = world
        self.other = other
        self.engine = Engine(Settings(str(directory / "root"), str(directory / "state")))
        self.bridge = Bridge(
            "ketch0", [IPv4Interface("172.17.0.1/16"), IPv6Interface("fd00:9::1/64")]
        )

    def start(self) -> None:
        """Have the kernel have what a start needs."""
        transaction = let_through(self.engine.settings, self.engine.store, [self.bridge])
        if transaction is not None:
            transaction.wait()
        bridges.ensure(self.kernel, self.bridge)

    def routes(self) -> bool:
        found = set()
        for address in ("10.99.0.2", "fd00:99::2"):
            with (
                entered(self.other),
                socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True),
            ):
                found.add(_connect(self.world, address, 7) == 0)
        assert len(found) == 1
        return found.pop()

    def await_links(self) -> None:
        """Wait until the machines reach the host; links look for duplicates of their addresses."""
        deadline = time.monotonic() + 10
        for machine, address in ((self.world, "2001:db8::2"), (self.other, "fd00:99::1")):
            while _connect(machine, address, 9) != errno.ECONNREFUSED:
                assert time.monotonic() < deadline


def _connect(machine: int, address: str, port: int) -> int:
    with entered(machine):
        talking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with talking:
        talking.settimeout(0.3)
        return talking.connect_ex((address, port))


@pytest.fixture
def router(kernel: rtnetlink.Socket, tmp_path: Path, host: int) -> Iterator[Router]:
    """Return a host that has not forwarded anything yet."""
    for path in (ip_forward.SWITCHES[4], ip_forward.SWITCHES[6]):
        Path(path).write_text("0")
    with machines.internet() as world, machines.machine() as other:
        kernel.execute(rtnetlink.add_bridge("lan", "02:00:00:00:01:01", 1500))
        lan, uplink = kernel.link("lan"), kernel.link("uplink")
        assert lan is not None
        assert uplink is not None
        kernel.execute(
            rtnetlink.add_veth(
                "lan0", "eth0", namespace=other, bridge=lan.index,
                mac="02:00:00:00:01:02", mtu_bytes=1500,
            ),
            rtnetlink.add_address(lan.index, IPv4Interface("10.99.0.1/24")),
            rtnetlink.add_address(lan.index, IPv6Interface("fd00:99::1/64")),
            rtnetlink.add_address(uplink.index, IPv6Interface("2001:db8::2/64")),
        )  # fmt: skip
        for machine, addresses, ways in (
            (other, ["10.99.0.2/24", "fd00:99::2/64"], ["10.99.0.1", "fd00:99::1"]),
            (world, ["2001:db8::1/64"], [machines.HOST_OUTSIDE, "2001:db8::2"]),
        ):
            with entered(machine), rtnetlink.Socket() as inside:
                link = inside.link("eth0")
                assert link is not None
                inside.execute(
                    rtnetlink.set_link(link.index, up=True),
                    *(rtnetlink.add_address(link.index, ip_interface(one)) for one in addresses),
                    *(rtnetlink.add_route(EVERYWHERE[ip_address(one).version], ip_address(one))
                      for one in ways),
                )  # fmt: skip
        found = Router(kernel, world, other, tmp_path)
        found.await_links()
        yield found


def test_a_host_that_was_no_router_becomes_none(router: Router) -> None:
    assert not router.routes()
    router.start()
    assert ip_forward.is_on(4)
    assert ip_forward.is_on(6)
    assert not router.routes()
    with container(router.bridge, "172.17.0.2") as one, server(router.world) as listening:
        assert client_of(one, machines.INTERNET, listening) == machines.HOST_OUTSIDE
    # Another start has nothing to do, and a flush of all rules is made good by it.
    assert let_through(router.engine.settings, router.engine.store, [router.bridge]) is None
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    router.start()
    assert not router.routes()
    # What an operator accepts passes, and his own policy stays.
    for family in ("ip", "ip6"):
        nft(f"insert rule {family} filter FORWARD iifname uplink oifname lan accept")
        nft(f"insert rule {family} filter FORWARD ct state established accept")
    router.start()
    assert router.routes()
    for family in ("ip", "ip6"):
        nft(f"flush chain {family} filter FORWARD")
        nft(f"add chain {family} filter FORWARD {{ policy accept; }}")
    router.start()
    assert router.routes()


@pytest.mark.parametrize("why", ["it forwarded before", "the configuration says so"])
def test_a_router_stays_one(router: Router, why: str) -> None:
    if why == "it forwarded before":
        for path in ip_forward.SWITCHES.values():
            Path(path).write_text("1")
    else:
        configuration = Path(router.engine.settings.configuration_path)
        configuration.parent.mkdir()
        configuration.write_text('{"ip-forward-no-drop": true}')
    router.start()
    assert router.routes()
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    router.start()
    assert router.routes()


def test_what_is_remembered_is_so_of_one_host_alone(tmp_path: Path) -> None:
    ip_forward.remember(str(tmp_path / "state"), {6})
    ip_forward.remember(str(tmp_path / "state"), {4})
    assert ip_forward.remembered(str(tmp_path / "state")) == {4, 6}
    with machines.machine() as other, entered(other):
        assert ip_forward.remembered(str(tmp_path / "state")) == set()
    (tmp_path / "state/forwarding").write_bytes(b"\xff\n4")
    assert ip_forward.remembered(str(tmp_path / "state")) == set()


def test_the_next_host_with_its_number_is_another_one(tmp_path: Path) -> None:
    with machines.machine() as gone, entered(gone):
        number = os.stat("/proc/thread-self/ns/net").st_ino
        ip_forward.remember(str(tmp_path), {4})
    with ExitStack() as stack:
        for _ in range(100):  # lower ones are given first
            other = stack.enter_context(machines.machine())
            with entered(other):
                if os.stat("/proc/thread-self/ns/net").st_ino == number:
                    assert ip_forward.remembered(str(tmp_path)) == set()
                    return
            time.sleep(0.02)  # it is given back a moment later
    pytest.skip("the number was given to nobody else")


def test_an_internal_network_needs_no_router(router: Router) -> None:
    router.bridge = Bridge("ketch0", router.bridge.addresses, internal=True)
    router.start()
    assert not ip_forward.is_on(4)
    assert not ip_forward.is_on(6)


def test_the_hosts_own_way_out_by_advertisements_stays(router: Router) -> None:
    (_CONFIGURATION / "ipv6/conf/uplink/accept_ra").write_text("1")
    mac = "02:00:00:00:00:02"
    source = str(pinning.link_local(mac))
    advertised = frames.advertisement(mac, source, PREFIX)
    frames.send(router.world, advertised)
    assert learnt(router.kernel) != []
    router.start()
    assert source in learnt(router.kernel)
    assert setting("uplink", 6, "accept_ra") == "2"
    assert setting("lan", 6, "accept_ra") == "2"  # as the host has it for new links


def nft(command: str) -> None:
    subprocess.run(["nft", command], check=True)
