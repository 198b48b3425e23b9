"""Making the files of a tar archive below a directory: what layers and ``cp`` have in common.

The archive is hostile until proven otherwise. Every name is cleaned as text, its parent directory
is resolved by the kernel with the tree as root (openat2, RESOLVE_IN_ROOT), and everything is then
made relative to that descriptor without following a last symlink. So symlinks made earlier in the
archive lead somewhere inside the tree, as they will in the container: real archives rely on that
(``lib -> usr/lib``, then ``lib/x``), which is why symlinks are not simply refused; Docker and
containerd follow them within the root as well. A name that climbs above the root is refused.
"""

import errno
import os
import stat

from ketch.errors import (
    InvalidArgumentError,
    KetchError,
    PermissionDeniedError,
    UnavailableError,
)
from ketch.images import attributes, tar
from ketch.linux import contested, namespaces, owners, sparse
from ketch.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

# Archives of a million files exist; a directory's metadata is held in memory until the end.
ENTRIES_MAX = 10_000_000
# Names and attributes of those. Real ones take some 60 bytes a directory; an attacker's, a MiB.
DIRECTORIES_BYTES_MAX = 1 << 26

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

_OPEN_DIRECTORIES_MAX = 64
_ATTRIBUTE_BYTES = 100  # what Python adds to each
_PATH_MAX = 4095  # path_resolution(7); longer ones would resolve piece by piece only
_SIZE_MAX = 1 << 54  # of all files, holes included: 500 such layers can still be counted
_ID_MAX = (1 << 32) - 2
_TIME_MAX_NS = (1 << 63) - 1
_MAJOR_MAX, _MINOR_MAX = (1 << 12) - 1, (1 << 20) - 1

_PATH = os.O_PATH | os.O_DIRECTORY
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE,
            errno.ENFILE, errno.EFBIG}  # fmt: skip


