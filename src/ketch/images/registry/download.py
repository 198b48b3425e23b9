"""Blobs on their way from a registry: several at once, resumed where they broke off, verified.

A blob goes into an unfinished file of the content store as it arrives, and is hashed on the way.
Who wants to unpack it meanwhile follows it: reads what is there, waits for more, and is told of
its end only once the digest was found to be right. The file is the queue between the two, so
neither waits for the other longer than it must, and memory holds no more than one piece of each.
"""

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING

from ketch.errors import DigestMismatchError, RegistryError, UnavailableError
from ketch.images.registry.transport import BrokenOffError, UnreachableError
from ketch.images.registry.workers import AbandonedError, Workers
from ketch.linux import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.images.content import BlobWriter, ContentStore
    from ketch.images.registry.progress import Progress
    from ketch.images.registry.repository import Repository
    from ketch.spec.image import Descriptor

PIECE_BYTES = 1 << 18
_REPORT_BYTES = 1 << 19
_PAUSE_SECONDS_MAX = 15.0
_PROGRESS_BYTES = 1 << 16  # less at each attempt is no progress


class Download:
    """One blob.

    Args:
        descriptor: which, and how long it is.
        name: its short name for whoever is told of its progress.
    """

    __slots__ = ("_condition", "_error", "_finished", "_path", "abandoned", "arrived_bytes",
                 "descriptor", "name")  # fmt: skip

    def __init__(self, descriptor: "Descriptor", name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.arrived_bytes = 0
        self.abandoned = False
        self._path = ""
        self._condition = threading.Condition()
        self._finished = False
        self._error: BaseException | None = None

    def begun(self, path: str) -> None:
        """Tell followers where the bytes are going to be."""
        with self._condition:
            self._path = path
            self._condition.notify_all()

    def arrived(self, size_bytes: int) -> None:
        """Tell followers how much is there now."""
        with self._condition:
            self.arrived_bytes = size_bytes
            self._condition.notify_all()

    def ended(self, path: str = "", error: BaseException | None = None) -> None:
        """Tell followers that the blob is complete and verified at a path, or what became of it."""
        with self._condition:
            self._path = path or self._path
            self._finished = error is None
            self._error = self._error or error
            self._condition.notify_all()

    def abandon(self, error: BaseException) -> None:
        """Have the download stop soon, and whoever follows it told why."""
        with self._condition:
            self.abandoned = True
            if not self._finished and self._error is None:
                self._error = error
            self._condition.notify_all()

    @property
    def is_complete(self) -> bool:
        """Whether all of it is there and verified."""
        return self._finished

    def wait(self) -> None:
        """Wait for all of it.

        Raises:
            KetchError: what became of the download.
        """
        with self._condition:
            while not self._finished:
                if self._error is not None:
                    raise self._error
                self._condition.wait()

    def follow(self) -> "Follower":
        """Returns a stream of the blob, to be used in a ``with`` block; waits for its first byte.

        Raises:
            KetchError: what became of the download.
        """
        with self._condition:
            while True:
                if self._error is not None:
                    raise self._error
                if self._path:
                    # Between its last byte and the good news it moves to its final name.
                    with contextlib.suppress(FileNotFoundError):
                        return Follower(self, os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
                self._condition.wait()

    def wait_beyond(self, position: int) -> int:
        """Wait for bytes after a position; returns how many have arrived, the position at the end.

        Raises:
            KetchError: what became of the download.
        """
        with self._condition:
            while not self._finished and self.arrived_bytes <= position:
                if self._error is not None:
                    raise self._error
                self._condition.wait()
            return self.arrived_bytes


class Follower:
    """The bytes of a download, as they arrive. Its end means that all of them are right.

    Attributes:
        position: how much was read.
    """

    __slots__ = ("_descriptor", "_download", "position")

    def __init__(self, download: Download, descriptor: int) -> None:
        self._download = download
        self._descriptor = descriptor
        self.position = 0

    def __enter__(self) -> "Follower":
        """Nothing more than this stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        there = self._download.wait_beyond(self.position)
        content = sparse.pread(self._descriptor, min(size, there - self.position), self.position)
        self.position += len(content)
        return content


class Downloads:
    """The downloads of one image, in a ``with`` block whose end stops what still runs.

    Args:
        repository: where the blobs come from.
        content: where they go.
        progress: who is told.
        at_once: how many run at the same time.
        attempts: how often each is tried without getting any further.
    """

    __slots__ = ("_attempts", "_by_digest", "_content", "_progress", "_repository", "_workers")

    def __init__(
        self,
        repository: "Repository",
        content: "ContentStore",
        progress: "Progress",
        *,
        at_once: int,
        attempts: int,
    ) -> None:
        self._repository = repository
        self._content = content
        self._progress = progress
        self._attempts = attempts
        self._workers = Workers(at_once)
        self._by_digest: dict[str, Download] = {}

    def __enter__(self) -> "Downloads":
        """Nothing more than these."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what still runs."""
        for download in self._by_digest.values():
            download.abandon(AbandonedError("the transfer was given up"))
        self._workers.__exit__()

    def start(self, wanted: "Iterable[tuple[Descriptor, str]]") -> None:
        """Begin to fetch blobs, each once; those that the store holds are there at once."""
        for descriptor, name in wanted:
            digest = descriptor["digest"]
            if digest in self._by_digest:
                continue
            download = self._by_digest[digest] = Download(descriptor, name)
            if digest in self._content:
                _check_size(self._content.size_bytes(digest), descriptor)
                download.arrived(descriptor["size"])
                download.ended(self._content.path(digest))
            else:
                self._workers.submit(functools.partial(self._run, download))

    def of(self, digest: str) -> Download:
        """Returns the download of a blob that was started."""
        return self._by_digest[digest]

    def _run(self, download: Download) -> None:
        try:
            path = self._fetch(download)
        except BaseException as error:  # noqa: BLE001 - it is the follower's
            download.ended(error=error)
            for other in self._by_digest.values():
                other.abandon(error)  # the image cannot become whole any more
        else:
            self._progress.say(download.name, "Download complete")
            download.ended(path)

    def _fetch(self, download: Download) -> str:
        """Fetch one blob; returns where it is."""
        descriptor = download.descriptor
        digest, size_bytes = descriptor["digest"], descriptor["size"]
        if download.abandoned:
            raise AbandonedError("the transfer was given up")
        with self._content.writer(digest.partition(":")[0]) as writer:
            download.begun(writer.path)
            failures = 0
            while True:
                before = writer.size_bytes
                try:
                    self._receive(download, writer)
                    break
                except (BrokenOffError, UnreachableError) as error:
                    got_on = writer.size_bytes - before >= _PROGRESS_BYTES
                    failures = 0 if got_on else failures + 1
                    if failures >= self._attempts or download.abandoned:
                        raise UnavailableError(
                            f"blob {digest} of {self._repository.shown}: {error.message}, after"
                            f" {writer.size_bytes} of {size_bytes} bytes", error.hint,
                        ) from error  # fmt: skip
                    self._repository.pause(min(2.0**failures, _PAUSE_SECONDS_MAX))
            if download.abandoned:
                raise AbandonedError("the transfer was given up")
            self._progress.say(download.name, "Verifying Checksum")
            writer.commit(digest)
        return self._content.path(digest)

    def _receive(self, download: Download, writer: "BlobWriter") -> None:
        """Receive a blob, or the rest of it."""
        descriptor = download.descriptor
        digest, size_bytes = descriptor["digest"], descriptor["size"]
        if writer.size_bytes == size_bytes:
            return
        answer, begin = self._repository.open_blob(digest, writer.size_bytes)
        with answer:
            skip_bytes = writer.size_bytes - begin
            reported = writer.size_bytes
            while piece := answer.read(PIECE_BYTES):
                if download.abandoned:
                    raise AbandonedError("the transfer was given up")
                if skip_bytes:
                    skipped = min(skip_bytes, len(piece))
                    skip_bytes -= skipped
                    piece = piece[skipped:]
                if writer.size_bytes + len(piece) > size_bytes:
                    raise RegistryError(
                        f"blob {digest} of {self._repository.shown} has more than the"
                        f" {size_bytes} bytes that its descriptor says"
                    )
                writer.write(piece)
                download.arrived(writer.size_bytes)
                if writer.size_bytes - reported >= _REPORT_BYTES:
                    reported = writer.size_bytes
                    self._progress.advance(download.name, "Downloading", reported, size_bytes)
        if writer.size_bytes < size_bytes:
            raise BrokenOffError(
                f"the registry sent {writer.size_bytes} bytes where the descriptor says"
                f" {size_bytes}"
            )


def _check_size(found_bytes: int, descriptor: "Descriptor") -> None:
    if found_bytes != descriptor["size"]:
        raise DigestMismatchError(
            f"blob {descriptor['digest']} has {found_bytes} bytes, and not"
            f" {descriptor['size']} as its descriptor says"
        )
