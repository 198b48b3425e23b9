"""``ketch volume``: make, list, inspect and remove volumes."""

import re
import sys

from ketch.cli import client_configuration, usual_flags
from ketch.cli.caller import explained
from ketch.cli.documents import show
from ketch.cli.each import for_each
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.prompts import confirmed
from ketch.cli.tables import table
from ketch.engine.engine import Engine
from ketch.engine.volumes import listing
from ketch.errors import InvalidArgumentError
from ketch.spec import environment
from ketch.spec.digits import decimal
from ketch.spec.flag import EXPLAIN
from ketch.spec.sizes import size
from ketch.spec.template_functions import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings
    from ketch.engine.volumes.records import Volume

CREATE = Command(
    "ketch volume create [OPTIONS] [VOLUME]",
    "Create a volume",
    (
        Flag("driver", "d", help="Volume driver", default="local"),
        EXPLAIN,
        Flag("label", "", "list", "Set metadata on the volume", convert=environment.label),
        Flag("name", help="Volume name"),
        Flag("opt", "o", "list", "Set options of the driver (type=, device=, o=)", metavar="map"),
    ),
    maximum_arguments=1,
)
LS = Command(
    "ketch volume ls [OPTIONS]",
    "List volumes",
    (
        usual_flags.filters("dangling=true"),
        usual_flags.LIST_FORMAT,
        Flag("quiet", "q", "bool", "Only display volume names"),
    ),
    maximum_arguments=0,
)
INSPECT = Command(
    "ketch volume inspect [OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    (usual_flags.DOCUMENT_FORMAT,),
    minimum_arguments=1,
)
RM = Command(
    "ketch volume rm [OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    (EXPLAIN, Flag("force", "f", "bool", "Force the removal of one or more volumes")),
    minimum_arguments=1,
)
PRUNE = Command(
    "ketch volume prune [OPTIONS]",
    "Remove unused local volumes",
    (
        Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
        EXPLAIN,
        usual_flags.filters("label=<label>", ""),
        usual_flags.UNASKED,
    ),
    maximum_arguments=0,
)  # fmt: skip

_HEADS = {
    "Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS",
    "Links": "LINKS", "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE",
    "Size": "SIZE", "Status": "STATUS",
}  # fmt: skip
_NOT_TOLD = dict.fromkeys(("Availability", "Group", "Links", "Size", "Status"), "N/A")


def create(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch volume create``."""
    parsed = parse(CREATE, arguments)
    name = parsed.text("name")
    if parsed.arguments:
        if name:
            raise InvalidArgumentError(
                "conflicting options: cannot specify a volume-name through both --name and as a "
                "positional arg"
            )
        name = parsed.arguments[0]
    with explained(settings, parsed):
        volume = Engine(settings).volumes.create(
            name,
            driver=parsed.text("driver"),
            options=environment.mapping(parsed.items("opt")),
            labels=environment.mapping(parsed.items("label")),
        )
    print(volume.name)
    return 0


def ls(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch volume ls``."""
    parsed = parse(LS, arguments)
    found = listing.select(Engine(settings).volumes, parsed.items("filter"))
    found.sort(key=lambda volume: _natural(volume.name))
    template = client_configuration.list_format(
        "volumesFormat", parsed.text("format"), quiet=parsed.enabled("quiet")
    )
    if parsed.enabled("quiet") and template in {"", "table"}:
        sys.stdout.write("".join(f"{volume.name}\n" for volume in found))
    elif template in {"", "table"}:
        rows = [["local", volume.name] for volume in found]
        sys.stdout.write(table([[_HEADS["Driver"], _HEADS["Name"]], *rows]))
    else:
        from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates

        if template == formats.RAW:
            names = {"Name": "name", "Driver": "driver"}
            rows_of = [_row(volume) for volume in found]
            sys.stdout.write(formats.raw(rows_of, names, quiet=parsed.enabled("quiet")))
            return 0
        heads = Struct({**_HEADS, "Label": lambda name: name}, "volumeContext")
        sys.stdout.write(formats.render([_row(volume) for volume in found], template, heads))
    return 0


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """The order of names in which numbers count as such."""
    parts = re.split(r"([0-9]+)", name)
    return [(decimal(part) is None, decimal(part) or 0, part) for part in parts if part]


def _row(volume: "Volume") -> Struct:
    labels = ",".join(f"{name}={volume.labels[name]}" for name in sorted(volume.labels))
    fields = {
        **_NOT_TOLD, "Driver": "local", "Labels": labels, "Mountpoint": volume.mountpoint,
        "Name": volume.name, "Scope": "local",
    }  # fmt: skip
    label = {"Label": lambda name, of=volume: of.labels.get(name, "")}
    return Struct({**dict(sorted(fields.items())), **label}, "volumeContext")


def inspect(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch volume inspect``."""
    parsed = parse(INSPECT, arguments)
    volumes = Engine(settings).volumes
    return show(
        parsed.arguments,
        lambda name: listing.document(volumes.find(name)),
        parsed.text("format"),
    )


def rm(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch volume rm``."""
    parsed = parse(RM, arguments)
    volumes = Engine(settings).volumes

    def remove(name: str) -> str:
        volumes.remove(name, force=parsed.enabled("force"))
        return name

    with explained(settings, parsed):
        return for_each(parsed.arguments, remove)


def prune(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch volume prune``."""
    parsed = parse(PRUNE, arguments)
    everything, pairs = parsed.enabled("all"), parsed.items("filter")
    if everything and any(text.startswith("all=") for text in pairs):
        raise InvalidArgumentError(
            "conflicting options: cannot specify both --all and --filter all=1"
        )
    which = "all" if everything else "anonymous"
    warning = f"WARNING! This will remove {which} local volumes not used by at least one container."
    if not parsed.enabled("force") and not confirmed(warning):
        return 0
    with explained(settings, parsed):
        pruned = listing.prune(Engine(settings), pairs, everything=everything)
    if pruned.names:
        sys.stdout.write(
            "Deleted Volumes:\n" + "".join(f"{name}\n" for name in pruned.names) + "\n"
        )
    print(f"Total reclaimed space: {size(pruned.freed_bytes, 4)}")
    return 0
