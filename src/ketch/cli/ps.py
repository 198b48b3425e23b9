"""``ketch ps``: which containers there are."""

import gc
import sys
import time
from functools import partial

from ketch.cli import client_configuration, usual_flags
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import shortened, table
from ketch.engine.engine import Engine
from ketch.engine.networks import membership
from ketch.engine.records import links, rows
from ketch.engine.views import listing, summary
from ketch.spec.filters import Filters
from ketch.spec.sizes import size
from ketch.spec.timestamps import SECOND_NS
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

PS = Command(
    "ketch ps [OPTIONS]",
    "List containers",
    (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        usual_flags.filters(),
        usual_flags.LIST_FORMAT,
        Flag(
            "last", "n", "int", "Show n last created containers (includes all states)", default=-1
        ),
        Flag("latest", "l", "bool", "Show the latest created container (includes all states)"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only display container IDs"),
        Flag("size", "s", "bool", "Display total file sizes"),
    ),
    maximum_arguments=0,
)

# Column: what --format calls it, and what stands above it.
HEADS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED",
    "Status": "STATUS", "Ports": "PORTS", "Names": "NAMES",
}  # fmt: skip

_OTHERS = {
    "CreatedAt": "CREATED AT", "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS", "Networks": "NETWORKS", "Platform": "PLATFORM", "Size": "SIZE",
    "State": "STATE",
}  # fmt: skip

# podman's, for templates alone: Docker's JSON has them not.
_PODMAN: "dict[str, Callable[[Container], object]]" = {
    "AutoRemove": lambda container: container.auto_remove,
    "Exited": lambda container: container.finished_ns > 0 and not container.is_active,
    "ExitCode": lambda container: container.exit_status,
    "ExitedAt": lambda container: container.finished_ns // SECOND_NS,
    "ImageID": lambda container: container.image_id,
    "Pid": lambda container: container.init_pid if container.is_active else 0,
    "Restarts": lambda container: container.restart_count,
    "StartedAt": lambda container: container.started_ns // SECOND_NS,
}
_PODMAN_HEADS = {"ExitCode": "EXIT CODE", "ImageID": "IMAGE ID", "Pid": "PID"}

_RAW = {
    "ID": "container_id", "Image": "image", "Command": "command", "CreatedAt": "created_at",
    "State": "state", "Status": "status", "Names": "names", "Labels": "labels", "Ports": "ports",
}  # fmt: skip

_KIND = "*formatter.ContainerContext"
_COMMAND_LENGTH = 20
_MOUNT_LENGTH = 15


