"""What a URL answers, as a file: for ADD, and as a context.

What came is kept with what the server called it (``ETag``, ``Last-Modified``), and the next build
asks whether that still holds. Credentials are shown to the server that they are for, and to none
that it leads on to.
"""

import base64
import contextlib
import errno
import hashlib
import json
import os
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from ketch.build.contexts import kept, urls
from ketch.build.contexts.interruption import broken_off_by
from ketch.build.contexts.reading import read
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from ketch.images.registry import configuration
from ketch.images.registry.headers import retry_after_seconds
from ketch.images.registry.transport import BrokenOffError, Transport, UnreachableError
from ketch.linux import contested, sparse
from ketch.linux.scopes import owned
from ketch.spec import digest as digests
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.build.contexts.kept import Kept
    from ketch.build.contexts.places import Places
    from ketch.build.contexts.urls import Url
    from ketch.build.request import Secrets
    from ketch.engine.processes import Patience
    from ketch.images.registry.transport import Answer

    Tell = Callable[[str, int, int], object]

_REDIRECTS = {301, 302, 303, 307, 308}
_REDIRECTS_MAX = 10  # Go's http.Client
_TRY_AGAIN = {429, 502, 503, 504}
_ATTEMPTS = 3
_PAUSE_SECONDS_MAX = 30.0
_SECONDS_MAX = 6 * 3600.0  # slower than what a registry may be is not the reason any more
_PIECE_BYTES = 1 << 18
_ABOUT, _CONTENT = "about.json", "content"
_FIELD_MAX = 1 << 12
_REFUSALS = {
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    410: NotFoundError,
}


class Download(NamedTuple):
    """A file that was downloaded.

    Attributes:
        directory: descriptor of a directory that holds it alone.
        filename: its name there.
        digest: SHA-256 of its content.
    """

    directory: int
    filename: str
    digest: str


class _About(NamedTuple):
    """What is known of something that is kept."""

    digest: str
    etag: str
    modified: str
    disposition: str

    @classmethod
    def of(cls, answer: "Answer", digest: str) -> "_About":
        """Returns what an answer says of what it is."""
        fields = (answer.field(name) for name in ("ETag", "Last-Modified", "Content-Disposition"))
        return cls(digest, *(field if len(field) <= _FIELD_MAX else "" for field in fields))


