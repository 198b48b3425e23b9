"""What a selection of files is worth to the cache: all that a step could see of it, and no times.

Names below what is copied, kinds, permissions, contents, links' targets, extended attributes,
devices' numbers, which names are names of one file, and owners where they are kept. What is told of
is written down with its length before it, so that two selections have one digest only where they
are the same.
"""

import contextlib
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ketch.build.files import paths
from ketch.build.files.failures import failure
from ketch.build.files.selection import Selection, Source
from ketch.build.files.walking import Entry, Event
from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError
from ketch.images import attributes
from ketch.linux import contested, sparse
from ketch.linux.scopes import owned

LINKS_MAX = 1 << 20
"""Of how many files with several names a selection may consist: each is held in memory."""

_FACTS = struct.Struct("=5Q")
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class Digest:
    """A selection's.

    Attributes:
        value: ``sha256:...``, of what is to be seen.
        version: of the very files, by device, inode, size and times: whoever copies them finds the
            same, or they were changed since.
    """

    value: str
    version: bytes


class Known(Protocol):
    """What is known of files that were read before: ``hashes.Hashes``."""

    def get(self, status: os.stat_result) -> bytes | None:
        """Returns what was put for a file that is as it was then; None where nothing was."""

    def put(self, status: os.stat_result, value: bytes, begun_ns: int) -> None:
        """Remember something of a file."""


def digest(selections: Iterable[Selection], known: Known | None = None) -> Digest:
    """Returns the digest of what an instruction copies.

    Args:
        selections: one an item, in order.
        known: what is known of files that were read before; what is read now is put there.

    Raises:
        KetchError: something cannot be read, or was changed meanwhile.
    """
    whole = hashlib.sha256()
    version = Version()
    for selection in selections:
        reader = _Reader(known, version, selection)
        for source in selection.sources:
            whole.update(b"source" if source.is_directory else b"file")
            whole.update(_field(b"" if source.is_directory else os.fsencode(source.name)))
            whole.update(reader.digest(source))
        whole.update(b"end")
    return Digest(f"sha256:{whole.hexdigest()}", version.digest())


class Version:
    """Grows by the files that are met, and tells whether others meet the same ones."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, name: str, status: os.stat_result) -> None:
        """Take notice of a file, as it is under a name."""
        self._hash.update(
            os.fsencode(name)
            + _FACTS.pack(
                status.st_mode,
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_ctime_ns & _64_BITS,  # which a change of the time of modification sets
            )
        )

    def digest(self) -> bytes:
        """Returns what all files so far come to."""
        return self._hash.digest()


class _Reader:
    """Digests sources.

    Args:
        known: see ``digest``.
        version: takes notice of all files.
        selection: what they belong to.
    """

    __slots__ = ("_check", "_known", "_links", "_selection", "_version")

    def __init__(self, known: Known | None, version: Version, selection: Selection) -> None:
        self._known = known
        self._version = version
        self._selection = selection
        self._check = selection.check
        # Files with several names, by device and inode, and which of them they were.
        self._links: dict[tuple[int, int], int] = {}

    def digest(self, source: Source) -> bytes:
        """Returns the digest of one source; names of one file are only told within it."""
        self._links.clear()
        running = hashlib.sha256()
        way: list[str] = []
        with contextlib.closing(self._selection.entries(source)) as entries:
            for entry in entries:
                self._check()
                if entry.event is Event.ENTER:
                    running.update(b"enter" + _field(os.fsencode(entry.name)))
                    way.append(entry.name)
                    continue
                try:
                    if entry.event is not Event.LEAVE:
                        running.update(self._file(entry, named=source.is_directory))
                    else:
                        if entry.name:
                            running.update(self._directory(entry))
                            way.pop()
                        running.update(b"leave")
                except OSError as error:
                    shown = paths.shown([*source.names, *way, entry.name])
                    raise failure(error, "read", shown) from error
        return running.digest()

    def _directory(self, entry: Entry) -> bytes:
        """Returns what there is of a directory, but for what is in it."""
        status = os.fstat(entry.directory)
        self._version.add(entry.name, status)
        return self._owner(status) + _attributes(attributes.read(entry.directory))

    def _file(self, entry: Entry, *, named: bool) -> bytes:
        status = entry.status
        if status is None:
            status = os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)
        self._version.add(entry.name, status)
        parts = [_field(os.fsencode(entry.name) if named else b""), self._owner(status)]
        kind = stat.S_IFMT(status.st_mode)
        if status.st_nlink > 1 and kind == stat.S_IFREG:
            inode = (status.st_dev, status.st_ino)
            number = self._links.get(inode)
            if number is not None:
                return b"".join([b"link", *parts, b"%d." % number])
            if len(self._links) == LINKS_MAX:
                raise too_many_links()
            self._links[inode] = len(self._links)
        return b"".join([b"file", *parts, self._inode(entry, status)])

    def _owner(self, status: os.stat_result) -> bytes:
        owner = (status.st_uid, status.st_gid) if self._selection.tree.owned else (0, 0)
        return b"%o %d %d." % (stat.S_IMODE(status.st_mode), *owner)

    def _inode(self, entry: Entry, status: os.stat_result) -> bytes:
        """Returns the digest of what a file is besides its names, mode and owner."""
        found = self._known.get(status) if self._known else None
        if found is not None:
            return found
        begun_ns = time.time_ns()
        if stat.S_ISREG(status.st_mode):
            value, after = _regular(entry, self._check)
        else:
            value, after = _special(entry, status), status
        if self._known and _same(status, after):
            self._known.put(status, value, begun_ns)
        return value


def too_many_links() -> InvalidArgumentError:
    """Returns the error that says that a selection has more linked files than are kept in mind."""
    return InvalidArgumentError(f"more than {LINKS_MAX} files have several names")


def _regular(entry: Entry, check: Callable[[], object]) -> tuple[bytes, os.stat_result]:
    """Returns the digest of a regular file, and its status when it had been read."""
    with owned(contested.open_file(entry.name, entry.directory)) as file:
        content = hashlib.sha256()
        size = os.fstat(file).st_size
        if size < sparse.HOLE_BYTES_MIN:
            content.update(os.pread(file, size, 0))
        else:
            position = 0
            while piece := sparse.pread(file, size - position, position):
                content.update(piece)
                position += len(piece)
                check()
        found = attributes.read(file)
        after = os.fstat(file)
    parts = (b"regular", b"%d." % size, content.digest(), _attributes(found))
    return hashlib.sha256(b"".join(parts)).digest(), after


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was what it had been when it had been read."""
    return (before.st_dev, before.st_ino, before.st_size, before.st_ctime_ns) == (
        after.st_dev, after.st_ino, after.st_size, after.st_ctime_ns
    )  # fmt: skip


def _special(entry: Entry, status: os.stat_result) -> bytes:
    """Returns the digest of what is neither a regular file nor a directory."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFSOCK:
        return hashlib.sha256(b"socket").digest()
    place = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.directory)
    with owned(place):
        found = attributes.read(contested.path(place), follow=True)
        target = os.readlink(b"", dir_fd=place) if kind == stat.S_IFLNK else b""
    device = status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
    facts = b"%o %d " % (kind, device)
    return hashlib.sha256(facts + _field(target) + _attributes(found)).digest()


def _attributes(found: Mapping[bytes, bytes]) -> bytes:
    fields = [_field(key) + _field(value) for key, value in sorted(found.items())]
    return b"%d:" % len(fields) + b"".join(fields)


def _field(value: bytes) -> bytes:
    return b"%d:" % len(value) + value
