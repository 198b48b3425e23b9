"""What the library is handed by its callers: bytes, paths, open files; or an error that says so."""

import io
import os
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from typing import IO

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
