"""Routes that watch containers: their processes and what they use; and the one that renames."""

import asyncio
from typing import TYPE_CHECKING

from ketch.api.encoding import encode
from ketch.engine.containers import renaming
from ketch.engine.views import process_list, statistics
from ketch.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine

_SECONDS = 1.0


async def top(call: "Call") -> None:
    """Answer ``GET /containers/{id}/top``."""
    titles, rows = await call.run_slowly(process_list.top, call["id"], call.text("ps_args"))
    await call.reply(200, {"Titles": titles, "Processes": rows})


async def rename(call: "Call") -> None:
    """Answer ``POST /containers/{id}/rename``."""
    if not call.text("name"):
        raise InvalidArgumentError("Neither old nor new names may be empty")
    await call.run(_rename, call["id"], call.text("name"))
    await call.reply(204)


def _rename(engine: "Engine", reference: str, name: str) -> None:
    renaming.rename(engine.store, engine.containers, reference, name)


async def stats(call: "Call") -> None:
    """Answer ``GET /containers/{id}/stats``."""
    streaming = call.flag("stream", default=True)
    one_shot = call.flag("one-shot") and call.version >= (1, 41)
    if streaming and one_shot:
        raise InvalidArgumentError("cannot have stream=true and one-shot=true")
    sampler = statistics.Sampler(call.application.settings)
    document = await call.run(_sample, sampler, call["id"])
    if not streaming:
        if not one_shot:
            await call.while_there(asyncio.sleep(_SECONDS))
            document = await call.run(_sample, sampler, call["id"])
        await call.reply(200, document)
        return
    await call.exchange.begin("application/json")
    await call.exchange.write(encode(document))
    await call.while_there(_send(call, sampler, document["id"]))
    await call.exchange.end()


async def _send(call: "Call", sampler: statistics.Sampler, container_id: str) -> None:
    """Send samples, one a second, until the container or the client has gone."""
    while True:
        await asyncio.sleep(_SECONDS)
        try:
            document = await call.run(_sample, sampler, container_id)
        except NotFoundError:
            return
        await call.exchange.write(encode(document))


def _sample(engine: "Engine", sampler: statistics.Sampler, reference: str) -> "dict[str, Any]":
    return sampler.sample(engine.containers.find(reference))


ROUTES: "Routes" = (
    ("GET", "/containers/{id*}/top", top),
    ("GET", "/containers/{id*}/stats", stats),
    ("POST", "/containers/{id*}/rename", rename),
)
