"""A container with a program of its own that leads out: real pasta, as root and as a user."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.commands import Engine
from tests.support.saying import saying
from tests.support.users import User

pytestmark = pytest.mark.skipif(not shutil.which("pasta"), reason="pasta is not installed")


@pytest.fixture(params=["root", "user"])
def someone(request: pytest.FixtureRequest) -> Engine:
    """Return root's engine, then an ordinary user's."""
    if request.param == "root":
        engine: Engine = request.getfixturevalue("ketch")
        return engine
    user: User = request.getfixturevalue("user")
    return user.ketch


def _says(port: int, address: str = "127.0.0.1") -> str:
    """Return what is said at a port of the machine's; empty where nobody does."""
    try:
        with socket.create_connection((address, port), 5) as asking:
            return asking.recv(100).decode()
    except OSError:
        return ""


def _await(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _programs(engine: Engine, name: str = "led") -> list[int]:
    """Return the pids of a container's programs: those that hold ports in the machine's network."""
    port = int(engine.ok("port", name, "80").split("\n")[0].rpartition(":")[2])
    listing = subprocess.run(
        ["ss", "-Hltnp", f"sport = {port}"], capture_output=True, text=True, check=True
    ).stdout
    return sorted({int(words.partition(",")[0]) for words in listing.split("pid=")[1:]})


def test_it_has_the_machines_addresses_and_options_count(someone: Engine) -> None:
    script = "ip addr; cat /etc/hosts /etc/resolv.conf"
    told = someone("run", "--rm", "--network", "pasta:--mtu,1400,-I,way", "busybox", "sh", "-c",
                   script)  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # nothing is sent there
        except OSError:
            pytest.skip("this machine has no way to others")
        own = asking.getsockname()[0]
    assert (told.status, told.err) == (0, ""), str(told)
    assert "way: <" in told.out
    assert "mtu 1400" in told.out
    assert f"inet {own}/" in told.out
    assert f"\n{own}\t" in told.out  # the line of its name
    assert "nameserver 169.254.1.1\n" in told.out


# The pasta of 2023 does not tell of others' ends: the program is not waited for. To one that has
# shut down its sending side it sends what it has once more for each acknowledgement, as further
# data, until the other end's reset: the program keeps that side open.
_HEAR = (
    "sleep 9 | nc $0 $1 > /o & until [ -s /o ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done;"
    " cat /o"
)


def test_it_reaches_what_its_options_lead_to(someone: Engine) -> None:
    def hear(network: str, script: str, *words: str) -> str:
        told = someone("run", "--rm", "--timeout", "4", "--network", network, "busybox", "sh", "-c",
                       script, *words)  # fmt: skip
        return told.out

    with saying(b"hello\n", "127.0.0.1") as port:
        by_gateway = "set -- $(ip route | sed -n 's/^default via //p'); "
        by_gateway += _HEAR.replace("$0 $1", f"$1 {port}")
        assert hear("pasta:--map-gw", by_gateway) == "hello\n"
        assert hear(f"pasta:-T,{port}", _HEAR, "127.0.0.1", str(port)) == "hello\n"
        neither = f"nc 127.0.0.1 {port}; {by_gateway}"
        assert hear("pasta", neither) == ""


def test_published_ports_come_back_whatever_is_killed_and_are_free_after_it(
    someone: Engine,
) -> None:
    ketch = someone
    ketch.ok("create", "--name", "led", "--network", "pasta", "-p", "80", "-p", "70/udp",
             "busybox", "sh", "-c", "nc -ll -p 80 -e echo hello")  # fmt: skip
    try:
        assert ketch.ok("inspect", "-f", "{{.HostConfig.NetworkMode}}", "led") == "pasta"
        ketch.ok("start", "led")
        shown = json.loads(ketch.ok("inspect", "-f", "{{json .NetworkSettings.Ports}}", "led"))
        port = int(shown["80/tcp"][0]["HostPort"])
        assert int(shown["70/udp"][0]["HostPort"]) > 0
        _await(lambda: _says(port) == "hello\n")
        refused = ketch("run", "--rm", "--network", "pasta", "-p", f"{port}:80", "busybox", "true")
        assert refused.status == 125
        assert "port is already allocated" in refused.err
        (program,) = _programs(ketch)
        time.sleep(1.1)  # one that does not last is begun again more slowly
        os.kill(program, 9)
        _await(lambda: _says(port) == "hello\n")
        parent = int(
            pathlib.Path(f"/proc/{_programs(ketch)[0]}/stat")
            .read_text()
            .rpartition(")")[2]
            .split()[1]
        )
        assert pathlib.Path(f"/proc/{parent}/comm").read_text() == "ketch-uplink\n"
        os.kill(parent, 9)
        _await(lambda: _says(port) == "hello\n")
        ketch.ok("restart", "-t", "0", "led")
        port = int(ketch.ok("port", "led", "80").split("\n")[0].rpartition(":")[2])
        _await(lambda: _says(port) == "hello\n")
        (program,) = _programs(ketch)
        monitor = pathlib.Path(
            f"/proc/{ketch.ok('inspect', '-f', '{{.State.Pid}}', 'led')}/stat"
        ).read_text()
        os.kill(int(monitor.rpartition(")")[2].split()[1]), 9)
        _await(lambda: not os.path.exists(f"/proc/{program}"))
        assert _says(port) == ""
    finally:
        ketch.ok("rm", "-f", "led")


def test_others_share_its_network_and_it_is_on_no_other(someone: Engine) -> None:
    ketch = someone
    ketch.ok("run", "-d", "--name", "led", "--network", "pasta:-I,way", "busybox", "sleep", "1000")
    try:
        shared = ketch.ok("run", "--rm", "--network", "container:led", "busybox", "ip", "link")
        assert "way:" in shared
        refused = ketch("network", "connect", "bridge", "led")
        assert (refused.status, "excludes all others" in refused.err) == (1, True)
    finally:
        ketch.ok("rm", "-f", "led")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("pasta:--nonsense", "unrecognized option '--nonsense'"),
        ("pasta:--pid,/tmp/pid", "ketch's own to say"),
        ("slirp4netns:nonsense=1", 'unknown option for slirp4netns: "nonsense=1"'),
    ],
)
def test_what_cannot_be_is_said(ketch: Engine, network: str, reason: str) -> None:
    told = ketch("run", "--rm", "--network", network, "busybox", "true")
    assert (told.status, reason in told.err) == (125, True), str(told)


