"""Routes of a container's files: archives in and out, changes, export, commit."""

import base64
import json
import os
from typing import TYPE_CHECKING

from ketch.api.flows import Inlet, Outlet
from ketch.engine.files import committing, files
from ketch.errors import InvalidArgumentError
from ketch.spec.container import Config
from ketch.spec.timestamps import rfc3339

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.files.files import PathStat

TAR = "application/x-tar"
_RAW = "application/octet-stream"


def _path(call: "Call") -> str:
    path = call.text("path")
    if not path:
        raise InvalidArgumentError("bad parameter: path cannot be empty")
    return path


def _stat_header(found: "PathStat") -> dict[str, str]:
    """What is at a path, as a header tells it."""
    document = {
        "name": found.name,
        "size": found.status.st_size,
        "mode": found.go_mode,
        "mtime": rfc3339(found.status.st_mtime_ns),
        "linkTarget": found.link_target,
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    encoded = base64.b64encode(text.encode("utf-8", "surrogateescape"))
    return {"X-Docker-Container-Path-Stat": encoded.decode()}


async def stat(call: "Call") -> None:
    """Answer ``HEAD /containers/{id}/archive``."""
    found = await call.run_slowly(files.stat_path, call["id"], _path(call))
    await call.reply(200, headers=_stat_header(found))


async def read(call: "Call") -> None:
    """Answer ``GET /containers/{id}/archive``."""
    path = _path(call)
    outlet = Outlet(call, TAR)

    def copy(engine: "Engine") -> None:
        with files.reading(engine, call["id"], path) as (found, pieces):
            outlet.headers = _stat_header(found)
            for piece in pieces:
                outlet.write(piece)

    await call.transfer(copy)
    await outlet.end()


async def write(call: "Call") -> None:
    """Answer ``PUT /containers/{id}/archive``."""
    path, inlet = _path(call), Inlet(call)
    keep_kinds, chown = call.flag("noOverwriteDirNonDir"), call.flag("copyUIDGID")

    def copy(engine: "Engine") -> None:
        files.write_archive(engine, call["id"], path, inlet, keep_kinds=keep_kinds, chown=chown)

    await call.transfer(copy)
    await call.reply(200)


async def export(call: "Call") -> None:
    """Answer ``GET /containers/{id}/export``."""
    outlet = Outlet(call, _RAW)

    def copy(engine: "Engine") -> None:
        with files.exported(engine, call["id"]) as pieces:
            for piece in pieces:
                outlet.write(piece)

    await call.transfer(copy)
    await outlet.end()


async def changes(call: "Call") -> None:
    """Answer ``GET /containers/{id}/changes``."""
    await call.reply(200, await call.run_slowly(_changes, call["id"]) or None)


def _changes(engine: "Engine", reference: str) -> "list[dict[str, Any]]":
    return [
        {"Path": f"/{os.fsdecode(change.path)}", "Kind": change.kind}
        for change in files.changes(engine, reference)
    ]


async def commit(call: "Call") -> None:
    """Answer ``POST /commit``."""
    if not call.text("container"):
        raise InvalidArgumentError("invalid container name or ID: value is empty")
    config = await call.document(Config)
    repository, tag = call.text("repo"), call.text("tag")
    name = f"{repository}:{tag}" if repository and tag else repository

    def make(engine: "Engine") -> str:
        return committing.commit(
            engine, call.text("container"), name, config=config or None,
            changes=[line for text in call.texts("changes") for line in text.split("\n") if line],
            author=call.text("author"), message=call.text("comment"),
            pause=call.flag("pause", default=True),
        )  # fmt: skip

    await call.reply(201, {"Id": await call.run_slowly(make)})


ROUTES: "Routes" = (
    ("HEAD", "/containers/{id*}/archive", stat),
    ("GET", "/containers/{id*}/archive", read),
    ("PUT", "/containers/{id*}/archive", write),
    ("GET", "/containers/{id*}/export", export),
    ("GET", "/containers/{id*}/changes", changes),
    ("POST", "/commit", commit),
)
