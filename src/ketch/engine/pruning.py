"""Removing what nobody uses: containers that do not run, and with them all that ``prune`` takes."""

import time

from ketch.engine.records import events
from ketch.engine.views import sizes, summary
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.spec import timestamps
from ketch.spec.filters import Filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ketch.engine.engine import Engine

FILTERS = ("label", "label!", "until")


def containers(engine: "Engine", pairs: "Iterable[str]" = ()) -> tuple[list[str], int]:
    """Remove the containers that do not run.

    Args:
        engine: where.
        pairs: filters, ``name=value`` each: ``until`` a moment, with or without labels.

    Returns:
        Their identifiers, and how many bytes they had written.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    fits = chooser(pairs)
    found = {
        container.id: sizes.container(engine, container)[0]
        for container in engine.containers.list(all=True)
        if not container.is_active and fits(container.created_ns, summary.labels(container))
    }
    removed, freed_bytes = [], 0
    for container_id, failure in engine.containers.remove_each(found):
        if failure is None:
            removed.append(container_id)
            freed_bytes += found[container_id]
        elif not isinstance(failure, ConflictError | NotFoundError):
            raise failure  # others have been started, or somebody else was quicker
    record(engine, "container", freed_bytes)
    return removed, freed_bytes


def record(engine: "Engine", kind: str, freed_bytes: int) -> None:
    """Record that what nobody used was removed."""
    with engine.store.transaction() as connection:
        events.record(connection, kind, "prune", "", {"reclaimed": str(freed_bytes)})


def chooser(pairs: "Iterable[str]") -> "Callable[[int, Mapping[str, str]], bool]":
    """Returns what says whether something made at a moment, with labels, fits all filters.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    chosen = Filters(pairs, FILTERS)
    limits = chosen.values("until")
    if len(limits) > 1:
        raise InvalidArgumentError("more than one until filter specified")
    until_ns = timestamps.moment(limits[0], time.time_ns()) if limits else None

    def fits(created_ns: int, labels: "Mapping[str, str]") -> bool:
        if until_ns is not None and created_ns > until_ns:
            return False
        unwanted = chosen.values("label!")
        return chosen.labels("label", labels) and not any(
            Filters([f"label={text}"], ("label",)).labels("label", labels) for text in unwanted
        )

    return fits
