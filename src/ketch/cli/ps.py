"""``ketch ps``: which containers there are."""

import time

from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import shortened, table
from ketch.engine import listing, summary
from ketch.engine.containers import Containers
from ketch.engine.endpoints import Endpoints
from ketch.engine.images import Images
from ketch.engine.networks import Networks
from ketch.engine.store import Store
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

_COMMAND_LENGTH = 20
_MOUNT_LENGTH = 15


def ps(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch ps``."""
    parsed = parse(PS, arguments)
    store = Store(settings.root)
    containers, images = Containers(settings, store), Images(settings, store)
    chosen = Filters(parsed.items("filter"), listing.FILTERS)
    last = 1 if parsed.enabled("latest") else parsed.number("last")
    found = listing.select(
        containers, images, chosen, everything=parsed.enabled("all"), last=max(last, 0)
    )
    whole = parsed.enabled("no-trunc")
    if parsed.enabled("quiet"):
        print("".join(f"{_shown_id(container, whole)}\n" for container in found), end="")
        return 0
    now_ns = time.time_ns()
    endpoints = Endpoints(store, Networks(settings, store))
    published, networks = endpoints.ports(), endpoints.network_names()
    rows = [
        {
            **fields(
                container,
                image=listing.image_name(images, container, whole=whole),
                now_ns=now_ns,
                whole=whole,
            ),
            "Ports": summary.ports(container, published.get(container.id, ())),
            "Networks": ",".join(sorted(networks.get(container.id, ()))),
        }
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
        "RunningFor": f"{summary.age(container, now_ns)} ago",
        "State": container.status,
        "Status": summary.status(container, now_ns),
    }
