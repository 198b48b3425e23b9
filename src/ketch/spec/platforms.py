"""Which images run on which platform, and which of an index's is the one to take.

Source: github.com/containerd/platforms, "Only": what Docker takes.
"""

from ketch.errors import NotFoundError, spelt_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.spec.image import Descriptor, Platform

_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
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
    return found


def matches(platform: "Platform", wanted: "Platform") -> bool:
    """Whether what was made for a platform runs on the one that is wanted."""
    return normal(platform) in candidates(wanted)


def choose(manifests: "Sequence[Descriptor]", wanted: "Platform") -> "Descriptor":
    """Returns the best of an index's manifests for a platform, the first among equals.

    Args:
        manifests: their descriptors.
        wanted: what it is to run on.

    Raises:
        NotFoundError: none of them runs there.
    """
    ranks = {candidate: rank for rank, candidate in enumerate(candidates(wanted))}
    best: Descriptor | None = None
    best_rank = len(ranks)
    for entry in manifests:
        platform = entry.get("platform")
        # Without a platform stand signatures, and indexes that lead on to others.
        rank = ranks.get(normal(platform), best_rank) if platform else best_rank
        if rank < best_rank:
            best, best_rank = entry, rank
    if best is None:
        there = ", ".join(
            sorted({shown(entry["platform"]) for entry in manifests if "platform" in entry})[:20]
        )
        raise NotFoundError(
            f"no matching manifest for {shown(wanted)} in the manifest list entries",
            f"there are: {there}" if there else "",
        )
    return best


def normal(platform: "Platform") -> tuple[str, str, str]:
    """Returns a platform's system, architecture and variant, the usual one where it has none."""
    architecture = platform["architecture"].lower()
    variant = platform.get("variant", "").lower() or _DEFAULT_VARIANTS.get(architecture, "")
    return platform["os"].lower(), architecture, variant
