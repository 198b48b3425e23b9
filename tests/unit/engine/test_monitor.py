"""A monitor's answers when something fails, and the exit status when cleaning up does."""

import os
import pathlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from ketch.engine import monitor, running, wire
from ketch.engine.client import Client
from ketch.errors import ConflictError, StartError, UnavailableError


def answers(
    action: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, bytes]]:
    """What a client hears when its request leads to this."""
    monkeypatch.setitem(monitor._ACTIONS, "test", action)
    ours, theirs = socket.socketpair()
    request = wire.encode({"action": "test", "state": "/run/somewhere"})
    theirs.sendall(wire.frame(wire.REQUEST, request))
    serving = threading.Thread(target=monitor.serve, args=[ours])
    serving.start()
    data = b""
    while piece := theirs.recv(65536):
        data += piece
    serving.join()
    theirs.close()
    return list(wire.Decoder().feed(data))


def raises(error: BaseException) -> Callable[..., None]:
    def action(*_arguments: object) -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConflictError("taken", "choose another"), (None, "taken", "choose another")),
        (StartError("none such", exit_status=127), (127, "none such", "")),
    ],
)
def test_an_error_on_purpose_is_told_and_not_noted(
    error: Exception,
    told: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ((kind, payload),) = answers(raises(error), monkeypatch)
    assert kind == wire.FAILED
    assert wire.decode_failure(payload) == told
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyError("x"), "internal error: KeyError('x')"),
        (AssertionError(), "internal error: AssertionError()"),
    ],
)
def test_an_error_by_mistake_is_told_in_a_line_and_noted_in_full(
    error: Exception,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ((kind, payload),) = answers(raises(error), monkeypatch)
    assert kind == wire.FAILED
    status, told, hint = wire.decode_failure(payload)
    assert (status, told) == (None, message)
    assert "/run/somewhere/errors.log" in hint
    assert "Traceback" not in hint
    assert "Traceback" in capsys.readouterr().err


def test_an_error_that_nobody_hears_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def action(client: Client, _fields: object) -> None:
        client.close()
        client.gone = True
        raise UnavailableError("the disk is gone")

    assert answers(action, monkeypatch) == []
    assert "the disk is gone" in capsys.readouterr().err


class Cgroup:
    """A cgroup that cannot be removed."""

    path = "/none"

    def oom_kills(self) -> int:
        return 0

    def processes(self) -> list[int]:
        return []

    def delete(self, **_options: object) -> None:
        raise OSError(16, "Device or resource busy", "/sys/fs/cgroup/none")


@pytest.fixture
def child() -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.returncode = 0  # reaped by what is tested


def test_the_exit_status_is_told_and_recorded_though_cleaning_up_fails(
    child: list["subprocess.Popen[bytes]"],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded: list[tuple[Any, ...]] = []

    def start(
        _engine: object, _container: object, streams: Any, held: ExitStack, *_more: object
    ) -> tuple[Cgroup, object]:
        process = subprocess.Popen(
            ["sh", "-c", "echo said; exit 42"],
            stdin=streams.given[0], stdout=streams.given[1], stderr=streams.given[2],
        )  # fmt: skip
        cgroup: Any = Cgroup()
        child.append(process)
        pidfd = os.pidfd_open(process.pid)
        held.callback(os.close, pidfd)
        held.callback(running._remove_cgroup, cgroup)
        init = SimpleNamespace(pid=process.pid, pidfd=pidfd, console=None, start=lambda: None)
        return cgroup, init

    monkeypatch.setattr(running, "_start", start)
    engine: Any = SimpleNamespace(
        settings=SimpleNamespace(container_directory=lambda _id: str(tmp_path)),
        containers=SimpleNamespace(
            mark_started=lambda *_: None,
            mark_exited=lambda *arguments, **_: recorded.append(arguments),
        ),
    )
    container: Any = SimpleNamespace(id="c0ffee", record={"Config": {}})
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    client = Client(ours)
    before = time.monotonic()
    assert running.run(engine, container, client, detached=False) == 42
    assert time.monotonic() - before < 10
    client.close()
    assert recorded == [("c0ffee", 42)]
    assert (wire.OUTPUT, b"said\n") in list(wire.Decoder().feed(theirs.recv(4096)))
    theirs.close()
    assert "Device or resource busy" in capsys.readouterr().err
