"""Removing what is cached: when it is asked for, and when it has become too much.

Filters are those of Docker's API (moby, builder/builder-next/builder.go, toBuildkitPruneInfo), the
rules of what becomes too much BuildKit's (cmd/buildkitd/config/gcpolicy.go).
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ketch.build import place
from ketch.build.cache import usage
from ketch.build.cache.records import Records
from ketch.build.cache.usage import Usage
from ketch.build.steps import caches
from ketch.dataclass import dataclass
from ketch.engine import pruning
from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec import timestamps
from ketch.spec.filters import Filters
from ketch.spec.told import Told

if TYPE_CHECKING:
    from ketch.engine.engine import Engine

FILTERS = (
    "until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private",
)  # fmt: skip

# What ``docker system prune`` asks of all that it prunes. Nothing cached has a label, so the one
# chooses nothing, where dockerd prunes as if it were not there, and the other keeps nothing.
_LABELS, _OTHER_LABELS = "label", "label!"

_HOUR_NS = 3600 * timestamps.SECOND_NS
_STALE_NS = 48 * _HOUR_NS
_STALE_BYTES = 512_000_000
_OLD_NS = 60 * 24 * _HOUR_NS
_SHARE_OF_DISK = 10  # one part in
_BYTES_MIN = 2_000_000_000
_FETCHED = {usage.LOCAL, usage.MOUNT, usage.GIT, usage.INTERNAL}


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        ids: of what.
        freed_bytes: how much room it took.
        removed: all that is known of it.
    """

    ids: list[str]
    freed_bytes: int
    removed: list[Usage]


def prune(
    engine: "Engine",
    filters: Iterable[str] = (),
    *,
    all: bool = False,  # noqa: A002 - Docker's word
    keep_bytes: int = 0,
    most_bytes: int = 0,
    free_bytes: int = 0,
) -> Pruned:
    """Remove what is cached and not in use.

    Args:
        engine: whose cache.
        filters: ``name=value`` each: what is removed alone.
        all: whether what images have as well is forgotten too, which frees no room, and what is
            kept of contexts' files.
        keep_bytes: how much may stay; what was used longest ago goes first.
        most_bytes: what the cache may take at most, 0 for no such bound. Where this or the next
            is given no more is removed than it asks for.
        free_bytes: how much room there is to be on the disk, 0 for no such wish.

    Raises:
        InvalidArgumentError: a filter is unknown, malformed or given twice.
    """
    fits = chooser(filters)
    place.clean(engine.settings.root)
    with contextlib.suppress(OSError):
        caches.clean(engine.settings.root)
    found = [
        one
        for one in usage.listed(engine)
        if fits(one) and (all or not (one.shared or one.type == usage.INTERNAL))
    ]
    if most_bytes or free_bytes:
        total = sum(one.size_bytes for one in found if not one.shared)
        facts = os.statvfs(engine.settings.root)
        excess = max(
            total - most_bytes if most_bytes else 0, free_bytes - facts.f_bavail * facts.f_frsize
        )
        keep_bytes = max(keep_bytes, total - excess if excess > 0 else total)
        if keep_bytes >= total:
            found = []
    pruned = _remove(engine, found, keep_bytes)
    pruning.record(engine, "builder", pruned.freed_bytes)
    return pruned


def chooser(pairs: Iterable[str]) -> Callable[[Usage], bool]:
    """Returns what says whether something fits all filters.

    Raises:
        InvalidArgumentError: a filter is unknown, malformed or given twice.
    """
    chosen = Filters(pairs, (*FILTERS, _LABELS, _OTHER_LABELS))
    labelled = bool(chosen.values(_LABELS))
    given: dict[str, str] = {}
    for name in FILTERS:
        values = chosen.values(name)
        if len(values) > 1:
            raise InvalidArgumentError("filters expect only one value")
        if values:
            given[name] = values[0]
    if "until" in given and "unused-for" in given:
        raise InvalidArgumentError('conflicting filters: "until" and "unused-for"')
    limit = given.pop("until", "") or given.pop("unused-for", "")
    until_ns = timestamps.moment(limit, time.time_ns()) if limit else None
    pattern = _pattern(given.pop("id", ""))

    def fits(one: Usage) -> bool:
        if labelled:
            return False
        if until_ns is not None and one.used_ns > until_ns:
            return False
        if pattern is not None and not pattern.search(one.id):
            return False
        return all(_FACTS[name](one, value) for name, value in given.items())

    return fits


