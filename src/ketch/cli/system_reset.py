"""``ketch system reset``: take a whole engine away."""

import sys

from ketch.cli.flags import Command, Flag, parse
from ketch.cli.prompts import confirmed
from ketch.engine import resetting
from ketch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

RESET = Command(
    "ketch system reset [OPTIONS]",
    "Remove everything that the engine has, and all that it has made",
    (
        Flag(
            "force", "f", "bool",
            "Do not prompt for confirmation, and do it while other programs use the engine",
        ),
    ),
    maximum_arguments=0,
)  # fmt: skip


def reset(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch system reset``."""
    force = parse(RESET, arguments).enabled("force")
    engine = Engine(settings)
    resetting.check(engine, force=force)
    if not force and not confirmed(_warning(settings)):
        return 0
    for path in resetting.reset(engine):
        print(f"ketch: {path} is left: it is not the engine's", file=sys.stderr)
    return 0


def _warning(settings: "Settings") -> str:
    things = (
        "all containers, also those that run",
        "all images",
        "all networks, with their links in this host",
        "all volumes, with all data in them",
        f"what the engine has in {settings.root} and {settings.state}",
    )
    return "WARNING! This will remove:\n" + "".join(f"  - {thing}\n" for thing in things)
