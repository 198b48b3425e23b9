"""COPY and ADD: a selection of files, put into a root.

The rules are BuildKit's. A directory's contents are merged into the destination, and directories
that are there get what the source's are like, but for the destination itself; a file goes into a
directory, or takes the place of what is no directory. Sources: tonistiigi/fsutil, copy/copy.go;
moby/buildkit, solver/llbsolver/file/backend.go.

The source may be anybody's, and change meanwhile; the root was written by the steps before, whose
symlinks are as hostile as the rest of it (CVE-2024-23652 and its like). So both are walked by
descriptor, nothing in either is followed, and what is made is meant by its descriptor.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence

from ketch.build.files import destinations, digests, paths
from ketch.build.files.failures import failure
from ketch.build.files.selection import Selection, Source
from ketch.build.files.walking import Entry, Event
from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError
from ketch.images import attributes
from ketch.linux import contested, owners, sparse
from ketch.linux.descent import Descent
from ketch.linux.scopes import owned
from ketch.spec.modes import Mode

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Destination:
    """Where files are put, and what becomes of them.

    Attributes:
        root: descriptor of the root, for reading.
        path: absolute; a directory where it ends with a slash.
        owner: user and group of everything, None for what it has in the source.
        mode: what happens to permissions, None for nothing.
        time_ns: when everything was changed, None for when it was in the source.
        beneath: opens a directory that was made in the root where it lies on the disk, by its path
            without symlinks; from then on the root itself is of no use. None where it is needed
            further, or has no such place.
    """

    root: int
    path: str
    owner: tuple[int, int] | None = None
    mode: Mode | None = None
    time_ns: int | None = None
    beneath: Callable[[Sequence[str]], int] | None = None

    def parents(self) -> tuple[tuple[int, int], int]:
        """Returns owner and permissions of directories that are made on the way.

        ``--chmod`` is not meant for them.
        """
        return self.owner or (0, 0), destinations.MODE


def copy(selection: Selection, destination: Destination, version: digests.Version) -> None:
    """Copy what is selected.

    Args:
        selection: what.
        destination: where to.
        version: takes notice of all files as they were when they had been copied: in the end it
            is what ``digests.digest`` returned, or something was changed in between.

    Raises:
        InvalidArgumentError: something in the root is in the way.
        KetchError: something cannot be read or made, or was changed meanwhile.
    """
    for source in selection.sources:
        copy_source(selection, source, destination, version)


def copy_source(
    selection: Selection, source: Source, destination: Destination, version: digests.Version
) -> None:
    """Copy one of the things that are selected: see ``copy``."""
    try:
        resolver = paths.Resolver(destination.root)
        names = resolver.resolve(paths.names_of(destination.path), must_exist=False)
        found = destinations.is_directory(destination.root, names)
        if source.is_directory:
            if found is False:
                raise InvalidArgumentError(f"cannot copy to non-directory: {paths.shown(names)}")
        elif found is not True and not destination.path.endswith(("/", "/.")):
            *names, called = names
        else:
            called = source.name
        owner, mode = destination.parents()
        top = destinations.make_directories(
            destination.root, names, owner=owner, mode=mode, time_ns=destination.time_ns
        )
        if found is None and source.is_directory and destination.beneath is not None:
            # All of it is new, and a mount between would only make each file take longer.
            os.close(top)
            top = destination.beneath(names)
        with owned(top):
            copier = _Copier(selection, source, destination, version, names)
            if source.is_directory:
                copier.directory(top)
            else:
                copier.file(top, called)
    except OSError as error:
        raise failure(error, "copy to", destination.path) from error


@dataclass
class _Place:
    """A directory that is being copied, below the one that the copy began in.

    Args:
        name: its name.
        above: the one that it is in; None for the first.
    """

    name: str
    above: "_Place | None"

    def names(self) -> list[str]:
        """Returns the way here."""
        found = []
        place = self
        while place.above is not None:
            found.append(place.name)
            place = place.above
        return found[::-1]


class _Copier:
    """Copies one source.

    Args:
        selection: what it belongs to.
        source: it.
        destination: where to.
        version: takes notice of all files.
        names: where in the root it goes, without symlinks: of a directory.
    """

    __slots__ = ("_check", "_entries", "_given", "_links", "_mode", "_names", "_owner", "_place",
                 "_source", "_time_ns", "_top", "_version")  # fmt: skip

    def __init__(
        self,
        selection: Selection,
        source: Source,
        destination: Destination,
        version: digests.Version,
        names: list[str],
    ) -> None:
        self._entries = selection.entries(source)
        self._check = selection.check
        self._source = source
        self._version = version
        self._names = names
        self._mode = destination.mode
        self._time_ns = destination.time_ns
        self._owner = destination.owner
        if self._owner is None and not selection.tree.owned:
            self._owner = (0, 0)
        self._place = _Place("", None)
        self._top = -1
        # To whom the kernel gives what is made in the present directory, where that is known.
        self._given: tuple[int, int] | None = None
        # Of files with several names, by device and inode: where the copy is, and which it is.
        self._links: dict[tuple[int, int], tuple[_Place, str, tuple[int, int]]] = {}

    def directory(self, top: int) -> None:
        """Copy a directory's contents into one."""
        self._top = top
        with contextlib.closing(self._entries), Descent(top) as way:
            for entry in self._entries:
                self._check()
                try:
                    self._take(entry, way)
                except OSError as error:
                    raise failure(error, "copy", self._shown(entry.name)) from error

    def file(self, top: int, name: str) -> None:
        """Copy a file into a directory, under a name."""
        self._top = top
        with contextlib.closing(self._entries):
            for entry in self._entries:
                self._check()
                try:
                    self._copy(entry, top, name)
                except OSError as error:
                    raise failure(error, "copy", self._shown(name)) from error

    def _take(self, entry: Entry, way: Descent) -> None:
        if entry.event is Event.ENTER:
            self._enter(way, entry.name)
        elif entry.event is not Event.LEAVE:
            self._copy(entry, way.directory, entry.name)
        elif entry.name:
            self._finish(entry, way.directory)
            self._leave(way)
        else:
            # It keeps its mode and owner, as what is above it does.
            self._set_times(way.directory, os.fstat(entry.directory))

    def _shown(self, name: str) -> str:
        return paths.shown([*self._names, *self._place.names(), name])

    def _enter(self, way: Descent, name: str) -> None:
        try:
            below = contested.directory(name, way.directory)
        except FileExistsError:
            status = os.stat(name, dir_fd=way.directory, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise InvalidArgumentError(
                    f"cannot copy to non-directory: {self._shown(name)}"
                ) from None
            below = -1
        way.enter(os.fsencode(name), below)
        self._place = _Place(name, self._place)
        self._given = None

    def _leave(self, way: Descent) -> None:
        if self._place.above is None or not way.leave():
            raise contested.exchanged("..")
        self._place = self._place.above
        self._given = None

    def _finish(self, entry: Entry, target: int) -> None:
        """Give a directory what it is to have, once everything is in it."""
        status = os.fstat(entry.directory)
        self._version.add(entry.name, status)
        self._give(target, status, self._attributes(entry.directory), is_directory=True)

    def _copy(self, entry: Entry, target: int, name: str) -> None:
        """Copy what is no directory."""
        # Of ten thousand files each microsecond is a hundredth of a second: hence no with blocks.
        place = os.open(entry.name, _PATH, dir_fd=entry.directory)
        try:
            status = os.fstat(place)
            kind = stat.S_IFMT(status.st_mode)
            if (kind == stat.S_IFREG) != (entry.event is Event.FILE) or kind == stat.S_IFDIR:
                raise contested.exchanged(entry.name)
            if kind != stat.S_IFREG:
                self._version.add(entry.name, status)
                self._special(place, status, target, name)
                return
            # This very file, whatever its name means by now; and no lease keeps us waiting.
            file = os.open(contested.path(place), _READ)
        finally:
            os.close(place)
        try:
            if status.st_nlink < 2 or not self._link(status, target, name):
                self._regular(file, status, target, name)
            self._version.add(entry.name, os.fstat(file))
        finally:
            os.close(file)

    def _regular(self, file: int, status: os.stat_result, target: int, name: str) -> None:
        made = self._new(target, name)
        try:
            size = status.st_size
            if size >= sparse.HOLE_BYTES_MIN:
                for _ in sparse.copy(file, made, size):
                    self._check()
            elif size:
                left = os.read(file, size)
                while left:
                    left = left[os.write(made, left) :]
            if self._given is None:
                found = os.fstat(made)
                self._given = (found.st_uid, found.st_gid)
            owner = self._owner or (status.st_uid, status.st_gid)
            if owner != self._given:
                owners.give(made, *owner)
            os.chmod(made, self._bits(status, is_directory=False))
            attributes.write(made, self._attributes(file))
            self._set_times(made, status)
            if status.st_nlink > 1:
                self._remember(status, os.fstat(made), name)
        finally:
            os.close(made)

    def _special(self, place: int, status: os.stat_result, target: int, name: str) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:  # nobody listens at a copy: a file that is empty, as BuildKit's
            with owned(self._new(target, name)) as made:
                self._give(made, status, {})
            return
        for is_first in (True, False):
            try:
                if kind == stat.S_IFLNK:
                    made = contested.symlink(os.readlink(b"", dir_fd=place), name, target)
                else:
                    made = owners.node(name, kind | 0o600, status.st_rdev, target)
                break
            except FileExistsError:
                if not is_first:
                    raise
                self._clear(target, name)
        with owned(made):
            found = attributes.read(contested.path(place), follow=True)
            self._give(contested.path(made), status, found, is_link=kind == stat.S_IFLNK)

    def _new(self, target: int, name: str) -> int:
        try:
            return os.open(name, _NEW, 0o600, dir_fd=target)
        except FileExistsError:
            self._clear(target, name)
            return os.open(name, _NEW, 0o600, dir_fd=target)

    def _clear(self, target: int, name: str) -> None:
        """Take away what a file takes the place of."""
        status = os.stat(name, dir_fd=target, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArgumentError(f"cannot replace to directory {self._shown(name)} with file")
        os.unlink(name, dir_fd=target)

    def _give(
        self,
        file: int | bytes,
        status: os.stat_result,
        found: Mapping[bytes, bytes],
        *,
        is_directory: bool = False,
        is_link: bool = False,
    ) -> None:
        """Give a file what it is to have; it is a descriptor, or one's path in procfs."""
        # In this order: a change of owner takes setuid bits and capabilities away.
        owners.give(file, *(self._owner or (status.st_uid, status.st_gid)))
        if not is_link:
            os.chmod(file, self._bits(status, is_directory=is_directory))
        attributes.write(file, found, follow=True)
        self._set_times(file, status)

    def _attributes(self, file: int) -> dict[bytes, bytes]:
        """Returns the attributes that go along: with an owner of its own not the one that says."""
        found = attributes.read(file)
        if self._owner is not None:
            found.pop(owners.ATTRIBUTE, None)
        return found

    def _bits(self, status: os.stat_result, *, is_directory: bool) -> int:
        bits = stat.S_IMODE(status.st_mode)
        return bits if self._mode is None else self._mode.apply(bits, is_directory=is_directory)

    def _set_times(self, file: int | bytes, status: os.stat_result) -> None:
        time_ns = status.st_mtime_ns if self._time_ns is None else self._time_ns
        os.utime(file, ns=(time_ns, time_ns))

    def _remember(self, status: os.stat_result, made: os.stat_result, name: str) -> None:
        if len(self._links) == digests.LINKS_MAX:
            raise digests.too_many_links()
        inode = (status.st_dev, status.st_ino)
        self._links[inode] = (self._place, name, (made.st_dev, made.st_ino))

    def _link(self, status: os.stat_result, target: int, name: str) -> bool:
        """Make a further name of a copied file; returns whether there was one."""
        found = self._links.get((status.st_dev, status.st_ino))
        if found is None:
            return False
        above, called, identity = found
        with owned(paths.open_below(self._top, [*above.names(), called], _PATH)) as made:
            copied = os.fstat(made)
            if (copied.st_dev, copied.st_ino) != identity:
                raise contested.exchanged(called)
            for is_first in (True, False):
                try:
                    # By descriptor: what its name means by now is not for us to say.
                    os.link(contested.path(made), name, dst_dir_fd=target, follow_symlinks=True)
                    break
                except FileExistsError:
                    if not is_first:
                        raise
                    self._clear(target, name)
        return True
