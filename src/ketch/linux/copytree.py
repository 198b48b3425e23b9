"""Copying a directory tree by descriptor, with owners, modes, times, attributes and hard links.

It may be of any depth, and others may write to either side meanwhile.
"""

import errno
import os
import stat

from ketch.linux import contested, sparse
from ketch.linux.descent import Descent
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# How many files with further names may be held open at once; those beyond are copied anew.
_HELD_MAX = 256


def copy_tree(source: int, target: int) -> None:
    """Copy a directory's entries, and its own metadata, into another directory.

    Symlinks are copied as symlinks and never followed, on either side, whoever else writes there
    meanwhile; names of one file become names of one file; sockets are left out, since a copy of
    one leads nowhere.

    Args:
        source: descriptor of the directory to copy from.
        target: descriptor of the directory to copy into; it should be empty.

    Raises:
        OSError: something could not be read or made.
    """
    links = _Links()
    try:
        with Descent(source) as read, Descent(target) as write:
            _copy(read, write, links)
    finally:
        links.close()


class _Links:
    """The copies of files that have further names, until all of these have been met."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], tuple[int, int]] = {}

    def add(self, status: os.stat_result, copy: int) -> None:
        """Remember the copy of a file."""
        if status.st_nlink > 1 and len(self._held) < _HELD_MAX:
            self._held[(status.st_dev, status.st_ino)] = (os.dup(copy), status.st_nlink - 1)

    def make(self, status: os.stat_result, name: bytes, target: int) -> bool:
        """Make a further name of a copied file; returns whether there was one."""
        key = (status.st_dev, status.st_ino)
        if status.st_nlink < 2 or key not in self._held:
            return False
        descriptor, left = self._held[key]
        # By descriptor: what its name in the target means by now is not for us to say.
        os.link(contested.path(descriptor), name, dst_dir_fd=target, follow_symlinks=True)
        if left > 1:
            self._held[key] = (descriptor, left - 1)
        else:
            del self._held[key]
            os.close(descriptor)
        return True

    def close(self) -> None:
        """Let go of what is still held."""
        for descriptor, _ in self._held.values():
            os.close(descriptor)
        self._held.clear()


def _copy(read: Descent, write: Descent, links: _Links) -> None:
    # Of each directory that is being copied what it was like, and what is left of it.
    begun = [_begin(read.directory)]
    while True:
        before, names = begun[-1]
        name = next(names, None)
        if name is not None:
            status = os.stat(name, dir_fd=read.directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                read.enter(name)
                write.enter(name, contested.directory(name, write.directory))
                begun.append(_begin(read.directory))
            else:
                _copy_entry(read.directory, write.directory, name, status, links)
            continue
        _copy_metadata(read.directory, write.directory, before)
        begun.pop()
        if not begun:
            return
        found = read.leave(), write.leave()
        if not all(found):
            raise contested.exchanged("..")


def _begin(directory: int) -> "tuple[os.stat_result, Iterator[bytes]]":
    # Reading changes when it was last read.
    return os.fstat(directory), iter(list(map(os.fsencode, os.listdir(directory))))


def _copy_entry(
    source: int, target: int, name: bytes, status: os.stat_result, links: _Links
) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        if not links.make(status, name, target):
            _copy_file(source, target, name, status, links)
        return
    if kind == stat.S_IFSOCK:
        return
    if kind == stat.S_IFLNK:
        made = contested.symlink(os.readlink(name, dir_fd=source), name, target)
    else:
        made = contested.node(name, kind | 0o600, status.st_rdev, target)
    with owned(made):
        path = contested.path(made)
        os.chown(path, status.st_uid, status.st_gid)
        if kind != stat.S_IFLNK:
            os.chmod(path, stat.S_IMODE(status.st_mode))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_file(
    source: int, target: int, name: bytes, status: os.stat_result, links: _Links
) -> None:
    with (
        owned(contested.open_file(name, source)) as read,
        owned(os.open(name, _NEW, 0o600, dir_fd=target)) as write,
    ):
        before = os.fstat(read)  # reading changes when it was last read
        for _ in sparse.copy(read, write, before.st_size):
            pass
        _copy_metadata(read, write, before)
        links.add(status, write)


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # such as user attributes on a tmpfs
                raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