def test_without_pasta_that_is_said(user: User) -> None:
    inside = ["nsenter", f"--target={user.mounts}", "--mount"]
    program = str(shutil.which("pasta"))
    user.end()  # the next command's namespaces lack what is hidden now
    subprocess.run([*inside, "mount", "--bind", "/dev/null", program], check=True)
    try:
        told = user.ketch("run", "--rm", "--network", "pasta", "busybox", "true")
        assert (told.status, "pasta is not installed" in told.err) == (125, True), str(told)
    finally:
        user.end()
        subprocess.run([*inside, "umount", program], check=True)


def test_slirp4netns_publishes_and_reaches_the_machines_loopback(someone: Engine) -> None:
    if not shutil.which("slirp4netns"):
        pytest.skip("slirp4netns is not installed")
    ketch = someone
    options = "slirp4netns:allow_host_loopback=true,mtu=1400"
    ketch.ok("run", "-d", "--name", "led", "--network", options, "-p", "127.0.0.1::80",
             "--add-host", "machine:host-gateway", "busybox", "nc", "-ll", "-p", "80", "-e", "echo",
             "hello")  # fmt: skip
    try:
        port = int(ketch.ok("port", "led", "80").rpartition(":")[2])
        _await(lambda: _says(port) == "hello\n")
        with saying(b"hello\n", "127.0.0.1") as served:
            script = f"ip link show tap0; cat /etc/resolv.conf; {_HEAR}"
            told = ketch.ok("exec", "led", "sh", "-c", script, "machine", str(served))
        assert "mtu 1400" in told
        assert told.endswith("\nhello")
        assert "nameserver 10.0.2.3\n" in told
    finally:
        ketch.ok("rm", "-f", "led")
