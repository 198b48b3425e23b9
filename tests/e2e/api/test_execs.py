"""Exec sessions over the API: how their streams come, when they are resized, how long they last."""

import json
import pathlib
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import serving
from tests.support.commands import Engine

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
BOTH = ["sh", "-c", "echo out; echo err >&2"]


class Server:
    """A server of the API, and one container there that runs."""

    def __init__(self, path: pathlib.Path, container: str) -> None:
        self.path = path
        self.container = container

    def ask(self, method: str, target: str, document: object = None) -> tuple[int, Any]:
        body = None if document is None else json.dumps(document).encode()
        connection = serving.Connection(self.path)
        status, answer = connection.ask(method, target, body, Content_Type="application/json")
        return status, json.loads(answer) if answer else None

    def create(self, command: list[str], **config: object) -> str:
        status, answer = self.ask(
            "POST", f"/containers/{self.container}/exec", {"Cmd": command, **config}
        )
        assert status == 201, answer
        return str(answer["Id"])

    def streams(self, session: str, **asked: object) -> tuple[str, bytes]:
        """Start a session; returns what its streams are called, and all that comes on them."""
        body = json.dumps(asked).encode()
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.path))
            head = (
                f"POST /exec/{session}/start HTTP/1.1\r\nHost: x\r\n{UPGRADE}"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            found = b""
            while data := connection.recv(65536):
                found += data
        answer, _, content = found.partition(b"\r\n\r\n")
        kind = answer.lower().partition(b"content-type: ")[2].split(b"\r\n")[0]
        return kind.decode().rpartition(".")[2], content


@pytest.fixture(params=["served", "docker"])
def server(request: pytest.FixtureRequest, run_name: str) -> Iterator[Server]:
    """Return a server with a container that runs: ketch's, then docker's own."""
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    engine.ok("run", "-d", "--name", run_name, "busybox", "sleep", "1000")
    yield Server(pathlib.Path(engine.prefix[2].removeprefix("unix://")), run_name)
    engine("rm", "-f", run_name)


def framed(kind: int, data: bytes) -> bytes:
    return bytes((kind, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def payload(frames: bytes, kind: int) -> bytes:
    """What frames hold of one kind; fails where there are others."""
    found = b""
    while frames:
        assert frames[0] == kind
        length = int.from_bytes(frames[4:8], "big")
        found, frames = found + frames[8 : 8 + length], frames[8 + length :]
    return found


def test_the_start_says_whether_there_are_frames(server: Server) -> None:
    both = {"AttachStdout": True, "AttachStderr": True}
    terminal = [server.create(BOTH, Tty=True, **both) for _ in range(2)]
    pipes = [server.create(BOTH, **both) for _ in range(2)]
    assert server.streams(terminal[0], Tty=True)[1] == b"out\r\nerr\r\n"
    kind, content = server.streams(terminal[1], Tty=False)
    assert payload(content, 1) == b"out\r\nerr\r\n"
    assert server.streams(pipes[0], Tty=True)[1] == b"out\n"
    _, content = server.streams(pipes[1])
    assert sorted([content[:12], content[12:]]) == [framed(1, b"out\n"), framed(2, b"err\n")]
    assert kind in {"multiplexed-stream", "raw-stream"}  # the latter before 1.42


def test_only_the_streams_that_were_asked_for_come(server: Server) -> None:
    assert server.streams(server.create(BOTH, AttachStdout=True))[1] == framed(1, b"out\n")
    assert server.streams(server.create(BOTH, AttachStderr=True))[1] == framed(2, b"err\n")
    # Who wants none is not kept waiting, and the program goes on.
    session = server.create(["sleep", "1000"])
    assert server.streams(session)[1] == b""
    assert server.ask("GET", f"/exec/{session}/json")[1]["Running"]


def test_a_resize_waits_for_the_start(server: Server) -> None:
    script = "until [ \"$(stty size 2>/dev/null)\" = '12 34' ]; do sleep 0.05; done; echo resized"
    session = server.create(["sh", "-c", script], Tty=True, AttachStdout=True)
    told: list[int] = []

    def resize() -> None:
        told.append(server.ask("POST", f"/exec/{session}/resize?h=12&w=34")[0])

    early = threading.Thread(target=resize)
    early.start()
    time.sleep(0.3)
    assert not told
    assert server.streams(session, Tty=True)[1] == b"resized\r\n"
    early.join(15)
    assert told == [200]
    without = server.create(["sleep", "1000"])
    server.ask("POST", f"/exec/{without}/start", {"Detach": True})
    assert server.ask("POST", f"/exec/{without}/resize?h=12&w=34")[0] == 200
    _eventually(lambda: server.ask("POST", f"/exec/{session}/resize?h=1&w=3")[0] == 404)


def test_a_session_can_be_asked_about_after_its_containers_end(
    server: Server, request: pytest.FixtureRequest
) -> None:
    ended, running, unstarted = (
        server.create(command) for command in (["sh", "-c", "exit 3"], ["sleep", "1000"], ["true"])
    )
    for session in (ended, running):
        assert server.ask("POST", f"/exec/{session}/start", {"Detach": True})[0] == 200
    _eventually(lambda: server.ask("GET", f"/exec/{ended}/json")[1]["ExitCode"] == 3)
    server.ask("POST", f"/containers/{server.container}/kill")
    _eventually(lambda: server.ask("GET", f"/exec/{running}/json")[1]["ExitCode"] == 137)
    assert server.ask("GET", f"/exec/{ended}/json")[1]["ExitCode"] == 3
    assert server.ask("GET", f"/exec/{unstarted}/json")[0] == 404
    status, answer = server.ask("POST", f"/exec/{running}/resize?h=1&w=3")
    assert "is not running" in answer["message"]
    assert status == 409
    server.ask("DELETE", f"/containers/{server.container}?force=1")
    assert server.ask("GET", f"/exec/{ended}/json")[0] == 404


@pytest.mark.parametrize("sizes", [[28, 97], [28, 97, 5]])
def test_the_size_given_to_create_is_the_terminals(
    served_engine: Engine, ketch: Engine, run_name: str, sizes: list[int]
) -> None:
    server = Server(pathlib.Path(served_engine.prefix[2].removeprefix("unix://")), run_name)
    document = {
        "Image": "busybox", "Cmd": ["stty", "size"], "Tty": True,
        "HostConfig": {"ConsoleSize": sizes},
    }  # fmt: skip
    assert server.ask("POST", f"/containers/create?name={run_name}", document)[0] == 201
    server.ask("POST", f"/containers/{run_name}/start")
    assert ketch.ok("wait", run_name) == "0"
    assert ketch.ok("logs", run_name).strip() == "28 97"
    ketch.ok("rm", run_name)
    document["HostConfig"] = {"ConsoleSize": [-1, 2]}
    assert server.ask("POST", f"/containers/create?name={run_name}", document)[0] == 400


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
