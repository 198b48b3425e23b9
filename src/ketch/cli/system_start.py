"""``ketch system start``: start what is to run after a boot."""

import sys

from ketch.cli.flags import Command, parse
from ketch.engine.containers import rebooting
from ketch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings
    from ketch.errors import KetchError

START = Command(
    "ketch system start",
    "Start the containers whose restart policies want it, as after a boot",
    maximum_arguments=0,
)


def start(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch system start``."""
    parse(START, arguments)
    failures = []

    def failed(name: str, error: "KetchError") -> None:
        sys.stdout.flush()
        print(f"ketch: {name}: {error.message}", file=sys.stderr)
        failures.append(name)

    for name in rebooting.start_wanted(Engine(settings), failed):
        print(name, flush=True)
    return 1 if failures else 0
