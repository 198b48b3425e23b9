"""A stack of layers read as one tree, and how a tree on top of it differs: without any mount.

Layers are in overlayfs's form (Linux, Documentation/filesystems/overlayfs.rst): a character device
0/0 hides a name, and a directory that is opaque hides all that lower layers have in it
(``images.opaque``). Which differences count, and in which order they are told, is Docker's
``diff``: moby, pkg/archive/changes.go.
"""

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ketch.images import attributes, tar, tar_writer, tree
from ketch.images.opaque import is_opaque
from ketch.linux import contested
from ketch.linux.descent import Descent
from ketch.linux.long_paths import within_reach
from ketch.linux.scopes import owned
from ketch.spec.standing_in import APT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODIFIED, ADDED, DELETED = 0, 1, 2  # the API's numbers
SAME = -1

# Where every container has something mounted. A start makes what an image lacks of these, and what
# is there is then the start's, since the program sees the mount: Docker has them in a layer apart.
_MOUNT_POINTS = {
    b"dev": stat.S_IFDIR, b"proc": stat.S_IFDIR, b"sys": stat.S_IFDIR,
    b"etc/hostname": stat.S_IFREG, b"etc/hosts": stat.S_IFREG, b"etc/resolv.conf": stat.S_IFREG,
    os.fsencode(APT_FILE[1:]): stat.S_IFREG,
}  # fmt: skip

_PIECE_BYTES = 1 << 18
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

# What stands for these in an archive.
WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"

_KNOWN_FROM = 8  # layers: to look at fewer takes no time that anybody notices
_KNOWN_MAX = 20_000  # directories, some 10 MB


class Known:
    """Which layers have a part of which directories, as far as it was looked up: for one build.

    Each of its steps lies on the one before, so that a directory of a hundred layers is that of
    ninety-nine and one part more. Only for stacks in which a tree always lies on the same others.
    """

    __slots__ = ("_children",)

    def __init__(self) -> None:
        self._children: dict[bytes, list[bytes]] = {}

    def get(self, path: bytes) -> "list[bytes] | None":
        """Returns the parts of what is at a layer's path and below it, None where nobody knows."""
        return self._children.get(path)

    def add(self, path: bytes, parts: "list[bytes]") -> None:
        """Remember parts, unless that is much already."""
        if len(self._children) < _KNOWN_MAX:
            self._children[path] = parts


class Directory:
    """One directory of a stack, of which several layers may have a part.

    The layers are the store's and never change, so a path that led through directories once does
    so always, and no descriptors are held: stacks are hundreds of layers high.

    Args:
        parts: paths, the topmost layer's first.
        known: what was looked up before, if anybody remembers it.
    """

    __slots__ = ("_known", "parts")

    def __init__(self, parts: "Sequence[bytes]" = (), known: Known | None = None) -> None:
        self.parts = parts
        self._known = known

    def find(self, name: bytes) -> tuple[bytes, os.stat_result] | None:
        """Returns path and status of what is at a name, None where nothing is to be seen."""
        for part in self.parts:
            path = part + b"/" + name
            try:
                with within_reach(path) as short:
                    status = os.lstat(short)
            except FileNotFoundError:
                continue
            return None if is_whiteout(status) else (path, status)
        return None

    def names(self) -> list[bytes]:
        """Returns the names in it that are to be seen, sorted."""
        seen: dict[bytes, bool] = {}
        for part in self.parts:
            with within_reach(part) as short:
                names = os.listdir(short)
            for name in names:
                if name not in seen:
                    with within_reach(part + b"/" + name) as short:
                        seen[name] = not is_whiteout(os.lstat(short))
        return sorted(name for name, shown in seen.items() if shown)

    def child(self, name: bytes) -> "Directory":
        """Returns a directory in it; one without parts where there is none."""
        known = self._known if len(self.parts) >= _KNOWN_FROM else None
        parts: list[bytes] = []
        for part in self.parts:
            path = part + b"/" + name
            if known is not None and (before := known.get(path)) is not None:
                parts += before
                break
            try:
                with within_reach(path) as short:
                    status = os.lstat(short)
                    opaque = is_opaque(short)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            parts.append(path)
            if opaque:
                break
        if known is not None:
            known.add(self.parts[0] + b"/" + name, parts)
        return Directory(parts, self._known)


class Change(NamedTuple):
    """One difference.

    Attributes:
        kind: MODIFIED, ADDED or DELETED, or SAME, which is none.
        path: from the root on, without a slash at its start.
        parent: descriptor of the directory that it is in.
        name: what it is called there.
        status: of what is there now, None for what is deleted.
    """

    kind: int
    path: bytes
    parent: int
    name: bytes
    status: os.stat_result | None


