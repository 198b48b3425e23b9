"""An archive as a context: unpacked once, beneath the build's own place.

What comes may be a tar archive, plain or compressed (gzip, bzip2, xz, zstd), or a Dockerfile by
itself, as ``docker build -`` takes them; the first bytes tell which. How hostile archives are held
in bounds says ``images/filling.py``.
"""

import io
import os
from typing import TYPE_CHECKING

from ketch.build.contexts.reading import SIZE_MAX, too_large
from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.images import compression, filling, tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from ketch.engine.processes import Patience
    from ketch.images.tar import Stream


def open_archive(stream: "Stream", limit_bytes: int) -> "tuple[Stream | None, bytes]":
    """Tell what a stream is.

    Args:
        stream: read from its beginning.
        limit_bytes: how much an archive may hold: what there is room for.

    Returns:
        The archive, uncompressed, or else None and the Dockerfile that the stream is.

    Raises:
        InvalidArgumentError: it is damaged, or a Dockerfile that is larger than any.
    """
    kind, stream = compression.sniffed(stream)
    content = compression.decompressed(stream, kind, limit_bytes)
    head = _read_up_to(content, tar.BLOCK)
    content = compression.Prefixed(head, content)
    if kind != compression.PLAIN or tar.begins(head):
        return content, b""
    text = _read_up_to(content, SIZE_MAX + 1)
    if len(text) > SIZE_MAX:
        raise too_large("Dockerfile")
    return None, text


def newest_s(stream: "Stream", limit_bytes: int) -> int | None:
    """Tell when the latest of the files in an archive was changed.

    Args:
        stream: what may be an archive; it is read to its end.
        limit_bytes: as for ``open_archive``.

    Returns:
        Seconds since 1970; None where there are no files, or it is no whole archive.
    """
    try:
        content, _ = open_archive(stream, limit_bytes)
        if content is None:
            return None
        times = [entry.mtime_ns for entry in tar.Reader(content) if entry.kind == tar.REGULAR]
    except InvalidArgumentError:
        return None
    return max(times) // 1_000_000_000 if times else None


def unpack(stream: "Stream", directory: int, *, owned: bool) -> None:
    """Unpack an archive into an empty directory.

    Args:
        stream: the archive, uncompressed; it is read to its very end.
        directory: descriptor of the directory, closed to others by one above it.
        owned: whether the files are given the owners that the archive has; else the caller's.

    Raises:
        InvalidArgumentError: the archive is malformed, or wants what cannot be.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: the caller may not make what the archive has.
    """
    context = _Context(directory, owned=owned)
    context.fill(stream)


class Patient:
    """A stream that is waited for as its reader waits: an unbuffered pipe, terminal or socket.

    Args:
        stream: what is read; others wait in their own way.
        patience: how.
    """

    def __init__(self, stream: "BinaryIO", patience: "Patience") -> None:
        self._stream = stream
        self._patience = patience
        # What is buffered cannot be waited for: the descriptor would not tell of it.
        self._descriptor = stream.fileno() if isinstance(stream, io.RawIOBase) else None

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end.

        Raises:
            UnavailableError: it cannot be read.
        """
        if self._descriptor is not None:
            self._patience.wait(None, self._descriptor)
        try:
            return self._stream.read(size) or b""
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UnavailableError(f"cannot read the build context: {reason}") from error


class Counted:
    """A stream, of which somebody is told how far it was read.

    Args:
        stream: what is read.
        tell: is given the number of bytes after each piece.
    """

    def __init__(self, stream: "Stream", tell: "Callable[[int], object]") -> None:
        self._stream = stream
        self._tell = tell
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        content = self._stream.read(size)
        self._position += len(content)
        self._tell(self._position)
        return content


class _Context(filling.Tree):
    what = "context"

    def __init__(self, directory: int, *, owned: bool) -> None:
        super().__init__(directory)
        self._ids = None if owned else (os.geteuid(), os.getegid())

    def _add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one member; whiteouts are names as any other."""
        parts = self._clean(entry.name)
        if self._ids is not None:
            entry.uid, entry.gid = self._ids
        if parts:
            self._place(b"/".join(parts), parts[-1], entry, reader)
        elif entry.kind != tar.DIRECTORY:
            raise InvalidArgumentError("the context's root is not a directory")

    def _inherited(self, path: bytes) -> tar.Entry:
        """Describe a directory that the archive does not."""
        entry = super()._inherited(path)
        if self._ids is not None:
            entry.uid, entry.gid = self._ids
        return entry


def _read_up_to(stream: "Stream", size_bytes: int) -> bytes:
    pieces: list[bytes] = []
    while size_bytes and (piece := stream.read(min(size_bytes, tar.CHUNK_BYTES))):
        pieces.append(piece)
        size_bytes -= len(piece)
    return b"".join(pieces)
