"""A monitor's answers when something fails, and the exit status when cleaning up does."""

import pathlib
import socket
import threading
import time
from collections.abc import Callable

import pytest

from ketch.engine.containers.ledger import Keeper
from ketch.engine.engine import Engine
from ketch.engine.monitor import finishing, handover, monitor, requests
from ketch.engine.requests import wire
from ketch.engine.requests.client import Client
from ketch.engine.settings import Settings
from ketch.errors import ConflictError, StartError, UnavailableError


def answers(
    action: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, bytes]]:
    """What a client hears when its request leads to this."""
    monkeypatch.setitem(requests._ALONE, "test", action)
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
    assert wire.decode_failure(payload) == (*told, type(error).__name__)
    assert type(wire.error(payload)) is type(error)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "no space left on device"),
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
    status, told, hint, _ = wire.decode_failure(payload)
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


def test_the_exit_status_is_recorded_though_cleaning_up_fails(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(str(tmp_path / "root"), str(tmp_path / "state"))
    engine = Engine(settings, Keeper.parent())
    engine.containers.create_record(
        "c0ffee", name="web", image_id="", image_reference="busybox", record={"HostConfig": {}}
    )
    engine.containers.mark_created("c0ffee", keep=True)
    engine.containers.mark_started("c0ffee", 1, 1, time.time_ns())

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(16, "Device or resource busy", "/sys/fs/cgroup/none")

    monkeypatch.setattr("ketch.engine.containers.releasing.release", refuse)
    ours, theirs = handover.Channel.pair()
    fields: dict[str, wire.Value] = {
        **settings.fields, "container": "c0ffee", "cgroup": "/none",
    }  # fmt: skip
    finishing.finish(theirs, fields, 42, ran_ns=1, delay_ms=0, orphaned=False, namespace=-1)
    assert ours.hear() == ({"restart_ms": -1}, ())
    ours.close()
    theirs.close()
    recorded = engine.containers.read("c0ffee")
    assert (recorded.state, recorded.exit_status) == ("exited", 42)
    assert "Device or resource busy" in capsys.readouterr().err
    engine.store.close()
