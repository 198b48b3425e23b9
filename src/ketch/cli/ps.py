"""``ketch ps``: which containers there are."""

import time

from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import shortened, table
from ketch.engine import summary
from ketch.engine.containers import Containers
from ketch.engine.images import Images
from ketch.engine.store import Store
from ketch.errors import KetchError
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

_COMMAND_LENGTH = 20


def ps(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch ps``."""
    parsed = parse(PS, arguments)
    store = Store(settings.root)
    last = 1 if parsed.enabled("latest") else parsed.number("last")
    found = Containers(settings, store).list(all=parsed.enabled("all") or last > 0)
    found = found[:last] if last > 0 else found
    whole = parsed.enabled("no-trunc")
    if parsed.enabled("quiet"):
        for container in found:
            print(container.id if whole else container.id[: summary.SHORT_ID_LENGTH])
        return 0
    images, now_ns = Images(settings, store), time.time_ns()
    rows = [
        fields(container, image=_image(images, container, whole), now_ns=now_ns, whole=whole)
        for container in found
    ]
    print(table([[*HEADS.values()], *([row[name] for name in HEADS] for row in rows)]), end="")
    return 0


def fields(container: "Container", *, image: str, now_ns: int, whole: bool) -> dict[str, str]:
    """Returns what is shown of a container.

    Args:
        container: the container.
        image: its image, as it is to be shown.
        now_ns: the present.
        whole: whether identifier and command are shown at their full length.
    """
    command = summary.command(container)
    return {
        "Command": quoted(command if whole else shortened(command, _COMMAND_LENGTH)),
        "ID": container.id if whole else container.id[: summary.SHORT_ID_LENGTH],
        "Image": image,
        "Names": container.name,
        "Ports": summary.ports(container),
        "RunningFor": f"{summary.age(container, now_ns)} ago",
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
