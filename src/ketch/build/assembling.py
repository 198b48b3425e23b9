"""From layers to an image's configuration: its history and times, as BuildKit writes them.

Source: moby/buildkit, exporter/containerimage/writer.go (patchImageConfig,
normalizeLayersAndHistory) and frontend/dockerfile/dockerfile2llb/convert.go (commitToHistory).
"""

import itertools
from typing import TYPE_CHECKING, Any, cast

from ketch.spec import image as documents
from ketch.spec import timestamps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.graph import Target
    from ketch.build.states import Layer
    from ketch.spec.image import History, ImageConfig

_COMMENT = "buildkit.dockerfile.v0"
_EXPORTED = "buildkit.exporter.image.v0"


def document(
    target: "Target",
    layers: "Sequence[Layer]",
    base: "ImageConfig | None",
    epoch_s: int | None = None,
) -> "ImageConfig":
    """Returns an image's whole configuration.

    Args:
        target: what was built.
        layers: its layers.
        base: the configuration of the image that it builds on, None for none.
        epoch_s: the time that the image and what was added of its history get, in seconds since
            the epoch; None for when it was made.
    """
    history: list[History] = list(base.get("history") or ()) if base is not None else []
    epoch = None if epoch_s is None else timestamps.rfc3339(epoch_s * 1_000_000_000)
    for step in target.steps:
        entry: History = {}
        if epoch is not None:
            entry["created"] = epoch
        entry["created_by"] = step.created_by
        entry["comment"] = _COMMENT
        if step.vertex is None:
            entry["empty_layer"] = True
        history.append(entry)
    history = dated(counted(history, layers), layers)
    if epoch_s is not None:
        history = [_no_later(entry, epoch_s * 1_000_000_000) for entry in history]
    whole = cast("dict[str, Any]", dict(target.config))
    whole["rootfs"] = {
        "type": "layers", "diff_ids": [layer.diff_id for layer in layers],
    }  # fmt: skip
    whole["history"] = history
    created = epoch or next(
        (entry["created"] for entry in reversed(history) if entry.get("created")), ""
    )
    if created:
        whole["created"] = created
    # Go writes a map sorted.
    return cast("ImageConfig", dict(sorted(whole.items())))


def squashed(document: "ImageConfig", layers: "Sequence[Layer]", base_layers: int) -> "ImageConfig":
    """Returns the configuration of an image whose new layers have become one, as Docker has it.

    Args:
        document: before.
        layers: after.
        base_layers: how many of them are the base's.
    """
    kept, history = base_layers, []
    for entry in document.get("history") or ():
        if not entry.get("empty_layer"):
            kept -= 1
        is_merged = not entry.get("empty_layer") and kept < 0
        history.append({**entry, "empty_layer": True} if is_merged else entry)
    merged: History = {
        "created": document.get("created") or timestamps.rfc3339(layers[-1].created_ns),
        "comment": "merge of what was built into one layer",
    }
    whole = cast("dict[str, Any]", dict(document))
    whole["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    whole["history"] = [*history, merged]
    return cast("ImageConfig", whole)


def counted(history: "list[History]", layers: "Sequence[Layer]") -> "list[History]":
    """Returns a history that tells of as many layers as there are."""
    told = [entry for entry in history if not entry.get("empty_layer")]
    if len(told) > len(layers):
        # An odd image: those beyond are told to have none.
        numbers = itertools.accumulate(not entry.get("empty_layer") for entry in history)
        return [
            {**entry, "empty_layer": True} if number > len(layers) else entry
            for entry, number in zip(history, numbers, strict=True)
        ]
    missing: list[History] = [
        {
            "created": timestamps.rfc3339(layer.created_ns),
            "created_by": layer.description or "created by buildkit",
            "comment": _EXPORTED,
        }
        for layer in layers[len(told) :]
    ]
    return [*history, *missing]


def dated(history: "list[History]", layers: "Sequence[Layer]") -> "list[History]":
    """Returns a history with a time for each entry.

    A layer has the time when it was made. What has no layer has that of the first new one after the
    base, or else of what went before.
    """
    number = 0
    found: list[History] = []
    for entry in history:
        made_ns = 0
        if not entry.get("empty_layer"):
            made_ns = layers[number].created_ns if number < len(layers) else 0
            number += 1
        is_new = not entry.get("created") and made_ns > 0
        found.append(_at(entry, timestamps.rfc3339(made_ns)) if is_new else entry)
    created, lacks = "", False
    for entry in found:
        if entry.get("created"):
            created = entry["created"]
            if lacks:
                break
        else:
            lacks = True
    lacks = False
    result: list[History] = []
    for entry in found:
        if not entry.get("created"):
            lacks = True
            result.append(_at(entry, created) if created else entry)
            continue
        if lacks:
            created = entry["created"]
        result.append(entry)
    return result


def _no_later(entry: "History", epoch_ns: int) -> "History":
    is_later = timestamps.created_ns(entry.get("created") or "") > epoch_ns
    return {**entry, "created": timestamps.rfc3339(epoch_ns)} if is_later else entry


def _at(entry: "History", created: str) -> "History":
    return cast("History", {"created": created, **entry})


def descriptor(layer: "Layer", size_bytes: int) -> "documents.Descriptor":
    """Returns the descriptor of a layer's blob: the base's own, or of the plain archive."""
    return layer.descriptor or documents.descriptor(documents.OCI_LAYER, layer.diff_id, size_bytes)
