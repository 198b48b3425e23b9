"""Routes about volumes."""

from typing import TYPE_CHECKING, TypedDict

from ketch.engine.volumes import listing
from ketch.errors import UnavailableError
from ketch.spec.template_functions import plain

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine


class VolumeCreate(TypedDict, total=False):
    """What a new volume is to be."""

    Name: str
    Driver: str
    DriverOpts: dict[str, str]
    Labels: dict[str, str]


async def list_(call: "Call") -> None:
    """Answer ``GET /volumes``."""
    found = await call.run(_list, call.filters_given())
    await call.reply(200, {"Volumes": found, "Warnings": None})


def _list(engine: "Engine", pairs: list[str]) -> "list[Any]":
    return [plain(listing.document(one)) for one in listing.select(engine.volumes, pairs)]


async def create(call: "Call") -> None:
    """Answer ``POST /volumes/create``."""
    asked: VolumeCreate = await call.document(VolumeCreate)
    await call.reply(201, await call.run_slowly(_create, asked))


def _create(engine: "Engine", asked: VolumeCreate) -> "Any":
    made = engine.volumes.create(
        asked.get("Name", ""), driver=asked.get("Driver", ""), options=asked.get("DriverOpts"),
        labels=asked.get("Labels"),
    )  # fmt: skip
    return plain(listing.document(made))


async def inspect(call: "Call") -> None:
    """Answer ``GET /volumes/{name}``."""
    await call.reply(200, await call.run(_inspect, call["name"]))


def _inspect(engine: "Engine", name: str) -> "Any":
    return plain(listing.document(engine.volumes.find(name)))


async def remove(call: "Call") -> None:
    """Answer ``DELETE /volumes/{name}``."""
    await call.run_slowly(_remove, call["name"], force=call.flag("force"))
    await call.reply(204)


def _remove(engine: "Engine", name: str, *, force: bool) -> None:
    engine.volumes.remove(name, force=force)


async def update(_call: "Call") -> None:
    """Answer ``PUT /volumes/{name}``, which is for volumes of a cluster."""
    raise UnavailableError("This node is not a swarm manager. Volumes of a cluster need one.")


async def prune(call: "Call") -> None:
    """Answer ``POST /volumes/prune``."""
    # Before 1.42 named volumes went as well.
    everything = call.version < (1, 42)
    names, freed_bytes = await call.run_slowly(_prune, call.filters_given(), everything=everything)
    await call.reply(200, {"VolumesDeleted": names, "SpaceReclaimed": freed_bytes})


def _prune(engine: "Engine", pairs: list[str], *, everything: bool) -> tuple[list[str], int]:
    pruned = listing.prune(engine, pairs, everything=everything)
    return pruned.names, pruned.freed_bytes


ROUTES: "Routes" = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("PUT", "/volumes/{name}", update),
    ("DELETE", "/volumes/{name}", remove),
)
