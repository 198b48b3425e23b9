"""Applying a layer's tar archive to a directory, in the form that overlayfs stacks.

The archive is hostile until proven otherwise. Every name is cleaned as text, its parent directory
is resolved by the kernel with the layer as root (openat2, RESOLVE_IN_ROOT), and everything is then
made relative to that descriptor without following a last symlink. So symlinks made earlier in the
archive lead somewhere inside the layer, as they will in the container: real archives rely on that
(``lib -> usr/lib``, then ``lib/x``), which is why symlinks are not simply refused; Docker and
containerd follow them within the root as well. A name that climbs above the root is refused.

Whiteouts (OCI image specification, layer.md) become what overlayfs knows: a character device 0/0,
or the attribute ``trusted.overlay.opaque`` on a directory. They speak of lower layers only: what
the same archive has put at that place stays, in whichever order the two come.
"""

import contextlib
import errno
import os
import stat

from ketch.errors import (
    InvalidArgumentError,
    KetchError,
    PermissionDeniedError,
    UnavailableError,
)
from ketch.images import tar
from ketch.linux import sparse
from ketch.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from ketch.linux.removetree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Archives of a million files exist; a directory's metadata is held in memory until the end.
ENTRIES_MAX = 10_000_000
# Names and attributes of those. Real ones take some 60 bytes a directory; an attacker's, a MiB.
DIRECTORIES_BYTES_MAX = 1 << 26

OPAQUE = b"trusted.overlay.opaque"

_WHITEOUT = b".wh."
_OPAQUE_WHITEOUT = b".wh..wh..opq"
_METADATA = b".wh..wh."  # of aufs, which no reader of layers wants
_OPEN_DIRECTORIES_MAX = 64
_ATTRIBUTE_BYTES = 100  # what Python adds to each
_PATH_MAX = 4095  # path_resolution(7); longer ones would resolve piece by piece only
_ID_MAX = (1 << 32) - 2
_TIME_MAX_NS = (1 << 63) - 1
_MAJOR_MAX, _MINOR_MAX = (1 << 12) - 1, (1 << 20) - 1

_PATH = os.O_PATH | os.O_DIRECTORY
_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE,
            errno.ENFILE, errno.EFBIG}  # fmt: skip


def apply(directory: int, stream: "tar.Stream", lower: "Sequence[str]" = ()) -> int:
    """Unpack a layer into an empty directory.

    Args:
        directory: descriptor of that directory, on a file system where the caller may make devices.
        stream: the uncompressed archive; it is read to its very end, as its digest needs.
        lower: paths of the trees below this layer, topmost first. A directory that the archive
            needs and does not describe takes its owner, mode and times from there.

    Returns:
        Bytes of all files' content.

    Raises:
        InvalidArgumentError: the archive is malformed, or wants what cannot be.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: the caller may not make what the archive has.
    """
    with Tree(directory, lower) as tree:
        reader = tar.Reader(stream)
        for count, entry in enumerate(reader):
            if count == ENTRIES_MAX:
                raise InvalidArgumentError(f"the layer has more than {ENTRIES_MAX} entries")
            try:
                tree.add(entry, reader)
            except OSError as error:
                raise failed(entry, error) from error
        try:
            tree.finish()
        except OSError as error:
            raise failed(tar.Entry(b"."), error) from error
        reader.drain()
        return tree.size_bytes


