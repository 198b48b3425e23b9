"""Volumes as documents, and which of them filters choose."""

import time

from ketch.engine.records import events
from ketch.engine.volumes import volumes
from ketch.errors import InvalidArgumentError
from ketch.linux import descent
from ketch.spec.filters import Filters
from ketch.spec.template_functions import NilMap, Struct
from ketch.spec.values import boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.engine.engine import Engine
    from ketch.engine.volumes.records import Volume
    from ketch.engine.volumes.volumes import Pruned, Volumes

LIST_FILTERS = ("dangling", "driver", "label", "name")
PRUNE_FILTERS = ("all", "label", "label!")


def document(volume: "Volume") -> Struct:
    """Returns what is known of a volume, in the API's keys and order (``Volume``)."""
    moment = time.localtime(volume.created_ns // 10**9)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return Struct(
        {
            "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%S", moment) + zone,
            "Driver": volumes.LOCAL,
            "Labels": volume.labels or NilMap(),
            "Mountpoint": volume.mountpoint,
            "Name": volume.name,
            "Options": volume.options or NilMap(),
            "Scope": "local",
        },
        optional={"ClusterVolume": None, "Status": NilMap(), "UsageData": None},
    )


def usage(volume: "Volume") -> Struct:
    """Returns the same, with how much it takes and how many containers have it."""
    counted = {"Size": descent.usage(volume.mountpoint)[0], "RefCount": len(volume.users)}
    return Struct({**document(volume), "UsageData": Struct(counted)})


def select(found: "Volumes", pairs: "Iterable[str]" = ()) -> "list[Volume]":
    """Returns the volumes that fit all filters, by name.

    Args:
        found: the engine's volumes.
        pairs: filters, ``name=value`` each.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    chosen = Filters(pairs, LIST_FILTERS)
    dangling = _truth(chosen, "dangling")
    return [
        volume
        for volume in found.list()
        if chosen.pattern("name", volume.name)
        and chosen.exact("driver", volumes.LOCAL)
        and chosen.labels("label", volume.labels)
        and (dangling is None or dangling is not bool(volume.users))
    ]


def prune(engine: "Engine", pairs: "Iterable[str]" = (), *, everything: bool = False) -> "Pruned":
    """Remove the volumes that no container has: anonymous ones, or all.

    Args:
        engine: where.
        pairs: filters, ``name=value`` each: with or without labels, or ``all=true``.
        everything: whether named ones go too.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    chosen = Filters(pairs, PRUNE_FILTERS)
    pruned = engine.volumes.prune(
        everything=everything or bool(_truth(chosen, "all")), keep=_unwanted(chosen)
    )
    with engine.store.transaction() as connection:
        attributes = {"reclaimed": str(pruned.freed_bytes)}
        events.record(connection, "volume", "prune", "", attributes)
    return pruned


def _unwanted(chosen: Filters) -> "Callable[[Volume], bool]":
    def keep(volume: "Volume") -> bool:
        return not chosen.labels("label", volume.labels) or any(
            Filters([f"label={text}"], ("label",)).labels("label", volume.labels)
            for text in chosen.values("label!")
        )

    return keep


def _truth(chosen: Filters, name: str) -> bool | None:
    values = chosen.values(name)
    if not values:
        return None
    try:
        truths = {boolean(value) for value in values}
    except InvalidArgumentError:
        truths = set()
    if len(truths) != 1:
        raise InvalidArgumentError(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths.pop()
