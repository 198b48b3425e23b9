"""``ketch checkpoint``: save running containers, and look at what is saved."""

from ketch.cli.attach import checkpoint_directory
from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import table
from ketch.engine.containers import checkpoints
from ketch.engine.containers.containers import Containers
from ketch.engine.records.store import Store
from ketch.engine.requests import starts
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

_DIRECTORY = Flag("checkpoint-dir", help="Use a custom checkpoint storage directory")
CREATE = Command(
    "ketch checkpoint create [OPTIONS] CONTAINER CHECKPOINT",
    "Create a checkpoint from a running container",
    (
        _DIRECTORY,
        EXPLAIN,
        Flag("leave-running", "", "bool", "Leave the container running after checkpoint"),
    ),
    minimum_arguments=2,
    maximum_arguments=2,
)
LS = Command(
    "ketch checkpoint ls [OPTIONS] CONTAINER",
    "List checkpoints for a container",
    (_DIRECTORY,),
    minimum_arguments=1,
    maximum_arguments=1,
)
RM = Command(
    "ketch checkpoint rm [OPTIONS] CONTAINER CHECKPOINT",
    "Remove a checkpoint",
    (_DIRECTORY, EXPLAIN),
    minimum_arguments=2,
    maximum_arguments=2,
)


def create(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch checkpoint create``."""
    parsed = parse(CREATE, arguments)
    reference, name = parsed.arguments
    leave_running = parsed.enabled("leave-running")
    with explained(settings, parsed):
        starts.checkpoint(
            settings, reference, name, checkpoint_directory(parsed), leave_running=leave_running
        )
    print(name)
    return 0


def ls(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch checkpoint ls``."""
    parsed = parse(LS, arguments)
    container = _find(settings, parsed.arguments[0])
    found = checkpoints.list_(settings, container, checkpoint_directory(parsed))
    print(table([["CHECKPOINT NAME"], *([name] for name in found)]), end="")
    return 0


def rm(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch checkpoint rm``."""
    parsed = parse(RM, arguments)
    reference, name = parsed.arguments
    with explained(settings, parsed):
        container = _find(settings, reference)
        checkpoints.remove(settings, container, name, checkpoint_directory(parsed))
    return 0


def _find(settings: "Settings", reference: str) -> "Container":
    return Containers(settings, Store(settings.root)).find(reference)
