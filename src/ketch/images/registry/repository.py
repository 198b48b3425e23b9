"""One repository on a registry: its manifests, tags and blobs, by the distribution protocol.

Source: OCI distribution specification 1.1; Docker's registry protocol v2, of which it came.
"""

import contextlib
import copy
import json
import os
from hashlib import new as new_hash
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from ketch.dataclass import dataclass
from ketch.errors import (
    DigestMismatchError,
    KetchError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
)
from ketch.images.registry import answers
from ketch.images.registry.headers import content_range, next_page, received_bytes
from ketch.images.registry.session import redirected
from ketch.images.registry.transport import BrokenOffError, origin
from ketch.spec import digest as digests
from ketch.spec import told
from ketch.spec.digits import decimal
from ketch.spec.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    DOCUMENT_SIZE_MAX,
    OCI_INDEX,
    OCI_MANIFEST,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from ketch.images.registry.session import Session
    from ketch.images.registry.transport import Answer

    T = TypeVar("T")

SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_TAG_PAGES_MAX = 1000
_TAGS_BYTES_MAX = 32 << 20


class Document(NamedTuple):
    """A manifest or an index as a registry gave it, its digest verified.

    Attributes:
        media_type: what it says it is.
        digest: its digest.
        content: its bytes.
    """

    media_type: str
    digest: str
    content: bytes


@dataclass
class Upload:
    """A place for a blob on its way to a registry.

    Attributes:
        url: where the next request goes.
        minimum_bytes: the least that a chunk may hold; 0 where the registry does not say.
    """

    url: str
    minimum_bytes: int


