"""``ketch top``: what runs in a container."""

from ketch.cli.flags import Command, parse
from ketch.cli.tables import table
from ketch.engine.engine import Engine
from ketch.engine.views import process_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

TOP = Command(
    "ketch top CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    minimum_arguments=1,
    interspersed=False,
)

_COLUMN_WIDTH_MIN = 20


def top(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch top``."""
    name, *options = parse(TOP, arguments).arguments
    titles, rows = process_list.top(Engine(settings), name, " ".join(options))
    print(table([titles, *rows], _COLUMN_WIDTH_MIN), end="")
    return 0
