"""Images in archives, as ``save`` writes and ``load`` reads them: one file, or a directory.

Two layouts are in use, and what Docker writes since 25.0 is both at once:

    oci-layout, index.json, blobs/ALGORITHM/HEX    OCI image layout (image-layout.md)
    manifest.json: [{Config, RepoTags, Layers}]    Docker's, whose paths lead anywhere

An archive that is read is a file that can be read at any place: what comes through a pipe, or is
compressed, is first written to a file without a name, in the store. Its members are found by one
pass over their headers; content is then read straight from where it lies. A member's name is only
a name here: nothing is ever unpacked to a path that an archive gives.
"""

import contextlib
import errno
import os
import posixpath
import stat

from ketch.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from ketch.images import compression, tar
from ketch.images.tar_writer import Writer
from ketch.linux import sparse
from ketch.linux.openat2 import RESOLVE_BENEATH, openat2
from ketch.linux.scopes import owned
from ketch.spec.image import DOCUMENT_SIZE_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Source(Protocol):
        """Where images are read from."""

        def document(self, name: str) -> bytes | None:
            """Return a small member's content, None where there is none of that name."""
            ...

        def open(self, name: str) -> "Range":
            """Open a member for reading."""
            ...

        def __contains__(self, name: str) -> bool:
            """Whether there is a member of that name."""
            ...


MEMBERS_MAX = 100_000
NAMES_BYTES_MAX = 1 << 26  # of all names and links together, which are held in memory
_LINKS_MAX = 10
_PIECE_BYTES = 1 << 18
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MODE_FILE, _MODE_DIRECTORY = 0o644, 0o755


class Range:
    """A part of a file, as a stream.

    Args:
        descriptor: the file.
        offset: where the part begins.
        size_bytes: its length.
    """

    __slots__ = ("_descriptor", "_left", "_offset", "_owned", "size_bytes")

    def __init__(
        self, descriptor: int, offset: int, size_bytes: int, *, owned: bool = False
    ) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._left = size_bytes
        self._owned = owned
        self.size_bytes = size_bytes

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        content = sparse.pread(self._descriptor, min(size, self._left), self._offset)
        self._offset += len(content)
        self._left -= len(content)
        return content

    def close(self) -> None:
        """Close the file where nobody else reads it."""
        if self._owned:
            os.close(self._descriptor)
            self._owned = False


class TarSource:
    """The members of a tar archive.

    Args:
        descriptor: a regular file, uncompressed, which the caller keeps open.

    Raises:
        InvalidArgumentError: it is no tar archive, is cut short or has too many members.
    """

    __slots__ = ("_descriptor", "_links", "_members")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        stream = _Positioned(descriptor)
        reader = tar.Reader(stream)
        names_bytes = 0
        for count, entry in enumerate(reader):
            if count >= MEMBERS_MAX:
                raise InvalidArgumentError(f"the archive has more than {MEMBERS_MAX} members")
            names_bytes += len(entry.name) + len(entry.link)
            if names_bytes > NAMES_BYTES_MAX:
                raise InvalidArgumentError(
                    f"the names of the archive's members take more than {NAMES_BYTES_MAX >> 20} MiB"
                )
            name = _clean(os.fsdecode(entry.name))
            if entry.kind == tar.REGULAR and entry.segments is None:
                self._members[name] = (stream.position - reader.buffered, entry.size_bytes)
                self._links.pop(name, None)
                stream.jump(reader.skip_data())
            elif entry.kind in {tar.SYMLINK, tar.HARD_LINK}:
                # Docker wrote symlinks for layers that were in the archive already.
                link = os.fsdecode(entry.link)
                if entry.kind == tar.SYMLINK:
                    link = posixpath.join(posixpath.dirname(name), link)
                self._links[name] = _clean(link)

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._followed(name) in self._members

    def document(self, name: str) -> bytes | None:
        """Return a small file's content, None where there is none of that name."""
        return _document(self, name)

    def open(self, name: str) -> Range:
        """Open a file.

        Raises:
            NotFoundError: there is none of that name.
        """
        member = self._members.get(self._followed(name))
        if member is None:
            raise _missing(name)
        return Range(self._descriptor, *member)

    def _followed(self, name: str) -> str:
        name = _clean(name)
        for _ in range(_LINKS_MAX):
            if name not in self._links:
                break
            name = self._links[name]
        return name


class DirectorySource:
    """The files below a directory of the user's.

    Args:
        path: the directory.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of that name.

        Raises:
            PermissionDeniedError: the caller may not look.
        """
        try:
            descriptor = self._open(name, os.O_PATH)
        except (OSError, ValueError):
            return False
        with owned(descriptor):
            return stat.S_ISREG(os.fstat(descriptor).st_mode)

    def document(self, name: str) -> bytes | None:
        """Return a small file's content, None where there is none of that name.

        Raises:
            PermissionDeniedError: the caller may not look.
        """
        return _document(self, name)

    def open(self, name: str) -> Range:
        """Open a file.

        Raises:
            NotFoundError: there is none of that name.
            PermissionDeniedError: the caller may not look.
        """
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a fifo must not make us wait
        try:
            descriptor = self._open(name, flags)
        except (OSError, ValueError) as error:
            raise _missing(name) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise _missing(name)
        return Range(descriptor, 0, status.st_size, owned=True)

    def _open(self, name: str, flags: int) -> int:
        """Open a file beneath the directory: its author's symlinks lead nowhere else."""
        try:
            with owned(os.open(self._path, _PLACE)) as top:
                return openat2(top, os.fsencode(_clean(name)), flags, resolve=RESOLVE_BENEATH)
        except OSError as error:
            if error.errno != errno.EACCES:
                raise
            raise PermissionDeniedError(f"open {self._path}/{name}: permission denied") from error


