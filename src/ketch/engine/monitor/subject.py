"""What a log's writer is told of the container whose log it writes, by way of the handover."""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.records.rows import Container
    from ketch.engine.requests import wire


class Subject:
    """A container as its log's tags and attributes name it.

    Attributes:
        id: its identifier.
        name: its name.
        image_id: digest of its image's config.
        image_reference: the image as the user wrote it.
        created_ns: when it was made, in nanoseconds since the epoch.
        record: what was asked for, as far as its log concerns.
    """

    __slots__ = ("created_ns", "id", "image_id", "image_reference", "name", "record")

    def __init__(self, fields: "Mapping[str, wire.Value]") -> None:
        self.id = str(fields["container"])
        self.name = str(fields["name"])
        self.image_id = str(fields["image_id"])
        self.image_reference = str(fields["image"])
        self.created_ns = int(str(fields["created_ns"]))
        text = str(fields["record"])
        self.record: dict[str, Any] = json.loads(text) if text else {}


def fields(container: "Container") -> "dict[str, wire.Value]":
    """Returns what ``Subject`` is made of again; least where the log is as by default."""
    asked = container.record["HostConfig"].get("LogConfig") or {}
    text = ""
    if asked.get("Config") or asked.get("Type", "json-file") not in {"", "json-file"}:
        text = json.dumps(container.record)
    return {
        "name": container.name,
        "image_id": container.image_id,
        "image": container.image_reference,
        "created_ns": str(container.created_ns),
        "record": text,
    }