class Downloads:
    """The downloads of a build.

    Args:
        store: where what came is kept for others.
        places: where it is put for this build.
        patience: how the caller waits.
        environment: the proxies, and where this machine's settings are.
        secrets: where credentials come from, called as BuildKit calls them.
    """

    def __init__(
        self,
        store: "Kept",
        places: "Places",
        patience: "Patience",
        environment: "Mapping[str, str]",
        secrets: "Secrets | None",
    ) -> None:
        self._store = store
        self._places = places
        self._patience = patience
        self._environment = environment
        self._secrets = secrets

    def fetch(self, text: str, checksum: str, filename: str, tell: "Tell") -> Download:
        """Download a file, or take what is kept where that still holds.

        Args:
            text: the URL.
            checksum: digest that it must have, empty for any.
            filename: what it is called, empty for what the answer or the URL say.
            tell: is told how much has come.

        Raises:
            InvalidArgumentError: the URL or the checksum is malformed, or the server refuses.
            DigestMismatchError: it is not what the checksum promised.
            NotFoundError: the server has nothing there.
            UnavailableError: the server cannot be reached or fails, or the disk is full.
        """
        url = urls.parse(text)
        if checksum:
            digests.split(checksum)
        transport = Transport(
            configuration.read(self._environment), self._environment, registries=False
        )
        exchange = _Exchange(transport, url, self._authorization(url), bool(checksum))
        try:
            with broken_off_by(self._patience, transport.abort):
                return self._fetch(exchange, checksum, filename, tell)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UnavailableError(f"failed to fetch {url.shown}: {reason}") from error
        finally:
            transport.close()

    def _fetch(self, exchange: "_Exchange", checksum: str, filename: str, tell: "Tell") -> Download:
        failures = 0
        while True:
            try:
                return self._try(exchange, checksum, filename, tell)
            except UnreachableError as error:
                raise _failed(exchange.url, error) from error
            except BrokenOffError as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise _failed(exchange.url, error) from error
                seconds = exchange.retry_after_seconds or 2.0 ** (failures - 1)
                self._patience.wait(round(seconds * 1000))

    def _try(self, exchange: "_Exchange", checksum: str, filename: str, tell: "Tell") -> Download:
        key = exchange.url.address
        with contextlib.ExitStack() as scope:
            entry = self._store.find(kept.HTTP, key, scope)
            about = _known(entry) if entry is not None else None
            if entry is not None and about is not None:
                if about.digest == checksum:
                    return self._placed(entry, about, checksum, filename, exchange.url)
                with exchange.ask(about) as answer:
                    if exchange.still_holds(answer, about):
                        return self._placed(entry, about, checksum, filename, exchange.url)
                    received = self._receive(answer, exchange.url, tell)
            else:
                with exchange.ask(None) as answer:
                    received = self._receive(answer, exchange.url, tell)
        path, directory, about = received
        download = self._placed(directory, about, checksum, filename, exchange.url)
        if about.etag or about.modified or checksum:
            self._store.publish(kept.HTTP, key, path)
        return download

    def _receive(self, answer: "Answer", url: "Url", tell: "Tell") -> tuple[str, int, _About]:
        """Write what comes into a directory as it is kept; returns that, and what it is."""
        path, directory = self._places.make("download")
        limit_bytes = self._places.room_bytes
        total = decimal(answer.field("Content-Length"), 19) or 0
        if total > limit_bytes:
            raise _too_large(url, limit_bytes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with owned(os.open(_CONTENT, flags, 0o600, dir_fd=directory)) as file:
            whole = hashlib.sha256()
            current = 0
            until = monotonic() + _SECONDS_MAX
            while piece := answer.read(_PIECE_BYTES):
                current += len(piece)
                if current > limit_bytes:
                    raise _too_large(url, limit_bytes)
                if monotonic() > until:
                    raise UnavailableError(f"failed to fetch {url.shown}: it takes too long")
                whole.update(piece)
                sparse.append(file, piece)
                tell(f"fetching {url.shown}", current, total)
            about = _About.of(answer, f"sha256:{whole.hexdigest()}")
            seconds = _seconds(about.modified)
            os.utime(file, (seconds, seconds))
            os.fsync(file)  # what is kept is taken for whole by its name alone
        kept.write(directory, _ABOUT, json.dumps(about._asdict()).encode())
        return path, directory, about

    def _placed(
        self, directory: int, about: _About, checksum: str, filename: str, url: "Url"
    ) -> Download:
        """Give a file that came its name, in a directory for this build."""
        _verify(directory, about.digest, checksum)
        name = urls.filename(filename, about.disposition, url)
        _, place = self._places.make("file")
        try:
            os.link(_CONTENT, name, src_dir_fd=directory, dst_dir_fd=place, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
                raise
            _copy(directory, place, name)
        return Download(place, name, about.digest)

    def _authorization(self, url: "Url") -> str:
        """Returns what shows a server who asks, empty for nothing.

        Source of the secrets' names: moby/buildkit, source/http/source.go.
        """
        if url.user or url.password:
            pair = f"{url.user}:{url.password}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        host = url.origin[1]
        for prefix, scheme in (("HTTP_AUTH_HEADER_", ""), ("HTTP_AUTH_TOKEN_", "Bearer ")):
            secret = self._secrets.get(prefix + host) if self._secrets is not None else None
            if secret:
                value = secret.strip()
                if not value.isascii() or any(byte < 32 for byte in value):
                    raise InvalidArgumentError(f"the secret {prefix}{host} is no header's value")
                return scheme + value.decode()
        return ""


class _Exchange:
    """Asking for one URL.

    Args:
        transport: the connections.
        url: where.
        authorization: what is shown to that server.
        verified: whether what comes is held against a digest.

    Attributes:
        retry_after_seconds: how long the server wants to be left alone, None where it did not say.
    """

    def __init__(
        self,
        transport: Transport,
        url: "Url",
        authorization: str,
        verified: bool,
    ) -> None:
        self.url = url
        self.retry_after_seconds: float | None = None
        self._transport = transport
        self._authorization = authorization
        self._verified = verified

    def ask(self, about: _About | None) -> "Answer":
        """Ask, and follow where the server leads to.

        Args:
            about: what is there already; the answer may be that it still holds.

        Raises:
            BrokenOffError: there is no answer, or one that says to try again.
            KetchError: the server refuses; which class says what to do.
        """
        self.retry_after_seconds = None
        url = self.url
        for _ in range(_REDIRECTS_MAX):
            fields = _conditions(about)
            if self._authorization and url.origin == self.url.origin:
                fields["Authorization"] = self._authorization
            answer = self._transport.request("GET", url.address, fields)
            if answer.status not in _REDIRECTS:
                return self._checked(answer, about)
            with answer:
                location = answer.field("Location")
            url = urls.redirected(url, location, verified=self._verified)
        raise InvalidArgumentError(
            f"failed to fetch {self.url.shown}: stopped after {_REDIRECTS_MAX} redirects"
        )

    def still_holds(self, answer: "Answer", about: _About) -> bool:
        """Whether an answer says that what is there already is what would be sent.

        Some servers send it all the same, under the name that was asked about.
        """
        if answer.status == 304:
            return True
        etag = answer.field("ETag").removeprefix("W/")
        return bool(etag) and etag == about.etag.removeprefix("W/")

    def _checked(self, answer: "Answer", about: _About | None) -> "Answer":
        status = answer.status
        if 200 <= status < 300 or (status == 304 and about is not None):
            return answer
        with answer:
            self.retry_after_seconds = retry_after_seconds(
                answer.field("Retry-After"), _PAUSE_SECONDS_MAX
            )
        message = f"invalid response status {status}"
        if status in _TRY_AGAIN:
            raise BrokenOffError(message)
        kind = _REFUSALS.get(status, UnavailableError if status >= 500 else InvalidArgumentError)
        raise kind(f"failed to fetch {self.url.shown}: {message}")


def _conditions(about: _About | None) -> dict[str, str]:
    fields = {"Accept-Encoding": "identity"}
    if about is not None and about.etag:
        fields["If-None-Match"] = about.etag
    elif about is not None and about.modified:
        fields["If-Modified-Since"] = about.modified
    return fields


def _known(entry: int) -> _About | None:
    """Returns what is known of something that is kept, None where that is damaged."""
    with contextlib.suppress(KetchError, ValueError, TypeError):
        about = _About(**json.loads(read(entry, _ABOUT) or b""))
        if all(isinstance(field, str) for field in about) and digests.valid(about.digest):
            os.stat(_CONTENT, dir_fd=entry, follow_symlinks=False)
            return about
    return None


def _verify(directory: int, digest: str, checksum: str) -> None:
    """Hold what came against a checksum."""
    algorithm = checksum.partition(":")[0]
    if checksum and algorithm != "sha256":
        with owned(contested.open_file(_CONTENT, directory)) as file:
            whole = hashlib.new(algorithm)
            offset = 0
            while piece := sparse.pread(file, _PIECE_BYTES, offset):
                whole.update(piece)
                offset += len(piece)
        digest = f"{algorithm}:{whole.hexdigest()}"
    if checksum and digest != checksum:
        raise DigestMismatchError(f"digest mismatch {digest}: {checksum}")


def _copy(directory: int, place: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with (
        owned(contested.open_file(_CONTENT, directory)) as source,
        owned(os.open(name, flags, 0o600, dir_fd=place)) as target,
    ):
        status = os.fstat(source)
        for _ in sparse.copy(source, target, status.st_size):
            pass
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _seconds(modified: str) -> float:
    """Returns a file's time by ``Last-Modified``, the epoch where it is none."""
    with contextlib.suppress(ValueError, OverflowError, IndexError, TypeError):
        return max(parsedate_to_datetime(modified).timestamp(), 0.0)
    return 0.0


def _failed(url: "Url", error: KetchError) -> UnavailableError:
    return UnavailableError(f"failed to fetch {url.shown}: {error.message}", error.hint)


def _too_large(url: "Url", limit_bytes: int) -> UnavailableError:
    return UnavailableError(
        f"failed to fetch {url.shown}: it has more than {limit_bytes} bytes,"
        " for which there is no room"
    )
