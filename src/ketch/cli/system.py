"""``ketch system df`` and ``ketch system prune``, and ``ketch container prune``."""

import sys
import time

from ketch.cli import image_list, usual_flags
from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.prompts import confirmed
from ketch.cli.ps import columns as container_columns
from ketch.cli.tables import table
from ketch.engine import pruning
from ketch.engine.engine import Engine
from ketch.engine.images import listing as image_listing
from ketch.engine.networks import listing as network_listing
from ketch.engine.views import sizes
from ketch.engine.volumes import listing as volume_listing
from ketch.errors import InvalidArgumentError
from ketch.spec import timestamps
from ketch.spec.flag import EXPLAIN
from ketch.spec.sizes import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ketch.engine.settings import Settings

DF = Command(
    "ketch system df [OPTIONS]",
    "Show disk usage",
    (
        usual_flags.LIST_FORMAT,
        Flag("verbose", "v", "bool", "Show detailed information on space usage"),
    ),
    maximum_arguments=0,
)
PRUNE = Command(
    "ketch system prune [OPTIONS]",
    "Remove unused data",
    (
        Flag("all", "a", "bool", "Remove all unused images not just dangling ones"),
        EXPLAIN,
        usual_flags.filters("label=<key>=<value>", ""),
        usual_flags.UNASKED,
        Flag("volumes", "", "bool", "Prune anonymous volumes"),
    ),
    maximum_arguments=0,
)
CONTAINER_PRUNE = Command(
    "ketch container prune [OPTIONS]",
    "Remove all stopped containers",
    (EXPLAIN, usual_flags.filters("until=<timestamp>", ""), usual_flags.UNASKED),
    maximum_arguments=0,
)

_HEADS = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}  # fmt: skip
_ACTIVE_STATES = {"running", "paused", "restarting"}


