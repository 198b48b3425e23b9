"""Results of steps as a document, which travels with their layers: to registries and directories.

The document is the configuration of an OCI manifest whose layers are those of the steps; or it
stands in an image's own configuration (``inline``), under ``ATTRIBUTE``, and the layers are the
image's. Keys are digests of all that a step could see: so they are right on every machine, and say
nothing of what went into them.

Who reads one trusts whoever wrote it, as whoever pulls an image does: that this layer came of that
step cannot be checked. That it is this layer is.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError
from ketch.spec import digest as digests
from ketch.spec import image as documents

if TYPE_CHECKING:
    from ketch.spec.image import Descriptor

MEDIA_TYPE = "application/vnd.ketch.build-cache.v1+json"
ATTRIBUTE = "ketch.build-cache.v1"

ENTRIES_MAX = 10_000
_DESCRIPTION_MAX = 4096


@dataclass(frozen=True)
class Entry:
    """What one step came to.

    Attributes:
        key: the step's.
        diff_id: of its layer.
        below: chain ID of what that lies on; empty for nothing.
        alone: whether it may lie on anything else as well.
        description: of the step.
        created_ns: when it was made, nanoseconds since the epoch.
    """

    key: str
    diff_id: str
    below: str
    alone: bool
    description: str
    created_ns: int


def encode(entries: Iterable[Entry], diff_ids: Iterable[str] = ()) -> bytes:
    """Returns a document.

    Args:
        entries: what it has.
        diff_ids: of the layers beside it, in their order.
    """
    return documents.encode({"layers": list(diff_ids), "steps": plain(entries)})


def plain(entries: Iterable[Entry]) -> "list[dict[str, Any]]":
    """Returns entries as JSON has them."""
    return [
        {
            "key": one.key, "layer": one.diff_id, "below": one.below, "alone": one.alone,
            "description": one.description[:_DESCRIPTION_MAX], "created": one.created_ns,
        }
        for one in entries
    ]  # fmt: skip


def parse(content: bytes) -> tuple[list[Entry], list[str]]:
    """Read a document: its entries, and the diff IDs of the layers beside it.

    Raises:
        InvalidArgumentError: it is malformed, or too large.
    """
    if len(content) > documents.DOCUMENT_SIZE_MAX:
        raise _malformed("it is too large")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _malformed("it is no JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("layers"), list):
        raise _malformed("it has no layers")
    layers = found["layers"]
    if len(layers) > documents.LAYERS_MAX * 20:
        raise _malformed("it has too many layers")
    for diff_id in layers:
        _checked(diff_id)
    return entries_of(found.get("steps")), layers


def entries_of(steps: "Any") -> list[Entry]:
    """Read the entries of a document that was parsed.

    Raises:
        InvalidArgumentError: they are malformed, or too many.
    """
    if not isinstance(steps, list) or len(steps) > ENTRIES_MAX:
        raise _malformed("its steps are no list, or too many")
    return [_entry(step) for step in steps]


def blobs(diff_ids: Iterable[str], layers: "Iterable[Descriptor]") -> "dict[str, Descriptor]":
    """Returns the blob of each layer, by its diff ID.

    Raises:
        InvalidArgumentError: there are not as many of the ones as of the others.
    """
    ids, found = list(diff_ids), list(layers)
    if len(ids) != len(found):
        raise _malformed(f"it tells of {len(ids)} layers, and there are {len(found)}")
    return dict(zip(ids, found, strict=True))


def _entry(step: "Any") -> Entry:
    if not isinstance(step, dict):
        raise _malformed("a step is no object")
    key, diff_id = _checked(step.get("key")), _checked(step.get("layer"))
    below = _checked(step["below"]) if step.get("below") else ""
    description, created_ns = step.get("description", ""), step.get("created", 0)
    if not isinstance(description, str) or type(created_ns) is not int:
        raise _malformed("a step's description or time is none")
    if not 0 <= created_ns < 1 << 63 or not isinstance(step.get("alone", False), bool):
        raise _malformed("a step's time cannot be")
    return Entry(
        key, diff_id, below, step.get("alone", False), description[:_DESCRIPTION_MAX],
        created_ns,
    )  # fmt: skip


def _checked(text: "Any") -> str:
    if not isinstance(text, str):
        raise _malformed("a digest is no text")
    if not digests.valid(text):
        raise _malformed(f"{text[:100]!r} is no digest")
    return text


def _malformed(reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"build cache: {reason}")
