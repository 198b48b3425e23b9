"""``ketch update``: change the limits of containers and their restart policy."""

import sys

from ketch.cli.flags import Command, UsageError, parse
from ketch.engine import updating
from ketch.engine.engine import Engine
from ketch.errors import KetchError
from ketch.spec.options import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings

_NAMES = {
    "blkio-weight", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares",
    "cpus", "cpuset-cpus", "cpuset-mems", "memory", "memory-reservation", "memory-swap",
    "pids-limit", "restart",
}  # fmt: skip
_OPTIONS = tuple(option for option in OPTIONS if option.name in _NAMES)

UPDATE = Command(
    "ketch update [OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    _OPTIONS,
    minimum_arguments=1,
    aliases=("ketch container update", "ketch update"),
)


def update(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch update``."""
    parsed = parse(UPDATE, arguments)
    changes: dict[str, Any] = {}
    for option in _OPTIONS:
        if option.name in parsed.given:
            value: object = parsed.values[option.name]
            key = option.field.partition(".")[2]
            changes[key] = option.assemble(value) if option.assemble else value
    if not changes:
        raise UsageError(
            "you must provide one or more flags when using this command",
            f"Usage:  {UPDATE.usage}",
            exit_status=1,
        )
    engine = Engine(settings)
    status = 0
    for reference in parsed.arguments:
        try:
            warnings = updating.update(engine, reference, changes)  # type: ignore[arg-type]
        except KetchError as error:
            sys.stdout.flush()
            print(f"ketch: {error.message}", file=sys.stderr)
            status = 1
            continue
        print(reference, flush=True)
        for warning in warnings:
            print(f"WARNING: {warning}", file=sys.stderr)
    return status
