"""ketch and docker on one host: both work, and neither takes what the other has."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support import images, leftovers
from tests.support.commands import Engine

SERVE = "mkdir -p /www && echo {name} > /www/index.html && exec httpd -f -h /www"
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=4).read())"


@pytest.fixture
def namespace(docker_engine: Engine) -> str:
    """Return the path of the network namespace that is this docker's host."""
    socket = docker_engine.prefix[docker_engine.prefix.index("--host") + 1]
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = pathlib.Path(f"/proc/{entry}/cmdline").read_text().split("\0")
            except OSError:
                continue
            if words[0] == "dockerd" and socket in words:
                return f"/proc/{entry}/ns/net"
    raise AssertionError("no dockerd to be seen")


@pytest.fixture
def beside(namespace: str, ketch_engine: Engine, tmp_path: pathlib.Path,
           run_name: str) -> Iterator[Engine]:  # fmt: skip
    """Return a ketch of its own whose host network is docker's."""
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


def test_docker_and_ketch_work_side_by_side(
    docker_engine: Engine, beside: Engine, namespace: str
) -> None:
    engines = {"docker": (docker_engine, 18081), "ketch": (beside, 18082)}
    before = leftovers.links(namespace)
    for name, (engine, port) in engines.items():
        engine.ok("run", "-d", "--name", "side", "-p", f"{port}:80", "busybox", "sh", "-c",
                  SERVE.format(name=name))  # fmt: skip
    for name, (_, port) in engines.items():
        assert get(namespace, port) == f"b'{name}\\n'"
    for name, (engine, _) in engines.items():
        other, port = engines["ketch" if name == "docker" else "docker"]
        gateway = engine.ok("inspect", "-f", "{{.NetworkSettings.Gateway}}", "side")
        run = ("run", "--rm", "busybox", "wget", "-qO-", f"{gateway}:{port}")
        assert engine.ok(*run) == other.name
        taken = engine("run", "--rm", "-p", f"{port}:80", "busybox", "true")
        assert taken.status == 125
        assert "address already in use" in taken.err
    # To our containers nobody comes unasked, from docker's neither.
    address = beside.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "side")
    reach = ("exec", "side", "sh", "-c", f"nc -w 1 {address} 80 < /dev/null && echo reached")
    assert "reached" not in docker_engine(*reach).out
    beside.ok("rm", "-f", "side")
    assert get(namespace, 18081) == "b'docker\\n'"
    docker_engine.ok("rm", "-f", "side")
    assert {link for link in leftovers.links(namespace) - before if "veth" not in link} <= {
        link for link in leftovers.links(namespace) if link.startswith("ketch")
    }
