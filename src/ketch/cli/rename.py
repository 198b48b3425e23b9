"""``ketch rename``."""

from ketch.cli.flags import Command, parse
from ketch.engine.containers import renaming
from ketch.engine.containers.containers import Containers
from ketch.engine.records.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

RENAME = Command(
    "ketch rename CONTAINER NEW_NAME",
    "Rename a container",
    minimum_arguments=2,
    maximum_arguments=2,
)


def rename(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch rename``."""
    old, new = (text.strip() for text in parse(RENAME, arguments).arguments)
    store = Store(settings.root)
    renaming.rename(store, Containers(settings, store), old, new)
    return 0
