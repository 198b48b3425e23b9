"""How the caller takes over what a sandbox did to a project, and loses nothing of his own by it.

Nothing is written but plain files, directories and links that stay in the project, all beneath
descriptors and without following a link. What somebody else has changed in the project since the
sandbox began, which is known by the inodes' times of change, is a **conflict** and left unless it
is to be overwritten. What is there is looked at again in the moment in which it is replaced: the
new takes its name by an exchange, and gives it back where the old is not what was looked at.
"""

import contextlib
import errno
import json
import os
import secrets as randomness
import stat
from typing import TYPE_CHECKING

from ketch.errors import ConflictError, PermissionDeniedError
from ketch.linux import openat2, procfs, rename, sparse
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.sandbox.changes import LIST, READ, ProjectChange, opened, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLACK_BYTES = 1 << 20  # of a file's data beyond its blocks
_ENTRIES_MAX = 1_000_000  # of a tree that goes; beyond that nobody has looked
_ORIGIN = ("trusted.overlay.origin", "user.overlay.origin")
_OVERWRITE = "look at both; to overwrite it: overwrite=True, or --overwrite"


class Base:
    """What a project was when a sandbox began, as far as it is still known.

    Args:
        since_ns: when that was, by the kernel's clock.
        path: a file that remembers what was taken over, whose times of change are newer.
    """

    def __init__(self, since_ns: int, path: str) -> None:
        self.since_ns = since_ns
        self._path = path
        self._taken: dict[str, list[int]] = {}
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            told = json.load(file)
            self.since_ns, self._taken = told["since_ns"], told["taken"]

    def has(self, path: str, status: os.stat_result) -> bool:
        """Whether what is at a path is what it was, or what was taken over there."""
        known = self._taken.get(path) == [status.st_ino, status.st_ctime_ns]
        return known or status.st_ctime_ns <= self.since_ns

    def remember(self, path: str, status: os.stat_result | None) -> None:
        """Take what is at a path now for what was there."""
        if status is None:
            self._taken.pop(path, None)
        else:
            self._taken[path] = [status.st_ino, status.st_ctime_ns]

    def save(self, path: str = "") -> None:
        """Write it down, there or in another sandbox's file."""
        path = path or self._path
        aside = f"{path}.{randomness.token_hex(8)}"
        with open(aside, "x", encoding="utf-8") as file:
            json.dump({"since_ns": self.since_ns, "taken": self._taken}, file)
        os.rename(aside, path)


def conflict(upper: int, project: int, change: ProjectChange, base: Base) -> str:
    """Returns what somebody else did to what a change is about; empty where nobody did anything.

    Args:
        upper: descriptor of what the sandbox changed.
        project: descriptor of the project.
        change: the change.
        base: what was there.
    """
    before = status_of(project, change.path)
    if before is None:
        was_there = change.kind == "changed" or (
            change.kind == "added" and change.what == "file" and _was_there(upper, change.path)
        )
        return "it was removed from the project meanwhile" if was_there else ""
    if change.kind == "added":
        return "there is something else in the project meanwhile"
    return _changed(project, change.path, before, base)


def apply(upper: int, project: int, change: ProjectChange, base: Base | None = None) -> None:
    """Take one change over.

    Files and links are written beside and renamed; they belong to whoever the project belongs to,
    with the guest's permissions less the caller's umask, and never set a user or a group.

    Args:
        upper: descriptor of what the sandbox changed.
        project: descriptor of the project.
        change: the change.
        base: what is not overwritten unless it is as it was there; None to overwrite anything.

    Raises:
        ConflictError: somebody else has changed it.
        PermissionDeniedError: it is refused.
    """
    if change.refused:
        raise PermissionDeniedError(f"{change.path}: {change.refused}")
    if base is not None and (reason := conflict(upper, project, change, base)):
        raise refusal(change.path, reason)
    try:
        directory, _, name = change.path.rpartition("/")
        with owned(_made(project, directory)) as parent:
            _Place(project, parent, change, base).take(upper, os.fsencode(name))
    except OSError as error:
        raise PermissionDeniedError(
            f"{change.path}: {os.strerror(error.errno or 0).lower()}",
            "the project was changed meanwhile, or a link of it leads there",
        ) from error


