"""A second tree of a layer's files: directories are made anew, all else as is wanted."""

import os
import stat

from ketch.images import attributes
from ketch.images.opaque import is_opaque, make_opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Owner = Callable[[os.stat_result], tuple[int, int]]


def mirror(
    source: str, target: str, place: "Callable[[os.DirEntry[bytes], bytes], None]", owner: "Owner"
) -> None:
    """Make a second tree.

    Args:
        source: a tree that nobody changes.
        target: where, in the same file system; it does not exist.
        place: puts what is no directory at a path.
        owner: returns the owners that a directory is to have.

    Raises:
        OSError: the disk is full or failing.
    """
    made: list[tuple[bytes, bytes]] = []
    waiting = [(os.fsencode(source), os.fsencode(target))]
    while waiting:
        directory, into = waiting.pop()
        os.mkdir(into, 0o700)
        made.append((directory, into))
        with os.scandir(directory) as entries:
            for entry in entries:
                path = into + b"/" + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, path))
                else:
                    place(entry, path)
    # Directories last: what is made in them changes their times.
    for directory, into in reversed(made):
        copy_metadata(directory, into, os.lstat(directory), owner)
        if is_opaque(directory):
            make_opaque(into)


def copy_metadata(source: bytes, target: bytes, status: os.stat_result, owner: "Owner") -> None:
    """Give a file what another one has, but for its owners.

    Args:
        source: the other one.
        target: the file.
        status: of the other one.
        owner: returns the owners that it is to have.
    """
    # In this order: a change of owner takes setuid bits and capabilities away.
    os.chown(target, *owner(status), follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    attributes.write(target, attributes.read(source))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