class Repository:
    """A repository, wherever it may be had from.

    Args:
        sessions: the endpoints, in the order to ask: mirrors first, the registry itself last.
        path: the repository's name there.
        shown: its name for messages.
        actions: what a token must allow: ``pull``, or ``pull,push``.
    """

    __slots__ = ("_answered", "_scopes", "_sessions", "path", "shown")

    def __init__(
        self, sessions: "Sequence[Session]", path: str, shown: str, actions: str = "pull"
    ) -> None:
        self.path = path
        self.shown = shown
        self._sessions = list(sessions)
        self._answered = self._sessions[-1]
        self._scopes = [f"repository:{path}:{actions}"]

    def without_mirrors(self) -> "Repository":
        """Returns the repository as the registry itself has it; this one if it has no mirrors."""
        if len(self._sessions) == 1:
            return self
        home = copy.copy(self)
        home._sessions = [self._home]
        home._answered = self._home
        return home

    @property
    def address(self) -> str:
        """Where it was had from when it was last asked."""
        return self._answered.url(f"/v2/{self.path}/")

    @property
    def origin(self) -> str:
        """Scheme, host and port of the endpoint that answered last."""
        parts = self._answered.url("").split("/")
        return "/".join(parts[:3])

    def by_hand(self, path: str, options: str = "", *, place: str = "") -> str:
        """Returns the curl(1) command that asks for the same, as a shell reads it.

        Args:
            path: below the endpoint that answered last.
            options: further words.
            place: an address in a shell's words, in place of that of the path.
        """
        method = self._answered.method
        shown = method.by_hand(self._scopes) if method is not None else ""
        address = place or told.quote(self._answered.url(path))
        words = ("curl -fsSL", shown, options, address)
        return " ".join(word for word in words if word)

    @property
    def accepted(self) -> str:
        """The types of manifests and indexes that are asked for, as a field of a request."""
        return _ACCEPT

    # Reading

    def manifest(self, reference: str) -> Document:
        """Fetch a manifest or an index.

        Args:
            reference: tag or digest.

        Raises:
            NotFoundError: the registry has none of that name.
            DigestMismatchError: it is not what its digest promises.
            UnsupportedError: it is in Docker's format of before 2016.
            RegistryError: the answer is none.
        """
        return self._from_any(lambda session: self._manifest(session, reference))

    def manifest_digest(self, reference: str) -> str:
        """Returns the digest of a tag's manifest without fetching it; empty where unknown."""

        def ask(session: "Session") -> str:
            with session.checked(
                "HEAD",
                self._manifest_path(reference),
                self._what(reference),
                (200,),
                self._scopes,
                {"Accept": _ACCEPT},
            ) as answer:
                return answer.field("Docker-Content-Digest")

        digest = self._from_any(ask)
        return digest if digests.valid(digest) else ""

    def tags(self) -> list[str]:
        """Returns every tag, in the registry's order.

        Raises:
            NotFoundError: there is no such repository.
            RegistryError: the answer is none, or has no end.
        """
        return self._from_any(self._tags)

    def open_blob(self, digest: str, offset: int = 0) -> "tuple[Answer, int]":
        """Ask for a blob's content.

        Args:
            digest: which.
            offset: how much of it is there already.

        Returns:
            The answer, whose body begins at the second value: the offset, or 0 where the registry
            gives nothing but the whole. The caller closes it.

        Raises:
            NotFoundError: the registry does not have it.
            RegistryError: the answer is another part.
        """
        fields = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"/v2/{self.path}/blobs/{digest}"

        def ask(session: "Session") -> "tuple[Answer, int]":
            what = f"blob {digest} of {self.shown}"
            answer = session.checked("GET", path, what, (200, 206), self._scopes, fields)
            if answer.status == 200:
                return answer, 0
            part = content_range(answer.field("Content-Range"))
            if part is None or part[0] != offset:
                answer.close()
                raise RegistryError(f"{what}: the registry sent another part than asked for")
            return answer, offset

        return self._from_any(ask)

    def blob(self, digest: str, size_bytes: int, limit_bytes: int = DOCUMENT_SIZE_MAX) -> bytes:
        """Fetch a small blob whole and verify it.

        Raises:
            DigestMismatchError: it is not what its digest promises.
            RegistryError: it is larger than the limit, or than its descriptor says.
        """
        if size_bytes > limit_bytes:
            raise RegistryError(
                f"blob {digest} of {self.shown} is to have {size_bytes} bytes, at most"
                f" {limit_bytes} make sense"
            )
        answer, _ = self.open_blob(digest)
        with answer:
            content = answer.read_all(limit_bytes)
        verify(content, digest)
        if len(content) != size_bytes:
            raise DigestMismatchError(
                f"blob {digest} has {len(content)} bytes, and not {size_bytes} as its descriptor"
                " says"
            )
        return content

    def pause(self, seconds: float) -> None:
        """Wait before asking again."""
        self._home.pause(seconds)

    # Writing

    def has_blob(self, digest: str) -> bool:
        """Whether the registry has a blob in this repository."""
        path = f"/v2/{self.path}/blobs/{digest}"
        with self._home.request("HEAD", path, self._scopes) as answer:
            status = answer.status
        if status in {200, 404}:
            return status == 200
        raise answers.error(status, b"", f"blob {digest} of {self.shown}")

    def mount_blob(self, digest: str, source: str) -> Upload | None:
        """Take a blob over from another repository of the registry.

        Args:
            digest: which.
            source: that repository's path.

        Returns:
            None where that was done; else where to upload it, since the registry would not.
        """
        query = urlencode({"mount": digest, "from": source})
        scopes = [*self._scopes, f"repository:{source}:pull"]
        return self._begin(f"?{query}", scopes, mounted=True)

    def begin_upload(self) -> Upload:
        """Ask for a place to upload a blob to."""
        upload = self._begin("", self._scopes, mounted=False)
        assert upload is not None
        return upload

    def upload_whole(
        self, upload: Upload, digest: str, size_bytes: int, content: "Callable[[], FilePart]"
    ) -> None:
        """Send a blob in one request.

        Args:
            upload: where to.
            digest: which.
            size_bytes: its length.
            content: opens it from its beginning.
        """
        fields = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        with self._home.checked(
            "PUT",
            _with_digest(upload.url, digest),
            self._uploading(digest),
            (201, 204),
            self._scopes,
            fields,
            content,
        ):
            pass

    def upload_chunk(
        self, upload: Upload, offset: int, size_bytes: int, content: "Callable[[], FilePart]"
    ) -> None:
        """Send a part of a blob.

        Args:
            upload: where to; changed to where the next one goes.
            offset: where the part begins.
            size_bytes: its length.
            content: opens it.
        """
        fields = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size_bytes),
            "Content-Range": f"{offset}-{offset + size_bytes - 1}",
        }
        with self._home.checked(
            "PATCH", upload.url, self._uploading(""), (202, 204), self._scopes, fields, content
        ) as answer:
            self._move(upload, answer)

    def uploaded_bytes(self, upload: Upload) -> int | None:
        """Returns how much of an upload has arrived; None where the registry has given it up."""
        try:
            with self._home.checked(
                "GET", upload.url, self._uploading(""), (204, 202, 200), self._scopes
            ) as answer:
                arrived = received_bytes(answer.field("Range"))
                self._move(upload, answer)
                return arrived
        except (NotFoundError, RegistryError, BrokenOffError):
            return None

    def finish_upload(self, upload: Upload, digest: str) -> None:
        """Say that all chunks of a blob were sent."""
        with self._home.checked(
            "PUT",
            _with_digest(upload.url, digest),
            self._uploading(digest),
            (201, 204),
            self._scopes,
            {"Content-Length": "0"},
            b"",
        ):
            pass

    def cancel_upload(self, upload: Upload) -> None:
        """Give an upload up; that this fails as well is no news."""
        with contextlib.suppress(KetchError):
            self._home.request("DELETE", upload.url, self._scopes).close()

    def put_manifest(self, reference: str, media_type: str, content: bytes) -> str:
        """Store a manifest or an index under a tag or its digest; returns its digest.

        Raises:
            DigestMismatchError: the registry has understood something else.
        """
        what = f"manifest of {self.shown}:{reference}"
        with self._home.checked(
            "PUT",
            self._manifest_path(reference),
            what,
            (200, 201, 202),
            self._scopes,
            {"Content-Type": media_type},
            content,
        ) as answer:
            said = answer.field("Docker-Content-Digest")
        digest = digests.of(content)
        if said and said != digest:
            raise DigestMismatchError(
                f"{what}: the registry says that it has the digest {said[:100]}, and not {digest}"
            )
        return digest

    # How

    @property
    def _home(self) -> "Session":
        return self._sessions[-1]

    def _from_any(self, ask: "Callable[[Session], T]") -> "T":
        """Ask one endpoint after the other, until one has an answer."""
        for session in self._sessions[:-1]:
            try:
                found = ask(session)
            except KetchError:
                continue  # a mirror's failure is no failure while there is the registry itself
            self._answered = session
            return found
        self._answered = self._home
        return ask(self._home)

    def _manifest(self, session: "Session", reference: str) -> Document:
        what = self._what(reference)
        with session.checked(
            "GET", self._manifest_path(reference), what, (200,), self._scopes, {"Accept": _ACCEPT}
        ) as answer:
            media_type = answer.field("Content-Type").partition(";")[0].strip().lower()
            said = answer.field("Docker-Content-Digest")
            content = answer.read_all(DOCUMENT_SIZE_MAX)
        if media_type in SCHEMA_1 or _is_schema_1(content):
            raise UnsupportedError(
                f"{what}: Docker Image manifest version 2, schema 1 is not supported",
                "the image's author must push it again, with any engine from 2016 on",
            )
        expected = reference if digests.valid(reference) else said
        if expected:
            digests.split(expected)
            verify(content, expected)
        return Document(media_type, expected or digests.of(content), content)

    def _tags(self, session: "Session") -> list[str]:
        found: list[str] = []
        target = f"/v2/{self.path}/tags/list"
        what = f"repository {self.shown}"
        read_bytes = 0
        seen: set[str] = set()
        while target not in seen and len(seen) < _TAG_PAGES_MAX:
            seen.add(target)
            with session.checked("GET", target, what, (200,), self._scopes) as answer:
                content = answer.read_all(_TAGS_BYTES_MAX - read_bytes)
                following = next_page(answer.field("Link"))
                url = answer.url
            read_bytes += len(content)
            try:
                tags = json.loads(content).get("tags") or []
            except (ValueError, RecursionError, AttributeError) as error:
                raise RegistryError(f"{what}: the list of tags is malformed") from error
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise RegistryError(f"{what}: the list of tags is malformed")
            found += tags
            if not following:
                return found
            target = next_target(url, following)
        raise RegistryError(f"{what}: the list of tags has no end")

    def _begin(self, query: str, scopes: "Sequence[str]", *, mounted: bool) -> Upload | None:
        path = f"/v2/{self.path}/blobs/uploads/{query}"
        accepted = (201, 202) if mounted else (202,)
        with self._home.checked(
            "POST", path, f"repository {self.shown}", accepted, scopes, {"Content-Length": "0"}, b""
        ) as answer:
            if answer.status == 201:
                return None
            least = decimal(answer.field("OCI-Chunk-Min-Length"), 11)
            upload = Upload(answer.url, least or 0)
            if not answer.field("Location"):
                raise RegistryError(f"repository {self.shown}: no place to upload to was named")
            self._move(upload, answer)
            return upload

    def _move(self, upload: Upload, answer: "Answer") -> None:
        if location := answer.field("Location"):
            upload.url = redirected(answer.url, location)

    def _manifest_path(self, reference: str) -> str:
        return f"/v2/{self.path}/manifests/{quote(reference, safe=':')}"

    def _what(self, reference: str) -> str:
        mark = "@" if digests.valid(reference) else ":"
        return f"manifest for {self.shown}{mark}{reference}"

    def _uploading(self, digest: str) -> str:
        return f"upload of {digest or 'a blob'} to {self.shown}"