class Tree:
    """The directory being filled.

    Args:
        directory: its descriptor.
        lower: paths of the trees below it, topmost first.

    Attributes:
        size_bytes: bytes of all files' content so far.
    """

    # How the directories on the way are looked up.
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_XDEV
    resolve_step = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV

    __slots__ = ("_described", "_described_bytes", "_directory", "_hides_root", "_lower", "_open",
                 "_open_is_stale", "size_bytes")  # fmt: skip

    def __init__(self, directory: int, lower: "Sequence[str]") -> None:
        self.size_bytes = 0
        self._directory = directory
        self._lower = lower
        # Directories by the path that led to them, the least recently used first.
        self._open: dict[bytes, int] = {}
        self._open_is_stale = False
        # Directories by path: inode and description. They get their metadata last, since adding
        # to a directory changes its times, and its setgid bit or default ACL what is added.
        self._described: dict[bytes, tuple[int, tar.Entry]] = {}
        self._described_bytes = 0
        self._hides_root = False

    def __enter__(self) -> "Tree":
        """Keep directories open for the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._close_directories()

    def add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one member of the archive."""
        check(entry)
        if self._open_is_stale:
            self._close_directories()
        parts = clean(entry.name)
        if not parts:
            if entry.kind != tar.DIRECTORY:
                raise InvalidArgumentError("the layer's root is not a directory")
            self._describe(b"", self._directory, b".", entry)
            return
        name = parts[-1]
        path = b"/".join(parts)
        if name.startswith(_WHITEOUT):
            self._add_whiteout(path, name)
            return
        self._place(path, name, entry, reader)

    def _place(self, path: bytes, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make what is no whiteout, in place of whatever is there."""
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

    def finish(self) -> None:
        """Hide what the archive's root hides, and finish the directories."""
        if self._hides_root:
            self._hide_lower_root()
        if b"" not in self._described:
            root = self._inherited(b".")
            self._describe(b"", self._directory, b".", root)
        self._describe_directories()

    def _describe_directories(self) -> None:
        """Give directories their metadata."""
        for path, (inode, entry) in self._described.items():
            try:
                descriptor = openat2(
                    self._directory,
                    path or b".",
                    os.O_RDONLY | os.O_DIRECTORY,
                    resolve=self.resolve,
                )
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                continue  # replaced later in the archive
            try:
                if os.fstat(descriptor).st_ino == inode:
                    os.fchown(descriptor, entry.uid, entry.gid)
                    os.fchmod(descriptor, entry.mode)
                    _set_xattrs(descriptor, entry)
                    os.utime(descriptor, ns=_times(entry))
            finally:
                os.close(descriptor)

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
                raise InvalidArgumentError(
                    f"layer entry {_shown(entry.name)}: a hard link to a directory"
                ) from error
            return
        if entry.kind == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.kind == tar.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            kind = stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        _set_xattrs(_path(parent, name), entry)
        os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)

    def _make_file(self, parent: int, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if entry.segments is not None:
                _write_segments(descriptor, entry, reader)
            else:
                for piece in reader.data():
                    sparse.append(descriptor, piece)
            # In this order: a change of owner takes setuid bits and capabilities away.
            os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode)
            _set_xattrs(descriptor, entry)
            os.utime(descriptor, ns=_times(entry))
        finally:
            os.close(descriptor)
        self.size_bytes += entry.size_bytes

    def _make_directory(self, parent: int, name: bytes) -> None:
        """Make a directory, or keep the one that is there."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            self._clear(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
            if _is_whiteout(status):
                os.setxattr(_path(parent, name), OPAQUE, b"y")

    def _describe(self, path: bytes, parent: int, name: bytes, entry: tar.Entry) -> None:
        inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        self._described_bytes += len(path)
        for key, value in entry.xattrs.items():
            self._described_bytes += len(key) + len(value) + _ATTRIBUTE_BYTES
        if self._described_bytes > DIRECTORIES_BYTES_MAX:
            raise InvalidArgumentError(
                f"layer entry {_shown(entry.name)}: names and extended attributes of directories"
                f" take more than {DIRECTORIES_BYTES_MAX >> 20} MiB"
            )
        self._described.pop(path, None)  # the last description counts, in the order of the archive
        self._described[path] = (inode, entry)

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
            remove_tree(os.fsdecode(_path(parent, name)))
        else:
            os.unlink(name, dir_fd=parent)

    def _add_whiteout(self, path: bytes, name: bytes) -> None:
        if name == _OPAQUE_WHITEOUT:
            if b"/" in path:
                os.setxattr(_path(self._parent(path)), OPAQUE, b"y")
            else:
                self._hides_root = True  # overlayfs takes no notice of a root's attribute
            return
        if name.startswith(_METADATA):
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in {b"", b".", b".."}:
            raise InvalidArgumentError(f"layer entry {_shown(path)}: a whiteout of nothing")
        self._hide(self._parent(path), hidden)

    def _hide(self, parent: int, name: bytes) -> None:
        """Hide what lower layers have at a place, and keep what this one has."""
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.setxattr(_path(parent, name), OPAQUE, b"y")

    def _hide_lower_root(self) -> None:
        for name in {name for tree in self._lower for name in os.listdir(os.fsencode(tree))}:
            self._hide(self._directory, name)

    def _parent(self, path: bytes) -> int:
        """Open the directory that a path lies in, making it where it is missing."""
        head = path.rpartition(b"/")[0]
        if not head:
            return self._directory
        try:
            return self._open_directory(head)
        except OSError as error:
            if error.errno not in _GONE:
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
                if error.errno not in _GONE:
                    raise
                if _is_whiteout_at(directory, name):
                    self._make_directory(directory, name)
                else:
                    os.mkdir(name, 0o700, dir_fd=directory)
                self._describe(path[:end], directory, name, self._inherited(path[:end]))
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
        head, _, name = b"/".join(clean(entry.link)).rpartition(b"/")
        try:
            directory = self._open_directory(head) if head else self._directory
            os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            raise InvalidArgumentError(
                f"layer entry {_shown(entry.name)}: a hard link to {_shown(entry.link)}, which is"
                " not in this layer"
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
        """Describe a directory that the archive does not: as the layers below have it."""
        entry = tar.Entry(path, tar.DIRECTORY)
        entry.mode = 0o755
        for tree in self._lower:
            with contextlib.ExitStack() as stack:
                root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
                try:
                    found = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        continue
                    break  # hidden, or not a directory there
                stack.callback(os.close, found)
                status = os.fstat(found)
                entry.mode = stat.S_IMODE(status.st_mode)
                entry.uid, entry.gid = status.st_uid, status.st_gid
                entry.mtime_ns = status.st_mtime_ns
                names = map(os.fsencode, os.listxattr(found))
                entry.xattrs = {key: os.getxattr(found, key) for key in names}
                return entry
        return entry


def check(entry: tar.Entry) -> None:
    """Refuse numbers that no file can have."""
    if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX):
        raise InvalidArgumentError(
            f"layer entry {_shown(entry.name)}: impossible owner {entry.uid}:{entry.gid}"
        )
    if not (0 <= entry.major <= _MAJOR_MAX and 0 <= entry.minor <= _MINOR_MAX):
        raise InvalidArgumentError(
            f"layer entry {_shown(entry.name)}: impossible device {entry.major}:{entry.minor}"
        )


def clean(name: bytes) -> list[bytes]:
    """Returns a member's path as names from the root on, ``.`` and ``..`` resolved as text."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArgumentError(f"layer entry {_shown(name)}: leads out of the layer")
            parts.pop()
        elif part not in {b"", b"."}:
            parts.append(part)
    if len(name) > _PATH_MAX and len(b"/".join(parts)) > _PATH_MAX:
        raise InvalidArgumentError(f"layer entry {_shown(name)}: file name too long")
    return parts


