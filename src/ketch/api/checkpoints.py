"""Routes of checkpoints, of which there are none: the engine makes none yet, and says so."""

from typing import TYPE_CHECKING

from ketch.errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from ketch.api.application import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.records import Container


def _find(engine: "Engine", reference: str) -> "Container":
    return engine.containers.find(reference)


async def list_(call: "Call") -> None:
    """Answer ``GET /containers/{id}/checkpoints``."""
    await call.run(_find, call["id"])
    await call.reply(200, [])


async def create(call: "Call") -> None:
    """Answer ``POST /containers/{id}/checkpoints``."""
    container = await call.run(_find, call["id"])
    raise UnsupportedError(
        f"cannot checkpoint container {container.id}: ketch checkpoints bundles alone, by "
        "ketch-oci checkpoint"
    )


async def remove(call: "Call") -> None:
    """Answer ``DELETE /containers/{id}/checkpoints/{checkpoint}``."""
    await call.run(_find, call["id"])
    raise NotFoundError(
        f"checkpoint {call['checkpoint']} does not exist for container {call['id']}"
    )


ROUTES: "Routes" = (
    ("GET", "/containers/{id}/checkpoints", list_),
    ("POST", "/containers/{id}/checkpoints", create),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", remove),
)