class Account:
    """What an archive of changes came to.

    Attributes:
        size_bytes: of the files' content.
        is_exact: whether the tree, as a layer, is what the archive unpacks to: it is not where
            something in it has no place in an archive.
    """

    __slots__ = ("is_exact", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.is_exact = True


class _Frame:
    """A directory that is being compared.

    Attributes:
        hides: whether all that is below it and not in it is gone, as it is in all that it has: in
            an opaque directory, those that it has are not said to be opaque.
    """

    __slots__ = ("hides", "is_told", "lower", "name", "names", "status")

    def __init__(
        self,
        upper: int,
        lower: Directory,
        change: Change | None = None,
        *,
        complete: bool,
        markers: bool,
        account: Account | None = None,
    ) -> None:
        self.lower = lower
        self.name = change.name if change else b""
        self.status = change.status if change else None
        # One that is the same itself is told of before the first change in it.
        self.is_told = change is None or change.kind != SAME
        found = set(map(os.fsencode, os.listdir(upper)))
        # No layer's archive can hold files of such names: they would hide others.
        names = {name for name in found if not name.startswith(WHITEOUT_PREFIX)}
        if account is not None and len(names) < len(found):
            account.is_exact = False
        self.hides = complete or is_opaque(upper) or (markers and OPAQUE_MARKER in found)
        if lower.parts and self.hides:
            names.update(lower.names())
        self.names = iter(sorted(names))


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this hides a name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def changes(
    upper: int,
    lower: Directory,
    *,
    complete: bool,
    markers: bool = False,
    linked: bool = False,
    account: Account | None = None,
) -> "Iterator[Change]":
    """Yield how a tree differs from the stack below it, each directory before what is in it.

    A change's descriptor holds until the next one is asked for.

    Args:
        upper: descriptor of the tree's root.
        lower: the stack.
        complete: whether the tree is a whole one; else it is a layer, which hides by whiteouts.
        markers: whether the tree has ``.wh..wh..opq`` files, as fuse-overlayfs makes them.
        linked: whether files with several names are told of that are as they were.
        account: is told where something is left out.
    """
    with Descent(upper) as way:
        stack = [_Frame(way.directory, lower, complete=complete, markers=markers, account=account)]
        prefix = b""
        while stack:
            frame = stack[-1]
            name = next(frame.names, None)
            if name is None:
                stack.pop()
                prefix = prefix[: -len(frame.name) - 1]
                while stack and not way.leave():  # moved away meanwhile
                    prefix = prefix[: -len(stack.pop().name) - 1]
                continue
            change, below = _compare(
                frame.lower, prefix + name, way.directory, name, complete=complete
            )
            if change is None:
                continue
            if _is_mount_point(change):
                if account is not None:
                    account.is_exact = False
                continue
            if change.kind != SAME:
                if not frame.is_told:
                    yield from _untold(way, stack)
                yield change
            elif linked and _is_linked(change.status):
                yield change
            if change.status is not None and stat.S_ISDIR(change.status.st_mode):
                try:
                    inner = way.enter(name)
                except OSError:
                    continue  # gone meanwhile
                stack.append(
                    _Frame(
                        inner, below, change, complete=frame.hides, markers=markers, account=account
                    )
                )
                prefix = change.path + b"/"


def _untold(way: Descent, stack: list[_Frame]) -> "Iterator[Change]":
    """Yield the directories on the way that are modified: with what is in them, their times are."""
    first = next((number for number, frame in enumerate(stack) if not frame.is_told), 0)
    if not first:
        return
    path = b"/".join(frame.name for frame in stack[1:first])
    for parent, frame in zip(way.retraced(first - 1), stack[first:], strict=False):
        path = path + b"/" + frame.name if path else frame.name
        yield Change(MODIFIED, path, parent, frame.name, frame.status)
    for frame in stack[first:]:
        frame.is_told = True


def _is_mount_point(change: Change) -> bool:
    """Whether what was added is only a place to mount something at."""
    if change.kind != ADDED or change.path not in _MOUNT_POINTS or change.status is None:
        return False
    kind = stat.S_IFMT(change.status.st_mode)
    is_empty = kind == stat.S_IFDIR or not change.status.st_size
    return kind == _MOUNT_POINTS[change.path] and is_empty


def _compare(
    lower: Directory, path: bytes, upper: int, name: bytes, *, complete: bool
) -> tuple[Change | None, Directory]:
    """Returns what is to be said of a name, if anything, and the directory below it.

    Of a directory, or a file with several names, that is the same a change SAME is returned.
    """
    try:
        status: os.stat_result | None = os.stat(name, dir_fd=upper, follow_symlinks=False)
    except FileNotFoundError:
        status = None
    found = lower.find(name)
    if status is None or is_whiteout(status):
        gone = Change(DELETED, path, upper, name, None) if found else None
        return gone, Directory()
    if found is None:
        return Change(ADDED, path, upper, name, status), Directory()
    kind = MODIFIED if _differs(status, found, upper, name, complete=complete) else SAME
    is_directory = stat.S_ISDIR(status.st_mode)
    if kind == SAME and not is_directory and not _is_linked(status):
        return None, Directory()
    both = is_directory and stat.S_ISDIR(found[1].st_mode)
    below = lower.child(name) if both else Directory()
    return Change(kind, path, upper, name, status), below


def _is_linked(status: os.stat_result | None) -> bool:
    """Whether this file may have more names."""
    return status is not None and status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)


