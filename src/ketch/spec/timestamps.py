"""Moments and durations as Docker writes and reads them: RFC 3339, Go's durations, plain words.

A moment is a number of nanoseconds since the epoch, a duration a number of nanoseconds.
"""

import datetime
import re
import time

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

SECOND_NS = 1_000_000_000

# Of what does not say when it was made; Docker shows Go's zero time for it.
UNKNOWN_NS = -(1 << 62)
ZERO = "0001-01-01T00:00:00Z"

_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?"
    r"(Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_UNIX = re.compile(r"(-?\d+)(?:\.(\d{1,9}))?", re.ASCII)
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_UNIT = re.compile(r"[^.0-9]+")
_DECIMALS_MAX = 18  # more make no difference to a duration of 64 bits
_UNITS_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000,
    "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS,
}  # fmt: skip


def rfc3339(moment_ns: int) -> str:
    """Returns a moment in UTC with as many decimals as it needs: Go's RFC3339Nano."""
    seconds, nanoseconds = divmod(moment_ns, SECOND_NS)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{text}{fraction}Z"


def rfc3339_fixed(moment_ns: int) -> str:
    """Returns a moment in UTC with nine decimals, so that columns of them line up."""
    seconds, nanoseconds = divmod(moment_ns, SECOND_NS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def created_ns(text: str) -> int:
    """Reads when an image was made, as its configuration says it.

    Returns:
        The moment, or UNKNOWN_NS where the text is no whole moment of RFC 3339 or is Go's zero.
    """
    match = _MOMENT.fullmatch(text)
    found = _calendar_moment(*match.groups(default="")) if match and match[8] else None
    return UNKNOWN_NS if found is None or text == ZERO else found


def local(moment_ns: int) -> str:
    """Returns a moment in local time with nine decimals: Go's RFC3339Nano, not cut."""
    seconds, nanoseconds = divmod(moment_ns, SECOND_NS)
    found = time.localtime(seconds)
    zone = time.strftime("%z", found)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', found)}.{nanoseconds:09d}{zone}"


def moment(text: str, now_ns: int) -> int:
    """Reads a moment that a user gave, as ``--since`` and ``--until`` take it.

    Args:
        text: RFC 3339, whole or cut after any field, in local time where it names no zone; or
            seconds since the epoch, with decimals or without; or a duration before now.
        now_ns: the present.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    if match := _MOMENT.fullmatch(text):
        found = _calendar_moment(*match.groups(default=""))
        if found is not None:
            return found
    elif match := _UNIX.fullmatch(text):
        sign, seconds = (-1 if text[0] == "-" else 1), decimal(match[1].lstrip("-"))
        if seconds is not None:
            return sign * (seconds * SECOND_NS + int((match[2] or "").ljust(9, "0")))
    else:
        try:
            return now_ns - duration(text)
        except InvalidArgumentError:
            pass
    raise InvalidArgumentError(f'failed to parse value as time or duration: "{text}"')


def duration(text: str) -> int:
    """Reads a duration such as ``1h30m``, ``1.5s`` or ``300ms``: Go's ``time.ParseDuration``.

    Raises:
        InvalidArgumentError: it is no duration.
    """
    sign = -1 if text[:1] == "-" else 1
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    total = position = 0
    for match in _DURATION.finditer(rest):
        if match.start() != position:
            break
        whole, _, decimals = match[1].partition(".")
        unit, amount = _UNITS_NS[match[2]], decimal(whole or "0")
        if amount is None:
            break
        decimals = decimals[:_DECIMALS_MAX]
        total += amount * unit + int(decimals or "0") * unit // 10 ** len(decimals)
        position = match.end()
    if not rest or position != len(rest) or total >= 1 << 63:
        raise InvalidArgumentError(f'time: {_fault(rest[position:])} duration "{text}"')
    return sign * total


def _fault(rest: str) -> str:
    """Returns what is wrong with a duration from where it is, in Go's words."""
    number = _NUMBER.match(rest)
    if number is None:
        return "invalid"
    unit = _UNIT.match(rest, number.end())
    if unit is None:
        return "missing unit in"
    return "invalid" if unit[0] in _UNITS_NS else f'unknown unit "{unit[0]}" in'


def spoken(duration_ns: int) -> str:
    """Returns a duration in words: ``Less than a second``, ``3 minutes``, ``About an hour``."""
    seconds = duration_ns // SECOND_NS
    minutes = seconds // 60
    hours = (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // 3600 // 24 // 365} years"


def _calendar_moment(
    year: str, month: str, day: str, hour: str, minute: str, second: str, fraction: str, zone: str
) -> int | None:
    offset = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6])) if zone[1:] else None
    if offset is not None and zone[0] == "-":
        offset = -offset
    try:
        found = datetime.datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            tzinfo=datetime.timezone(offset or datetime.timedelta()) if zone else None,
        )  # fmt: skip
        seconds = int(found.timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds * SECOND_NS + int(fraction.ljust(9, "0"))
