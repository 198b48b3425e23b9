"""Routes about the images that are there."""

from typing import TYPE_CHECKING, TypedDict

from ketch.api import versions
from ketch.api.documents import conform
from ketch.api.encoding import parse
from ketch.engine.images import inspection, listing
from ketch.engine.views import sizes
from ketch.errors import InvalidArgumentError
from ketch.spec import image as documents
from ketch.spec.timestamps import SECOND_NS, UNKNOWN_NS

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.images.removal import Events


class Platform(TypedDict, total=False):
    """What an image is to run on."""

    os: str
    architecture: str
    variant: str


async def list_(call: "Call") -> None:
    """Answer ``GET /images/json``."""
    pairs = call.filters_given()
    if call.version < (1, 25) and call.text("filter"):
        pairs.append(f"reference={call.text('filter')}")
    found = await call.run(
        _list, pairs, every=call.flag("all"),
        shared=call.flag("shared-size") and call.version >= (1, 42),
        manifests=call.flag("manifests") and call.version >= (1, 47),
    )  # fmt: skip
    await call.reply(200, [versions.listed_image(one, call.version) for one in found])


def _list(
    engine: "Engine", pairs: list[str], *, every: bool, shared: bool, manifests: bool
) -> "list[dict[str, Any]]":
    images = engine.images
    found = listing.select(images, pairs, every=every)
    told: list[dict[str, Any]] = [listing.summary(image, -1) for image in found]
    if shared:
        layers = sizes.Layers(images, images.list())
        for image, one in zip(found, told, strict=True):
            one["SharedSize"] = layers.shared_bytes(image)
    if manifests:
        users = images.users()
        for image, one in zip(found, told, strict=True):
            one["Manifests"] = [listing.manifest(images, image, users.get(image.id, ()))]
    return told


async def inspect(call: "Call") -> None:
    """Answer ``GET /images/{name}/json``."""
    platform = platform_asked(call, since=(1, 49))
    manifests = call.flag("manifests") and call.version >= (1, 48)
    if platform and manifests:
        raise InvalidArgumentError(
            "conflicting options: manifests and platform options cannot both be set"
        )
    found = await call.run(_inspect, call["name"], platform, manifests=manifests)
    await call.reply(200, versions.image(found, call.version))


def _inspect(engine: "Engine", name: str, platform: str, *, manifests: bool) -> "dict[str, Any]":
    images = engine.images
    image = images.resolve(name, platform)
    found: dict[str, Any] = inspection.document(images, image)
    if manifests:
        users = images.users().get(image.id, ())
        found["Manifests"] = [listing.manifest(images, image, users)]
    return found


async def history(call: "Call") -> None:
    """Answer ``GET /images/{name}/history``."""
    await call.reply(
        200, await call.run(_history, call["name"], platform_asked(call, since=(1, 48)))
    )


def _history(engine: "Engine", name: str, platform: str) -> "list[dict[str, Any]]":
    steps = inspection.history(engine.images, engine.images.resolve(name, platform))
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
    engine.images.tag(engine.images.resolve(source).id, target)


async def remove(call: "Call") -> None:
    """Answer ``DELETE /images/{name}``."""
    found = await call.run_slowly(
        _remove, call["name"], force=call.flag("force"), prune=not call.flag("noprune"),
        platforms=call.texts("platforms") if call.version >= (1, 50) else [],
    )  # fmt: skip
    await call.reply(200, told(found))


def _remove(
    engine: "Engine", name: str, *, platforms: list[str], force: bool, prune: bool
) -> "Events":
    if not name.strip():
        raise InvalidArgumentError("image name cannot be blank")
    image = engine.images.resolve(name)
    if platforms:
        wanted = [documents.parse_platform(_as_text(text)) for text in platforms]
        engine.images.check_platform(image, wanted)
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


def platform_asked(call: "Call", since: tuple[int, int]) -> str:
    """Returns the platform asked for: ``os/arch[/variant]``, or since 1.48 a JSON document.

    Args:
        call: the request.
        since: the version of the API from which on it could be asked for.

    Raises:
        InvalidArgumentError: the document is malformed.
    """
    return _as_text(call.text("platform")) if call.version >= since else ""


def _as_text(platform: str) -> str:
    if not platform.startswith("{"):
        return platform
    found = conform(parse(platform.encode()), Platform, "platform")
    parts = [found.get(name) for name in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if part)


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
