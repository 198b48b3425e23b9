"""What a container says on its network, by frames that it wrote itself, as its root may."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.linux import nftables
from ketch.network import pinning
from tests.kernel.network import frames
from tests.security.hostile import program, volumes
from tests.support.commands import Engine

SERVE = "while :; do echo from web | nc -l -p 80; done"


@pytest.fixture
def network(ketch: Engine) -> Iterator[str]:
    """Return the name of a network whose containers are not to see each other."""
    name = "apart"
    option = "com.docker.network.bridge.enable_icc=false"
    ketch.ok("network", "create", "--ipv6", "-o", option, name)
    yield name
    ketch("rm", "-f", *ketch("ps", "-aq", "--filter", f"network={name}").out.split())
    ketch.ok("network", "rm", name)


def place(ketch: Engine, container: str) -> dict[str, Any]:
    """A running container's place in its network."""
    networks = json.loads(ketch.ok("inspect", container))[0]["NetworkSettings"]["Networks"]
    (found,) = networks.values()
    return dict(found)


def say(ketch: Engine, container: str, *written: bytes) -> None:
    """Have a container's root send frames."""
    command = program("send_frames", *(frame.hex() for frame in written))
    ketch.ok("exec", container, *command)


def answer(port: int) -> str:
    """What comes from a port of the host's loopback."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if text := connection.makefile().read():
                    return text
        except ConnectionError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def reaches(address: str) -> bool:
    """Whether the host reaches port 80 there, before long."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as talking:
            talking.settimeout(0.5)
            if talking.connect_ex((address, 80)) == 0:
                return True
    return False


