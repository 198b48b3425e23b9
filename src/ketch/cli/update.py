"""``ketch update``: change the limits of containers and their restart policy."""

import sys

from ketch.cli import each
from ketch.cli.caller import explained
from ketch.cli.flags import Command, UsageError, parse
from ketch.engine.containers import updating
from ketch.engine.engine import Engine
from ketch.errors import KetchError
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings
    from ketch.spec.container import HostConfig

UPDATE = Command(
    "ketch update [OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    (EXPLAIN, *updating.OPTIONS),
    minimum_arguments=1,
)


def update(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch update``."""
    parsed = parse(UPDATE, arguments)
    changes = updating.changes(parsed.values, parsed.given)
    if not changes:
        raise UsageError(
            "you must provide one or more flags when using this command",
            f"Usage:  {UPDATE.usage}\n\nRun 'ketch update --help' for more information",
            exit_status=1,
        )
    with explained(settings, parsed):
        return _update_each(Engine(settings), parsed.arguments, changes)


def _update_each(engine: Engine, references: list[str], changes: "HostConfig") -> int:
    status = 0
    for reference in references:
        try:
            warnings = updating.update(engine, reference, changes)
        except KetchError as error:
            each.say(error)
            status = 1
            continue
        print(reference, flush=True)
        for warning in warnings:
            print(f"WARNING: {warning}", file=sys.stderr)
    return status
