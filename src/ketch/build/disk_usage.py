"""What takes up room, build cache included: the document of ``system df``, in the API's keys."""

from typing import TYPE_CHECKING, Any

from ketch.build.cache import usage
from ketch.engine.views import disk_usage
from ketch.spec import timestamps

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.engine.engine import Engine

KINDS = (*disk_usage.KINDS, "build-cache")


def document(engine: "Engine", kinds: "Collection[str]" = KINDS) -> dict[str, Any]:
    """Returns what everything takes.

    Args:
        engine: where.
        kinds: which of KINDS to look at.
    """
    found = disk_usage.document(engine, kinds)
    if "build-cache" in kinds:
        found["BuildCache"] = [_cached(one) for one in usage.listed(engine)]
    return found


def _cached(one: usage.Usage) -> dict[str, Any]:
    """One thing that is cached (``BuildCache``)."""
    return {
        "ID": one.id,
        "Parents": list(one.parents) or None,
        "Type": one.type,
        "Description": one.description,
        "InUse": one.in_use,
        "Shared": one.shared,
        "Size": one.size_bytes,
        "CreatedAt": timestamps.rfc3339(one.created_ns or one.used_ns),
        "LastUsedAt": timestamps.rfc3339(one.used_ns) if one.used_ns else None,
        "UsageCount": one.uses,
    }
