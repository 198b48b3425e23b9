"""Which handler answers which path. A topic's module is loaded by the first request for it."""

from importlib import import_module
from typing import TYPE_CHECKING

from ketch.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ketch.api.call import Call

    Handler = Callable[[Call], Awaitable[None]]
    # (method, path with places, handler); a place is {name}, and {name*} may hold slashes.
    Routes = Sequence[tuple[str, str, Handler]]

# First part of a path: the modules under ketch.api that know its routes.
_TOPICS: "dict[str, tuple[str, ...]]" = {
    "": (),
    "_ping": ("system",),
    "auth": ("registry",),
    "build": ("build",),
    "commit": ("containers_files",),
    "containers": (
        "containers",
        "containers_life",
        "starts",
        "streams",
        "logs",
        "observing",
        "execs",
        "containers_files",
        "checkpoints",
    ),
    "distribution": ("registry",),
    "events": ("events",),
    "exec": ("execs",),
    "grpc": ("buildkit.entrance",),
    "images": ("images", "transfer", "registry"),
    "info": ("system",),
    "networks": ("networks",),
    "session": ("buildkit.entrance",),
    "system": ("system",),
    "version": ("system",),
    "volumes": ("volumes",),
    **dict.fromkeys(
        ("configs", "nodes", "plugins", "secrets", "services", "swarm", "tasks"), ("swarm",)
    ),
}


def find(method: str, path: str) -> "tuple[Handler, dict[str, str]]":
    """Returns the handler for a path, and what the places in its route stand for.

    Raises:
        NotFoundError: there is none; for another method neither, as in Docker.
    """
    parts = path[1:].split("/")
    for topic in _TOPICS.get(parts[0], ()):
        routes: Routes = import_module(f"ketch.api.{topic}").ROUTES
        for verb, template, handler in routes:
            if verb == method or (verb == "GET" and method == "HEAD" and template == "/_ping"):
                found = _match(template[1:].split("/"), parts)
                if found is not None:
                    return handler, found
    raise NotFoundError("page not found")


def _match(template: "Sequence[str]", parts: "Sequence[str]") -> "dict[str, str] | None":
    found: dict[str, str] = {}
    spare = len(parts) - len(template)
    at = 0
    for place in template:
        taken = 1
        if place.endswith("*}"):
            taken += spare
            spare = 0
        if taken < 1 or at + taken > len(parts):
            return None
        text = "/".join(parts[at : at + taken])
        at += taken
        if not place.startswith("{"):
            if place != text:
                return None
        elif not text:
            return None
        else:
            found[place.strip("{*}")] = text
    return found if at == len(parts) else None