def diff(
    upper: int,
    lower: Directory,
    *,
    complete: bool,
    markers: bool = False,
    account: Account | None = None,
    tells_root: bool = True,
    latest_ns: int | None = None,
    owned: "tree.Owned | None" = None,
    at_rest: bool = False,
) -> "Iterator[bytes]":
    """Yield the changes as a layer's archive; see ``changes``.

    A file that got one more name is told of by all of its names, or it would be two in the layer.

    Args:
        upper: as for ``changes``, as is what is not named here.
        lower: see there.
        complete: see there.
        markers: see there.
        account: is told what it came to.
        tells_root: whether the root directory itself may be a member.
        latest_ns: see ``tree.Archiver``.
        owned: see there.
        at_rest: see there.
    """
    archiver = tree.Archiver(latest_ns=latest_ns, owned=owned, at_rest=at_rest)
    same: dict[tuple[int, int], list[tuple[bytes, os.stat_result]]] = {}
    root = os.fstat(upper)
    if tells_root and (
        not lower.parts
        or _differs(
            root, (lower.parts[0], os.lstat(lower.parts[0])), upper, b".", complete=complete
        )
    ):
        yield from archiver.member(upper, b".", b"./", root)
    for change in changes(
        upper, lower, complete=complete, markers=markers, linked=True, account=account
    ):
        status = change.status
        if account is not None and status is not None and stat.S_ISSOCK(status.st_mode):
            account.is_exact = False
        if status is None or (stat.S_ISSOCK(status.st_mode) and change.kind == MODIFIED):
            head, slash, name = change.path.rpartition(b"/")
            entry = tar.Entry(head + slash + WHITEOUT_PREFIX + name)
            yield tar_writer.header(entry)
            continue
        inode = status.st_dev, status.st_ino
        if change.kind == SAME and not archiver.has(inode):
            same.setdefault(inode, []).append((change.path, status))
            continue
        yield from archiver.member(change.parent, change.name, change.path, status)
        for path, before in same.pop(inode, ()):
            yield from archiver.member(-1, b"", path, before)  # a link, whose file is not read
    if account is not None:
        account.size_bytes = archiver.size_bytes
    yield tar_writer.END


def _differs(
    status: os.stat_result, found: tuple[bytes, os.stat_result], upper: int, name: bytes,
    *, complete: bool,
) -> bool:  # fmt: skip
    path, below = found
    if (status.st_mode, status.st_uid, status.st_gid, status.st_rdev) != (
        below.st_mode, below.st_uid, below.st_gid, below.st_rdev,
    ):  # fmt: skip
        return True
    # A directory's own size and time change with what is in it, which is told anyhow.
    if not stat.S_ISDIR(status.st_mode) and (status.st_mtime_ns, status.st_size) != (
        below.st_mtime_ns, below.st_size,
    ):  # fmt: skip
        return True
    with within_reach(path) as short:
        if attributes.read(b"/proc/self/fd/%d/%s" % (upper, name)) != attributes.read(short):
            return True
        # Whoever wants the same bytes each time gives all files one time, whatever is in them.
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=upper) != os.readlink(short)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        # Of a whole tree most files are the layers' very own, which overlayfs shows.
        return not (complete and status.st_ino == below.st_ino) and _holds_else(upper, name, short)


def _holds_else(upper: int, name: bytes, path: bytes) -> bool:
    """Whether a regular file's content is not that of another one of its size."""
    try:
        with owned(contested.open_file(name, upper)) as one, owned(os.open(path, _READ)) as other:
            position = 0
            while piece := os.pread(one, _PIECE_BYTES, position):
                if piece != os.pread(other, len(piece), position):
                    return True
                position += len(piece)
    except OSError:
        return True  # gone meanwhile, exchanged, or not to be read: who archives it says which
    return False
