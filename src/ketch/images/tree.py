"""Directory trees as tar archives: what ``export``, ``cp`` and ``commit`` read.

A tree may belong to a running, hostile container. It is walked by descriptor, no symlink is ever
followed, and nothing but regular files and directories is opened: a fifo would make its reader wait
and a device would act. The archive comes in pieces, as it is asked for; the same tree gives the
same bytes.
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.images import attributes, tar, tar_writer
from ketch.linux import contested, owners, sparse
from ketch.linux.descent import Descent
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Inode = tuple[int, int]
    Owned = Callable[[int, int], tuple[int, int]]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH_MAX = 4095
_VANISHED = {errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP}
_KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


class Archiver:
    """Turns files into members of one archive; hard links among them stay hard links.

    Args:
        whole_seconds: whether times lose their fractions, as Docker's copies do.
        owned: says for user and group ids what the archive is to have; None for the same.
        mtime_ns: the time that all of it has, None for its own.
        latest_ns: the time that younger files have instead of their own, None for any.
        at_rest: whether nobody writes to the files meanwhile, or can put another in one's place.

    Attributes:
        size_bytes: of the content of the files that have become members.
    """

    __slots__ = ("_at_rest", "_latest_ns", "_links", "_mtime_ns", "_owned", "_whole_seconds",
                 "size_bytes")  # fmt: skip

    def __init__(
        self,
        *,
        whole_seconds: bool = False,
        owned: "Owned | None" = None,
        mtime_ns: int | None = None,
        latest_ns: int | None = None,
        at_rest: bool = False,
    ) -> None:
        self.size_bytes = 0
        self._at_rest = at_rest
        self._latest_ns = latest_ns
        self._links: dict[Inode, bytes] = {}
        self._mtime_ns = mtime_ns
        self._whole_seconds = whole_seconds
        self._owned = owned

    def has(self, inode: "Inode") -> bool:
        """Whether a file with several names, by device and inode, has become a member."""
        return inode in self._links

    def member(
        self, parent: int, name: bytes, shown: bytes, status: os.stat_result
    ) -> "Iterable[bytes]":
        """Returns the pieces of one member, without what is in it where it is a directory.

        Args:
            parent: descriptor of the directory that the file is in.
            name: its name there.
            shown: the member's name.
            status: of the file; a socket has no place in an archive and yields nothing.

        Raises:
            UnavailableError: it cannot be read.
        """
        if len(shown) > _PATH_MAX:
            raise InvalidArgumentError(
                f"{os.fsdecode(shown[:100])}...: file name too long for an archive"
            )
        entry = _entry(shown, status)
        if self._owned is not None:
            entry.uid, entry.gid = self._owned(entry.uid, entry.gid)
        if self._mtime_ns is not None:
            entry.mtime_ns = self._mtime_ns
        elif self._whole_seconds:
            entry.mtime_ns -= entry.mtime_ns % 1_000_000_000
        if self._latest_ns is not None:
            entry.mtime_ns = min(entry.mtime_ns, self._latest_ns)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return ()
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            first = self._links.setdefault(inode, shown)
            if first != shown:
                entry.kind, entry.link, entry.size_bytes = tar.HARD_LINK, first, 0
                return (tar_writer.header(entry),)
        try:
            if kind == stat.S_IFREG:
                entry.size_bytes = status.st_size
                if status.st_size > sparse.HOLE_BYTES_MIN:
                    return self._large(parent, name, entry)
                return (self._small(parent, name, entry),)
            if kind == stat.S_IFDIR:
                return (_directory(parent, name, entry),)
            return (_special(parent, name, entry, status),)
        except OSError as error:
            _check_vanished(error, shown)
            return ()

    def below(
        self, directory: int, prefix: bytes, *, crosses: "Callable[[bytes], bool] | None" = None
    ) -> "Iterator[bytes]":
        """Yield members for all that is in a directory, without the directory itself.

        Args:
            directory: its descriptor.
            prefix: what stands before each member's name, with a slash at its end or empty.
            crosses: see ``archive``.
        """
        return _walk(self, directory, b".", prefix, crosses)

    def _small(self, parent: int, name: bytes, entry: tar.Entry) -> bytes:
        """Returns a member whose file is read at once."""
        with owned(self._open(parent, name)) as descriptor:
            entry.xattrs = attributes.read(descriptor)
            _remember(entry)
            entry.size_bytes = size = entry.size_bytes if entry.kind == tar.REGULAR else 0
            content = os.read(descriptor, size) if size else b""
        self.size_bytes += size
        # What is cut off meanwhile is made up for: the header tells the size.
        rest = bytes(size - len(content) + -size % tar.BLOCK)
        return b"".join((tar_writer.header(entry), content, rest))

    def _large(self, parent: int, name: bytes, entry: tar.Entry) -> "Iterator[bytes]":
        try:
            with owned(self._open(parent, name)) as descriptor:
                entry.xattrs = attributes.read(descriptor)
                _remember(entry)
                entry.size_bytes = size = entry.size_bytes if entry.kind == tar.REGULAR else 0
                self.size_bytes += size
                yield tar_writer.header(entry)
                offset = 0
                while left := size - offset:
                    piece = sparse.pread(descriptor, left, offset) or sparse.ZEROS[:left]
                    offset += len(piece)
                    yield piece
                if padding := bytes(-size % tar.BLOCK):
                    yield padding
        except OSError as error:
            _check_vanished(error, entry.name)

    def _open(self, parent: int, name: bytes) -> int:
        # At rest, what was looked at is what is opened.
        if self._at_rest:
            return os.open(name, _READ, dir_fd=parent)
        return contested.open_file(name, parent)


def archive(
    parent: int,
    name: bytes,
    shown: bytes,
    *,
    crosses: "Callable[[bytes], bool] | None" = None,
    whole_seconds: bool = False,
    owned: "Owned | None" = None,
) -> "Iterator[bytes]":
    """Yield an archive of a file, or of a directory and all that is in it.

    Args:
        parent: descriptor of the directory that it is in; it stays open meanwhile.
        name: its name there, ``.`` for that directory itself.
        shown: the name that it, and everything in it, has in the archive; where empty, what is in
            it stands at the top and it has no member of its own.
        crosses: whether what another file system has at a member's name is wanted; all if None.
        whole_seconds: whether times lose their fractions.
        owned: see ``Archiver``.

    Raises:
        UnavailableError: something cannot be read.
    """
    archiver = Archiver(whole_seconds=whole_seconds, owned=owned)
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if shown:
        yield from archiver.member(parent, name, shown, status)
    if stat.S_ISDIR(status.st_mode):
        prefix = shown if shown.endswith(b"/") or not shown else shown + b"/"
        yield from _walk(archiver, parent, name, prefix, crosses)
    yield tar_writer.END


def _walk(
    archiver: Archiver,
    parent: int,
    name: bytes,
    prefix: bytes,
    crosses: "Callable[[bytes], bool] | None",
) -> "Iterator[bytes]":
    """Yield the members of a directory's content, in the order of their names."""
    try:
        top = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        _check_vanished(error, prefix)
        return
    with owned(top), Descent(top) as way:
        # Of each directory on the way down: its members' prefix, what is left of it, its device.
        begun = [(prefix, iter(_names(top)), os.fstat(top).st_dev)]
        while begun:
            prefix, names, device = begun[-1]
            inner = next(names, None)
            if inner is None:
                begun.pop()
                while begun and not way.leave():
                    begun.pop()  # moved away meanwhile
                continue
            shown = prefix + inner
            try:
                status = os.stat(inner, dir_fd=way.directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield from archiver.member(way.directory, inner, shown, status)
            if not stat.S_ISDIR(status.st_mode):
                continue
            if crosses is not None and status.st_dev != device and not crosses(shown):
                continue
            try:
                below = way.enter(inner)
            except OSError as error:
                _check_vanished(error, shown)
                continue
            is_same = os.path.samestat(os.fstat(below), status)
            found = _names(below) if is_same else ()  # else exchanged for another
            begun.append((shown + b"/", iter(found), status.st_dev))


def _check_vanished(error: OSError, shown: bytes) -> None:
    """Raise unless the error says that the container was quicker."""
    if error.errno not in _VANISHED:
        text = os.fsdecode(shown[:200])
        raise UnavailableError(f"cannot read {text}: {error.strerror}") from error


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


def _entry(shown: bytes, status: os.stat_result) -> tar.Entry:
    entry = tar.Entry(shown)
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mtime_ns = status.st_mtime_ns
    return entry


def _directory(parent: int, name: bytes, entry: tar.Entry) -> bytes:
    entry.kind = tar.DIRECTORY
    with owned(os.open(name, _DIRECTORY, dir_fd=parent)) as descriptor:
        entry.xattrs = attributes.read(descriptor)
        _remember(entry)
    return tar_writer.header(entry)


def _remember(entry: tar.Entry) -> None:
    """Give a member the owner that its file could not have; what says so stays here."""
    value = entry.xattrs.pop(owners.ATTRIBUTE, None)
    if value is None or not owners.alone() or (said := owners.Remembered.read(value)) is None:
        return
    entry.uid, entry.gid = said.uid, said.gid
    if said.kind:
        entry.kind = _KINDS[said.kind]
        entry.major, entry.minor = os.major(said.device), os.minor(said.device)


def _special(parent: int, name: bytes, entry: tar.Entry, status: os.stat_result) -> bytes:
    with owned(os.open(name, _PATH, dir_fd=parent)) as descriptor:
        if not os.path.samestat(os.fstat(descriptor), status):
            raise contested.exchanged(name)
        entry.kind = _KINDS[stat.S_IFMT(status.st_mode)]
        if entry.kind == tar.SYMLINK:
            entry.link = os.readlink(b"", dir_fd=descriptor)
            entry.mode = 0o777
        elif entry.kind != tar.FIFO:
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        entry.xattrs = attributes.read(contested.path(descriptor), follow=True)
    return tar_writer.header(entry)
