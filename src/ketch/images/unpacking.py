"""Unpacking a layer as one stream: read, decompress, hash and write files at the same time.

A thread reads and decompresses ahead of the writer by a few pieces; the libraries that decompress
and hash let other threads run meanwhile, so two processors are used, and memory stays bounded
whatever the layer's size.
"""

import hashlib
import os
import queue
import threading

from ketch.errors import UnavailableError
from ketch.images import compression, layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ketch.images.snapshots import Ingest
    from ketch.images.tar import Stream

PIECE_BYTES = 1 << 18
_PIECES_AHEAD = 8


def unpack(
    stream: "Stream",
    kind: str,
    ingest: "Ingest",
    blob_digest: "Callable[[], str] | None" = None,
) -> tuple[str, int]:
    """Unpack a layer into a snapshot that is being made; its commit is left to the caller.

    Args:
        stream: the layer as it is stored, compressed or not.
        kind: its format, one of ``compression``'s.
        ingest: where its files go.
        blob_digest: tells the SHA-256 of the stream once it is read, where somebody knows it: an
            uncompressed layer is then not hashed again.

    Returns:
        The layer's diff ID and bytes of its files.

    Raises:
        InvalidArgumentError: the layer is malformed, or holds more than there is room for.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: the caller may not make what the layer has.
    """
    limit_bytes = room(ingest)
    whole = hashlib.sha256()
    content = compression.decompressed(stream, kind, limit_bytes)
    if kind != compression.PLAIN:
        blob_digest = None
    if blob_digest is None:
        content = compression.Tee(content, whole.update)
    with ReadAhead(content) as ahead:
        size_bytes = layers.apply(ingest.directory, ahead, ingest.lower, ingest.hidden)
    return blob_digest() if blob_digest else f"sha256:{whole.hexdigest()}", size_bytes


def room(ingest: "Ingest") -> int:
    """Returns how many bytes the file system has left where a snapshot is being made."""
    facts = os.statvfs(ingest.directory)
    return facts.f_bavail * facts.f_frsize


class ReadAhead:
    """A stream that a thread reads ahead, in a ``with`` block; the block's end ends the thread.

    What reading the stream raises is raised by ``read`` in its turn.

    Args:
        stream: what is read, from the thread only.
    """

    __slots__ = ("_left", "_pieces", "_stop", "_stream", "_thread")

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_PIECES_AHEAD)
        self._left: bytes | BaseException = b""
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ReadAhead":
        """Start reading."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(f"cannot start a thread: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """Stop reading; a thread that waits for its stream is awaited."""
        self._stop = True
        while self._thread.is_alive():
            # It may wait for room to put one more piece.
            try:
                self._pieces.get(timeout=0.02)
            except queue.Empty:
                continue

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        if not self._left:
            self._left = self._pieces.get()
        if isinstance(self._left, BaseException):
            raise self._left
        content = self._left
        if len(content) > size:
            content, self._left = content[:size], content[size:]
        elif content:
            self._left = b""
        else:
            self._pieces.put(b"")  # the end stays the end
        return content

    def _run(self) -> None:
        try:
            while not self._stop:
                piece = self._stream.read(PIECE_BYTES)
                self._pieces.put(piece)
                if not piece:
                    return
        except BaseException as error:  # noqa: BLE001 - raised where it is read
            self._pieces.put(error)