class Tree:
    """The directory being filled.

    Args:
        directory: its descriptor.

    Attributes:
        what: what the archive is, for errors.
        size_bytes: bytes of all files' content so far.
    """

    what = "archive"
    # How the directories on the way are looked up.
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_XDEV
    resolve_step = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV

    __slots__ = ("_described", "_described_bytes", "_directory", "_open", "_open_is_stale",
                 "size_bytes")  # fmt: skip

    def __init__(self, directory: int) -> None:
        self.size_bytes = 0
        self._directory = directory
        # Directories by the path that led to them, the least recently used first.
        self._open: dict[bytes, int] = {}
        self._open_is_stale = False
        # Directories by path: which they are, their description, and whether the archive has it.
        # They get their metadata last, since adding to a directory changes its times, and its
        # setgid bit or default ACL what is added.
        self._described: dict[bytes, tuple[tuple[int, int], tar.Entry, bool]] = {}
        self._described_bytes = 0

    def fill(self, stream: "tar.Stream") -> None:
        """Make all that an archive has.

        Args:
            stream: the archive, uncompressed; it is read to its very end.

        Raises:
            InvalidArgumentError: the archive is malformed, or wants what cannot be.
            UnavailableError: the disk is full or failing.
            PermissionDeniedError: the caller may not make what the archive has.
        """
        reader = tar.Reader(stream)
        try:
            for count, entry in enumerate(reader):
                if count == ENTRIES_MAX:
                    raise InvalidArgumentError(
                        f"the {self.what} has more than {ENTRIES_MAX} entries"
                    )
                self._check(entry)
                if self._open_is_stale:
                    self._close_directories()
                try:
                    self._add(entry, reader)
                except OSError as error:
                    raise self._failed(entry, error) from error
            try:
                self._finish()
            except OSError as error:
                raise self._failed(tar.Entry(b"."), error) from error
        finally:
            self._close_directories()
        reader.drain()

    def _add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one member of the archive, or do what else it stands for."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Give directories their metadata."""
        for path, (identity, entry, is_member) in self._described.items():
            try:
                descriptor = openat2(
                    self._directory,
                    path or b".",
                    os.O_RDONLY | os.O_DIRECTORY,
                    resolve=self.resolve,
                )
            except OSError as error:
                if error.errno not in GONE:
                    raise
                if is_member:
                    self._lose(path, entry)
                continue
            with owned(descriptor):
                if _identity(descriptor) == identity:
                    _give_metadata(descriptor, entry)

    def _lose(self, path: bytes, entry: tar.Entry) -> None:
        """A directory that the archive has is not at its path any more: replaced further on."""

    def _place(self, path: bytes, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make a member at a path, whose last name is given too, in place of whatever is there."""
        parent = self._parent(path)
        if entry.kind == tar.DIRECTORY:
            self._make_directory(parent, name)
            self._describe(path, parent, name, entry)
            return
        try:
            self._make(parent, name, entry, reader)
        except FileExistsError:
            if self._is_link_itself(parent, name, entry):
                return
            self._clear(parent, name)
            self._make(parent, name, entry, reader)

    def _make(self, parent: int, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make what is not a directory, where nothing is; FileExistsError where something is."""
        if entry.kind == tar.REGULAR:
            self._make_file(parent, name, entry, reader)
            return
        if entry.kind == tar.HARD_LINK:
            directory, target = self._link_target(entry)
            try:
                os.link(
                    target, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False
                )
            except PermissionError as error:
                raise self._refused(entry.name, "a hard link to a directory") from error
            return
        if entry.kind == tar.SYMLINK:
            made = contested.symlink(entry.link, name, parent)
        elif entry.kind == tar.FIFO:
            made = contested.node(name, stat.S_IFIFO | 0o600, 0, parent)
        else:
            kind = stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK
            number = os.makedev(entry.major, entry.minor)
            made = owners.node(name, kind | 0o600, number, parent)
        with owned(made):
            _give_metadata(contested.path(made), entry)

    def _make_file(self, parent: int, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with owned(os.open(name, flags, 0o600, dir_fd=parent)) as descriptor:
            if entry.segments is not None:
                _write_segments(descriptor, entry, reader)
            else:
                for piece in reader.data():
                    sparse.append(descriptor, piece)
            _give_metadata(descriptor, entry)
        self.size_bytes += entry.size_bytes
        if self.size_bytes > _SIZE_MAX:
            raise self._refused(entry.name, f"the files have more than {_SIZE_MAX} bytes")

    def _make_directory(self, parent: int, name: bytes) -> os.stat_result | None:
        """Make a directory or keep the one that is there; returns what it replaces, if anything."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return None
            self._clear(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
            return status
        return None

    def _make_missing(self, parent: int, name: bytes) -> None:
        """Make a directory that the archive did not mention, where none can be opened."""
        os.mkdir(name, 0o700, dir_fd=parent)

    def _describe(
        self, path: bytes, parent: int, name: bytes, entry: tar.Entry, *, is_member: bool = True
    ) -> None:
        """Give a directory owner and mode, and remember what else it is to have in the end."""
        self._described_bytes += len(path)
        for key, value in entry.xattrs.items():
            self._described_bytes += len(key) + len(value) + _ATTRIBUTE_BYTES
        if self._described_bytes > DIRECTORIES_BYTES_MAX:
            raise self._refused(
                entry.name,
                "names and extended attributes of directories take more than"
                f" {DIRECTORIES_BYTES_MAX >> 20} MiB",
            )
        with owned(os.open(name, _PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as made:
            # At once: a member that comes later may take the way here away.
            owners.give(contested.path(made), entry.uid, entry.gid)
            os.chmod(contested.path(made), entry.mode)
            identity = _identity(made)
        self._described[path] = (identity, entry, is_member)  # the last description counts

    def _is_link_itself(self, parent: int, name: bytes, entry: tar.Entry) -> bool:
        """Whether a hard link's place already holds the file that it is to share."""
        if entry.kind != tar.HARD_LINK:
            return False
        directory, target = self._link_target(entry)
        return os.path.samestat(
            os.stat(target, dir_fd=directory, follow_symlinks=False),
            os.stat(name, dir_fd=parent, follow_symlinks=False),
        )

    def _clear(self, parent: int, name: bytes) -> None:
        """Take away what a later member of the archive replaces."""
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._open_is_stale = True
        if stat.S_ISDIR(mode):
            remove_tree(os.fsdecode(proc_path(parent, name)))
        else:
            os.unlink(name, dir_fd=parent)

    def _parent(self, path: bytes) -> int:
        """Open the directory that a path lies in, making it where it is missing."""
        head = path.rpartition(b"/")[0]
        if not head:
            return self._directory
        try:
            return self._open_directory(head)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return self._make_parents(head)

    def _make_parents(self, path: bytes) -> int:
        """Make the directories of a path that the archive did not mention."""
        directory = self._directory
        end = -1
        while end < len(path):
            start = end + 1
            end = path.find(b"/", start)
            end = len(path) if end < 0 else end
            name = path[start:end]
            try:
                directory = self._open_step(directory, name, path[:end])
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._make_missing(directory, name)
                inherited = self._inherited(path[:end])
                self._describe(path[:end], directory, name, inherited, is_member=False)
                directory = self._open_step(directory, name, path[:end])
        return directory

    def _open_step(self, directory: int, name: bytes, path: bytes) -> int:
        """Open a directory's child; only a symlink makes the kernel walk the path from the root."""
        try:
            return self._keep(path, openat2(directory, name, _PATH, resolve=self.resolve_step))
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._open_directory(path)

    def _link_target(self, entry: tar.Entry) -> tuple[int, bytes]:
        """Returns the directory and the name of the file that a hard link shares."""
        head, _, name = b"/".join(self._clean(entry.link)).rpartition(b"/")
        try:
            directory = self._open_directory(head) if head else self._directory
            os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in GONE:
                raise
            raise self._refused(
                entry.name, f"a hard link to {_shown(entry.link)}, which is not in this {self.what}"
            ) from error
        return directory, name or b"."

    def _open_directory(self, path: bytes) -> int:
        """Open a directory; the descriptor holds good while two more are opened."""
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = openat2(self._directory, path, _PATH, resolve=self.resolve)
        return self._keep(path, descriptor)

    def _keep(self, path: bytes, descriptor: int) -> int:
        if len(self._open) >= _OPEN_DIRECTORIES_MAX:
            os.close(self._open.pop(next(iter(self._open))))
        replaced = self._open.pop(path, None)
        if replaced is not None:
            os.close(replaced)
        self._open[path] = descriptor
        return descriptor

    def _close_directories(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
        self._open_is_stale = False

    def _inherited(self, path: bytes) -> tar.Entry:
        """Describe a directory that the archive does not."""
        entry = tar.Entry(path, tar.DIRECTORY)
        entry.mode = 0o755
        return entry

    def _check(self, entry: tar.Entry) -> None:
        """Refuse numbers that no file can have; owners are what the archive says of them."""
        entry.xattrs.pop(owners.ATTRIBUTE, None)
        if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX):
            raise self._refused(entry.name, f"impossible owner {entry.uid}:{entry.gid}")
        if not (0 <= entry.major <= _MAJOR_MAX and 0 <= entry.minor <= _MINOR_MAX):
            raise self._refused(entry.name, f"impossible device {entry.major}:{entry.minor}")

    def _clean(self, name: bytes) -> list[bytes]:
        """Returns a member's path as names from the root on, ``.`` and ``..`` resolved as text."""
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if not parts:
                    raise self._leads_out(name)
                parts.pop()
            elif part not in {b"", b"."}:
                parts.append(part)
        self._check_length(name, parts)
        return parts

    def _leads_out(self, name: bytes) -> InvalidArgumentError:
        return self._refused(name, f"leads out of the {self.what}")

    def _check_length(self, name: bytes, parts: list[bytes]) -> None:
        if len(name) > _PATH_MAX and len(b"/".join(parts)) > _PATH_MAX:
            raise self._refused(name, "file name too long")

    def _refused(self, name: bytes, reason: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"{self.what} entry {_shown(name)}: {reason}")

    def _failed(self, entry: tar.Entry, error: OSError) -> KetchError:
        """Returns what an error of the kernel means for whoever gave us the archive."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"{self.what} entry {_shown(entry.name)}: {reason.lower()}"
        if error.errno == errno.ESTALE:
            return UnavailableError(
                f"{self.what} entry {_shown(entry.name)}: {error.strerror}",
                "a program is at work in the same place: try again, or pause it",
            )
        if error.errno in _NO_ROOM:
            return UnavailableError(message, "the disk or the process has run out of something")
        if error.errno == errno.EINVAL and not namespaces.in_initial_user_namespace():
            return UnavailableError(
                f"{self.what} entry {_shown(entry.name)}: belongs to {entry.uid}:{entry.gid}, and "
                "this user has no ids as high",
                "give the user more in /etc/subuid and /etc/subgid: ketch system check",
            )
        if error.errno in {errno.EPERM, errno.EACCES}:
            return PermissionDeniedError(message, "unpacking owners and devices needs root")
        return InvalidArgumentError(message)


def proc_path(parent: int, name: bytes = b"") -> bytes:
    """Returns a path for the calls that take no descriptor of a directory."""
    return b"/proc/self/fd/%d/%s" % (parent, name) if name else b"/proc/self/fd/%d" % parent


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _give_metadata(file: int | bytes, entry: tar.Entry) -> None:
    """Give a file what the archive says of it; it is a descriptor, or one's path in procfs."""
    # In this order: a change of owner takes setuid bits and capabilities away.
    owners.give(file, entry.uid, entry.gid)
    if entry.kind != tar.SYMLINK:
        os.chmod(file, entry.mode)
    attributes.write(file, entry.xattrs, follow=True)
    os.utime(file, ns=_times(entry))


def _times(entry: tar.Entry) -> tuple[int, int]:
    mtime_ns = max(-_TIME_MAX_NS, min(entry.mtime_ns, _TIME_MAX_NS))
    return mtime_ns, mtime_ns


def _write_segments(descriptor: int, entry: tar.Entry, reader: tar.Reader) -> None:
    """Write a sparse file: what the archive holds goes to its offsets, holes stay holes."""
    os.ftruncate(descriptor, entry.size_bytes)
    segments = iter(entry.segments or ())
    offset = length = 0
    for piece in reader.data():
        rest = piece
        while rest:
            while not length:
                offset, length = next(segments)
            written = os.pwrite(descriptor, rest[:length], offset)
            offset, length, rest = offset + written, length - written, rest[written:]


def _shown(name: bytes) -> str:
    """Returns a member's name for a message of one line."""
    text = name[:200].decode(errors="backslashreplace")
    return ascii(text + "..." if len(name) > 200 else text)