def default_routes() -> str:
    return subprocess.run(
        ["ip", "-6", "route", "show", "default"], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.root_engine("the test looks at root's network, and publishes ports")
def test_a_neighbour_and_the_host_stay_who_they_are(
    ketch: Engine, attacker: str, network: str
) -> None:
    web = ketch.ok("run", "-d", "--network", network, "-p", "127.0.0.1::80", "busybox",
                   "sh", "-c", SERVE)  # fmt: skip
    port = int(ketch.ok("port", web, "80/tcp").rpartition(":")[2])
    thief = ketch.ok("run", "-d", "--network", network, *volumes(), attacker, "sleep", "600")
    victim, own = place(ketch, web), place(ketch, thief)
    mac, gateway = own["MacAddress"], own["Gateway"]
    gateway_mac = "02:42:" + ":".join(f"{int(part):02x}" for part in gateway.split("."))
    assert answer(port) == "from web\n"
    routes = default_routes()
    link_local = str(pinning.link_local(mac))
    say(
        ketch,
        thief,
        frames.arp(mac, victim["IPAddress"]),
        frames.arp(mac, victim["IPAddress"], to=gateway_mac),
        frames.neighbour(mac, own["GlobalIPv6Address"], victim["GlobalIPv6Address"]),
        frames.ethernet(frames.EVERYBODY, victim["MacAddress"], 0x9000, b"I am web"),
        frames.ethernet(frames.LINK_LOCAL, victim["MacAddress"], 0x88CC, b"I am web"),
        frames.advertisement(mac, link_local, "2001:db8:666::"),
        frames.advertisement(mac, link_local, "2001:db8:666::", to=frames.LINK_LOCAL),
    )
    assert answer(port) == "from web\n"
    assert default_routes() == routes
    addresses = subprocess.run(
        ["ip", "-6", "address"], check=True, capture_output=True, text=True
    ).stdout
    assert "2001:db8:666:" not in addresses
    listed = json.loads(ketch.ok("network", "inspect", network))[0]
    bridge = f"ketch{listed['Id'][:10]}"
    assert pathlib.Path(f"/proc/sys/net/ipv6/conf/{bridge}/accept_ra").read_text() == "0\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind((gateway, 0))
        heard.settimeout(10)
        number = heard.getsockname()[1]
        say(
            ketch,
            thief,
            *(
                frames.udp(gateway_mac, mac, (source, 7), (gateway, number), source.encode())
                for source in (victim["IPAddress"], "192.0.2.99", gateway, own["IPAddress"])
            ),
        )
        assert heard.recv(100).decode() == own["IPAddress"]


@pytest.mark.root_engine("the test looks at root's network")
def test_more_addresses_are_for_those_who_configure_their_network(
    ketch: Engine, network: str
) -> None:
    admin = ketch.ok("run", "-d", "--network", network, "--cap-add", "NET_ADMIN", "busybox",
                     "sh", "-c", SERVE)  # fmt: skip
    plain = ketch.ok("run", "-d", "--network", network, "busybox", "sh", "-c", SERVE)
    own = place(ketch, admin)
    spares = [own["IPAddress"].rpartition(".")[0] + f".{number}" for number in (77, 78)]
    ketch.ok("exec", admin, "ip", "address", "add", f"{spares[0]}/16", "dev", "eth0")
    assert reaches(spares[0])
    # Whoever shares a network may configure it as well, and nobody else.
    ketch.ok("run", "--rm", "--network", f"container:{plain}", "--cap-add", "NET_ADMIN", "busybox",
             "ip", "address", "add", f"{spares[1]}/16", "dev", "eth0")  # fmt: skip
    assert reaches(spares[1])


def pinned() -> str:
    """What is known of what ports may send."""
    sets = ("ports", "macs", "own4", "taken4")
    return str([nftables.listing("set", "bridge", "ketch", name) for name in sets])


@pytest.mark.root_engine("the test looks at root's packet filter")
def test_pins_come_and_go_with_networks(ketch: Engine, network: str) -> None:
    container = ketch.ok("run", "-d", "busybox", "sleep", "600")
    first = place(ketch, container)
    for _ in range(2):
        ketch.ok("network", "connect", network, container)
        found = json.loads(ketch.ok("inspect", container))[0]["NetworkSettings"]["Networks"]
        second = found[network]
        ports = [f"veth{one['EndpointID'][:8]}" for one in (first, second)]
        # It may answer by either with the addresses of both.
        for port in ports:
            for one in (first, second):
                assert f"['{port}', '{one['IPAddress']}']" in pinned()
        assert f"['{ports[1]}', '{second['MacAddress']}']" in pinned()
        ketch.ok("network", "disconnect", network, container)
        assert ports[1] not in pinned()
        assert second["IPAddress"] not in pinned()
        assert f"['{ports[0]}', '{first['IPAddress']}']" in pinned()
    ketch.ok("rm", "-f", container)


@pytest.mark.root_engine("the test looks at root's packet filter")
def test_pins_go_with_their_container(ketch: Engine) -> None:
    for end in ("stop", "kill -9"):
        container = ketch.ok("run", "-d", "busybox", "sleep", "600")
        own = place(ketch, container)
        assert f"veth{own['EndpointID'][:8]}" in pinned()
        assert own["IPAddress"] in pinned()
        if end == "stop":
            ketch.ok("stop", "-t", "0", container)
        else:
            pid = int(ketch.ok("inspect", "-f", "{{.State.Pid}}", container))
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            monitor = int(status.partition("PPid:")[2].split()[0])
            os.kill(monitor, signal.SIGKILL)
            ketch.ok("ps", "-a")
        deadline = time.monotonic() + 10
        while f"veth{own['EndpointID'][:8]}" in pinned() or own["IPAddress"] in pinned():
            assert time.monotonic() < deadline
            time.sleep(0.1)
            ketch.ok("ps", "-a")
        ketch.ok("rm", "-f", container)


def test_a_flood_of_questions_starves_nobody(ketch: Engine, network: str) -> None:
    """Many questions, large ones, and such as nobody outside ever answers."""
    names = ketch.ok("exec", ketch.ok(
        "run", "-d", "--network", network, "--name", "asked", "busybox", "sleep", "600",
    ), "cat", "/etc/resolv.conf")  # fmt: skip
    assert "nameserver 127.0.0.11" in names
    loops = (
        "while :; do nslookup x$RANDOM.flood.invalid 127.0.0.11; done",
        "while :; do head -c 60000 /dev/zero | nc -u -w 1 127.0.0.11 53; done",
        "while :; do head -c 65000 /dev/urandom | nc -w 1 127.0.0.11 53; done",
    )
    script = "".join(f"({loop}) >/dev/null 2>&1 & " * 4 for loop in loops) + "wait"
    ketch.ok("run", "-d", "--network", network, "busybox", "sh", "-c", script)
    began = time.monotonic()
    for _ in range(10):
        found = ketch.ok("exec", "asked", "nslookup", "asked", "127.0.0.11")
        assert place(ketch, "asked")["IPAddress"] in found
    assert time.monotonic() - began < 60