def seekable(descriptor: int, directory: str, limit_bytes: int) -> int:
    """Returns an archive as a file that can be read anywhere, decompressed.

    Args:
        descriptor: where it comes from: a file, a pipe, a socket.
        directory: where a copy is made if one is needed; it is gone with its descriptor.
        limit_bytes: how long a copy may become.

    Returns:
        A descriptor that the caller owns.

    Raises:
        InvalidArgumentError: it is damaged or too large.
        UnavailableError: the disk is full or failing.
    """
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    at_start = is_file and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    kind, stream = compression.sniffed(_Reading(descriptor))
    if at_start and kind == compression.PLAIN:
        return os.dup(descriptor)
    os.makedirs(directory, exist_ok=True)
    copy = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        content = compression.decompressed(stream, kind, limit_bytes)
        while piece := content.read(_PIECE_BYTES):
            sparse.append(copy, piece)
    except OSError as error:
        os.close(copy)
        raise UnavailableError(f"cannot write to {directory}: {error.strerror}") from error
    except BaseException:
        os.close(copy)
        raise
    return copy


class TarSink:
    """An archive being written.

    Args:
        write: takes its bytes.
        output: descriptor that ``write`` writes to, or -1; see ``tar_writer.Writer``.
    """

    __slots__ = ("_directories", "_writer")

    def __init__(self, write: "Callable[[bytes], object]", output: int = -1) -> None:
        self._writer = Writer(write, output)
        self._directories: set[str] = set()

    def add(self, name: str, content: bytes) -> None:
        """Write a file from memory."""
        entry = self._entry(name, len(content))
        self._writer.add(entry, content)

    def add_blob(self, name: str, descriptor: int) -> None:
        """Write a file from another."""
        self._writer.add_file(self._entry(name, os.fstat(descriptor).st_size), descriptor)

    def finish(self) -> None:
        """Write the archive's end."""
        self._writer.finish()

    def _entry(self, name: str, size_bytes: int) -> tar.Entry:
        parts = name.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end])
            if path not in self._directories:
                self._directories.add(path)
                directory = tar.Entry(path.encode(), tar.DIRECTORY)
                directory.mode = _MODE_DIRECTORY
                self._writer.add(directory)
        entry = tar.Entry(name.encode())
        entry.mode, entry.size_bytes = _MODE_FILE, size_bytes
        return entry


class DirectorySink:
    """A directory being filled; a file appears under its name when all of it is written.

    What is there already may be anybody's: a file takes the place of what has its name, a link as
    well as a file, and no link is followed below the directory.

    Args:
        path: the directory; made where it is missing.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, name: str, content: bytes) -> None:
        """Write a file from memory."""
        with self._file(name) as target, open(target, "wb", closefd=False) as file:
            file.write(content)

    def add_blob(self, name: str, descriptor: int) -> None:
        """Write a file from another."""
        with self._file(name) as target:
            for _ in sparse.copy(descriptor, target, os.fstat(descriptor).st_size):
                pass

    def finish(self) -> None:
        """Do nothing: all of it is written."""

    @contextlib.contextmanager
    def _file(self, name: str) -> "Iterator[int]":
        directory, _, last = name.rpartition("/")
        temporary = f".tmp-{os.urandom(5).hex()}"
        with owned(self._directory(directory)) as parent:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                with owned(os.open(temporary, flags, 0o666, dir_fd=parent)) as file:
                    yield file
                os.rename(temporary, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parent)
                raise

    def _directory(self, name: str) -> int:
        """Open a directory below, made with those above it where it is missing."""
        os.makedirs(self._path, exist_ok=True)
        parent = os.open(self._path, _PLACE)
        for part in filter(None, name.split("/")):
            with owned(parent):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=parent)
                try:
                    parent = os.open(part, _PLACE | os.O_NOFOLLOW, dir_fd=parent)
                except OSError as error:
                    raise InvalidArgumentError(
                        f"cannot write to {self._path}: {part} in it: "
                        f"{(error.strerror or '').lower()}",
                        "save to a directory that is empty or does not exist",
                    ) from error
        return parent


class _Reading:
    """A descriptor as a stream."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        return sparse.read(self._descriptor, size)


class _Positioned:
    """A file as a stream that knows where it is, and can leave parts out."""

    __slots__ = ("_descriptor", "_end", "position")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = os.fstat(descriptor).st_size
        self.position = 0

    def read(self, size: int, /) -> bytes:
        # Headers are what is read here: content is jumped over.
        content = os.pread(self._descriptor, min(size, 1 << 14), self.position)
        self.position += len(content)
        return content

    def jump(self, size_bytes: int) -> None:
        if self.position + size_bytes > self._end:
            raise InvalidArgumentError("malformed tar archive: it is cut short")
        self.position += size_bytes


def _document(source: "Source", name: str) -> bytes | None:
    if name not in source:
        return None
    part = source.open(name)
    try:
        if part.size_bytes > DOCUMENT_SIZE_MAX:
            raise InvalidArgumentError(f"{name}: larger than {DOCUMENT_SIZE_MAX} bytes")
        content = b""
        while piece := part.read(DOCUMENT_SIZE_MAX):
            content += piece
    finally:
        part.close()
    return content


def _clean(name: str) -> str:
    """Returns a member's name without ``./`` and ``..``.

    Raises:
        InvalidArgumentError: it leads out of the archive, or no file can have it.
    """
    path = posixpath.normpath(name.lstrip("/"))
    if "\0" in path:
        raise InvalidArgumentError(f"archive member {name[:200]!a}: a name contains a NUL")
    if path == ".." or path.startswith("../"):
        raise InvalidArgumentError(f"archive member {name[:200]!a}: leads out of the archive")
    return path


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"the archive lacks {name[:200]!a}, which it refers to")
