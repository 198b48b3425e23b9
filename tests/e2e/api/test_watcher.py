"""Clients that wait at a server that can watch no longer: they hear of that, or of what happens."""

import contextlib
import http.client
import json
import pathlib
import resource
import time
from collections.abc import Iterator

import pytest

from tests.support import images, leftovers, serving
from tests.support.commands import Engine

pytestmark = pytest.mark.ketch_only("a server of ketch's own is kept from looking")


@pytest.fixture
def apart(ketch: Engine, tmp_path: pathlib.Path, run_name: str) -> Iterator[Engine]:
    """Return an engine that nobody else has."""
    state = tmp_path / run_name  # by which its processes can be told
    state.mkdir(mode=0o700)
    places = ["--root", str(tmp_path / "root"), "--state", str(state)]
    engine = Engine("ketch", [ketch.prefix[0], *places])
    engine.ok("import", str(images.busybox_archive()), "busybox")
    yield engine
    engine("system", "reset", "--force")
    leftovers.stop_zygotes(run_name)


def sleeper(engine: Engine) -> str:
    return engine.ok("run", "-d", "--network", "none", "busybox", "sleep", "600")


def events_of(answer: http.client.HTTPResponse, name: str, *actions: str) -> list[str]:
    """Read events until there is one of each of some kinds; return the ends' statuses."""
    missing, statuses = set(actions), []
    while missing:
        event = json.loads(answer.readline())
        if event["Actor"]["ID"] == name:
            missing.discard(event["Action"])
            statuses += [event["Actor"]["Attributes"][key] for key in event["Actor"]["Attributes"]
                         if key == "exitCode"]  # fmt: skip
    return statuses


@pytest.mark.root_engine("nobody else sets a server's limits in its user namespace")
def test_a_server_without_descriptors(apart: Engine, tmp_path: pathlib.Path) -> None:
    """It says so, gives up no container that it cannot look at, and tells of what happens."""
    socket, log = tmp_path / "api.sock", tmp_path / "serve.log"
    with serving.served(apart.prefix, socket, log) as server, contextlib.ExitStack() as stack:
        one, early, late = [
            stack.enter_context(contextlib.closing(serving.Connection(socket))) for _ in range(3)
        ]
        # What is loaded for the first request of a kind takes descriptors too.
        short = apart.ok("run", "-d", "--network", "none", "busybox", "true")
        until = f"/events?since=0&until={int(time.time()) + 1}"
        assert one.ask("POST", f"/containers/{short}/wait")[0] == 200
        assert one.ask("GET", until)[0] == 200
        for waiting in (early, late):
            assert waiting.ask("GET", "/_ping")[0] == 200
        name = sleeper(apart)
        early.request("GET", "/events")
        listening = early.getresponse()
        usual = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
        status, answer = one.ask("POST", f"/containers/{name}/wait")
        assert status in {500, 503}, answer  # by whether its thread has a store already
        assert b"too many open files" in answer.lower()
        assert apart.ok("ps", "-q", "--no-trunc") == name
        apart.ok("rm", "-f", name)
        assert events_of(listening, name, "die", "destroy") == ["137"]
        early.close()
        # Who comes now finds nobody that looks: the kernel has no watch for him.
        deadline = time.monotonic() + 20
        while True:
            late.request("GET", "/events")
            listening = late.getresponse()
            if listening.status == 200:
                break
            assert b"too many open files" in listening.read().lower()
            assert time.monotonic() < deadline
        name = sleeper(apart)
        apart.ok("rm", "-f", name)
        assert events_of(listening, name, "start", "die", "destroy") == ["137"]
        assert '"events are looked for"' in log.read_text()
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, usual)
        name = sleeper(apart)
        one.request("POST", f"/containers/{name}/wait")
        waited = one.getresponse()
        apart.ok("rm", "-f", name)
        assert json.loads(waited.read()) == {"StatusCode": 137}


@pytest.mark.root_engine("a user namespace of the server's own has the limit")
@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_a_server_whose_user_may_watch_no_more(
    apart: Engine, tmp_path: pathlib.Path, limit: str
) -> None:
    """The clock looks in the kernel's place, and the log says why."""
    set_limit = f'echo 0 > /proc/sys/user/max_inotify_{limit}; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", set_limit, "sh", *apart.prefix]
    socket, log = tmp_path / "api.sock", tmp_path / "serve.log"
    with serving.served(command, socket, log), contextlib.ExitStack() as stack:
        waiting, listening, reading = [
            stack.enter_context(contextlib.closing(serving.Connection(socket))) for _ in range(3)
        ]
        name = apart.ok("run", "-d", "--network", "none", "busybox", "sh", "-c",
                        "trap 'echo heard' TERM; while :; do sleep 0.1; done")  # fmt: skip
        waiting.request("POST", f"/containers/{name}/wait")
        waited = waiting.getresponse()
        listening.request("GET", "/events")
        told = listening.getresponse()
        reading.request("GET", f"/containers/{name}/logs?follow=1&stdout=1")
        read = reading.getresponse()
        apart.ok("kill", "-s", "TERM", name)
        assert read.read(8 + len(b"heard\n"))[8:] == b"heard\n"
        apart.ok("rm", "-f", name)
        assert json.loads(waited.read()) == {"StatusCode": 137}
        assert events_of(told, name, "kill", "die", "destroy") == ["137"]
    assert log.read_text().count('"events are looked for"') == 1


def test_a_server_whose_database_goes(apart: Engine, tmp_path: pathlib.Path) -> None:
    socket, log = tmp_path / "api.sock", tmp_path / "serve.log"
    with serving.served(apart.prefix, socket, log) as server, contextlib.ExitStack() as stack:
        name = sleeper(apart)
        clients = [
            stack.enter_context(contextlib.closing(serving.Connection(socket))) for _ in range(2)
        ]
        clients[0].request("POST", f"/containers/{name}/wait")
        clients[1].request("GET", "/events")
        answers = [client.getresponse() for client in clients]
        assert [answer.status for answer in answers] == [200, 200]
        database = tmp_path / "root" / "ketch.db"
        database.rename(tmp_path / "ketch.db")
        for answer in answers:  # each ends; a client of Docker's says that nothing came
            assert answer.readline() == b""
        assert server.wait(10) == 0
        assert "taken away" in log.read_text()
        (tmp_path / "ketch.db").rename(database)