class _Place:
    """Where a change goes."""

    def __init__(self, project: int, parent: int, change: ProjectChange, base: Base | None) -> None:
        self._project = project
        self._parent = parent
        self._change = change
        self._base = base
        self._beside = f".{randomness.token_hex(8)}.ketch".encode()

    def take(self, upper: int, name: bytes) -> None:
        before = _at(self._parent, name)
        if self._change.kind == "deleted":
            if before is not None:
                self._remove(name, before)
            return
        if self._change.what == "directory":
            self._make_directory(name, before)
            return
        try:
            if self._change.what == "link":
                self._link()
            else:
                self._copy(upper)
            self._put(name, before)
        except BaseException:
            self._drop()
            raise

    def _put(self, name: bytes, before: os.stat_result | None) -> None:
        """Give what was made its name, in the place of what was looked at and nothing else."""
        parent, beside = self._parent, self._beside
        try:
            if before is None:
                rename.renameat2(parent, beside, name, rename.RENAME_NOREPLACE)
                return
            rename.renameat2(parent, beside, name, rename.RENAME_EXCHANGE)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOENT}:
                raise self._raced() from error
            if error.errno not in {errno.EINVAL, errno.ENOSYS}:
                raise
            # A file system that cannot do that: what was looked at a moment ago is replaced.
            if before is not None and stat.S_ISDIR(before.st_mode):
                _Place(self._project, parent, self._change, self._base)._remove(name, before)
            os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
            return
        if not self._is(_at(parent, beside), before):
            rename.renameat2(parent, beside, name, rename.RENAME_EXCHANGE)
            raise self._raced()
        self._drop()

    def _remove(self, name: bytes, before: os.stat_result) -> None:
        """Remove what was looked at."""
        parent, beside = self._parent, self._beside
        try:
            rename.renameat2(parent, name, beside, rename.RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOSYS}:
                raise
            os.rename(name, beside, src_dir_fd=parent, dst_dir_fd=parent)
        if not self._is(_at(parent, beside), before):
            with contextlib.suppress(OSError):  # somebody has put something else there as well
                rename.renameat2(parent, beside, name, rename.RENAME_NOREPLACE)
            raise self._raced()
        self._drop()

    def _is(self, found: os.stat_result | None, before: os.stat_result) -> bool:
        """Whether what was moved aside is what was looked at; its time of change is newer."""
        if self._base is None:
            return True
        if found is None or _facts(found) != _facts(before):
            return False
        if not stat.S_ISDIR(found.st_mode):
            return True
        with owned(os.open(self._beside, LIST | os.O_CLOEXEC, dir_fd=self._parent)) as top:
            return not _changed_within(top, self._change.path, self._base)

    def _raced(self) -> ConflictError:
        return refusal(self._change.path, "it was changed in this very moment")

    def _grown(self) -> PermissionDeniedError:
        path = self._change.path
        return PermissionDeniedError(f"{path}: it is larger than files can be, or grows meanwhile")

    def _drop(self) -> None:
        """Remove what lies beside."""
        try:
            os.unlink(self._beside, dir_fd=self._parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            remove_tree(f"/proc/self/fd/{self._parent}/{os.fsdecode(self._beside)}")

    def _copy(self, upper: int) -> None:
        change, parent = self._change, self._parent
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with owned(opened(upper, change.path, READ)) as source:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionDeniedError(f"{change.path}: it is no file any more")
            # Of a file of a terabyte the guest may have but a few bytes: the rest stays a hole. It
            # may also go on writing, and has no more of our disk for that than it has of its own.
            most = status.st_blocks * 512 + _SLACK_BYTES
            with owned(os.open(self._beside, flags, 0o600, dir_fd=parent)) as copy:
                try:
                    for _ in sparse.copy(source, copy, status.st_size, most):
                        pass
                except OSError as error:
                    if error.errno != errno.EFBIG:
                        raise
                    raise self._grown() from error
                _give(copy, parent)
                os.fchmod(copy, change.mode & 0o777 & ~_umask())

    def _link(self) -> None:
        change, parent = self._change, self._parent
        directory = change.path.rpartition("/")[0]
        try:  # through links that were there before
            where = os.path.join(directory, change.target)
            os.close(
                openat2.openat2(self._project, where, os.O_PATH, resolve=openat2.RESOLVE_BENEATH)
            )
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.ELOOP}:
                raise PermissionDeniedError(
                    f"{change.path}: the link leads out of the project: {change.target!r}"
                ) from error
        os.symlink(os.fsencode(change.target), self._beside, dir_fd=parent)
        owner = os.fstat(parent)
        if os.geteuid() == 0:
            os.chown(self._beside, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)

    def _make_directory(self, name: bytes, before: os.stat_result | None) -> None:
        if before is not None:
            if stat.S_ISDIR(before.st_mode):
                return
            self._remove(name, before)
        parent = self._parent
        os.mkdir(name, 0o700, dir_fd=parent)
        with owned(os.open(name, LIST | os.O_CLOEXEC, dir_fd=parent)) as made:
            _give(made, parent)
            os.fchmod(made, (self._change.mode & 0o777 & ~_umask()) | 0o700)


