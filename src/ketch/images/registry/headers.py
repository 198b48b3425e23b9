"""The header fields by which registries say more than a status. Pure parsers of hostile text."""

import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import Iterable

FIELD_LENGTH_MAX = 1 << 14

# RFC 9110, 5.6.2 and 5.6.4. Each expression reads a text in one way only.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=[ \t,]|$)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))', re.DOTALL)
_TOKEN_68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_LINK = re.compile(r'[\s,]*<([^<>]*)>((?:\s*;\s*[A-Za-z*-]+\s*=\s*(?:"[^"]*"|[^\s",;]+))*)')
_RELATION = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))', re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})", re.ASCII)


class Challenge(NamedTuple):
    """One way in that a registry offers.

    Attributes:
        scheme: ``basic`` or ``bearer``, in lower case, or one that ketch does not know.
        parameters: their names in lower case.
    """

    scheme: str
    parameters: dict[str, str]


def challenges(fields: "Iterable[str]") -> list[Challenge]:
    """Read every ``WWW-Authenticate`` field of an answer; what is malformed ends a field.

    Source: RFC 9110, 11.6.1.
    """
    found: list[Challenge] = []
    for field in fields:
        text = field[:FIELD_LENGTH_MAX]
        position = 0
        while match := _SCHEME.match(text, position):
            position = match.end()
            challenge = Challenge(match[1].lower(), {})
            found.append(challenge)
            if token := _TOKEN_68.match(text, position):
                position = token.end()
                continue
            while parameter := _PARAMETER.match(text, position):
                name, quoted, bare = parameter.groups()
                value = bare if quoted is None else _ESCAPE.sub(r"\1", quoted)
                challenge.parameters.setdefault(name.lower(), value)
                position = parameter.end()
    return found


def next_page(field: str) -> str:
    """Returns the target of the link to the next page in a ``Link`` field; empty for none.

    Source: RFC 8288; OCI distribution specification, "Content Discovery".
    """
    text = field[:FIELD_LENGTH_MAX]
    position = 0
    while match := _LINK.match(text, position):
        relation = _RELATION.search(match[2])
        if relation and "next" in (relation[1] or relation[2] or "").lower().split():
            return match[1]
        position = match.end()
    return ""


def retry_after_seconds(field: str, limit_seconds: float) -> float | None:
    """Returns how long to wait by a ``Retry-After`` field, at most the limit; None without one.

    Source: RFC 9110, 10.2.3: seconds or a date.
    """
    text = field.strip()
    if not text or len(text) > 64:
        return None
    if (seconds := decimal(text, 64)) is not None:
        return min(float(seconds), limit_seconds)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return min(max(moment - time.time(), 0.0), limit_seconds)


def content_range(field: str) -> tuple[int, int, int | None] | None:
    """Returns first byte, last byte and whole length of a ``Content-Range`` field.

    The length is None where the sender does not know it; all is None where the field is malformed.
    """
    match = _CONTENT_RANGE.fullmatch(field.strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    length = None if match[3] == "*" else int(match[3])
    if last < first or (length is not None and last >= length):
        return None
    return first, last, length


def received_bytes(field: str) -> int | None:
    """Returns how much of an upload has arrived by the ``Range`` field of its status.

    ``0-0`` stands for one byte and, from registries that have none, for nothing: it counts as none.
    """
    match = _RANGE.fullmatch(field.strip())
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0
