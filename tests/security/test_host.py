"""A host of its own, and what containers and neighbours of the installed ketch get it to do."""

import errno
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from ketch.network import pinning
from tests.kernel.network import frames
from tests.kernel.network.machines import entered
from tests.kernel.network.test_pinning import hears, listening
from tests.support import images, leftovers, peers
from tests.support.commands import Engine
from tests.support.trusting import TRUSTING, trusted

pytestmark = pytest.mark.root

BEYOND, OUTSIDE = "198.51.100.1", "198.51.100.2"
BEYOND_MAC, OUTSIDE_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
PREFIX = "2001:db8:666::"


@dataclass
class Host:
    """A network namespace as the host, another one beyond its link, and a ketch on it.

    Attributes:
        enter: words that run a program on the host.
        network: a descriptor of the host's namespace.
        beyond: of that of a machine beyond its link ``uplink``.
        lan: of that of a machine on its other link.
        ketch: the engine.
    """

    enter: list[str]
    network: int
    beyond: int
    lan: int
    ketch: Engine

    def run(self, *words: str) -> str:
        done = subprocess.run([*self.enter, *words], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, value: object, *paths: str) -> None:
        for path in paths:
            self.run("sh", "-c", f"echo {value} > /proc/sys/net/{path}")

    def trusts(self, link: str) -> list[str]:
        """What has the host learn from those behind a link."""
        return trusted(
            link,
            lambda names: self.run("sh", "-c", 'cd /proc/sys/net; cat "$@"', "sh", *names).split(),
        )

    def container(self, name: str) -> dict[str, str]:
        """A running container's place in its one network, and its process's number."""
        document = json.loads(self.ketch.ok("inspect", name))[0]
        (place,) = document["NetworkSettings"]["Networks"].values()
        return {**place, "pid": str(document["State"]["Pid"])}

    @contextmanager
    def inside(self, name: str) -> Iterator[int]:
        """A descriptor of a container's network."""
        descriptor = os.open(f"/proc/{self.container(name)['pid']}/ns/net", os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def routes(self) -> bool:
        """Whether a packet gets from one of its neighbours to the other."""
        found = set()
        for address, family in (("10.99.0.2", socket.AF_INET), ("fd00:99::2", socket.AF_INET6)):
            with entered(self.lan), socket.socket(family) as server:
                server.bind((address, 0))
                server.listen()
                port = server.getsockname()[1]
                found.add(_connect(self.beyond, address, port) == 0)
        assert len(found) == 1
        return found.pop()


def _connect(machine: int, address: str, port: int) -> int:
    with entered(machine):
        talking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with talking:
        talking.settimeout(0.5)
        return talking.connect_ex((address, port))


@pytest.fixture(scope="module")
def store(scratch: pathlib.Path) -> pathlib.Path:
    """Return what the engines of all these hosts have as their root, with an image."""
    directory = scratch / "hosts"
    directory.mkdir()
    return directory


@pytest.fixture
def host(store: pathlib.Path, tmp_path: pathlib.Path, run_name: str) -> Iterator[Host]:
    """Return a host that trusts everybody, as far as it can be told to, and forwards nothing."""
    state = tmp_path / run_name  # by which the engine's processes can be told
    state.mkdir(mode=0o700)
    with ExitStack() as stack:
        enter = stack.enter_context(peers.namespaces(tmp_path))
        network, beyond, lan = [_namespace(stack, enter, far) for far in (False, True, True)]
        program = str(pathlib.Path(sys.executable).with_name("ketch"))
        places = ["--root", f"{store}/root", "--state", str(state)]
        found = Host(enter, network, beyond, lan, Engine("ketch", [*enter, program, *places]))
        found.write(0, "ipv4/ip_forward", "ipv6/conf/all/forwarding")
        _link(found, "uplink", beyond, (f"{OUTSIDE}/24", "2001:db8::2/64"),
              (f"{BEYOND}/24", "2001:db8::1/64"))  # fmt: skip
        _link(found, "lan", lan, ("10.99.0.1/24", "fd00:99::1/64"),
              ("10.99.0.2/24", "fd00:99::2/64"))  # fmt: skip
        found.run("ip", "route", "add", "default", "via", BEYOND)
        for version, settings in TRUSTING.items():
            for name, value in settings.items():
                found.write(value, f"ipv{version}/conf/default/{name}")
        if "busybox" not in found.ketch.ok("images"):
            found.ketch.ok("import", str(images.busybox_archive()), "busybox")
        stack.callback(leftovers.stop_zygotes, run_name)
        stack.callback(_remove_all, found.ketch)
        yield found


def _remove_all(ketch: Engine) -> None:
    ketch("rm", "-f", *ketch("ps", "-aq").out.split())
    ketch("network", "rm", *ketch("network", "ls", "-q", "--filter", "type=custom").out.split())


def _namespace(stack: ExitStack, enter: list[str], far: bool) -> int:
    if not far:
        path = f"/proc/{enter[2]}/ns/net"
    else:
        words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"]
        process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
        stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        path = f"/proc/{process.pid}/ns/net"
    descriptor = os.open(path, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    return descriptor


def _link(
    host: Host, name: str, machine: int, here: tuple[str, str], there: tuple[str, str]
) -> None:
    where = f"/proc/{os.getpid()}/fd/{machine}"
    here_mac, there_mac = OUTSIDE_MAC, BEYOND_MAC
    if name == "lan":
        here_mac, there_mac = "02:00:00:00:01:01", "02:00:00:00:01:02"
    host.run("ip", "link", "add", name, "address", here_mac, "type", "veth", "peer", "name", "far",
             "address", there_mac)  # fmt: skip
    host.run("ip", "link", "set", "far", "netns", where)
    host.run("ip", "link", "set", name, "up")
    for address in here:
        host.run("ip", "address", "add", address, "dev", name, *_soon(address))
    with entered(machine):
        for words in (
            ("link", "set", "far", "name", "eth0"),
            ("link", "set", "eth0", "up"),
            *(("address", "add", one, "dev", "eth0", *_soon(one)) for one in there),
            *(("route", "add", "default", "via", one.partition("/")[0]) for one in here),
        ):
            subprocess.run(["ip", *words], check=True)
    # A question for a neighbour that comes before he listens is asked again after a second: links
    # look for duplicates of their addresses.
    deadline = time.monotonic() + 20
    for address in here:
        while _connect(machine, address.partition("/")[0], 9) != errno.ECONNREFUSED:
            assert time.monotonic() < deadline, f"{address} does not answer"


def _soon(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def test_no_network_teaches_the_host_anything(host: Host) -> None:
    networks = {
        name: host.ketch.ok("network", "create", *words, name)[:10]
        for name, words in {
            "plain": (), "inner": ("--internal",), "both": ("--ipv6",),
        }.items()
    }  # fmt: skip
    thief = host.ketch.ok("run", "-d", "busybox", "sleep", "600")
    for name in networks:
        host.ketch.ok("run", "--rm", "--network", name, "busybox", "true")

    def links() -> dict[str, list[str]]:
        present = host.run("ls", "/proc/sys/net/ipv4/conf").split()
        made = [one for one in present if one.startswith("ketch")]
        return {link: host.trusts(link) for link in made}

    assert len(links()) == 4
    assert not any(links().values())
    (default,) = [one for one in links() if one[5:] not in networks.values()]
    mac = host.container(thief)["MacAddress"]
    forged = [
        frames.advertisement(mac, str(pinning.link_local(mac)), PREFIX, to=to)
        for to in ("33:33:00:00:00:01", frames.LINK_LOCAL)
    ]

    def learnt() -> list[str]:
        told = host.run("ip", "-6", "address") + host.run("ip", "-6", "route", "show", "default")
        return [line for line in told.splitlines() if PREFIX[:-2] in line or " ra " in line]

    for flushed in (False, True):
        if flushed:
            host.run("nft", "flush", "ruleset")
        with host.inside(thief) as inside:
            frames.send(inside, *forged)
        assert learnt() == []
    # The attack is one, where the host listens.
    for name in ("accept_ra", "accept_ra_defrtr", "accept_ra_pinfo", "autoconf"):
        host.write(2, f"ipv6/conf/{default}/{name}")
    with host.inside(thief) as inside:
        frames.send(inside, *forged)
    assert learnt() != []
    host.ketch.ok("rm", "-f", thief)
    # A bridge that somebody has deleted, and one that learns, are put right by the next start.
    for link in links():
        host.run("ip", "link", "delete", link)
    for words in ((), *(("--network", name) for name in networks)):
        host.ketch.ok("run", "--rm", *words, "busybox", "true")
    assert len(links()) == 4
    host.write(1, f"ipv6/conf/{default}/accept_ra", f"ipv4/conf/{default}/accept_redirects")
    host.ketch.ok("run", "--rm", "busybox", "true")
    assert not any(links().values())


def test_a_host_that_was_no_router_becomes_none(host: Host) -> None:
    assert not host.routes()
    host.ketch.ok("network", "create", "--ipv6", "both")
    fetch = ("run", "--rm", "--network", "both", "busybox", "nc", "-w", "5", BEYOND)
    with entered(host.beyond), socket.create_server((BEYOND, 0)) as server:
        client = host.ketch.start(*fetch, str(server.getsockname()[1]))
        server.settimeout(60)
        connection, (seen, _) = server.accept()
        connection.close()
        client.communicate(timeout=60)
        assert seen == OUTSIDE
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        assert host.run("cat", f"/proc/sys/net/{path}") == "1\n"
    assert not host.routes()
    # A flush of all rules is made good by the next start.
    host.run("nft", "flush", "ruleset")
    host.ketch.ok("run", "--rm", "--network", "both", "busybox", "true")
    assert not host.routes()
    # What an operator accepts passes, and a policy of his stays.
    for family in ("ip", "ip6"):
        for rule in ("iifname uplink oifname lan accept", "ct state established accept"):
            host.run("nft", f"insert rule {family} filter FORWARD {rule}")
    host.ketch.ok("run", "--rm", "--network", "both", "busybox", "true")
    assert host.routes()
    for family in ("ip", "ip6"):
        host.run("nft", f"flush chain {family} filter FORWARD")
        host.run("nft", f"add chain {family} filter FORWARD {{ policy accept; }}")
    host.ketch.ok("run", "--rm", "--network", "both", "busybox", "true")
    assert host.routes()


@pytest.mark.parametrize("why", ["it forwarded before", "the configuration says so"])
def test_a_router_stays_one(host: Host, store: pathlib.Path, why: str) -> None:
    configuration = store / "root" / "config.json"
    if why == "it forwarded before":
        host.write(1, "ipv4/ip_forward", "ipv6/conf/all/forwarding")
    else:
        configuration.write_text('{"ip-forward-no-drop": true}')
    try:
        host.ketch.ok("network", "create", "--ipv6", "routed")
        for _ in range(2):
            host.ketch.ok("run", "--rm", "--network", "routed", "busybox", "true")
            assert host.routes()
            host.run("nft", "flush", "ruleset")
    finally:
        configuration.unlink(missing_ok=True)


def test_the_hosts_loopback_is_its_own_whatever_the_rules(host: Host) -> None:
    """Neither a container nor a neighbour gets there, while ports are published there."""
    web = host.ketch.ok("run", "-d", "-p", "127.0.0.1::80", "-p", "9001:80/udp", "busybox", "sh",
                        "-c", "while :; do echo from web | nc -l -p 80; done")  # fmt: skip
    free = host.ketch.ok("run", "-d", "--cap-add", "NET_ADMIN", "busybox", "sleep", "600")
    port = int(host.ketch.ok("port", web, "80/tcp").rpartition(":")[2])
    gateway = "02:42:" + ":".join(
        f"{int(part):02x}" for part in host.container(web)["Gateway"].split(".")
    )
    with entered(host.network):
        deadline = time.monotonic() + 30
        while _connect(host.network, "127.0.0.1", port) == errno.ECONNREFUSED:
            assert time.monotonic() < deadline
    for flushed in (False, True):
        if flushed:
            host.run("nft", "flush", "ruleset")
        shown = host.run("sh", "-c", "cat /proc/sys/net/ipv4/conf/*/route_localnet").split()
        named = host.run("ls", "/proc/sys/net/ipv4/conf").split()
        on = {name for name, value in zip(named, shown, strict=True) if value != "0"}
        assert on == {"default"}
        with entered(host.network), listening(9000, "127.0.0.1") as heard:
            for machine in (web, free):
                place = host.container(machine)
                mac = place["MacAddress"]
                written = [
                    frames.udp(to, mac, (source, 7), ("127.0.0.1", 9000), b"let me in")
                    for source in (place["IPAddress"], "127.0.0.1", "127.0.0.5")
                    for to in (gateway, frames.EVERYBODY, frames.LINK_LOCAL)
                ]
                with host.inside(machine) as inside:
                    frames.send(inside, *written)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.sendto(b"from the host", ("127.0.0.1", 9000))
            assert heard.recv(100) == b"from the host"
            assert hears(heard) == []


def test_who_may_have_addresses_of_his_own_choice_is_so_after_a_flush_too(host: Host) -> None:
    """Those that may configure their network, by a container that shares it as well."""
    sleeps = ("busybox", "sleep", "600")
    capable = ("--cap-add", "NET_ADMIN")
    made = {
        name: host.ketch.ok("run", "-d", "--name", name, *words, *sleeps)
        for name, words in {
            "plain": (), "capable": capable, "privileged": ("--privileged",),
            "all-but": ("--cap-add", "ALL", "--cap-drop", "NET_ADMIN"), "home": (), "alone": (),
        }.items()
    }  # fmt: skip
    for name, words in {"home": capable, "alone": ("--cap-add", "NET_RAW")}.items():
        host.ketch.ok("run", "-d", "--network", f"container:{name}", *words, *sleeps)
    # By a chain: whoever shares is in the network of the first.
    host.ketch.ok("run", "-d", "--name", "middle", "--network", "container:plain", *sleeps)
    macs = {host.container(name)["MacAddress"]: name for name in made}

    def elements(name: str) -> list[list[str]]:
        told = host.run("nft", "-j", "list", "set", "bridge", "ketch", name)
        (found,) = [one["set"] for one in json.loads(told)["nftables"] if "set" in one]
        keys = [one["elem"]["val"] if "elem" in one else one for one in found.get("elem", [])]
        return [one["concat"] if isinstance(one, dict) else [one] for one in keys]

    def free() -> set[str]:
        owners = {port: macs[mac] for port, mac in elements("macs") if mac in macs}
        return {owners[port] for (port,) in elements("free")}

    assert free() == {"capable", "privileged", "home"}
    host.run("nft", "flush", "ruleset")
    host.ketch.ok("run", "--rm", "busybox", "true")
    assert free() == {"capable", "privileged", "home"}
    host.ketch.ok("run", "-d", "--network", "container:middle", *capable, *sleeps)
    assert free() == {"capable", "privileged", "home", "plain"}
    host.run("nft", "flush", "ruleset")
    host.ketch.ok("run", "--rm", "busybox", "true")
    assert free() == {"capable", "privileged", "home", "plain"}


def test_nobody_joins_another_networks_conversation(host: Host) -> None:
    """By the address of somebody beyond the host with whom a container there speaks."""
    host.ketch.ok("network", "create", "other")
    victim = host.ketch.ok("run", "-d", "busybox", "sleep", "600")
    thieves = [
        host.ketch.ok("run", "-d", "--network", "other", *words, "busybox", "sleep", "600")
        for words in ((), ("--cap-add", "NET_ADMIN"))
    ]
    with ExitStack() as stack:
        with entered(host.beyond):
            server = stack.enter_context(listening(53))
        with entered(stack.enter_context(host.inside(victim))):
            client = stack.enter_context(listening(5555))
        client.sendto(b"question", (BEYOND, 53))
        question, asker = server.recvfrom(100)
        assert (question, asker[0]) == (b"question", OUTSIDE)
        for thief in thieves:
            place = host.container(thief)
            gateway = "02:42:" + ":".join(
                f"{int(part):02x}" for part in place["Gateway"].split(".")
            )
            for to in (gateway, frames.EVERYBODY):
                datagram = frames.udp(to, place["MacAddress"], (BEYOND, 53), asker, b"forged")
                frames.send(stack.enter_context(host.inside(thief)), datagram)
        server.sendto(b"answer", asker)
        assert client.recv(100) == b"answer"
        assert hears(client) == []
