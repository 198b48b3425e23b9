"""Routes of checkpoints, which a process of one thread makes, as criu needs it: not the server."""

from typing import TYPE_CHECKING, TypedDict

from ketch.api import sessions
from ketch.engine.containers import checkpoints
from ketch.engine.requests import wire

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine


class CheckpointCreate(TypedDict, total=False):
    """What is to be saved where, and whether the container ends with that."""

    CheckpointID: str
    CheckpointDir: str
    Exit: bool


async def list_(call: "Call") -> None:
    """Answer ``GET /containers/{id}/checkpoints``."""
    names = await call.run(_list, call["id"], call.text("dir"))
    await call.reply(200, [{"Name": name} for name in names])


def _list(engine: "Engine", reference: str, directory: str) -> list[str]:
    return checkpoints.list_(engine.settings, engine.containers.find(reference), directory)


async def create(call: "Call") -> None:
    """Answer ``POST /containers/{id}/checkpoints``."""
    asked: CheckpointCreate = await call.document(CheckpointCreate)
    session = await sessions.ask_starter(
        call.application,
        {
            "action": "checkpoint", "container": call["id"],
            "checkpoint": asked.get("CheckpointID", ""),
            "checkpoint-dir": asked.get("CheckpointDir", ""),
            "leave-running": not asked.get("Exit", False),
        },
    )  # fmt: skip
    try:
        await session.expect(wire.EXIT)
    finally:
        session.close()
    await call.reply(201)


async def remove(call: "Call") -> None:
    """Answer ``DELETE /containers/{id}/checkpoints/{checkpoint}``."""
    await call.run_slowly(_remove, call["id"], call["checkpoint"], call.text("dir"))
    await call.reply(204)


def _remove(engine: "Engine", reference: str, name: str, directory: str) -> None:
    container = engine.containers.find(reference)
    checkpoints.remove(engine.settings, container, name, directory)


ROUTES: "Routes" = (
    ("GET", "/containers/{id*}/checkpoints", list_),
    ("POST", "/containers/{id*}/checkpoints", create),
    ("DELETE", "/containers/{id*}/checkpoints/{checkpoint}", remove),
)
