"""The build cache in BuildKit's messages: what it holds, and removing what is asked for.

Source: moby/buildkit, cache/manager.go (calculateKeepBytes); containerd, pkg/filters: as much of
its filters as buildx writes.
"""

import os
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import schema
from ketch.api.buildkit.telling import timestamp
from ketch.build.cache import pruning, usage
from ketch.errors import InvalidArgumentError
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.usage import Usage
    from ketch.engine.engine import Engine

_SECOND_NS = 1_000_000_000


def listed(engine: "Engine", request: Any) -> Any:
    """Returns what the cache holds: the answer to a DiskUsageRequest.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    words = schema.messages("control")
    fits = pruning.chooser(_pairs(request.filter, request.ageLimit))
    found = [_record(one) for one in usage.listed(engine) if fits(one)]
    return words.DiskUsageResponse(record=found)


def pruned(engine: "Engine", request: Any) -> list[Any]:
    """Removes what a PruneRequest asks for; returns what it was.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    pairs = _pairs(request.filter, request.keepDuration)
    keep_bytes = 0
    if request.reservedSpace or request.maxUsedSpace or request.minFreeSpace:
        facts = os.statvfs(engine.settings.root)
        keep_bytes = kept_bytes(
            sum(one.size_bytes for one in usage.listed(engine) if not one.shared),
            facts.f_bavail * facts.f_frsize,
            reserved=request.reservedSpace,
            most=request.maxUsedSpace,
            free=request.minFreeSpace,
        )
    done = pruning.prune(engine, pairs, all=request.all, keep_bytes=keep_bytes)
    return [_record(one) for one in done.removed]


def kept_bytes(total: int, available: int, *, reserved: int, most: int, free: int) -> int:
    """Returns how much may stay; all sizes in bytes.

    Args:
        total: what the cache takes.
        available: what is free on its disk.
        reserved: what stays in any case.
        most: what may stay, 0 for any size.
        free: what is to be free afterwards, 0 for any size.
    """
    keep = most
    missing = free - available
    if missing > 0:
        keep = min(keep or total, total - missing)
    return max(keep, reserved, 1)


def _pairs(filters: "Sequence[str]", age_ns: int) -> list[str]:
    """Returns containerd's filters as those of Docker's API."""
    given = [one for one in filters if one]
    if len(given) > 1:
        raise InvalidArgumentError("several filters, of which one is to fit: give one alone")
    pairs = [_pair(one) for text in given for one in text.split(",")]
    if age_ns > 0:
        pairs.append(f"until={age_ns / _SECOND_NS:.9f}s")
    return pairs


def _pair(selector: str) -> str:
    for operator in ("==", "~=", "!="):
        name, found, value = selector.partition(operator)
        if not found:
            continue
        if operator == "!=" or (operator == "~=") != (name == "id"):
            break
        return f"{name}={value.strip(chr(34))}"
    else:
        return f"{selector}=true"
    raise InvalidArgumentError(
        f"invalid filter {quoted(selector[:200])}", "there is field==value, and id~=value"
    )


def _record(one: "Usage") -> Any:
    return schema.messages("control").UsageRecord(
        ID=one.id,
        Mutable=one.mutable,
        InUse=one.in_use,
        Size=one.size_bytes,
        CreatedAt=timestamp(one.created_ns),
        LastUsedAt=timestamp(one.used_ns),
        UsageCount=one.uses,
        Description=one.description,
        RecordType=one.type,
        Shared=one.shared,
        Parents=one.parents,
    )
