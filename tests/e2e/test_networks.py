"""Networks of one's own and published ports, as their users type them."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest

from ketch.engine.networks import default
from ketch.linux import namespaces
from tests.support import images, leftovers
from tests.support.commands import Engine

SERVE = 'mkdir -p /www && echo "it works" > /www/index.html && exec httpd -f -h /www -p {port}'


def serve(engine: Engine, *options: str, port: int = 80) -> str:
    """Start a web server in a container; returns its id once it answers inside."""
    container = engine.ok("run", "-d", *options, "busybox", "sh", "-c", SERVE.format(port=port))
    look = f"for n in 1 2 3 4 5 6 7 8 9; do wget -qO- 127.0.0.1:{port} && break; sleep 0.2; done"
    assert engine.ok("exec", container, "sh", "-c", look) == "it works"
    return container


def inspect(engine: Engine, *what: str) -> Any:
    return json.loads(engine.ok(*what))[0]


def get(port: int, address: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=5) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def network(engine: Engine) -> Iterator[str]:
    """Make a network with addresses of its own."""
    engine.ok(
        "network", "create", "--subnet", "10.213.7.0/24", "--ip-range", "10.213.7.128/25",
        "--gateway", "10.213.7.1", "--aux-address", "printer=10.213.7.129",
        "--label", "purpose=test", "--opt", "com.docker.network.driver.mtu=1400", "made",
    )  # fmt: skip
    yield "made"
    engine("network", "rm", "made")


def test_a_network_is_what_was_asked_for(engine: Engine, network: str) -> None:
    shown = inspect(engine, "network", "inspect", network)
    assert shown["Name"] == network
    assert shown["Driver"] == "bridge"
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.213.7.0/24",
            "IPRange": "10.213.7.128/25",
            "Gateway": "10.213.7.1",
            "AuxiliaryAddresses": {"printer": "10.213.7.129"},
        }
    ]
    assert shown["Labels"] == {"purpose": "test"}
    assert shown["Options"] == {"com.docker.network.driver.mtu": "1400"}
    listed = engine.ok("network", "ls", "--filter", "label=purpose=test", "--format",
                       "{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}}")  # fmt: skip
    assert listed == "made bridge local false"
    assert engine.ok("network", "ls", "-q", "--no-trunc", "-f", "name=made") == shown["Id"]
    assert engine.ok("network", "inspect", "-f", "{{.Id}}", shown["Id"][:10]) == shown["Id"]
    assert engine.ok("network", "ls", "-f", "type=builtin", "--format", "{{.Name}}") == (
        "bridge\nhost\nnone"
    )


@pytest.mark.user
def test_a_container_on_networks(engine: Engine, network: str) -> None:
    engine.ok("network", "create", "--internal", "--subnet", "10.214.7.0/24", "inner")
    try:
        web = serve(engine, "--network", network, "--network-alias", "www", "--ip", "10.213.7.77",
                    "--name", "web")  # fmt: skip
        engine.ok("network", "connect", "--alias", "deep", "inner", "web")
        out = engine.ok("exec", web, "sh", "-c", "ip -o -4 a; cat /sys/class/net/eth0/mtu; ip r")
        assert "10.213.7.77/24" in out
        assert "10.214.7.2/24" in out
        assert "\n1400\n" in out
        assert "default via 10.213.7.1 dev eth0" in out
        shown = inspect(engine, "inspect", web)["NetworkSettings"]["Networks"]
        assert shown[network]["IPAMConfig"]["IPv4Address"] == "10.213.7.77"
        assert shown["inner"]["IPAddress"] == "10.214.7.2"
        members = inspect(engine, "network", "inspect", "inner")["Containers"]
        assert members[web]["IPv4Address"] == "10.214.7.2/24"
        for name in ("web", "www", web[:12]):
            run = ("run", "--rm", "--network", network, "busybox", "wget", "-qO-", name)
            assert engine.ok(*run) == "it works"
        run = ("run", "--rm", "--network", "inner", "busybox", "wget", "-qO-", "deep")
        assert engine.ok(*run) == "it works"
        refused = engine("network", "rm", "inner")
        assert refused.status == 1
        assert "has active endpoints" in refused.err
        engine.ok("network", "disconnect", "inner", "web")
        assert "10.214.7.2" not in engine.ok("exec", web, "ip", "a")
        engine.ok("network", "rm", "inner")
        engine.ok("rm", "-f", web)
    finally:
        engine("network", "disconnect", "-f", "inner", "web")
        engine("network", "rm", "inner")


def test_a_stopped_container_is_connected_from_its_next_start_on(
    engine: Engine, network: str
) -> None:
    engine.ok("create", "--name", "later", "--network", "none", "busybox", "sleep", "60")
    engine.ok("network", "disconnect", "none", "later")
    engine.ok("network", "connect", "--ip", "10.213.7.9", network, "later")
    engine.ok("start", "later")
    assert "10.213.7.9/24" in engine.ok("exec", "later", "ip", "-4", "a", "show", "eth0")
    engine.ok("rm", "-f", "later")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rm", "nothing"], "network nothing not found"),
        (["rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
        (["create", "--subnet", "10.213.7.128/25", "other"], "Pool overlaps with other one"),
        (["create", "made"], "network with name made already exists"),
        (["create", "--ip-range", "10.9.9.0/25", "other"], "must have a corresponding subnet"),
        (["connect", "made", "nobody"], "No such container: nobody"),
    ],
)
def test_what_cannot_be_is_told(
    engine: Engine, network: str, words: list[str], message: str
) -> None:
    result = engine("network", *words)
    assert result.status == 1
    assert message in result.err


@pytest.mark.user
@pytest.mark.ketch_only("the tests' docker has no IPv6")
def test_a_range_is_what_its_numbers_say(ketch: Engine) -> None:
    made = ("network", "create", "--ipv6", "--subnet", "FD00:51:0:0::/64", "--ip-range")
    for wrong in ("fd00:51:0:1::/65", "fd00:510::/65", "10.0.0.0/25"):
        assert ketch(*made, wrong, "ranged").status == 1
    ketch.ok(*made, "FD00:51::8000:0:0:0/65", "ranged")
    try:
        form = "{{.NetworkSettings.Networks.ranged.GlobalIPv6Address}}"
        container = ketch.ok("run", "-d", "--network", "ranged", "busybox", "sleep", "60")
        assert ketch.ok("inspect", "-f", form, container).startswith("fd00:51::8000:")
        ketch.ok("rm", "-f", container)
    finally:
        ketch.ok("network", "rm", "ranged")


@pytest.mark.user
@pytest.mark.ketch_only("an option of ketch's own")
def test_a_network_that_leads_nowhere_may_publish_ports(ketch: Engine) -> None:
    """For this machine's programs alone; an ordinary user's reach containers in no other way."""
    ketch.ok("network", "create", "--internal", "-o", "ketch.bridge.published=true", "told")
    ketch.ok("network", "create", "--internal", "untold")
    try:
        told = serve(ketch, "--network", "told", "-p", "127.0.0.1::80")
        untold = serve(ketch, "--network", "untold", "-p", "127.0.0.1::80")
        port = int(ketch.ok("port", told, "80").rpartition(":")[2])
        assert get(port) == "it works\n"
        assert ketch.ok("exec", told, "ip", "route").count("default") == 0
        assert ketch("port", untold, "80").status == 1
        ketch.ok("rm", "-f", told, untold)
    finally:
        ketch.ok("network", "rm", "told", "untold")


@pytest.mark.ketch_only("the tests' docker has its host's network in a namespace")
def test_a_published_port(ketch: Engine) -> None:
    port = free_port()
    web = serve(ketch, "--name", "web", "-p", f"{port}:8000", "--expose", "9000", port=8000)
    host = socket.gethostbyname(socket.gethostname())
    for address in {"127.0.0.1", "localhost", host}:
        assert get(port, address) == "it works\n"
    assert ketch.ok("ps", "--format", "{{.Ports}}") == f"9000/tcp, 0.0.0.0:{port}->8000/tcp"
    shown = inspect(ketch, "inspect", web)["NetworkSettings"]["Ports"]
    assert shown == {
        "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(port)}],
        "9000/tcp": None,
    }
    refused = ketch("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    assert refused.status == 125
    assert f"Bind for 127.0.0.1:{port} failed: port is already allocated" in refused.err
    assert "container web has it" in refused.err
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(("0.0.0.0", port))
    # It stays through a restart, and goes with the container.
    ketch.ok("restart", "-t", "0", "web")
    deadline = time.monotonic() + 15
    while True:
        try:
            assert get(port) == "it works\n"
            break
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    ketch.ok("rm", "-f", web)
    with socket.create_server(("0.0.0.0", port)):
        pass


@pytest.mark.ketch_only("the tests' docker has its host's network in a namespace")
def test_hundreds_of_published_ports_are_held(ketch: Engine) -> None:
    numbers = range(20000, 20300)

    def free() -> list[int]:
        found = []
        for number in numbers:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("0.0.0.0", number))
                found.append(number)
        return found

    ports = f"{numbers[0]}-{numbers[-1]}"
    container = ketch.ok("run", "-d", "-p", f"{ports}:{ports}", "busybox", "sleep", "60")
    try:
        assert free() == []
        ketch.ok("restart", "-t", "0", container)
        assert free() == []
    finally:
        ketch.ok("rm", "-f", container)
    assert free() == [*numbers]


def test_free_ports_of_loopback(ketch: Engine) -> None:
    web = serve(ketch, "-P", "--expose", "80", "--publish-default-ip", "127.0.0.1")
    (place,) = inspect(ketch, "inspect", web)["NetworkSettings"]["Ports"]["80/tcp"]
    assert place["HostIp"] == "127.0.0.1"
    assert get(int(place["HostPort"])) == "it works\n"
    host = socket.gethostbyname(socket.gethostname())
    if not host.startswith("127."):
        with pytest.raises(OSError, match="refused"):
            get(int(place["HostPort"]), host)
    ketch.ok("rm", "-f", web)


@pytest.mark.ketch_only("docker has no monitor")
def test_what_a_killed_monitor_published_is_withdrawn_by_the_next_command(ketch: Engine) -> None:
    port = free_port()
    web = serve(ketch, "-p", f"{port}:80")
    os.kill(_monitor_of(ketch, web), signal.SIGKILL)
    deadline = time.monotonic() + 5
    while ketch.ok("ps", "-q") and time.monotonic() < deadline:
        time.sleep(0.05)
    maps = subprocess.run(["nft", "list", "map", "inet", "ketch", "any4"], check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    assert f"tcp . {port} " not in maps
    with contextlib.closing(socket.create_server(("0.0.0.0", port))):
        pass
    ketch.ok("start", web)
    assert inspect(ketch, "inspect", web)["NetworkSettings"]["Ports"]["80/tcp"]
    ketch.ok("rm", "-f", web)


def test_engines_that_know_nothing_of_each_other_choose_different_subnets(
    ketch: Engine, tmp_path: pathlib.Path, run_name: str
) -> None:
    roots = [tmp_path / run_name / letter for letter in "ab"]
    links = [default.default_bridge(str(root)) for root in roots]
    engines = [
        Engine("ketch", [ketch.prefix[0], "--root", str(root), "--state", f"{root}-state"])
        for root in roots
    ]
    for engine in engines:
        engine.ok("import", str(images.busybox_archive()), "busybox")
        engine.ok("run", "--rm", "--network", "none", "busybox", "true")  # the next is quicker
    try:
        for number in range(6):
            for root in roots:  # what is configured anew has its subnet chosen anew
                (root / "config.json").write_text(json.dumps({"mtu": 1400 + number}))
            started = [engine.start("run", "--rm", "busybox", "true") for engine in engines]
            told = [process.communicate() for process in started]
            assert [process.returncode for process in started] == [0, 0], told
            shown = [
                subprocess.run(["ip", "-4", "-o", "addr", "show", link], check=True,
                               capture_output=True, text=True).stdout.split()[3]
                for link in links
            ]  # fmt: skip
            assert shown[0] != shown[1]
            for link in links:
                subprocess.run(["ip", "link", "delete", link], check=True)
    finally:
        for engine in engines:
            engine("system", "reset", "--force")
    rules = subprocess.run(["nft", "list", "table", "inet", "ketch"], capture_output=True,
                           text=True, check=True).stdout  # fmt: skip
    assert [link for link in links if link in rules] == []


def test_prune_removes_what_nobody_uses(engine: Engine, network: str) -> None:
    engine.ok("network", "create", "--label", "old", "unused")
    out = engine.ok("network", "prune", "-f", "--filter", "label=old")
    assert out.splitlines() == ["Deleted Networks:", "unused", ""][: len(out.splitlines())]
    assert "made" in engine.ok("network", "ls")


@pytest.mark.ketch_only("looks at links in the host's namespace")
def test_a_network_leaves_nothing(ketch: Engine) -> None:
    links = set(os.listdir("/sys/class/net"))
    for number in range(5):
        ketch.ok("network", "create", f"n{number}")
        ketch.ok("run", "--rm", "--network", f"n{number}", "busybox", "true")
        ketch.ok("network", "rm", f"n{number}")
    deadline = time.monotonic() + 5
    while not set(os.listdir("/sys/class/net")) <= links and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set(os.listdir("/sys/class/net")) <= links


@pytest.mark.ketch_only("looks at links in the host's namespace")
def test_connections_that_outlive_their_program_hold_nothing(ketch: Engine) -> None:
    """The kernel tries for minutes to send what was written, in the namespace of the dead."""
    made = ketch.ok("network", "create", "--subnet", "10.213.9.0/24", "made")
    place = ("--network", "made", "--ip", "10.213.9.5")
    ports = pathlib.Path(f"/sys/class/net/{leftovers.BRIDGE_PREFIX}{made[:10]}/brif")
    try:
        ketch.ok("run", "-d", "--name", "far", "--network", "made", "--cap-add", "NET_ADMIN",
                 "busybox", "sh", "-c", "sleep 60 | nc -l -p 7 | sleep 60")  # fmt: skip
        ketch.ok("run", "-d", "--name", "near", *place, "busybox", "sh", "-c",
                 "while ! yes | nc far 7; do sleep 0.1; done")  # fmt: skip
        established = "until netstat -tn | grep -q ESTABLISHED; do sleep 0.05; done"
        ketch.ok("exec", "near", "sh", "-c", established)
        ketch.ok("exec", "far", "ip", "link", "set", "eth0", "down")  # and acknowledges no more
        (link,) = set(os.listdir(ports)) - {_port_of(ketch, "far")}
        ketch.ok("rm", "-f", "near")
        serve(ketch, "--name", "web", *place)
        assert get(80, "10.213.9.5") == "it works\n"
        deadline = time.monotonic() + 2
        while link in os.listdir(ports) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert link not in os.listdir(ports)
    finally:
        ketch("rm", "-f", "near", "far", "web")
        ketch("network", "rm", "made")


@pytest.mark.ketch_only("docker has no monitor")
def test_connections_of_a_killed_monitors_container_hold_nothing(ketch: Engine) -> None:
    made = ketch.ok("network", "create", "made")
    ports = pathlib.Path(f"/sys/class/net/{leftovers.BRIDGE_PREFIX}{made[:10]}/brif")
    try:
        ketch.ok("run", "-d", "--name", "far", "--network", "made", "--cap-add", "NET_ADMIN",
                 "busybox", "sh", "-c", "sleep 60 | nc -l -p 7 | sleep 60")  # fmt: skip
        ketch.ok("run", "-d", "--name", "near", "--network", "made", "busybox", "sh", "-c",
                 "while ! yes | nc far 7; do sleep 0.1; done")  # fmt: skip
        established = "until netstat -tn | grep -q ESTABLISHED; do sleep 0.05; done"
        ketch.ok("exec", "near", "sh", "-c", established)
        ketch.ok("exec", "far", "ip", "link", "set", "eth0", "down")  # and acknowledges no more
        link = _port_of(ketch, "near")
        os.kill(_monitor_of(ketch, "near"), signal.SIGKILL)
        deadline = time.monotonic() + 5
        while "near" in ketch.ok("ps", "--format", "{{.Names}}") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert link not in os.listdir(ports)
    finally:
        ketch("rm", "-f", "near", "far")
        ketch("network", "rm", "made")


def test_one_container_is_connected_by_many_at_once(engine: Engine) -> None:
    names = [f"n{number}" for number in range(6)]
    try:
        for number, name in enumerate(names):
            engine.ok("network", "create", "--subnet", f"10.215.{number}.0/24", name)
        engine.ok("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "60")
        engine.ok("network", "disconnect", "none", "web")
        with futures.ThreadPoolExecutor(len(names)) as pool:
            for status in pool.map(lambda name: engine("network", "connect", name, "web"), names):
                assert status.status == 0, status.err
        hosts = engine.ok("exec", "web", "cat", "/etc/hosts")
        for number in range(len(names)):
            assert f"10.215.{number}.2\t" in hosts
        assert engine.ok("exec", "web", "ip", "r").count("default") == 1
    finally:
        engine("rm", "-f", "web")
        for name in names:
            engine("network", "rm", name)


def _monitor_of(ketch: Engine, container: str) -> int:
    pid = inspect(ketch, "inspect", container)["State"]["Pid"]
    status = open(f"/proc/{pid}/status").read()
    return int(status.partition("PPid:\t")[2].split()[0])


def _port_of(ketch: Engine, container: str) -> str:
    """Return the name of a container's link at its bridge."""
    index = int(ketch.ok("exec", container, "cat", "/sys/class/net/eth0/iflink"))
    return socket.if_indextoname(index)


