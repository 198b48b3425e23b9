"""Routes that make containers and tell of them."""

from typing import TYPE_CHECKING

from ketch.api import versions
from ketch.engine import host, pruning
from ketch.engine.containers import creation, updating
from ketch.engine.records import rows
from ketch.engine.views import inspection, listing, sizes
from ketch.errors import (
    DriverNotFoundError,
    ImageNotFoundError,
    InvalidArgumentError,
    NotFoundError,
)
from ketch.spec import container as vocabulary
from ketch.spec.template_functions import plain

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.api.versions import Version
    from ketch.engine.engine import Engine
    from ketch.spec.container import Request
    from ketch.spec.filters import Filters


async def list_(call: "Call") -> None:
    """Answer ``GET /containers/json``."""
    chosen = call.filters(listing.FILTERS)
    found = await call.run(
        _list,
        chosen,
        everything=call.flag("all"),
        last=call.number("limit") or 0,
        sized=call.flag("size"),
    )
    await call.reply(200, [versions.listed_container(one, call.version) for one in found])


def _list(
    engine: "Engine", chosen: "Filters", *, everything: bool, last: int, sized: bool
) -> "list[dict[str, Any]]":
    found = listing.select(engine, chosen, everything=everything, last=max(last, 0))
    rows.read_records(found)
    documents = inspection.summaries(engine, found)
    if sized:
        for container, document in zip(found, documents, strict=True):
            document["SizeRw"], document["SizeRootFs"] = sizes.container(engine, container)
    return documents


async def create(call: "Call") -> None:
    """Answer ``POST /containers/create``."""
    request = request_from(await call.document(vocabulary.Creation), call.text("platform"))
    answer = await call.run_slowly(_create, request, call.text("name"), call.version)
    await call.reply(201, answer)


def request_from(asked: vocabulary.Creation, platform: str = "") -> "Request":
    """Returns the engine's request from the API's.

    Raises:
        InvalidArgumentError: nothing is said of the container itself.
    """
    config: dict[str, Any] = {**asked}
    request: dict[str, Any] = {"Config": config, "HostConfig": config.pop("HostConfig", {})}
    # Where it says whose file it is, that is the client's.
    request["HostConfig"].pop("ContainerIDFile", None)
    if networking := config.pop("NetworkingConfig", {}):
        request["NetworkingConfig"] = networking
    if not config:
        raise InvalidArgumentError("config cannot be empty in order to create a container")
    if platform:
        request["Platform"] = platform
    return request  # type: ignore[return-value]


def _create(
    engine: "Engine", request: "Request", name: str, version: "Version"
) -> "dict[str, Any]":
    unified = host.examine().unified_cgroups
    warnings = versions.create(request, version, unified_cgroups=unified)
    shallow = versions.binds_are_shallow(version)
    try:
        container = creation.create(engine, request, name=name, shallow_binds=shallow)
    except (ImageNotFoundError, DriverNotFoundError):
        raise
    except NotFoundError as error:
        # By 404 clients are told that the image is missing, which they then pull.
        raise InvalidArgumentError(error.message, error.hint) from error
    warnings += container.record.get("Warnings") or ()
    return {"Id": container.id, "Warnings": warnings}


async def inspect(call: "Call") -> None:
    """Answer ``GET /containers/{id}/json``."""
    sized = call.flag("size")
    run = call.run_slowly if sized else call.run
    found = await run(_inspect, call["id"], sized=sized)
    await call.reply(200, versions.container(found, call.version))


def _inspect(engine: "Engine", reference: str, *, sized: bool) -> "Any":
    return plain(inspection.document(engine, engine.containers.find(reference), sized=sized))


async def prune(call: "Call") -> None:
    """Answer ``POST /containers/prune``."""
    removed, freed_bytes = await call.run_slowly(_prune, call.filters_given())
    await call.reply(200, {"ContainersDeleted": removed or None, "SpaceReclaimed": freed_bytes})


def _prune(engine: "Engine", pairs: list[str]) -> tuple[list[str], int]:
    return pruning.containers(engine, pairs)


async def update(call: "Call") -> None:
    """Answer ``POST /containers/{id}/update``."""
    changes = versions.update(await call.document(vocabulary.HostConfig), call.version)
    warnings = await call.run_slowly(updating.update, call["id"], changes)
    await call.reply(200, {"Warnings": warnings or None})


ROUTES: "Routes" = (
    ("GET", "/containers/json", list_),
    ("POST", "/containers/create", create),
    ("POST", "/containers/prune", prune),
    ("GET", "/containers/{id*}/json", inspect),
    ("POST", "/containers/{id*}/update", update),
)
