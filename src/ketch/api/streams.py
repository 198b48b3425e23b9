"""Routes that carry a container's streams: attach, its websocket, and a terminal's size."""

from typing import TYPE_CHECKING

from ketch.api import hub, sessions
from ketch.api.logs import STREAMS, Form, content_type, has_terminal, show
from ketch.engine.requests import wire
from ketch.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.api.sessions import Stream
    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container


def _find(engine: "Engine", reference: str) -> "Container":
    return engine.containers.find(reference)


async def attach(call: "Call") -> None:
    """Answer ``POST /containers/{id}/attach``."""
    container, newest = await _attachable(call)
    plain = has_terminal(container)
    stream = await call.exchange.hijack(content_type(call, terminal=plain))
    await _attach(call, container, stream, newest, plain=plain)


async def attach_websocket(call: "Call") -> None:
    """Answer ``GET /containers/{id}/attach/ws``."""
    from ketch.api.websocket import accept  # noqa: PLC0415 - few ask, and it needs wsproto

    container, newest = await _attachable(call)
    stream = await accept(call.exchange, text=call.version < (1, 28))
    try:
        await _attach(call, container, stream, newest, plain=True)
    finally:
        await stream.close()


async def _attachable(call: "Call") -> "tuple[Container, int]":
    """Returns the container to attach to, and the newest event before it was looked at."""
    newest = await hub.of(call.application).newest()
    container = await call.run(_find, call["id"])
    if container.status == "paused":
        raise ConflictError(
            f"container {container.id} is paused, unpause the container before attach"
        )
    if container.status == "restarting":
        raise ConflictError(
            f"container {container.id} is restarting, wait until the container is running"
        )
    sessions.sequence(call.text("detachKeys"))
    # Before the head is sent: once a client has that, it starts the container at any moment.
    await call.run(_note_attached, container.id)
    return container, newest


async def _attach(
    call: "Call", container: "Container", stream: "Stream", newest: int, *, plain: bool
) -> None:
    # Before 1.42 a websocket had all of them, whatever was asked.
    every = call.path.endswith("/ws") and call.version < (1, 42)
    wanted = {name: every or call.flag(name) for name in ("stdin", "stdout", "stderr")}
    if call.flag("logs"):
        form = Form({name for name in STREAMS if wanted[name]}, plain=plain)
        async for data in show(call, container, form):
            await stream.write(data)
    if not call.flag("stream"):
        return
    attachment = sessions.Attachment(
        stream,
        plain=plain,
        wanted=wanted,
        keys=sessions.sequence(call.text("detachKeys")) if has_terminal(container) else b"",
    )
    if container.is_active:
        await attachment.attach(call.application, container.id)
        session: sessions.Session | None = attachment.session.result()
    else:
        session = await sessions.await_start(call.application, container, attachment, newest)
    if session is not None:
        await attachment.pump(session)


def _note_attached(engine: "Engine", container_id: str) -> None:
    engine.containers.note(container_id, "attach")


async def resize(call: "Call") -> None:
    """Answer ``POST /containers/{id}/resize``."""
    rows, columns = size(call)
    container = await call.run(_find, call["id"])
    if not container.is_active:
        raise ConflictError(f"container {container.id} is not running")
    session = await sessions.ask_monitor(
        call.application, container.id, {"action": "resize", "rows": rows, "columns": columns}
    )
    try:
        await session.expect(wire.EXIT)
    finally:
        session.close()
    await call.reply(200)


def size(call: "Call") -> tuple[int, int]:
    """Returns the height and width that a resize asks for.

    Raises:
        InvalidArgumentError: one is missing or no such number.
    """
    found = []
    for name in ("h", "w"):
        number = call.number(name)
        if number is None or not 0 <= number < 1 << 16:
            raise InvalidArgumentError(f'invalid value for {name}: "{call.text(name)}"')
        found.append(number)
    return found[0], found[1]


ROUTES: "Routes" = (
    ("POST", "/containers/{id*}/attach", attach),
    ("GET", "/containers/{id*}/attach/ws", attach_websocket),
    ("POST", "/containers/{id*}/resize", resize),
)
