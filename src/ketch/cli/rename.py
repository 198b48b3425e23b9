"""``ketch rename``."""

from ketch.cli.caller import explained
from ketch.cli.flags import Command, parse
from ketch.engine.containers import renaming
from ketch.engine.containers.containers import Containers
from ketch.engine.records.store import Store
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

RENAME = Command(
    "ketch rename CONTAINER NEW_NAME",
    "Rename a container",
    (EXPLAIN,),
    minimum_arguments=2,
    maximum_arguments=2,
)


def rename(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch rename``."""
    parsed = parse(RENAME, arguments)
    old, new = (text.strip() for text in parsed.arguments)
    store = Store(settings.root)
    with explained(settings, parsed):
        renaming.rename(store, Containers(settings, store), old, new, settings.say)
    return 0
