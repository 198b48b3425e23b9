"""Routes of building, which ketch does not do yet, and says so."""

from typing import TYPE_CHECKING

from ketch.errors import UnsupportedError

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes


async def _build(_call: "Call") -> None:
    raise UnsupportedError(
        "ketch does not build images yet: build with another tool, then pull or load the image"
    )


async def _prune(call: "Call") -> None:
    await call.reply(200, {"CachesDeleted": None, "SpaceReclaimed": 0})


ROUTES: "Routes" = (
    ("POST", "/build", _build),
    ("POST", "/build/prune", _prune),
)
