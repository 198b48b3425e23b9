"""``ketch builder du`` and ``ketch builder prune``."""

import sys
import time

from ketch.cli import usual_flags
from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.prompts import confirmed
from ketch.cli.tables import table
from ketch.engine.engine import Engine
from ketch.spec import timestamps, values
from ketch.spec.flag import EXPLAIN
from ketch.spec.sizes import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.build.cache.usage import Usage
    from ketch.engine.settings import Settings

DU = Command(
    "ketch builder du [OPTIONS]",
    "Show what the build cache holds",
    (
        usual_flags.filters("type=<type>", ""),
        Flag("verbose", "", "bool", "Provide a more verbose output"),
    ),
    maximum_arguments=0,
)
PRUNE = Command(
    "ketch builder prune [OPTIONS]",
    "Remove build cache",
    (
        Flag("all", "a", "bool", "Remove all unused build cache, not just dangling ones"),
        EXPLAIN,
        usual_flags.filters("until=24h", ""),
        usual_flags.UNASKED,
        Flag("keep-storage", "", "string", "Amount of disk space to keep for cache",
             default=0, convert=values.size, metavar="bytes"),
        Flag("verbose", "", "bool", "Provide a more verbose output"),
    ),
    maximum_arguments=0,
)  # fmt: skip


def du(settings: "Settings", arguments: list[str]) -> int:
    """List what is cached, and how much of it could be removed."""
    from ketch.build.cache import pruning, usage  # noqa: PLC0415 - after the command line

    parsed = parse(DU, arguments)
    fits = pruning.chooser(parsed.items("filter"))
    found = [one for one in usage.listed(Engine(settings)) if fits(one)]
    now_ns = time.time_ns()
    text = _blocks(found, now_ns) if parsed.enabled("verbose") else _rows(found, now_ns)
    shared = _sum(one for one in found if one.shared)
    total = _sum(found)
    sums = [["Shared:", size(shared, 4)], ["Private:", size(total - shared, 4)]] if shared else []
    free = _sum(one for one in found if not one.in_use and not one.shared)
    sums += [["Reclaimable:", size(free, 4)], ["Total:", size(total, 4)]]
    sys.stdout.write(text + table(sums))
    return 0


def prune(settings: "Settings", arguments: list[str]) -> int:
    """Remove what is cached and not in use, when the user agrees."""
    from ketch.build.cache import pruning  # noqa: PLC0415 - after the command line

    parsed = parse(PRUNE, arguments)
    every = parsed.enabled("all")
    which = "all" if every else "all dangling"
    warning = f"WARNING! This will remove {which} build cache."
    if not parsed.enabled("force") and not confirmed(warning):
        return 0
    with explained(settings, parsed):
        pruned = pruning.prune(
            Engine(settings), parsed.items("filter"), all=every,
            keep_bytes=parsed.number("keep-storage"),
        )  # fmt: skip
    if pruned.ids and parsed.enabled("verbose"):
        sys.stdout.write(_blocks(pruned.removed, time.time_ns()))
    elif pruned.ids:
        print("Deleted build cache objects:", *pruned.ids, sep="\n", end="\n\n")
    print(f"Total reclaimed space: {size(pruned.freed_bytes, 4)}")
    return 0


def _rows(found: "Sequence[Usage]", now_ns: int) -> str:
    heads = ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]
    rows = [
        [f"{one.id}{'*' if one.mutable else ''}", _yes(not one.in_use), size(one.size_bytes, 4),
         _ago(one.used_ns, now_ns)]
        for one in found
    ]  # fmt: skip
    return table([heads, *rows])


def _blocks(found: "Iterable[Usage]", now_ns: int) -> str:
    blocks = []
    for one in found:
        lines = [["ID:", one.id]]
        if one.parents:
            lines.append(["Parents:", *one.parents])
        if one.created_ns:
            lines.append(["Created at:", timestamps.rfc3339(one.created_ns)])
        lines += [
            ["Mutable:", _yes(one.mutable)], ["Reclaimable:", _yes(not one.in_use)],
            ["Shared:", _yes(one.shared)], ["Size:", size(one.size_bytes, 4)],
            ["Description:", one.description], ["Usage count:", str(one.uses)],
            ["Last used:", _ago(one.used_ns, now_ns)], ["Type:", one.type],
        ]  # fmt: skip
        blocks.append(table(lines) + "\n")
    return "".join(blocks)


def _sum(found: "Iterable[Usage]") -> int:
    return sum(one.size_bytes for one in found)


def _ago(moment_ns: int, now_ns: int) -> str:
    return f"{timestamps.spoken(now_ns - moment_ns)} ago" if moment_ns else ""


def _yes(value: object) -> str:
    return str(bool(value)).lower()
