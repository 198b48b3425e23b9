"""Routes about the images that are there."""

from typing import TYPE_CHECKING

from ketch.engine.images import inspection, listing
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.spec.timestamps import SECOND_NS, UNKNOWN_NS

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.application import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.images.images import Image
    from ketch.engine.images.removal import Events


async def list_(call: "Call") -> None:
    """Answer ``GET /images/json``."""
    pairs = call.filters_given()
    await call.reply(200, await call.run(_list, pairs, every=call.flag("all")))


def _list(engine: "Engine", pairs: list[str], *, every: bool) -> "list[dict[str, Any]]":
    found = listing.select(engine.images, pairs, every=every)
    return [listing.summary(image, -1) for image in found]


def find(engine: "Engine", name: str) -> "Image":
    """Returns the image with this name or ID.

    Raises:
        NotFoundError: there is none; a name that cannot be one is none.
    """
    try:
        return engine.images.resolve(name)
    except InvalidArgumentError as error:
        raise NotFoundError(f"No such image: {name}") from error


async def inspect(call: "Call") -> None:
    """Answer ``GET /images/{name}/json``."""
    await call.reply(200, await call.run(_inspect, call["name"]))


def _inspect(engine: "Engine", name: str) -> "dict[str, Any]":
    return inspection.document(engine.images, find(engine, name))


async def history(call: "Call") -> None:
    """Answer ``GET /images/{name}/history``."""
    await call.reply(200, await call.run(_history, call["name"]))


def _history(engine: "Engine", name: str) -> "list[dict[str, Any]]":
    steps = inspection.history(engine.images, find(engine, name))
    return [
        {
            "Comment": step.comment,
            "Created": step.created_ns // SECOND_NS if step.created_ns > UNKNOWN_NS else 0,
            "CreatedBy": step.created_by,
            "Id": step.image_id,
            "Size": step.size_bytes,
            "Tags": step.tags or None,
        }
        for step in steps
    ]


async def tag(call: "Call") -> None:
    """Answer ``POST /images/{name}/tag``."""
    repository, name = call.text("repo"), call.text("tag")
    if not repository:
        raise InvalidArgumentError("repo is missing")
    target = f"{repository}:{name}" if name else repository
    await call.run(_tag, call["name"], target)
    await call.reply(201)


def _tag(engine: "Engine", source: str, target: str) -> None:
    engine.images.tag(find(engine, source).id, target)


async def remove(call: "Call") -> None:
    """Answer ``DELETE /images/{name}``."""
    found = await call.run_slowly(
        _remove, call["name"], force=call.flag("force"), prune=not call.flag("noprune")
    )
    await call.reply(200, told(found))


def _remove(engine: "Engine", name: str, *, force: bool, prune: bool) -> "Events":
    if not name.strip():
        raise InvalidArgumentError("image name cannot be blank")
    find(engine, name)
    return engine.images.remove(name, force=force, prune=prune)


def told(happened: "Events") -> list[dict[str, str]]:
    """Returns what happened to images as the API tells it (``ImageDeleteResponseItem``)."""
    return [{what: name} for what, name in happened]


async def prune(call: "Call") -> None:
    """Answer ``POST /images/prune``."""
    pairs = call.filters_given()
    happened, reclaimed_bytes = await call.run_slowly(_prune, pairs)
    await call.reply(
        200, {"ImagesDeleted": told(happened) or None, "SpaceReclaimed": reclaimed_bytes}
    )


def _prune(engine: "Engine", pairs: list[str]) -> "tuple[Events, int]":
    return listing.prune(engine.images, pairs)


def with_tag(name: str, tag: str) -> str:
    """Returns a name with a tag or digest that was given apart."""
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


ROUTES: "Routes" = (
    ("GET", "/images/json", list_),
    ("POST", "/images/prune", prune),
    ("GET", "/images/{name*}/json", inspect),
    ("GET", "/images/{name*}/history", history),
    ("POST", "/images/{name*}/tag", tag),
    ("DELETE", "/images/{name*}", remove),
)
