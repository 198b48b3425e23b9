"""``ketch system repair``: take back what a lost or damaged database had on record."""

import sys

from ketch.cli.flags import Command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

REPAIR = Command(
    "ketch system repair",
    "Take back what a lost or damaged database had on record",
    maximum_arguments=0,
)


def repair(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch system repair``: what was taken back, and on standard error what was lost."""
    parse(REPAIR, arguments)
    from ketch.engine import repairing  # noqa: PLC0415 - much to load, and --help needs none of it

    done = repairing.repair(settings)
    if not done.taken and not done.lost:
        print("Nothing is to be repaired")
    for text in done.taken:
        print(f"taken back: {text}")
    for text in done.lost:
        print(f"lost: {text}", file=sys.stderr)
    return 0
