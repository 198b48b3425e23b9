"""Where an archive is read from: standard input, a URL, or a file."""

import functools

from ketch.errors import (
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from ketch.linux import sparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from typing import Any

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
            NotFoundError: there is no such file, or the server has none.
            UnavailableError: the server cannot be reached, or fails.
            KetchError: it cannot be opened otherwise.
        """
        try:
            if self._name == "-":
                self._open(open(0, "rb", buffering=0, closefd=False))
            elif self._name.startswith(("http://", "https://")):
                self._download()
            else:
                self._open(open(self._name, "rb", buffering=0))
        except FileNotFoundError as error:
            raise NotFoundError(f"open {self._name}: no such file or directory") from error
        except (OSError, ValueError) as error:
            raise _told(error)(f"open {self._name}: {_reason(error)}") from error
        return self

    def _open(self, file: "FileIO") -> None:
        self._read, self._close = functools.partial(sparse.read, file.fileno()), file.close

    def _download(self) -> None:
        # Rarely used and large.
        from http.client import HTTPException, IncompleteRead  # noqa: PLC0415
        from urllib.request import HTTPRedirectHandler, Request, build_opener  # noqa: PLC0415

        class Redirects(HTTPRedirectHandler):
            """Follows nobody to FTP, nor to a connection less safe than this one."""

            def redirect_request(
                self, req: Request, fp: "Any", code: int, msg: str, headers: "Any", newurl: str
            ) -> Request | None:
                schemes = ("https://",) if req.type == "https" else ("https://", "http://")
                if not newurl.lower().startswith(schemes):
                    raise ValueError(f"it leads to {newurl[:200]}, where nobody follows")
                return super().redirect_request(req, fp, code, msg, headers, newurl)

        try:
            opener = build_opener(Redirects)
            response = opener.open(self._name, timeout=_DOWNLOAD_TIMEOUT_SECONDS)
        except HTTPException as error:
            raise InvalidArgumentError(f"open {self._name}: the answer is not HTTP") from error

        def read(size: int) -> bytes:
            content: bytes = response.read(size)
            if not content and response.length:  # http.client takes any end for the end
                raise IncompleteRead(b"", response.length)
            return content

        self._read, self._close = read, response.close

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


# What a server answers, as Docker tells it of (moby, daemon/builder/remotecontext).
_REFUSALS = {
    400: InvalidArgumentError,
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
}


def _told(error: Exception) -> type[KetchError]:
    """Returns the class of what keeps an archive from being opened."""
    if status := getattr(error, "code", None):  # urllib's HTTPError
        return _REFUSALS.get(status, UnavailableError if status >= 500 else InvalidArgumentError)
    # Whom urllib did not reach.
    reached = not isinstance(getattr(error, "reason", None), OSError)
    return InvalidArgumentError if reached else UnavailableError


def _reason(error: Exception) -> str:
    error = getattr(error, "reason", error)  # what urllib wraps
    strerror = getattr(error, "strerror", None)
    return strerror.lower() if strerror else str(error)