class FilePart:
    """A part of an open file as what a request sends; it counts what was taken.

    Args:
        descriptor: of the file; read by position, so that several may share it.
        offset: where the part begins.
        size_bytes: its length.
        sent: is called with the number of bytes of each piece.
    """

    __slots__ = ("_descriptor", "_left_bytes", "_offset", "_sent")

    def __init__(
        self, descriptor: int, offset: int, size_bytes: int, sent: "Callable[[int], object]"
    ) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._left_bytes = size_bytes
        self._sent = sent

    def __enter__(self) -> "FilePart":
        """Nothing more than this part."""
        return self

    def __exit__(self, *_: object) -> None:
        """The descriptor stays open."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        wanted = self._left_bytes if size < 0 else min(size, self._left_bytes)
        content = os.pread(self._descriptor, min(wanted, 1 << 18), self._offset)
        self._offset += len(content)
        self._left_bytes -= len(content)
        self._sent(len(content))
        return content

    def __iter__(self) -> "Iterator[bytes]":
        """Yield the content piece by piece."""
        return iter(lambda: self.read(1 << 18), b"")


def verify(content: bytes, digest: str) -> None:
    """Check some bytes against their digest.

    Raises:
        DigestMismatchError: they are others.
    """
    algorithm, digits = digests.split(digest)
    found = new_hash(algorithm, content).hexdigest()
    if found != digits:
        raise DigestMismatchError(
            f"the registry sent {algorithm}:{found}, where {digest} was asked for"
        )


def _is_schema_1(content: bytes) -> bool:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("schemaVersion") == 1


def _with_digest(url: str, digest: str) -> str:
    mark = "&" if urlsplit(url).query else "?"
    return f"{url}{mark}{urlencode({'digest': digest})}"


def next_target(url: str, link: str) -> str:
    """Returns where the next page of a list is.

    Args:
        url: where this page was.
        link: the field ``Link``'s target.

    Raises:
        RegistryError: it is at another registry, or nowhere.
    """
    target = redirected(url, link)
    if origin(target) != origin(url):
        raise RegistryError(f"{url.partition('?')[0]}: the next page is at another registry")
    return target