def refusal(path: str, reason: str) -> ConflictError:
    """Returns the error for what is left because somebody else has changed it."""
    return ConflictError(f"{path}: {reason}", _OVERWRITE)


def _changed(project: int, path: str, before: os.stat_result, base: Base) -> str:
    """What was done to what is at a path of the project, and beneath it."""
    if not base.has(path, before):
        return "it was changed in the project meanwhile"
    if stat.S_ISDIR(before.st_mode):
        with contextlib.suppress(OSError), owned(opened(project, path, LIST)) as top:
            if found := _changed_within(top, path, base):
                return f"{found} was changed in the project meanwhile"
    return ""


def _changed_within(top: int, path: str, base: Base) -> str:
    """Something in a tree that is not what it was; empty where all is."""
    for number, (found, status) in enumerate(_walked(top)):
        if number >= _ENTRIES_MAX or not base.has(f"{path}/{found}", status):
            return f"{path}/{found}"
    return ""


def _walked(top: int) -> "Iterator[tuple[str, os.stat_result]]":
    """Yield what is in a tree, by path from there on."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        try:
            descriptor = opened(top, directory, LIST)
        except OSError:
            continue
        with owned(descriptor), os.scandir(descriptor) as entries:
            for entry in entries:
                path = f"{directory}/{entry.name}" if directory else entry.name
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield path, status
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(path)


def _facts(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """What a file is, but for when its inode was changed: a rename does that."""
    # A directory's size is the file system's business, and it has one name more for each in it.
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return status.st_dev, status.st_ino, status.st_mode, size, status.st_mtime_ns


def _was_there(upper: int, path: str) -> bool:
    """Whether overlayfs has copied a file from the project."""
    try:
        with owned(opened(upper, path, READ)) as file:
            return not set(_ORIGIN).isdisjoint(os.listxattr(file))
    except OSError:
        return False


def _at(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _made(project: int, directory: str) -> int:
    """Returns a descriptor of a directory of the project, which is made where it is missing."""
    at = os.open(".", LIST | os.O_CLOEXEC, dir_fd=project)
    for name in filter(None, directory.split("/")):
        with owned(at):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=at)
                with owned(os.open(name, LIST | os.O_CLOEXEC, dir_fd=at)) as made:
                    _give(made, at)
                    os.fchmod(made, 0o777 & ~_umask())
            at = os.open(name, LIST | os.O_CLOEXEC, dir_fd=at)
    return at


def _give(descriptor: int, parent: int) -> None:
    """Have what root makes belong to whoever what it is in belongs to."""
    if os.geteuid() == 0:
        owner = os.fstat(parent)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _umask() -> int:
    found = procfs.umask("/proc/self")
    return 0o077 if found is None else found
