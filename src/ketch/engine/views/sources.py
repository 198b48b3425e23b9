"""Where an archive is read from: standard input, a URL, or a file."""

import functools

from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.linux import sparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

_DOWNLOAD_TIMEOUT_SECONDS = 60


class Source:
    """Where an archive is read from: standard input, a URL, or a file.

    Args:
        name: ``-``, a URL, or a path.
    """

    __slots__ = ("_close", "_name", "_read")

    def __init__(self, name: str) -> None:
        self._name = name
        self._read: Callable[[int], bytes]
        self._close: Callable[[], object]

    def __enter__(self) -> "Source":
        """Open it.

        Raises:
            NotFoundError: there is no such file.
            InvalidArgumentError: it cannot be opened.
        """
        try:
            if self._name == "-":
                self._open(open(0, "rb", buffering=0, closefd=False))
            elif self._name.startswith(("http://", "https://")):
                from urllib.request import urlopen  # noqa: PLC0415 - rarely used and large

                response = urlopen(self._name, timeout=_DOWNLOAD_TIMEOUT_SECONDS)
                self._read, self._close = response.read, response.close
            else:
                self._open(open(self._name, "rb", buffering=0))
        except FileNotFoundError as error:
            raise NotFoundError(f"open {self._name}: no such file or directory") from error
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"open {self._name}: {_reason(error)}") from error
        return self

    def _open(self, file: "FileIO") -> None:
        self._read, self._close = functools.partial(sparse.read, file.fileno()), file.close

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._close()

    def read(self, size: int, /) -> bytes:
        """Returns up to ``size`` bytes, none at the end.

        Raises:
            UnavailableError: it breaks off.
        """
        try:
            return self._read(size)
        except Exception as error:  # the network's libraries raise classes of their own
            raise UnavailableError(f"read {self._name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    error = getattr(error, "reason", error)  # what urllib wraps
    strerror = getattr(error, "strerror", None)
    return strerror.lower() if strerror else str(error)
