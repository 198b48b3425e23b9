"""The default network, ``none`` and ``host``, from inside and from outside."""

import ipaddress
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support import leftovers
from tests.support.commands import Engine

PING_GATEWAY = "ping -c1 -W2 $(ip route | awk '/^default/ {print $3}')"


def address_of(engine: Engine, container: str) -> ipaddress.IPv4Interface:
    """Return a running container's own address with its prefix length."""
    out = engine.ok("exec", container, "ip", "-4", "-o", "address", "show", "eth0")
    return ipaddress.IPv4Interface(out.split()[3])


def test_none_has_loopback_alone(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link")
    assert out.startswith("1: lo: <LOOPBACK,UP,LOWER_UP>")
    assert len(out.splitlines()) == 1


def test_loopback_works(engine: Engine) -> None:
    engine.ok("run", "--rm", "--network", "none", "busybox", "ping", "-c1", "-W2", "127.0.0.1")


def test_host_shares_the_network(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--network", "host", "busybox", "sh", "-c",
                    "readlink /proc/self/ns/net; hostname")  # fmt: skip
    namespace, hostname = out.splitlines()
    assert hostname == socket.gethostname()
    if engine.name != "docker":  # this docker's host network is its private one
        assert namespace == os.readlink("/proc/self/ns/net")


def test_bridge_gives_address_and_route(engine: Engine) -> None:
    out = engine.ok(
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip -4 -o address show eth0; ip route; cat /sys/class/net/eth0/operstate",
    )
    address, default, own, state = out.splitlines()
    interface = ipaddress.IPv4Interface(address.split()[3])
    words = default.split()
    assert words[:2] == ["default", "via"]
    assert ipaddress.IPv4Address(words[2]) in interface.network
    assert own.startswith(f"{interface.network} dev eth0")
    assert state == "up"


@pytest.mark.vm
def test_the_gateway_answers(engine: Engine) -> None:
    engine.ok("run", "--rm", "busybox", "sh", "-c", PING_GATEWAY)


def test_containers_reach_each_other(engine: Engine) -> None:
    server = engine.ok("run", "-d", "busybox", "sh", "-c",
                       "while :; do echo from server | nc -l -p 80; done")  # fmt: skip
    address = address_of(engine, server).ip
    out = engine.ok("run", "--rm", "busybox", "sh", "-c", f"sleep 0.3; nc -w 2 {address} 80")
    assert out == "from server"
    engine.ok("rm", "-f", server)


def test_addresses_differ_and_are_given_again(engine: Engine) -> None:
    for _ in range(2):
        pair = [engine.ok("run", "-d", "busybox", "sleep", "60") for _ in range(3)]
        addresses = {address_of(engine, container).ip for container in pair}
        assert len(addresses) == 3
        engine.ok("rm", "-f", *pair)


def test_the_resolver_is_configured(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "busybox", "cat", "/etc/resolv.conf")
    assert "nameserver " in out
    assert "nameserver 127.0.0.1\n" not in out


def test_hosts_has_the_own_name_and_address(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "-h", "boat", "busybox", "sh", "-c",
                    "grep boat /etc/hosts; ip -4 -o address show eth0")  # fmt: skip
    line, address = out.splitlines()
    assert line.split() == [address.split()[3].partition("/")[0], "boat"]


def test_an_unknown_network_is_an_error(engine: Engine) -> None:
    result = engine("run", "--rm", "--network", "no-such-network", "busybox", "true")
    assert result.status == 125
    assert "no-such-network" in result.err


def test_the_subnet_is_no_hosts_route(ketch: Engine, bridge_name: str) -> None:
    container = ketch.ok("run", "-d", "busybox", "sleep", "60")
    subnet = address_of(ketch, container).network
    ketch.ok("rm", "-f", container)
    routes = subprocess.run(["ip", "-4", "route"], check=True, capture_output=True, text=True)
    others = [
        ipaddress.IPv4Network(line.split()[0])
        for line in routes.stdout.splitlines()
        if line[0].isdigit() and bridge_name not in line
    ]
    assert not [network for network in others if network.overlaps(subnet)]


def test_the_host_reaches_a_container(ketch: Engine) -> None:
    server = ketch.ok("run", "-d", "busybox", "sh", "-c",
                      "while :; do echo from inside | nc -l -p 80; done")  # fmt: skip
    address = str(address_of(ketch, server).ip)
    deadline = time.monotonic() + 5
    while True:
        try:
            with socket.create_connection((address, 80), timeout=2) as connection:
                assert connection.makefile().read() == "from inside\n"
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    ketch.ok("rm", "-f", server)


def test_a_container_reaches_the_host_and_beyond_by_masquerading(
    ketch: Engine, outside_world: str
) -> None:
    """A listener in another namespace, beyond a router of its own, sees the host's address."""
    out = ketch.ok("run", "--rm", "busybox", "nc", "-w", "3", outside_world, "7007")
    assert out == "you are 192.0.2.17"


LISTENER = """
import socket, subprocess
print(flush=True)
input()
for words in ("address add 192.0.2.18/30 dev kworld1", "link set kworld1 up"):
    subprocess.run(["ip", *words.split()], check=True)
listener = socket.create_server(("192.0.2.18", 7007))
print(flush=True)
connection, address = listener.accept()
connection.sendall(f"you are {address[0]}\\n".encode())
"""


@pytest.fixture
def outside_world() -> Iterator[str]:
    """Give an address in a namespace that the host reaches by a veth, and that knows no routes."""
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", LISTENER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as listener:  # fmt: skip
        assert listener.stdin is not None
        assert listener.stdout is not None
        listener.stdout.readline()
        add = f"link add kworld0 type veth peer name kworld1 netns {listener.pid}"
        for words in (add, "address add 192.0.2.17/30 dev kworld0", "link set kworld0 up"):
            subprocess.run(["ip", *words.split()], check=True)
        listener.stdin.write(b"\n")
        listener.stdin.flush()
        listener.stdout.readline()
        yield "192.0.2.18"
        listener.kill()


def test_only_bridge_and_table_are_left(ketch: Engine, bridge_name: str) -> None:
    def rules() -> str:
        command = ["nft", "--stateless", "list", "ruleset"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    links, before = set(os.listdir("/sys/class/net")), rules()
    containers = [ketch.ok("run", "-d", "busybox", "sleep", "60") for _ in range(2)]
    deadline = time.monotonic() + 5
    ports = f"/sys/class/net/{bridge_name}/brif"
    while len(os.listdir(ports)) != 2:  # that of one that has ended stays for a moment
        assert time.monotonic() < deadline, os.listdir(ports)
        time.sleep(0.01)
    ketch.ok("rm", "-f", *containers)
    deadline = time.monotonic() + 5
    while not set(os.listdir("/sys/class/net")) <= links and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set(os.listdir("/sys/class/net")) <= links
    assert rules() == before
    assert os.listdir(ports) == []
    assert pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


def test_a_deleted_bridge_comes_back(ketch: Engine, bridge_name: str) -> None:
    subprocess.run(["ip", "link", "delete", bridge_name], check=True)
    ketch.ok("run", "--rm", "busybox", "sh", "-c", PING_GATEWAY)


def test_a_deleted_table_comes_back(ketch: Engine, bridge_name: str, outside_world: str) -> None:
    others = [
        link for link in os.listdir("/sys/class/net")
        if link.startswith(leftovers.BRIDGE_PREFIX) and link != bridge_name
    ]  # fmt: skip
    if others:
        pytest.skip("other engines run here, whose table it is as well")
    subprocess.run(["nft", "delete", "table", *leftovers.TABLE.split()], check=True)
    out = ketch.ok("run", "--rm", "busybox", "nc", "-w", "3", outside_world, "7007")
    assert out == "you are 192.0.2.17"
