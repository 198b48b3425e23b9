"""Routes that start containers, or hold them."""

from typing import TYPE_CHECKING

from ketch.api import sessions
from ketch.api.containers_life import end_signal
from ketch.errors import InvalidArgumentError, NotModifiedError

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container


def _find(engine: "Engine", reference: str) -> "Container":
    return engine.containers.find(reference)


# Nothing that configures a container is as short: ``{}``, ``null``.
_NO_DOCUMENT_BYTES = 7


async def start(call: "Call") -> None:
    """Answer ``POST /containers/{id}/start``."""
    if call.exchange.body_bytes is None or call.exchange.body_bytes > _NO_DOCUMENT_BYTES:
        raise InvalidArgumentError(
            "starting container with non-empty request body was deprecated since API v1.22 and "
            "removed in v1.24"
        )
    container = await call.run(_find, call["id"])
    if container.is_active:
        raise NotModifiedError(f"container {call['id']} runs already")
    if call.text("detachKeys"):
        sessions.sequence(call.text("detachKeys"))
    await sessions.start(
        call.application,
        container,
        checkpoint=call.text("checkpoint"),
        directory=call.text("checkpoint-dir"),
    )
    await call.reply(204)


async def restart(call: "Call") -> None:
    """Answer ``POST /containers/{id}/restart``."""
    container = await call.run(_find, call["id"])
    await call.run_slowly(_end, container.id, call.number("t"), end_signal(call))
    await sessions.start(call.application, container)
    await call.run(_note, container.id)
    await call.reply(204)


async def pause(call: "Call") -> None:
    """Answer ``POST /containers/{id}/pause``."""
    await call.run_slowly(_pause, call["id"])
    await call.reply(204)


def _pause(engine: "Engine", reference: str) -> None:
    engine.containers.pause(reference)


async def unpause(call: "Call") -> None:
    """Answer ``POST /containers/{id}/unpause``."""
    await call.run_slowly(_unpause, call["id"])
    await call.reply(204)


def _unpause(engine: "Engine", reference: str) -> None:
    engine.containers.unpause(reference)


def _end(engine: "Engine", container_id: str, seconds: int | None, signal: str) -> None:
    # It is not to be removed in between, even if it is to be once it ends.
    engine.containers.stop(container_id, seconds, signal, on_end="keep")


def _note(engine: "Engine", container_id: str) -> None:
    engine.containers.note(container_id, "restart")


ROUTES: "Routes" = (
    ("POST", "/containers/{id*}/start", start),
    ("POST", "/containers/{id*}/restart", restart),
    ("POST", "/containers/{id*}/pause", pause),
    ("POST", "/containers/{id*}/unpause", unpause),
)
