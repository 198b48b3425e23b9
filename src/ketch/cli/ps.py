"""``ketch ps``: which containers there are."""

import time

from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import shortened, table
from ketch.engine import states, summary
from ketch.engine.containers import Containers
from ketch.engine.images import Images
from ketch.engine.store import Store
from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec import filters
from ketch.spec.filters import Filters
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.records import Container
    from ketch.engine.settings import Settings

PS = Command(
    "ketch ps [OPTIONS]",
    "List containers",
    (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided",
            metavar="filter",
            convert=filters.pair,
        ),
        Flag("format", help="Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag(
            "last", "n", "int", "Show n last created containers (includes all states)", default=-1
        ),
        Flag("latest", "l", "bool", "Show the latest created container (includes all states)"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only display container IDs"),
    ),
    maximum_arguments=0,
    aliases=("ketch container ls", "ketch container list", "ketch container ps", "ketch ps"),
)

# Column: what --format calls it, and what stands above it.
HEADS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED",
    "Status": "STATUS", "Ports": "PORTS", "Names": "NAMES",
}  # fmt: skip

_OTHER_FIELDS = ("CreatedAt", "Labels", "LocalVolumes", "Mounts", "Networks", "State")

_FILTERS = (
    "ancestor", "before", "exited", "id", "label", "name", "network", "since", "status",
)  # fmt: skip
_STATUSES = {*states.ACTIVE, states.CREATED, states.REMOVING, states.EXITED, states.DEAD}

_COMMAND_LENGTH = 20
_MOUNT_LENGTH = 15


def ps(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch ps``."""
    parsed = parse(PS, arguments)
    store = Store(settings.root)
    containers, images = Containers(settings, store), Images(settings, store)
    chosen = Filters(parsed.items("filter"), _FILTERS)
    last = 1 if parsed.enabled("latest") else parsed.number("last")
    everything = parsed.enabled("all") or last > 0 or "status" in chosen
    found = [
        container
        for container in _between(containers, chosen, everything)
        if _fits(container, chosen, images)
    ]
    found = found[:last] if last > 0 else found
    whole = parsed.enabled("no-trunc")
    if parsed.enabled("quiet"):
        print("".join(f"{_shown_id(container, whole)}\n" for container in found), end="")
        return 0
    now_ns = time.time_ns()
    rows = [
        fields(container, image=_image(images, container, whole), now_ns=now_ns, whole=whole)
        for container in found
    ]
    template = parsed.text("format")
    if template in {"", "table"}:
        text = table([[*HEADS.values()], *([row[name] for name in HEADS] for row in rows)])
    else:
        text = _formatted(found, rows, template)
    print(text, end="")
    return 0


def _formatted(found: "list[Container]", rows: list[dict[str, str]], template: str) -> str:
    from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
    from ketch.spec.template_functions import Struct  # noqa: PLC0415

    structs = [
        Struct(
            {**row, "Label": lambda name, of=container: summary.labels(of).get(name, "")},
            "container",
        )
        for container, row in zip(found, rows, strict=True)
    ]
    heads = {name: HEADS.get(name, name.upper()) for name in (*HEADS, *_OTHER_FIELDS)}
    label_head = {"Label": lambda name: name.rpartition(".")[2]}
    return formats.render(structs, template, Struct({**heads, **label_head}, "container"))


def _between(containers: Containers, chosen: Filters, everything: bool) -> "list[Container]":
    """Returns the containers made before and since those that were named."""
    found = containers.list(all=everything)
    for reference in chosen.values("before"):
        limit_ns = containers.find(reference).created_ns
        found = [container for container in found if container.created_ns < limit_ns]
    for reference in chosen.values("since"):
        limit_ns = containers.find(reference).created_ns
        found = [container for container in found if container.created_ns > limit_ns]
    return found


def _fits(container: "Container", chosen: Filters, images: Images) -> bool:
    statuses = chosen.values("status")
    if not set(statuses) <= _STATUSES:
        wrong = next(status for status in statuses if status not in _STATUSES)
        raise InvalidArgumentError(f"invalid filter 'status={wrong}'")
    exits = chosen.numbers("exited")
    if exits and (container.is_active or container.exit_status not in exits
                  or not container.finished_ns):  # fmt: skip
        return False
    return (
        chosen.pattern("id", container.id)
        and chosen.pattern("name", container.name, f"/{container.name}")
        and chosen.exact("status", container.status)
        and chosen.labels("label", summary.labels(container))
        and chosen.exact("network", summary.network(container))
        and ("ancestor" not in chosen or _descends(container, chosen.values("ancestor"), images))
    )


def _descends(container: "Container", ancestors: list[str], images: Images) -> bool:
    for text in ancestors:
        try:
            if images.resolve(text).id == container.image_id:
                return True
        except KetchError:
            continue
    return False


def _shown_id(container: "Container", whole: bool) -> str:
    return container.id if whole else container.id[: summary.SHORT_ID_LENGTH]


def fields(container: "Container", *, image: str, now_ns: int, whole: bool) -> dict[str, str]:
    """Returns what is shown of a container.

    Args:
        container: the container.
        image: its image, as it is to be shown.
        now_ns: the present.
        whole: whether identifier and command are shown at their full length.
    """
    command = summary.command(container)
    labels = summary.labels(container)
    return {
        "Command": quoted(command if whole else shortened(command, _COMMAND_LENGTH)),
        "CreatedAt": summary.created_at(container),
        "ID": _shown_id(container, whole),
        "Image": image,
        "Labels": ",".join(f"{name}={labels[name]}" for name in sorted(labels)),
        "LocalVolumes": "0",
        "Mounts": ",".join(
            source if whole else shortened(source, _MOUNT_LENGTH)
            for source in summary.mount_sources(container)
        ),
        "Names": container.name,
        "Networks": summary.network(container),
        "Ports": summary.ports(container),
        "RunningFor": f"{summary.age(container, now_ns)} ago",
        "State": container.status,
        "Status": summary.status(container, now_ns),
    }


def _image(images: Images, container: "Container", whole: bool) -> str:
    """Returns the image as the user named it, or its identifier once the name means another."""
    name = container.image_reference
    try:
        if images.resolve(name).id == container.image_id:
            return name or "<no image>"
    except KetchError:
        pass  # the image is gone, or has lost its name
    return container.image_id if whole else container.image_id.partition(":")[2][:12]