def _path(parent: int, name: bytes = b"") -> bytes:
    """Returns a path for the calls that take no descriptor of a directory."""
    return b"/proc/self/fd/%d/%s" % (parent, name) if name else b"/proc/self/fd/%d" % parent


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_whiteout_at(parent: int, name: bytes) -> bool:
    try:
        return _is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _times(entry: tar.Entry) -> tuple[int, int]:
    mtime_ns = max(-_TIME_MAX_NS, min(entry.mtime_ns, _TIME_MAX_NS))
    return mtime_ns, mtime_ns


def _set_xattrs(target: int | bytes, entry: tar.Entry) -> None:
    """Set the extended attributes that mean something in a container.

    Left out are overlayfs's own, by which a layer could redirect directories of others, and the
    host's security labels; file capabilities stay.
    """
    for key, value in entry.xattrs.items():
        if key.startswith((b"trusted.overlay.", b"user.overlay.")) or (
            key.startswith(b"security.") and key != b"security.capability"
        ):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, key, value)
            else:
                os.setxattr(target, key, value, follow_symlinks=False)
        except OSError as error:
            # Docker passes over these as well: the file system has no such attribute, or not on
            # this kind of file.
            if error.errno not in {errno.EOPNOTSUPP, errno.EPERM} or key == b"security.capability":
                raise


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


def failed(entry: tar.Entry, error: OSError) -> KetchError:
    """Returns what an error of the kernel means for whoever gave us the layer."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"layer entry {_shown(entry.name)}: {reason.lower()}"
    if error.errno in _NO_ROOM:
        return UnavailableError(message, "the disk or the process has run out of something")
    if error.errno in {errno.EPERM, errno.EACCES}:
        return PermissionDeniedError(message, "unpacking owners and devices needs root")
    return InvalidArgumentError(message)


def _shown(name: bytes) -> str:
    """Returns a member's name for a message of one line."""
    text = name[:200].decode(errors="backslashreplace")
    return ascii(text + "..." if len(name) > 200 else text)
