"""What leads a step's connections on to an agent."""

import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest

from ketch.build.steps.agents import Relay


@pytest.fixture
def agent(tmp_path: pathlib.Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen()
        listener.settimeout(20)
        yield listener


@pytest.fixture
def step(agent: socket.socket, tmp_path: pathlib.Path) -> Iterator[str]:
    path = str(tmp_path / "step")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    relay = Relay()
    relay.add(listener, agent.getsockname())
    relay.start()
    yield path
    relay.close()


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    return connection


def test_both_ends_say_more_than_fits_anywhere(agent: socket.socket, step: str) -> None:
    data = bytes(range(256)) * 20_000
    with connect(step) as asking, agent.accept()[0] as answering:
        threads = [threading.Thread(target=_say, args=(one, data)) for one in (asking, answering)]
        for thread in threads:
            thread.start()
        assert _everything(answering) == data
        assert _everything(asking) == data
        for thread in threads:
            thread.join()


def _say(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def _everything(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_each_connection_is_one_of_its_own_and_ends_with_the_other(
    agent: socket.socket, step: str
) -> None:
    with connect(step) as first, agent.accept()[0] as theirs, connect(step) as second:
        with agent.accept()[0] as other:
            second.sendall(b"second")
            assert other.recv(100) == b"second"
        assert second.recv(100) == b""
        first.sendall(b"first")
        assert theirs.recv(100) == b"first"
        first.close()
        assert theirs.recv(100) == b""


def test_more_connections_than_anybody_needs_are_closed(agent: socket.socket, step: str) -> None:
    agent.listen(100)
    held = [connect(step) for _ in range(40)]
    assert [one.recv(1) for one in held[35:]] == [b""] * 5
    for one in held:
        one.close()
    with connect(step) as again:
        again.sendall(b"x")


def test_an_agent_that_is_gone_is_an_end(agent: socket.socket, step: str) -> None:
    agent.close()
    with connect(step) as asking:
        assert asking.recv(100) == b""