@pytest.mark.ketch_only("the tests' docker has its host's network in a namespace")
def test_published_ports_follow_the_way_out(ketch: Engine) -> None:
    port = free_port()
    for name in ("beta", "alpha"):
        ketch.ok("network", "create", name)
    web = serve(ketch, "--network", "beta", "-p", f"{port}:80")
    try:
        ketch.ok("network", "connect", "alpha", web)
        route = ketch.ok("exec", web, "ip", "route", "show", "default")
        assert "dev eth1" in route
        assert get(port) == "it works\n"
        ketch.ok("network", "disconnect", "alpha", web)
        assert "dev eth0" in ketch.ok("exec", web, "ip", "route", "show", "default")
        assert get(port) == "it works\n"
        ketch.ok("network", "disconnect", "beta", web)
        assert ketch.ok("exec", web, "ip", "route") == ""
        assert ketch.ok("ps", "--format", "{{.Ports}}") == "80/tcp"
        ketch.ok("network", "connect", "beta", web)
        assert get(port) == "it works\n"
    finally:
        ketch("rm", "-f", web)
        for name in ("beta", "alpha"):
            ketch("network", "rm", name)


def _host_addresses(engine: Engine, network: str) -> list[str]:
    """Return the host's addresses on a network."""
    config = inspect(engine, "network", "inspect", network)["IPAM"]["Config"]
    return [entry["Gateway"] for entry in config]


