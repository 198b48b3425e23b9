"""``manifest.json`` of Docker's image archives: which images there are, and of which members.

Source: moby, image/tarexport/tarexport.go, ``manifestItem``.
"""

import json

from ketch.errors import InvalidArgumentError
from ketch.spec.image import DOCUMENT_SIZE_MAX, LAYERS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    class Item(TypedDict):
        """One image of an archive."""

        Config: str
        RepoTags: list[str]
        Layers: list[str]
        Parent: str


NAME = "manifest.json"
_IMAGES_MAX = 1000
_NAMES_MAX = 1000


def parse(content: bytes) -> "list[Item]":
    """Read the list.

    Raises:
        InvalidArgumentError: it is malformed or too large.
    """
    if len(content) > DOCUMENT_SIZE_MAX:
        raise InvalidArgumentError(f"{NAME}: larger than {DOCUMENT_SIZE_MAX} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{NAME}: not JSON: {error}") from error
    if not isinstance(found, list) or len(found) > _IMAGES_MAX:
        raise InvalidArgumentError(f"{NAME}: not a list of at most {_IMAGES_MAX} images")
    return [_item(value, f"{NAME}: image {number}") for number, value in enumerate(found)]


def _item(value: "Any", where: str) -> "Item":
    if not isinstance(value, dict) or not isinstance(value.get("Config"), str):
        raise InvalidArgumentError(f"{where}: Config is not the name of a member")
    if not value["Config"]:
        raise InvalidArgumentError(f"{where}: Config is empty")
    parent = value.get("Parent") or ""
    if not isinstance(parent, str):
        raise InvalidArgumentError(f"{where}: Parent is not an image's ID")
    return {
        "Config": value["Config"],
        "RepoTags": _texts(value, "RepoTags", where),
        "Layers": _texts(value, "Layers", where),
        "Parent": parent,
    }


def _texts(value: "dict[str, Any]", key: str, where: str) -> list[str]:
    texts = value.get(key) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidArgumentError(f"{where}: {key} is not a list of text")
    limit = LAYERS_MAX if key == "Layers" else _NAMES_MAX
    if len(texts) > limit:
        raise InvalidArgumentError(f"{where}: more than {limit} {key.lower()}")
    return texts
