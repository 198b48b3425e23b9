"""Copying a directory tree by descriptor, with owners, modes, times, attributes and hard links."""

import errno
import os
import stat

from ketch.linux import sparse
from ketch.linux.scopes import owned

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _FLAGS

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
        _copy_directory(source, target, links)
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

    def make(self, status: os.stat_result, name: str, target: int) -> bool:
        """Make a further name of a copied file; returns whether there was one."""
        key = (status.st_dev, status.st_ino)
        if status.st_nlink < 2 or key not in self._held:
            return False
        descriptor, left = self._held[key]
        # By descriptor: what its name in the target means by now is not for us to say.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=target, follow_symlinks=True)
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


def _copy_directory(source: int, target: int, links: _Links) -> None:
    with owned(
        os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    ) as directory:
        before = os.fstat(directory)
        with os.scandir(directory) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                _copy_entry(directory, target, entry.name, status, links)
        with owned(
            os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
        ) as into:
            _copy_metadata(directory, into, before)


def _copy_entry(source: int, target: int, name: str, status: os.stat_result, links: _Links) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
    elif kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        with (
            owned(os.open(name, _DIRECTORY, dir_fd=source)) as read,
            owned(os.open(name, _DIRECTORY, dir_fd=target)) as write,
        ):
            _copy_directory(read, write, links)
    elif kind == stat.S_IFREG:
        if not links.make(status, name, target):
            _copy_file(source, target, name, status, links)
    elif kind != stat.S_IFSOCK:
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target)
        with owned(os.open(name, os.O_PATH | _FLAGS, dir_fd=target)) as made:
            if stat.S_IFMT(os.fstat(made).st_mode) == kind:
                os.chown(f"/proc/self/fd/{made}", status.st_uid, status.st_gid)
                os.chmod(f"/proc/self/fd/{made}", stat.S_IMODE(status.st_mode))


def _copy_file(source: int, target: int, name: str, status: os.stat_result, links: _Links) -> None:
    with (
        owned(os.open(name, os.O_RDONLY | _FLAGS, dir_fd=source)) as read,
        owned(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=target)
        ) as write,
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