def ps(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch ps``."""
    parsed = parse(PS, arguments)
    # What is made here lives until the end, so looking for garbage would only take time.
    gc.set_threshold(100_000)
    engine = Engine(settings)
    chosen = Filters(parsed.items("filter"), listing.FILTERS)
    last = 1 if parsed.enabled("latest") else parsed.number("last")
    found = listing.select(engine, chosen, everything=parsed.enabled("all"), last=max(last, 0))
    whole = parsed.enabled("no-trunc")
    template = client_configuration.list_format(
        "psFormat", parsed.text("format"), quiet=parsed.enabled("quiet")
    )
    if parsed.enabled("quiet"):
        if template:
            print(
                "WARNING: Ignoring custom format, because both --format and --quiet are set.",
                file=sys.stderr,
            )
        start = "container_id: " if template == "raw" else ""
        print("".join(f"{start}{_shown_id(container, whole)}\n" for container in found), end="")
        return 0
    rows.read_records(found)
    told = columns(engine, whole=whole, sized=parsed.enabled("size") or ".Size" in template)
    if template in {"", "table"}:
        heads = HEADS | {"Size": "SIZE"} if parsed.enabled("size") else HEADS
        shown = [told[name] for name in heads]
        text = table([[*heads.values()], *([of(one) for of in shown] for one in found)])
    else:
        shown_rows = [{name: of(one) for name, of in told.items()} for one in found]
        if not found:
            _check(template, told)
        text = _formatted(found, shown_rows, template, sized=parsed.enabled("size"))
    print(text, end="")
    return 0


def columns(engine: Engine, *, whole: bool, sized: bool) -> "dict[str, Callable[[Container], str]]":
    """Returns what each column shows of a container.

    Args:
        engine: where the containers are.
        whole: whether identifiers, commands and mounts are shown at their full length.
        sized: whether it is looked how much their files take.
    """
    now_ns = time.time_ns()
    images = listing.ImageNames(engine.images)
    linked: dict[str, list[str]] = {}
    with engine.store.reading() as connection:
        networks, publish = membership.names(connection), membership.any_port(connection)
        if whole:
            linked = links.names(connection)
    published = engine.endpoints.ports() if publish else {}

    def names(container: "Container") -> str:
        found = sorted([f"/{container.name}", *linked.get(container.id, ())])
        return ",".join(name[1:] for name in found)

    def command(container: "Container") -> str:
        text = summary.command(container)
        return quoted(text if whole else shortened(text, _COMMAND_LENGTH))

    def labels(container: "Container") -> str:
        found = summary.labels(container)
        return ",".join(f"{name}={found[name]}" for name in sorted(found))

    def mounts(container: "Container") -> str:
        sources = summary.mount_sources(container)
        return ",".join(one if whole else shortened(one, _MOUNT_LENGTH) for one in sources)

    return {
        "Command": command,
        "CreatedAt": summary.created_at,
        "ID": lambda container: _shown_id(container, whole),
        "Image": lambda container: images.shown(container, whole=whole),
        "Labels": labels,
        "LocalVolumes": lambda container: str(summary.volume_count(container)),
        "Mounts": mounts,
        "Names": names,
        "Networks": lambda container: ",".join(sorted(networks.get(container.id, ()))),
        "Ports": lambda container: summary.ports(container, published.get(container.id, ())),
        "RunningFor": lambda container: f"{summary.age(container, now_ns)} ago",
        "Size": lambda container: _size(engine, container) if sized else "0B",
        "State": lambda container: container.status,
        "Status": lambda container: summary.status(container, now_ns),
    }


def _size(engine: Engine, container: "Container") -> str:
    from ketch.engine.views import sizes  # noqa: PLC0415 - only --size walks through files

    own, whole = sizes.container(engine, container)
    return f"{size(own)} (virtual {size(whole)})" if whole else size(own)


def _formatted(
    found: "list[Container]", rows: list[dict[str, str]], template: str, *, sized: bool
) -> str:
    from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
    from ketch.spec.template_functions import Struct  # noqa: PLC0415

    if template == formats.RAW:
        return formats.raw(rows, _RAW | {"Size": "size"} if sized else _RAW, quiet=False)
    structs = [
        Struct(
            {
                **dict(sorted({**row, "Platform": None}.items())),
                "Label": lambda name, of=container: summary.labels(of).get(name, ""),
                **{name: partial(of, container) for name, of in _PODMAN.items()},
            },
            _KIND,
        )
        for container, row in zip(found, rows, strict=True)
    ]
    heads = {name: HEADS.get(name, words) for name, words in (*HEADS.items(), *_OTHERS.items())}
    label_head = {"Label": lambda name: name.rpartition(".")[2]}
    others = {name: _PODMAN_HEADS.get(name, name.upper()) for name in _PODMAN}
    return formats.render(structs, template, Struct({**heads, **label_head, **others}, _KIND))


def _check(template: str, names: "Iterable[str]") -> None:
    """Refuse fields that no container has: there is none to tell."""
    from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
    from ketch.spec.template_functions import Struct  # noqa: PLC0415

    if template not in {formats.RAW, "json"}:
        empty = {**dict.fromkeys((*names, *_PODMAN), ""), "Platform": None, "Label": lambda _: ""}
        formats.check(template, Struct(empty, _KIND))


def _shown_id(container: "Container", whole: bool) -> str:
    return container.id if whole else container.id[: summary.SHORT_ID_LENGTH]
