"""Copying a directory tree by descriptor, with owners, modes, times and extended attributes."""

import os
import stat

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, target: int) -> None:
    """Copy a directory's entries, and its own metadata, into another directory.

    Symlinks are copied as symlinks and never followed; hard links become files of their own;
    sockets are left out, since a copy of one leads nowhere.

    Args:
        source: descriptor of the directory to copy from.
        target: descriptor of the directory to copy into; it should be empty.

    Raises:
        OSError: something could not be read or made.
    """
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                _copy_entry(directory, target, entry.name, entry.stat(follow_symlinks=False))
        into = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
        try:
            _copy_metadata(directory, into)
        finally:
            os.close(into)
    finally:
        os.close(directory)


def _copy_entry(source: int, target: int, name: str, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
    elif kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        flags = os.O_RDONLY | os.O_DIRECTORY | _FLAGS
        read = os.open(name, flags, dir_fd=source)
        write = os.open(name, flags, dir_fd=target)
        try:
            copy_tree(read, write)
        finally:
            os.close(read)
            os.close(write)
    elif kind == stat.S_IFREG:
        read = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=source)
        write = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=target)
        try:
            while os.sendfile(write, read, None, 1 << 30):
                pass
            _copy_metadata(read, write)
        finally:
            os.close(read)
            os.close(write)
    elif kind != stat.S_IFSOCK:
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)


def _copy_metadata(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
