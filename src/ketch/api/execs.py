"""Routes of exec sessions: more programs in running containers."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from ketch.api import sessions
from ketch.api.logs import content_type
from ketch.api.streams import size
from ketch.engine.requests import wire
from ketch.errors import ConflictError, InvalidArgumentError, KetchError, NotFoundError
from ketch.spec.container import ExecConfig, ExecStart

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.containers.execs import Exec
    from ketch.engine.engine import Engine


# Docker's: a client resizes as soon as it has asked for the start, and maybe before it is done.
_START_SECONDS = 10
_PAUSE_SECONDS = 0.02


async def create(call: "Call") -> None:
    """Answer ``POST /containers/{id}/exec``."""
    config: ExecConfig = await call.document(ExecConfig)
    if config.get("DetachKeys"):
        sessions.sequence(config["DetachKeys"])
    session = await call.run(_create, call["id"], config)
    await call.reply(201, {"Id": session.id})


def _create(engine: "Engine", reference: str, config: "ExecConfig") -> "Exec":
    return engine.execs.create(reference, config)


def _find(engine: "Engine", reference: str) -> "Exec":
    return engine.execs.find(reference)


async def start(call: "Call") -> None:
    """Answer ``POST /exec/{id}/start``."""
    body: ExecStart = await call.document(ExecStart)
    exec_ = await call.run(_find, call["id"])
    if exec_.is_started:
        raise ConflictError(f"Error: Exec command {exec_.id} has already run")
    await call.run(_check_container, exec_)
    detached = body.get("Detach", False)
    rows, columns = _console(body.get("ConsoleSize") or exec_.config.get("ConsoleSize"))
    fields: dict[str, wire.Value] = {
        "action": "exec-start", "exec": exec_.id, "detach": detached, "rows": rows,
        "columns": columns,
    }  # fmt: skip
    if detached:
        session = await sessions.ask_starter(call.application, fields)
        try:
            await session.expect(wire.STARTED)
        finally:
            session.close()
        await call.reply(200)
        return
    await _attached(call, exec_, fields, plain=bool(body.get("Tty")))


async def _attached(
    call: "Call", exec_: "Exec", fields: "dict[str, wire.Value]", *, plain: bool
) -> None:
    """Carry a session's streams, as they are or in frames as the start wants it."""
    terminal = bool(exec_.config.get("Tty"))
    keys = sessions.sequence(exec_.config.get("DetachKeys", "")) if terminal else b""
    # The head goes first, as dockerd's does: docker-py loses what comes together with it.
    stream = await call.exchange.hijack(content_type(call, terminal=plain))
    try:
        session = await sessions.ask_starter(call.application, fields)
        try:
            await session.expect(wire.STARTED)
        except BaseException:
            session.close()
            raise
    except KetchError as error:
        text = f"{_told(error)}\r\n".encode()
        await stream.write(text if plain else wire.frame(wire.OUTPUT, text))
        return
    wanted = {
        "stdin": bool(exec_.config.get("AttachStdin")),
        "stdout": bool(exec_.config.get("AttachStdout")),
        # Without frames nothing would tell it from the output.
        "stderr": bool(exec_.config.get("AttachStderr")) and not plain,
    }
    if not any(wanted.values()):
        session.close()
        return
    await sessions.Attachment(stream, plain=plain, wanted=wanted, keys=keys).pump(session)


def _told(error: KetchError) -> str:
    return f"OCI runtime exec failed: exec failed: {error.message}"


def _check_container(engine: "Engine", exec_: "Exec") -> None:
    container = engine.containers.find(exec_.container_id)
    if container.status == "paused":
        raise ConflictError(
            f"Container {container.id} is paused, unpause the container before exec"
        )
    if container.status != "running":
        raise ConflictError(f"Container {container.id} is not running")


def _console(given: object) -> tuple[int, int]:
    """Returns the height and width that were asked for, zeros where none were."""
    if given is None:
        return 0, 0
    fits = isinstance(given, list) and len(given) == 2
    if not fits or not all(type(one) is int and 0 <= one < 1 << 16 for one in given):  # type: ignore[attr-defined]
        raise InvalidArgumentError("invalid ConsoleSize: height and width are wanted")
    assert isinstance(given, list)
    return given[0], given[1]


async def inspect(call: "Call") -> None:
    """Answer ``GET /exec/{id}/json``."""
    await call.reply(200, await call.run(_inspect, call["id"]))


def _inspect(engine: "Engine", reference: str) -> "dict[str, Any]":
    return engine.execs.find(reference).document()


async def resize(call: "Call") -> None:
    """Answer ``POST /exec/{id}/resize``."""
    rows, columns = size(call)
    fields: dict[str, wire.Value] = {"action": "resize", "rows": rows, "columns": columns}
    deadline = time.monotonic() + _START_SECONDS
    while not await _resize(call, fields):
        if time.monotonic() > deadline:
            raise KetchError("timeout waiting for exec session ready")
        await asyncio.sleep(_PAUSE_SECONDS)
    await call.reply(200)


async def _resize(call: "Call", fields: "dict[str, wire.Value]") -> bool:
    """Tell a session's terminal its size; False where the session has not been started yet."""
    exec_ = await call.run(_find, call["id"])
    await call.run(_check_container, exec_)
    if not exec_.is_running:
        if exec_.is_started:
            raise NotFoundError(f"no such exec: {exec_.id} has ended")
        return False
    if not exec_.config.get("Tty"):
        return bool(exec_.pid)
    with contextlib.suppress(ConflictError):  # it does not listen yet
        session = await sessions.ask_exec(call.application, exec_, fields)
        try:
            await session.expect(wire.EXIT)
        finally:
            session.close()
        return True
    return False


ROUTES: "Routes" = (
    ("POST", "/containers/{id*}/exec", create),
    ("POST", "/exec/{id}/start", start),
    ("POST", "/exec/{id}/resize", resize),
    ("GET", "/exec/{id}/json", inspect),
)
