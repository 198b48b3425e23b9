"""JSON and text as Docker's clients send and expect them, and as Go understands them."""

import json

from ketch.errors import InvalidArgumentError

JSON_DEPTH_MAX = 64


def encode(document: object) -> bytes:
    """Encode a JSON document as Docker does: compact, with a newline at the end."""
    return whole(json.dumps(document, separators=(",", ":"), ensure_ascii=False)).encode() + b"\n"


def parse(body: bytes) -> object:
    """Decode JSON from a stranger.

    Raises:
        InvalidArgumentError: it is no JSON, nested too deeply, or a string holds a NUL.
    """
    try:
        found = json.loads(body, object_pairs_hook=_in_order)
    except RecursionError as error:
        raise InvalidArgumentError("invalid JSON: nested too deeply") from error
    except ValueError as error:
        raise InvalidArgumentError(f"invalid JSON: {error}") from error
    return _cleaned(found, 0)


def _in_order(pairs: "list[tuple[str, object]]") -> dict[str, object]:
    """Make an object in which a name that comes again stands where it came last."""
    found: dict[str, object] = {}
    for name, value in pairs:
        before = found.pop(name, None)
        if isinstance(before, dict) and isinstance(value, dict):
            value = {**before, **value}  # noqa: PLW2901 - as Go fills in what is there already
        found[name] = value
    return found


def _cleaned(value: object, depth: int) -> object:
    if depth > JSON_DEPTH_MAX:
        raise InvalidArgumentError("invalid JSON: nested too deeply")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_cleaned(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean_text(name): _cleaned(item, depth + 1) for name, item in value.items()}
    return value


def clean_text(text: str) -> str:
    """Returns a stranger's text fit for use: half a surrogate pair becomes U+FFFD, as in Go.

    Raises:
        InvalidArgumentError: it holds a NUL, which no name, path or argument can.
    """
    if "\0" in text:
        raise InvalidArgumentError("invalid value: a text holds a NUL")
    return whole(text)


def whole(text: str) -> str:
    """Returns a text with U+FFFD for every half of a surrogate pair, as Go shows it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
