"""``ketch inspect``: everything about containers, images, networks and volumes."""

import sys

from ketch.cli import documents
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.usual_flags import DOCUMENT_FORMAT
from ketch.engine.engine import Engine
from ketch.engine.images import inspection as image_inspection
from ketch.engine.networks import settings as network_settings
from ketch.engine.views import inspection
from ketch.engine.volumes import listing
from ketch.errors import InvalidArgumentError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.settings import Settings
    from ketch.spec.template_functions import Struct

# In the order in which a name is tried.
TYPES = ("container", "image", "network", "volume")
_SWARM_TYPES = ("config", "node", "plugin", "secret", "service", "task")


def _type(text: str) -> str:
    known = sorted((*TYPES, *_SWARM_TYPES))
    if text and text not in known:
        listed = ", ".join(f'"{name}"' for name in known)
        raise InvalidArgumentError(f'unknown type: "{text}": must be one of {listed}')
    return text


INSPECT = Command(
    "ketch inspect [OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers, images, networks and volumes",
    (
        DOCUMENT_FORMAT,
        Flag("size", "s", "bool", "Display total file sizes if the type is container"),
        Flag("type", help="Only inspect objects of the given type"),
    ),
    minimum_arguments=1,
)
CONTAINER_INSPECT = Command(
    "ketch container inspect [OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    (DOCUMENT_FORMAT, Flag("size", "s", "bool", "Display total file sizes")),
    minimum_arguments=1,
)


def inspect(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch inspect``."""
    parsed = parse(INSPECT, arguments)
    kind, sized = _type(parsed.text("type")), parsed.enabled("size")
    lookups = _lookups(Engine(settings), sized=sized)

    def find(name: str) -> "Struct":
        if kind in _SWARM_TYPES:
            raise NotFoundError(f"This node is not a swarm manager, so there is no {kind} {name}")
        for which in [kind] if kind else lookups:
            try:
                found = lookups[which](name)
            except (NotFoundError, InvalidArgumentError):
                if kind:
                    raise
            else:
                if sized and which != "container":
                    print(f"WARNING: --size ignored for {which}", file=sys.stderr)
                return found
        raise NotFoundError(f"No such object: {name}")

    return documents.show(parsed.arguments, find, parsed.text("format"))


def inspect_containers(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch container inspect``."""
    parsed = parse(CONTAINER_INSPECT, arguments)
    find = _lookups(Engine(settings), sized=parsed.enabled("size"))["container"]
    return documents.show(parsed.arguments, find, parsed.text("format"))


def _lookups(engine: Engine, *, sized: bool) -> "dict[str, Callable[[str], Struct]]":
    return {
        "container": lambda name: inspection.document(
            engine, engine.containers.find(name), sized=sized
        ),
        "image": lambda name: image_inspection.document(engine.images, engine.images.resolve(name)),
        "network": lambda name: network_settings.network(engine, engine.networks.find(name)),
        "volume": lambda name: listing.document(engine.volumes.find(name)),
    }
