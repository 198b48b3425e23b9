"""ketch beside docker or podman on one host: both work, neither takes what the other has."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

import pytest

from ketch.network import ipam
from tests.support import images, peers
from tests.support.commands import Engine

SERVE = "mkdir -p /www && echo {name} > /www/index.html && exec httpd -f -h /www"
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=4).read())"


@pytest.fixture(params=["docker", "podman"])
def peer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, str]]:
    """Return another engine, and the path of the network namespace that is its host."""
    if request.param == "docker":
        docker: Engine = request.getfixturevalue("docker_engine")
        yield docker, dockers_namespace(docker)
        return
    try:
        with peers.podman(tmp_path_factory.mktemp("podman")) as podman:
            target = podman.prefix[podman.prefix.index("--target") + 1]
            yield podman, f"/proc/{target}/ns/net"
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))


def dockers_namespace(docker: Engine) -> str:
    socket = docker.prefix[docker.prefix.index("--host") + 1]
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = os.fsdecode(pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()).split("\0")
            except OSError:
                continue
            if words[0] == "dockerd" and socket in words:
                return f"/proc/{entry}/ns/net"
    raise AssertionError("no dockerd to be seen")


@pytest.fixture
def beside(peer: tuple[Engine, str], ketch_engine: Engine, tmp_path: pathlib.Path,
           run_name: str) -> Iterator[Engine]:  # fmt: skip
    """Return a ketch of its own whose host network is the other engine's."""
    _, namespace = peer
    root = tmp_path / run_name
    prefix = ["nsenter", f"--net={namespace}", ketch_engine.prefix[0], "--root", f"{root}/root",
              "--state", f"{root}/state"]  # fmt: skip
    engine = Engine("ketch", prefix)
    engine.ok("import", str(images.busybox_archive()), "busybox")
    yield engine
    engine("rm", "-f", *engine("ps", "-aq").out.split())


def get(namespace: str, port: int) -> str:
    command = ["nsenter", f"--net={namespace}", sys.executable, "-c", GET,
               f"http://127.0.0.1:{port}/"]  # fmt: skip
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0 or time.monotonic() > deadline:
            return done.stdout.strip() or done.stderr[-200:]
        time.sleep(0.2)


@pytest.mark.root_engine("the other engine's bridges are in the network of root's")
def test_two_engines_work_side_by_side(peer: tuple[Engine, str], beside: Engine) -> None:
    theirs, namespace = peer
    engines = {theirs.name: (theirs, 18081), "ketch": (beside, 18082)}
    for name, (engine, port) in engines.items():
        engine.ok("run", "-d", "--name", "side", "-p", f"{port}:80", "busybox", "sh", "-c",
                  SERVE.format(name=name))  # fmt: skip
    for name, (_, port) in engines.items():
        assert get(namespace, port) == f"b'{name}\\n'"
    gateway = beside.ok("inspect", "-f", "{{.NetworkSettings.Gateway}}", "side")
    for engine, _ in engines.values():
        other, port = next(one for one in engines.values() if one[0] is not engine)
        run = ("run", "--rm", "busybox", "wget", "-qO-", f"{gateway}:{port}")
        assert engine.ok(*run) == other.name
        taken = engine("run", "--rm", "-p", f"{port}:80", "busybox", "true")
        assert taken.status != 0
        assert "address already in use" in taken.err
    # To our containers nobody comes unasked, from theirs neither.
    address = beside.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "side")
    reach = ("exec", "side", "sh", "-c", f"nc -w 1 {address} 80 < /dev/null && echo reached")
    assert "reached" not in theirs(*reach).out
    beside.ok("rm", "-f", "side")
    assert get(namespace, 18081) == f"b'{theirs.name}\\n'"
    theirs.ok("kill", "side")  # podman would wait for its end by itself
    theirs.ok("rm", "-f", "side")


# Every other subnet of the pools is taken; and a device's link leads nowhere, as where the kernel
# shows no memory.
CROWD = """
set -e
number=0
for subnet in "$@"; do
    number=$((number + 1))
    ip link add "other$number" type bridge
    ip address add "$subnet" dev "other$number"
    ip link set "other$number" up
done
mkdir "$PLACE"; mount -t tmpfs dev "$PLACE"
for name in null zero full random urandom tty; do cp -a "/dev/$name" "$PLACE"; done
mkdir "$PLACE/pts" "$PLACE/shm"; mount --rbind /dev/pts "$PLACE/pts"
ln -s pts/ptmx "$PLACE/ptmx"; ln -s /proc/nothing "$PLACE/core"
mount --move "$PLACE" /dev
"""


@pytest.fixture
def crowded(
    ketch_engine: Engine, tmp_path: pathlib.Path, run_name: str
) -> Iterator[tuple[Engine, list[str]]]:
    """Return a ketch of its own on a host that others crowd, and the subnets that are left."""
    subnets = [str(one) for pool in ipam.DEFAULT_POOLS for one in pool.networks()]
    taken = [f"{one.network_address + 1}/{one.prefixlen}" for one in map(ip_network, subnets[::2])]
    root = tmp_path / run_name
    root.mkdir()
    with peers.namespaces(root) as enter:
        prefix = [*enter, ketch_engine.prefix[0], "--root", f"{root}/root", "--state",
                  f"{root}/state"]  # fmt: skip
        place = {"PLACE": f"{root}/dev"}
        crowd = [*enter, "sh", "-c", CROWD, "sh", *taken]
        subprocess.run(crowd, check=True, env={**os.environ, **place})
        engine = Engine("ketch", prefix)
        engine.ok("import", str(images.busybox_archive()), "busybox")
        yield engine, subnets[1::2]
        engine.ok("system", "reset", "--force")


def test_a_host_that_others_crowd(crowded: tuple[Engine, list[str]]) -> None:
    ketch, left = crowded
    form = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
    for number in range(1, len(left)):
        ketch.ok("network", "create", f"net{number}")
    out = ketch.ok("run", "--rm", "busybox", "ip", "-4", "address", "show", "eth0")
    names = ["bridge", *(f"net{number}" for number in range(1, len(left)))]
    assert sorted(ketch.ok("network", "inspect", "-f", form, *names).split()) == sorted(left)
    own = ip_network(ketch.ok("network", "inspect", "-f", form, "bridge"))
    assert ip_interface(out.split("inet ")[1].split()[0]).network == own
    result = ketch("network", "create", "more")
    assert result.status == 1
    assert "every subnet of the address pools is in use" in result.err
    shown = ketch.ok("run", "--rm", "--privileged", "busybox", "ls", "/dev").split()
    assert {"null", "zero"} <= set(shown)
    assert "core" not in shown
