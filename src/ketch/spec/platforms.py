"""Which images run on which platform, and which of an index's is the one to take.

Source: github.com/containerd/platforms, "Only" and "Normalize": what Docker takes.
"""

from ketch.errors import NotFoundError, spelt_out
from ketch.spec import image as documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.spec.image import Descriptor, Platform

_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
_SYSTEMS = {"macos": "darwin"}
# What machines of a variant run, the best first.
_DESCENDING = {"arm": ("v8", "v7", "v6", "v5"), "amd64": ("v4", "v3", "v2", "v1")}


def shown(platform: "Platform") -> str:
    """Returns a platform as people write it: ``linux/arm64/v8``."""
    variant = platform.get("variant", "")
    parts = (platform["os"], platform["architecture"], variant)
    return spelt_out("/".join(part for part in parts if part))


def candidates(platform: "Platform") -> "list[tuple[str, str, str]]":
    """Returns what runs on a platform, as system, architecture and variant, the best first."""
    system, architecture, variant = normal(platform)
    order = _DESCENDING.get(architecture)
    if order and variant in order:
        found = [(system, architecture, each) for each in order[order.index(variant) :]]
    else:
        found = [(system, architecture, variant)]
    if architecture == "arm64":
        found += [(system, "arm", each) for each in _DESCENDING["arm"]]
    if architecture == "amd64":
        found.append((system, "386", ""))
    return found


def matches(platform: "Platform", wanted: "Platform") -> bool:
    """Whether what was made for a platform runs on the one that is wanted."""
    return normal(platform) in candidates(wanted)


def by_preference(entries: "Sequence[Descriptor]", wanted: "Platform") -> "list[Descriptor]":
    """Returns what may run on a platform of an index's entries, the best first.

    Those that do not say what they are for come last: signatures, indexes that lead on to others,
    and images whose configuration says it alone.
    """
    ranks = {candidate: rank for rank, candidate in enumerate(candidates(wanted))}
    ranked = []
    for entry in entries:
        platform = entry.get("platform")
        rank = ranks.get(normal(platform)) if platform else len(ranks)
        if rank is not None:
            ranked.append((rank, entry))
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]


def unmatched(entries: "Sequence[Descriptor]", wanted: "Platform") -> NotFoundError:
    """Returns the error that none of an index's entries is for a platform."""
    there = sorted({shown(entry["platform"]) for entry in entries if "platform" in entry})
    return NotFoundError(
        f"no matching manifest for {shown(wanted)} in the manifest list entries",
        f"there are: {', '.join(there[:20])}" if there else "",
    )


def normal(platform: "Platform") -> tuple[str, str, str]:
    """Returns a platform's system, architecture and variant, the usual ones where it has none."""
    system = platform["os"].lower() or "linux"
    architecture, variant = documents.usual(
        platform["architecture"].lower(), platform.get("variant", "").lower()
    )
    variant = variant or _DEFAULT_VARIANTS.get(architecture, "")
    return _SYSTEMS.get(system, system), architecture, variant
