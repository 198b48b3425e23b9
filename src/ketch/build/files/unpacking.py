"""ADD: archives are unpacked, told by content and not by name; everything else is copied.

An archive is taken for one where its first member can be read, plain or compressed (gzip, bzip2,
xz, zstd). It is unpacked with the destination as root: its links, and those that the destination
has, lead nowhere outside of that. Owners are the archive's unless somebody else is named, modes
and times the archive's. Devices and fifos are made, as in layers, but for the one device that
would hide a file of the layers below. Source: moby/buildkit, solver/llbsolver/file/unpack.go.
"""

import contextlib
import io
import os
import time
from typing import TYPE_CHECKING

from ketch.build.files import copying, destinations, digests, paths
from ketch.build.files.copying import Destination
from ketch.build.files.failures import failure
from ketch.build.files.selection import Selection, Source
from ketch.build.files.walking import Event
from ketch.build.graph import CopyItem, GitSource, HttpSource, InlineSource
from ketch.errors import InvalidArgumentError
from ketch.images import compression, filling, tar
from ketch.images.unpacking import ReadAhead
from ketch.linux import contested
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from ketch.images.tar import Stream

# What may be uncompressed to see whether something is an archive; zstd gives much at once.
_HEAD_BYTES_MAX = 1 << 27


def add(
    selection: Selection, destination: Destination, version: digests.Version, *, unpack: bool
) -> None:
    """Put what is selected into a root.

    Args:
        selection: what.
        destination: where to; what is unpacked keeps its modes.
        version: see ``copying.copy``.
        unpack: whether archives are unpacked: see ``unpacks``.

    Raises:
        InvalidArgumentError: something in the root is in the way, or an archive is malformed
            further on, or wants what cannot be.
        KetchError: something cannot be read or made, or was changed meanwhile.
    """
    for source in selection.sources:
        if not (unpack and not source.is_directory and _unpack(selection, source, destination)):
            copying.copy_source(selection, source, destination, version)
            continue
        for entry in selection.entries(source):
            status = os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)
            version.add(entry.name, status)


def unpacks(item: CopyItem) -> bool:
    """Whether archives among what an item names are unpacked: downloads are where it says so."""
    if item.unpack is None:
        return not isinstance(item.source, GitSource | HttpSource | InlineSource)
    return item.unpack


def is_archive(file: int) -> bool:
    """Whether a file is a tar archive, plain or compressed, with one member at least.

    Args:
        file: descriptor of a regular file.
    """
    try:
        stream = _content(file, _HEAD_BYTES_MAX)
        return next(iter(tar.Reader(stream)), None) is not None
    except InvalidArgumentError:
        return False


def _unpack(selection: Selection, source: Source, destination: Destination) -> bool:
    """Unpack a file if it is an archive; returns whether it was one."""
    with contextlib.closing(selection.entries(source)) as entries:
        entry = next(entries)
        if entry.event is not Event.FILE:
            return False
        try:
            with owned(contested.open_file(entry.name, entry.directory)) as file:
                if not is_archive(file):
                    return False
                with owned(_opened(destination)) as top:
                    facts = os.statvfs(top)
                    content = _content(file, facts.f_bavail * facts.f_frsize)
                    asked = compression.Tee(content, lambda _: selection.check())
                    with ReadAhead(asked) as ahead:
                        _Unpacked(top, destination.owner).fill(ahead)
        except OSError as error:
            raise failure(error, "unpack", paths.shown(source.names)) from error
    return True


def _opened(destination: Destination) -> int:
    """Open the directory to unpack into, making it where it is missing."""
    resolver = paths.Resolver(destination.root)
    names = resolver.resolve(paths.names_of(destination.path), must_exist=False)
    return destinations.make_directories(destination.root, names, owner=destination.owner or (0, 0))


def _content(file: int, limit_bytes: int) -> "Stream":
    """Returns what a file holds, uncompressed, from its beginning on."""
    os.lseek(file, 0, os.SEEK_SET)
    kind, stream = compression.sniffed(io.FileIO(file, closefd=False))
    return compression.decompressed(stream, kind, limit_bytes)


def _is_whiteout(entry: tar.Entry) -> bool:
    """Whether overlayfs would take a member for the mark that a name is gone, which it is not."""
    return entry.kind == tar.CHARACTER and not (entry.major or entry.minor)


class _Unpacked(filling.Tree):
    """The directory that an archive is unpacked into.

    Args:
        directory: its descriptor.
        owner: user and group of all that the archive has, None for whom it says.
    """

    __slots__ = ("_owner",)

    def __init__(self, directory: int, owner: tuple[int, int] | None) -> None:
        super().__init__(directory)
        self._owner = owner

    def _add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one member; whiteouts are names as any other, the directory itself stays."""
        parts = self._clean(entry.name)
        if not parts or _is_whiteout(entry):
            return
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        self._place(b"/".join(parts), parts[-1], entry, reader)

    def _inherited(self, path: bytes) -> tar.Entry:
        """Describe a directory that the archive does not: root's, and of now."""
        entry = super()._inherited(path)
        entry.mtime_ns = time.time_ns()
        return entry
