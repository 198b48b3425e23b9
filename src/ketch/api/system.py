"""Routes about the engine as a whole."""

from typing import TYPE_CHECKING

from ketch.api import versions
from ketch.engine.views import information
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes

_NOT_KEPT = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


async def ping(call: "Call") -> None:
    """Answer ``/_ping``."""
    about = {"Builder-Version": "2", "Swarm": "inactive"}
    await call.reply(text="OK", headers={**_NOT_KEPT, **about})


async def version(call: "Call") -> None:
    """Answer ``/version``."""
    await call.reply(200, information.version())


async def info(call: "Call") -> None:
    """Answer ``/info``."""
    await call.reply(200, versions.info(await call.run(information.info), call.version))


async def disk_usage(call: "Call") -> None:
    """Answer ``GET /system/df``."""
    from ketch.build import disk_usage as usage  # noqa: PLC0415 - rarely asked, and much to load

    kinds = call.texts("type") if call.version >= (1, 42) else []
    kinds = kinds or list(usage.KINDS)
    unknown = [kind for kind in kinds if kind not in usage.KINDS]
    if unknown:
        raise InvalidArgumentError(f"unknown object type: {unknown[0]}")
    found = await call.run_slowly(usage.document, kinds)
    if call.version < (1, 42):
        found = {
            **found,
            "BuilderSize": sum(
                one["Size"] for one in found.get("BuildCache", ()) if not one["Shared"]
            ),
        }
    if "Images" in found:
        listed = [versions.listed_image(one, call.version) for one in found["Images"]]
        found = {**found, "Images": listed}
    if "Containers" in found:
        listed = [versions.listed_container(one, call.version) for one in found["Containers"]]
        found = {**found, "Containers": listed}
    await call.reply(200, found)


ROUTES: "Routes" = (
    ("GET", "/_ping", ping),
    ("GET", "/info", info),
    ("GET", "/system/df", disk_usage),
    ("GET", "/version", version),
)
