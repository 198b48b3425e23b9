"""Routes about the engine as a whole."""

from typing import TYPE_CHECKING

from ketch.engine import information

if TYPE_CHECKING:
    from ketch.api.application import Call
    from ketch.api.router import Routes

_NOT_KEPT = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


async def ping(call: "Call") -> None:
    """Answer ``/_ping``."""
    about = {"Builder-Version": "1", "Swarm": "inactive"}
    await call.reply(text="OK", headers={**_NOT_KEPT, **about})


async def version(call: "Call") -> None:
    """Answer ``/version``."""
    await call.reply(200, information.version())


async def info(call: "Call") -> None:
    """Answer ``/info``."""
    await call.reply(200, await call.run(information.info))


ROUTES: "Routes" = (
    ("GET", "/_ping", ping),
    ("GET", "/info", info),
    ("GET", "/version", version),
)
