"""``ketch compose``: Compose on a server that nobody has to start and that ends with it."""

import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest

from tests.support import peers
from tests.support.commands import Engine, finish
from tests.support.told import values_of

PROJECT = """
name: ketchtyped
services:
  web:
    image: busybox
    command: httpd -f -h /etc
    stop_grace_period: 0s
  ask:
    image: busybox
    command: sh -c "until wget -qO- http://web/hostname; do sleep 0.1; done; exec sleep 100"
    stop_grace_period: 0s
    depends_on: [web]
"""


@pytest.fixture
def compose(ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Engine]:
    configuration = tmp_path / "docker"
    configuration.mkdir()
    peers.give_plugins(configuration)
    if not (configuration / "cli-plugins" / "docker-compose").exists():
        pytest.skip("make peers has not been run: it has today's Compose")
    file = tmp_path / "compose.yaml"
    file.write_text(PROJECT, encoding="utf-8")
    environment = {"DOCKER_CONFIG": str(configuration), "DOCKER_HOST": "unix:///nobody/listens"}
    engine = Engine("compose", [*ketch.prefix, "compose", "-f", str(file)], environment)
    yield engine
    engine("down", "-v", "-t", "0")


def test_a_project_comes_and_goes_without_a_server(compose: Engine, ketch: Engine) -> None:
    assert compose("up", "-d").status == 0
    names = ketch.ok("ps", "--format", "{{.Names}}", "--filter", "name=ketchtyped")
    assert sorted(names.split()) == ["ketchtyped-ask-1", "ketchtyped-web-1"]
    host = ketch.ok("exec", "ketchtyped-web-1", "hostname")
    deadline = time.monotonic() + 20
    while host not in compose.ok("logs", "ask"):
        assert time.monotonic() < deadline, compose.ok("logs")
        time.sleep(0.1)
    assert _sockets(ketch) == []
    assert compose("exec", "web", "sh", "-c", "exit 7").status == 7
    assert compose("no-such-command").status not in {0, 125}
    compose.ok("down")
    assert ketch.ok("ps", "-aq", "--filter", "name=ketchtyped") == ""


def test_keys_at_the_terminal_are_composes(compose: Engine, ketch: Engine) -> None:
    terminal = compose.terminal("up", "web")
    terminal.expect("web-1")
    deadline = time.monotonic() + 20
    while not ketch.ok("ps", "-q", "--filter", "name=ketchtyped-web-1"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    terminal.sendintr()
    status = finish(terminal)
    # Compose 2.26 panics at times when it has stopped all, whoever serves it; 2.27 does not.
    panicked = "close of closed channel" in (terminal.before or "")
    assert status in {0, 130} or panicked, terminal.before
    assert ketch.ok("ps", "-q", "--filter", "name=ketchtyped") == ""
    assert _sockets(ketch) == []


def test_a_killed_one_leaves_nothing_to_the_next(compose: Engine, ketch: Engine) -> None:
    running = compose.start("up", "web")
    deadline = time.monotonic() + 20
    while not ketch.ok("ps", "-q", "--filter", "name=ketchtyped-web-1"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = _children(running.pid)
    running.kill()
    running.communicate()
    for pid in children:  # Compose itself, which nobody would have told
        _end(pid)
    compose.ok("down", "-t", "0")
    assert _sockets(ketch) == []


def test_no_compose_says_where_it_is_to_be_had(ketch: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin").mkdir()
    lonely = dataclasses.replace(ketch, environment={
        "PATH": str(tmp_path / "bin"), "DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path),
    })  # fmt: skip
    if any(pathlib.Path(place, "docker-compose").exists() for place in (
        "/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
        "/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins",
    )):  # fmt: skip
        pytest.skip("Compose is installed on this machine as a plugin")
    result = lonely("compose", "up")
    assert (result.status, result.out) == (1, "")
    assert "Compose is not installed here" in result.err
    assert "docker-compose" in result.err


def _sockets(ketch: Engine) -> list[str]:
    state = pathlib.Path(ketch.prefix[ketch.prefix.index("--state") + 1])
    return [path.name for path in state.glob("compose-*")]


def _children(pid: int) -> list[int]:
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def _end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def test_what_the_server_does_for_a_project_is_told(compose: Engine, ketch: Engine) -> None:
    words = [*compose.prefix]
    words.insert(words.index("compose") + 1, "--explain=json")
    done = dataclasses.replace(compose, prefix=words)("up", "-d", "web")
    assert done.status == 0, done.err
    told = "\n".join(line for line in done.err.splitlines() if line.startswith("{"))
    assert values_of(told, "run Compose")["DOCKER_HOST"][0].startswith("unix://")
    network = ketch.ok("network", "inspect", "-f", "{{.Id}}", "ketchtyped_default")
    assert values_of(told, "record the network ketchtyped_default")["id"] == [network]
    assert values_of(told, "record the container")["name"] == ["ketchtyped-web-1"]
    assert values_of(told, "become /bin/httpd")["arguments"] == ["httpd -f -h /etc"]
    words[words.index("--explain=json")] = "--explain=commands"
    script = dataclasses.replace(compose, prefix=words)("version", "--short")
    assert "ketch serve -H unix://" in script.err
    assert "docker-compose" in script.err
    assert _sockets(ketch) == []


def test_options_behind_the_first_are_composes(compose: Engine) -> None:
    refused = compose("--explain", "version")
    assert refused.status not in {0, 125}
    assert "unknown flag: --explain" in refused.err