def df(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch system df``."""
    from ketch.build import disk_usage  # noqa: PLC0415 - the rooms of builds are much to load

    parsed = parse(DF, arguments)
    template = parsed.text("format")
    engine = Engine(settings)
    if parsed.enabled("verbose"):
        if template not in {"", "table", "json"}:
            raise InvalidArgumentError("the verbose and the format options conflict")
        sys.stdout.write(_verbose(engine, disk_usage.document(engine), template))
        return 0
    rows = _rows(disk_usage.document(engine), sizes.in_use(engine))
    if template in {"", "table"}:
        text = table([[*_HEADS.values()], *([row[name] for name in _HEADS] for row in rows)])
    else:
        from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
        from ketch.spec.template_functions import Struct  # noqa: PLC0415

        structs = [Struct(dict(sorted(row.items())), "diskUsage") for row in rows]
        if template == formats.RAW:
            text = formats.raw(rows, {name: head.lower() for name, head in _HEADS.items()},
                               quiet=False)  # fmt: skip
        else:
            text = formats.render(structs, template, Struct(dict(_HEADS), "diskUsage"))
    sys.stdout.write(text)
    return 0


def _rows(usage: "dict[str, Any]", needed_bytes: int) -> list[dict[str, str]]:
    """Returns a line for each kind of thing.

    Args:
        usage: what there is.
        needed_bytes: how much of what images take their containers need.
    """
    images, containers, volumes = usage["Images"], usage["Containers"], usage["Volumes"]
    layers = usage["LayersSize"]
    active = [one for one in containers if one["State"] in _ACTIVE_STATES]
    data = [volume["UsageData"] for volume in volumes]
    # What images have as well is counted with these.
    cache = usage["BuildCache"]
    own = [one for one in cache if not one["Shared"]]
    return [
        _row("Images", len(images), sum(bool(image["Containers"]) for image in images), layers,
             layers - needed_bytes),
        _row("Containers", len(containers), len(active), _sum(containers, "SizeRw"),
             _sum(containers, "SizeRw") - _sum(active, "SizeRw")),
        _row("Local Volumes", len(volumes), sum(one["RefCount"] > 0 for one in data),
             _sum(data, "Size"), _sum([one for one in data if one["RefCount"] == 0], "Size")),
        _row("Build Cache", len(cache), sum(bool(one["InUse"]) for one in cache),
             _sum(own, "Size"), _sum([one for one in own if not one["InUse"]], "Size"),
             percent=False),
    ]  # fmt: skip


def _sum(things: "Iterable[dict[str, Any]]", field: str) -> int:
    return sum(max(0, thing[field]) for thing in things)


def _row(
    kind: str, count: int, active: int, total: int, free: int, *, percent: bool = True
) -> dict[str, str]:
    share = f" ({free * 100 // total}%)" if total > 0 and percent else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": size(total, 4),
        "Reclaimable": f"{size(free, 4)}{share}",
    }


def _verbose(engine: Engine, usage: "dict[str, Any]", template: str) -> str:
    """Everything, one by one."""
    now_ns = time.time_ns()
    images = []
    for image, told in zip(engine.images.list(), usage["Images"], strict=False):
        shared = told["SharedSize"]
        row = image_list.fields(image, now_ns, whole=False, digests=False)[0]  # one name is enough
        row |= {
            "SharedSize": size(shared, 4),
            "UniqueSize": size(image.size_bytes - shared, 4),
            "Containers": str(told["Containers"]),
        }
        images.append(row)
    told = container_columns(engine, whole=False, sized=False)
    told["Size"] = lambda container: size(sizes.container(engine, container)[0])
    containers = [
        {name: of(container) for name, of in told.items()}
        for container in engine.containers.list(all=True)
    ]
    volumes = [
        {
            "Name": volume["Name"],
            "Links": str(volume["UsageData"]["RefCount"]),
            "Size": size(volume["UsageData"]["Size"], 4),
        }
        for volume in usage["Volumes"]
    ]
    cached = [
        {
            "ID": f"{one['ID'][:12]}{'*' if one['InUse'] else ''}",
            "CacheType": one["Type"],
            "Size": size(one["Size"]),
            "CreatedSince": _since(one["CreatedAt"], now_ns),
            "LastUsedSince": _since(one["LastUsedAt"], now_ns),
            "UsageCount": str(one["UsageCount"]),
            "Shared": str(one["Shared"]).lower(),
        }
        for one in sorted(usage["BuildCache"], key=lambda one: (one["LastUsedAt"] or "", one["ID"]))
    ]
    own = [one for one in usage["BuildCache"] if not one["Shared"]]
    if template == "json":
        from ketch.spec.template_functions import to_json  # noqa: PLC0415

        found = {
            "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cached,
        }  # fmt: skip
        return f"{to_json(found)}\n"
    return "\n".join(
        (
            "Images space usage:\n",
            _columns(images, {
                "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID",
                "CreatedSince": "CREATED", "Size": "SIZE", "SharedSize": "SHARED SIZE",
                "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
            }),
            "Containers space usage:\n",
            _columns(containers, {
                "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND",
                "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE", "RunningFor": "CREATED",
                "Status": "STATUS", "Names": "NAMES",
            }),
            "Local Volumes space usage:\n",
            _columns(volumes, {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}),
            f"Build cache usage: {size(_sum(own, 'Size'), 4)}\n",
            _columns(cached, {
                "ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE",
                "CreatedSince": "CREATED", "LastUsedSince": "LAST USED", "UsageCount": "USAGE",
                "Shared": "SHARED",
            }),
        )
    )  # fmt: skip


def _since(moment: str | None, now_ns: int) -> str:
    return f"{timestamps.spoken(now_ns - timestamps.moment(moment, now_ns))} ago" if moment else ""


def _columns(rows: list[dict[str, str]], heads: dict[str, str]) -> str:
    return table([[*heads.values()], *([row[name] for name in heads] for row in rows)])


def prune(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch system prune``."""
    parsed = parse(PRUNE, arguments)
    every, volumes, pairs = (
        parsed.enabled("all"), parsed.enabled("volumes"), parsed.items("filter")
    )  # fmt: skip
    if volumes and any(text.startswith("until=") for text in pairs):
        raise InvalidArgumentError('The "until" filter is not supported with "--volumes"')
    if not parsed.enabled("force") and not confirmed(_warning(pairs, every=every, volumes=volumes)):
        return 0
    with explained(settings, parsed):
        _prune(Engine(settings), pairs, every=every, volumes=volumes)
    return 0


def _prune(engine: Engine, pairs: list[str], *, every: bool, volumes: bool) -> None:
    from ketch.build.cache import pruning as build_pruning  # noqa: PLC0415 - as above

    removed, freed_bytes = pruning.containers(engine, pairs)
    _tell("Deleted Containers:", removed)
    networks = network_listing.prune(engine.networks, engine.endpoints, pairs)
    _tell("Deleted Networks:", networks)
    if volumes:
        pruned = volume_listing.prune(engine, pairs)
        _tell("Deleted Volumes:", pruned.names)
        freed_bytes += pruned.freed_bytes
    events, image_bytes = image_listing.prune(engine.images, pairs, every=every)
    _tell("Deleted Images:", [f"{what.lower()}: {name}" for what, name in events])
    cache = build_pruning.prune(engine, pairs, all=every)
    _tell("Deleted build cache objects:", cache.ids)
    freed_bytes += image_bytes + cache.freed_bytes
    print(f"Total reclaimed space: {size(freed_bytes, 4)}")


def _warning(pairs: list[str], *, every: bool, volumes: bool) -> str:
    lines = ["all stopped containers", "all networks not used by at least one container"]
    if volumes:
        lines.append("all anonymous volumes not used by at least one container")
    if every:
        lines.append("all images without at least one container associated to them")
    else:
        lines.append("all dangling images")
    lines.append("all build cache" if every else "unused build cache")
    text = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if pairs:
        listed = "".join(f"  - {text}\n" for text in sorted(pairs))
        text += f"\n  Items to be pruned will be filtered with:\n{listed}"
    return text


def prune_containers(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch container prune``."""
    parsed = parse(CONTAINER_PRUNE, arguments)
    warning = "WARNING! This will remove all stopped containers."
    if not parsed.enabled("force") and not confirmed(warning):
        return 0
    with explained(settings, parsed):
        removed, freed_bytes = pruning.containers(Engine(settings), parsed.items("filter"))
    _tell("Deleted Containers:", removed)
    print(f"Total reclaimed space: {size(freed_bytes, 4)}")
    return 0


def _tell(head: str, lines: list[str]) -> None:
    if lines:
        print(head, *lines, sep="\n", end="\n\n")
