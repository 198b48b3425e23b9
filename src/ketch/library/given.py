"""What the library is handed by its callers: bytes, paths, open files; or an error that says so."""

import io
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgumentError
from ketch.spec import timestamps

if TYPE_CHECKING:
    from typing import IO

SECONDS_MAX = 10**9
"""More than thirty years: who means for ever says None."""

_PATH = (str, os.PathLike)


def content(keyword: str, value: object) -> bytes:
    """Returns bytes that were given.

    Args:
        keyword: as what.
        value: ``bytes``, or what holds some like ``bytearray``.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    hint = f"text becomes bytes by encoding it: {keyword}=text.encode()"
    raise InvalidArgumentError(
        f"{keyword}={value!r}: bytes are wanted", hint if isinstance(value, str) else ""
    )


def text(keyword: str, value: object) -> str:
    """Returns a text that was given; a number stands for its digits, a path and None for theirs.

    Args:
        keyword: as what.
        value: what was given.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))  # a signal.Signals too
    found = path(value)
    if found is None:
        raise InvalidArgumentError(f"{keyword}={value!r}: a text is wanted")
    return found


def lifetime(value: object) -> str:
    """Returns whose end is a container's as well: ``container`` or ``process``.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if value not in {"container", "process"}:
        raise InvalidArgumentError(f"lifetime={value!r}: 'container' or 'process' is wanted")
    return str(value)


def limits(timeout: float | None, max_output: int | None) -> None:
    """Check what a program may take: seconds, and bytes of output.

    Raises:
        InvalidArgumentError: one of them is no number, or below zero.
    """
    if timeout is not None:
        seconds("timeout", timeout)
    is_number = isinstance(max_output, int) and not isinstance(max_output, bool)
    if max_output is not None and not (is_number and max_output >= 0):
        raise InvalidArgumentError(
            f"max_output={max_output!r}: a whole number of bytes from 0 on is wanted",
            "None is any number",
        )


def seconds(keyword: str, value: object, *, some: bool = False) -> float:
    """Returns how long something may take, in seconds.

    Args:
        keyword: as what it was given.
        value: what was given.
        some: whether it must be more than none.

    Raises:
        InvalidArgumentError: it is no number, below zero, or beyond all bounds.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # nan is not in between either.
    if is_number and 0 <= value <= SECONDS_MAX and not (some and value == 0):  # type: ignore[operator]
        return value  # type: ignore[return-value]
    raise InvalidArgumentError(
        f"{keyword}={value!r}: a number of seconds {'above' if some else 'from'} 0 is wanted, of"
        f" {SECONDS_MAX} at most",
        "None is for ever",
    )


def moment(keyword: str, value: "str | datetime | timedelta", now_ns: int) -> int | None:
    """Returns a time that was given, in nanoseconds since the epoch; None where it is empty.

    Args:
        keyword: as what.
        value: a text of the command line's; a ``datetime``, which is local where it has no zone;
            a ``timedelta``, before now.
        now_ns: when that is.

    Raises:
        InvalidArgumentError: it is something else, or no time.
    """
    if isinstance(value, timedelta):
        return now_ns - value // timedelta(microseconds=1) * 1000
    if isinstance(value, datetime):
        since = value.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return since // timedelta(microseconds=1) * 1000
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{keyword}={value!r}: a time is wanted")
    return timestamps.moment(value, now_ns) if value else None


def path(value: object) -> str | None:
    """Returns the path that was given, None where it is something else."""
    return os.fsdecode(value) if isinstance(value, _PATH) else None


def file(keyword: str, value: object, method: str) -> "IO[bytes]":
    """Returns what was given to be read from or written to; bytes serve as well to be read.

    Args:
        keyword: as what.
        value: what was given.
        method: what it must have: ``read``, ``write`` or ``fileno``.

    Raises:
        InvalidArgumentError: it has not.
    """
    if method == "read" and isinstance(value, (bytes, bytearray, memoryview)):
        return io.BytesIO(value)
    if not callable(getattr(value, method, None)):
        raise InvalidArgumentError(
            f"{keyword}={value!r}: a file that is open in binary mode is wanted"
        )
    found: Any = value
    return found  # type: ignore[no-any-return]