_FACTS: dict[str, Callable[[Usage, str], bool]] = {
    "parent": lambda one, value: value in one.parents,
    "type": lambda one, value: one.type == value,
    "description": lambda one, value: one.description == value,
    "inuse": lambda one, value: one.in_use == _is_true(value),
    "shared": lambda one, value: one.shared == _is_true(value),
    "private": lambda one, value: one.shared != _is_true(value),
}


def collect(engine: "Engine") -> None:
    """Remove what has become too much, or too old; nothing is asked of anybody for it.

    At most a tenth of the disk is kept, what was used longest ago goes first: so a build that is
    made again soon finds all of its steps.

    Args:
        engine: whose cache.
    """
    root = engine.settings.root
    now_ns = time.time_ns()
    with contextlib.suppress(OSError, KetchError):
        limit_bytes = bound(root)
        with contextlib.suppress(OSError):
            caches.clean(root)
        found = usage.listed(engine)
        fetched = [
            one for one in found if one.type in _FETCHED and now_ns - one.used_ns > _STALE_NS
        ]
        gone = set(_remove(engine, fetched, _STALE_BYTES).ids)
        old = [one for one in found if one.id not in gone and now_ns - one.used_ns > _OLD_NS]
        gone |= set(_remove(engine, old, 0).ids)
        _remove(engine, [one for one in found if one.id not in gone], limit_bytes)


def bound(root: str) -> int:
    """Returns how many bytes the build cache may take without anybody asking.

    Args:
        root: the engine's directory.
    """
    facts = os.statvfs(root)
    return max(facts.f_blocks * facts.f_frsize // _SHARE_OF_DISK, _BYTES_MIN)


def _remove(engine: "Engine", chosen: Sequence[Usage], keep_bytes: int) -> Pruned:
    """Remove as much as is needed for no more than so much to be left, the oldest first."""
    total = sum(one.size_bytes for one in chosen if not one.shared)
    removed: list[Usage] = []
    for one in _in_order(chosen):
        if keep_bytes and total <= keep_bytes:
            break
        if one.in_use or (one.remove is not None and not one.remove()):
            continue
        removed.append(one)
        total -= 0 if one.shared else one.size_bytes
    records = [one.id for one in removed if one.remove is None]
    if removed:
        engine.settings.tell(_told, removed)
    if records:
        Records(engine.store, engine.images.snapshotter).remove(records)
        engine.images.collect_garbage()
    freed = sum(one.size_bytes for one in removed if not one.shared)
    return Pruned([one.id for one in removed], freed, removed)


def _told(removed: Sequence[Usage]) -> Told:
    """What was forgotten; the layers that nobody has any more are told of when they go."""
    values = [
        (one.id, f"{one.type}, {one.size_bytes} bytes: {one.description}".rstrip(": "))
        for one in removed
    ]
    return Told("record", "forget what builds have kept", values)


def _in_order(chosen: Sequence[Usage]) -> list[Usage]:
    """Returns what was used longest ago first; of one build's, what lies on others before those.

    What has lost what it lies on would not be found any more, and take its room for nothing.
    """
    depths: dict[str, int] = {}
    parents = {one.id: one.parents for one in chosen}
    for one in chosen:
        way = [one.id]
        while way[-1] not in depths:
            above = next((name for name in parents[way[-1]] if name in parents), "")
            if not above or len(way) > len(parents):
                depths[way[-1]] = 0
                break
            way.append(above)
        for name in reversed(way[:-1]):
            depths[name] = depths[parents[name][0]] + 1
    return sorted(chosen, key=lambda one: (one.used_ns, -depths[one.id]))


def _pattern(text: str) -> "re.Pattern[str] | None":
    if not text:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgumentError(f"invalid filter 'id={text}': {error}") from error


def _is_true(value: str) -> bool:
    return value.lower() in {"", "1", "t", "true"}