@pytest.mark.ketch_only("docker's own network is in another namespace here")
def test_datagrams_that_come_before_a_port_is_published_go_on_to_it(engine: Engine) -> None:
    """A sender who never stops, from one port of its own, is heard by each who has the port."""
    engine.ok("network", "create", "--ipv6", "busy")
    port = free_port()
    options = ["--network", "busy", "-p", f"{port}:77/udp"]
    sleep = ["busybox", "sleep", "60"]
    stopped = threading.Event()

    def send(sending: socket.socket, address: str) -> None:
        while not stopped.wait(0.02):
            with contextlib.suppress(OSError):
                sending.sendto(b"x", (address, port))

    def heard(container: str) -> None:
        pid = engine.ok("inspect", "-f", "{{.State.Pid}}", container)
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            with namespaces.network_entered(namespace):
                hearing = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        finally:
            os.close(namespace)
        with hearing:
            hearing.settimeout(10)
            hearing.bind(("::", 77))
            assert hearing.recv(10) == b"x", address

    try:
        for address in ("127.0.0.1", *_host_addresses(engine, "busy")):
            stopped.clear()
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(kind, socket.SOCK_DGRAM) as sending:
                sender = threading.Thread(target=send, args=(sending, address), daemon=True)
                sender.start()
                time.sleep(0.1)
                engine.ok("run", "-d", "--name", "first", *options, *sleep)
                heard("first")
                engine.ok("restart", "-t", "0", "first")
                heard("first")
                engine.ok("rm", "-f", "first")
                time.sleep(0.1)  # it sends to nobody, and is known for that
                engine.ok("run", "-d", "--name", "second", *options, *sleep)
                heard("second")
                engine.ok("rm", "-f", "second")
                stopped.set()
                sender.join()
    finally:
        stopped.set()
        engine("rm", "-f", "first", "second")
        engine.ok("network", "rm", "busy")
