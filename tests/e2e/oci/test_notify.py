"""``$NOTIFY_SOCKET``: a program's word that it is ready reaches the runtime's supervisor."""

import json
import os
import pathlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.commands import Engine

Bundle = Callable[..., str]

pytestmark = pytest.mark.root

SENDER = """
import os, socket, time
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.connect(os.environ["NOTIFY_SOCKET"])
client.send(b"STATUS=beginning")
client.send(b"READY=1\\nSTATUS=there")
time.sleep(100)
"""


@pytest.fixture
def supervisor(tmp_path: pathlib.Path) -> Iterator[socket.socket]:
    """Return the socket of a supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"{tmp_path}/supervisor")
        server.settimeout(20)
        yield server


@pytest.fixture
def supervised(runtime: Engine, tmp_path: pathlib.Path) -> Engine:
    """Return each runtime as its supervisor runs it."""
    return Engine(runtime.name, runtime.prefix, {"NOTIFY_SOCKET": f"{tmp_path}/supervisor"})


@pytest.fixture
def ready(bundle: Bundle, tmp_path: pathlib.Path) -> str:
    """Return a bundle whose program, the host's Python, says that it is ready, and runs on."""
    root = tmp_path / "root"
    for name in ("usr", "proc", "dev", "run"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")

    def change(config: Any) -> None:
        config["root"] = {"path": str(root)}
        config["mounts"] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ]
        config["process"]["user"] = {"uid": 1000, "gid": 1000}

    return bundle("/usr/bin/python3", "-Ic", SENDER, change=change)


def said(server: socket.socket, count: int) -> list[str]:
    """The first messages that a supervisor gets; a barrier, which runc has since 1.2, apart."""
    messages: list[str] = []
    while len(messages) < count:
        data, descriptors, _, _ = socket.recv_fds(server, 4096, 4)
        messages.append(data.decode().strip())
        for descriptor in descriptors:
            os.close(descriptor)
    return messages


def pass_barrier(engine: Engine, server: socket.socket) -> None:
    """Take ketch's barrier, without which it waits for the supervisor to have read all."""
    if engine.name == "ketch-oci":
        assert said(server, 1) == ["BARRIER=1"]


def start(engine: Engine, *words: str) -> "subprocess.Popen[bytes]":
    null = subprocess.DEVNULL
    return engine.start(*words, stdin=null, stdout=null, stderr=null)


def test_detached_it_waits_for_the_word(
    supervised: Engine, ready: str, supervisor: socket.socket
) -> None:
    process = start(supervised, "run", "--detach", "-b", ready, "c")
    messages = said(supervisor, 2)
    pass_barrier(supervised, supervisor)
    assert process.wait(20) == 0
    pid = json.loads(supervised.ok("state", "c"))["pid"]
    assert messages == ["READY=1", f"MAINPID={pid}"]


def test_start_waits_for_the_word(
    supervised: Engine, ready: str, supervisor: socket.socket
) -> None:
    assert start(supervised, "create", "-b", ready, "c").wait(20) == 0
    process = start(supervised, "start", "c")
    assert said(supervisor, 2)[0] == "READY=1"
    pass_barrier(supervised, supervisor)
    assert process.wait(20) == 0
    # The lock is free while it waits, and nothing is left of the socket afterwards.
    supervised.ok("delete", "--force", "c")


def test_in_the_foreground_it_is_the_main_process_itself(
    supervised: Engine, ready: str, supervisor: socket.socket
) -> None:
    process = start(supervised, "run", "-b", ready, "c")
    assert said(supervisor, 1) == ["READY=1"]
    pass_barrier(supervised, supervisor)
    supervised.ok("kill", "c", "KILL")
    assert process.wait(20) == 137


def test_a_program_that_ends_without_a_word(
    supervised: Engine, bundle: Bundle, supervisor: socket.socket
) -> None:
    if supervised.name == "runc":
        pytest.skip("it waits for ever, as long as nobody reaps the program")
    assert start(supervised, "run", "--detach", "-b", bundle("true"), "c").wait(20) == 0
