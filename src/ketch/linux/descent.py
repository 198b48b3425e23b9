"""Walking trees of any depth, which others may change meanwhile, with few descriptors.

A directory tree can be deeper than a process may have files open, than Python recurses, and than a
path is long. A ``Descent`` is where such a walk has got to: of the directories on the way down the
lowest are open. When it comes up to one that is not, it goes there by ``..``, or else once more
from the top, and takes nothing for it but the same directory, by device and inode.
"""

import os
import stat

from ketch.linux.scopes import owned, suppress_absence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 512
"""What st_blocks counts: stat(2)."""

_OPEN_MAX = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Descent:
    """A way down from a directory; a context manager that closes what it has open.

    Args:
        top: descriptor of the directory to begin in, which stays the caller's.
    """

    __slots__ = ("_first_open", "_levels", "_top")

    def __init__(self, top: int) -> None:
        self._top = os.open(".", _DIRECTORY, dir_fd=top)
        # Of each directory its name, device, inode, and descriptor, -1 where it is not open.
        self._levels: list[tuple[bytes, int, int, int]] = [_level(b"", self._top)]
        self._first_open = 1  # the top one, which always is, aside

    def __enter__(self) -> "Descent":
        """Returns the descent itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close all of it."""
        for level in self._levels:
            if level[3] >= 0:
                os.close(level[3])
        self._levels.clear()

    @property
    def directory(self) -> int:
        """Descriptor of the directory that the walk is in, for reading."""
        return self._levels[-1][3]

    @property
    def depth(self) -> int:
        """How many directories below the top it is in."""
        return len(self._levels) - 1

    def enter(self, name: bytes, descriptor: int = -1) -> int:
        """Go down into a directory.

        Args:
            name: its name in the present one; a symlink is not followed.
            descriptor: of it, for reading, which is owned from here on; else it is opened.

        Returns:
            Its descriptor, which is not the caller's to close.

        Raises:
            OSError: there is no such directory, or it cannot be read.
        """
        if descriptor < 0:
            descriptor = os.open(name, _DIRECTORY, dir_fd=self.directory)
        self._levels.append(_level(name, descriptor))
        if len(self._levels) - self._first_open > _OPEN_MAX:
            self._close(self._first_open)
            self._first_open += 1
        return descriptor

    def leave(self) -> bool:
        """Go up again.

        Returns:
            Whether the directory above could be found again; if not, all that is left to do there
            is to leave it too.
        """
        below = self._levels.pop()[3]
        level = len(self._levels) - 1
        if level > 0 and level < self._first_open:
            self._first_open = level
            name, device, inode, _ = self._levels[level]
            found = self._found_above(below, device, inode) if below >= 0 else -1
            if found < 0:
                found = self._found_from_top(level)
            self._levels[level] = (name, device, inode, found)
        if below >= 0:
            os.close(below)
        return self._levels[level][3] >= 0

    def retraced(self, level: int) -> "Iterator[int]":
        """Yield descriptors of the directories from some level below the top to the present one.

        Each holds until the next one is asked for. It ends early where one has been moved.
        """
        if level == 0:
            yield self._top
            level = 1
        # Held by hand: one scope for each of a thousand levels would nest as deep.
        directory = os.dup(self._top)
        try:
            for number, (name, device, inode, _) in enumerate(self._levels[1:], 1):
                below = _same(directory, name, device, inode)
                if below < 0:
                    return
                os.close(directory)
                directory = below
                if number >= level:
                    yield directory
        finally:
            os.close(directory)

    def _found_above(self, below: int, device: int, inode: int) -> int:
        return _same(below, b"..", device, inode)

    def _found_from_top(self, level: int) -> int:
        found = -1
        for number, descriptor in enumerate(self.retraced(1), 1):
            if number == level:
                found = os.dup(descriptor)
                break
        return found

    def _close(self, level: int) -> None:
        name, device, inode, descriptor = self._levels[level]
        if descriptor >= 0:
            os.close(descriptor)
        self._levels[level] = (name, device, inode, -1)


def statuses(directory: int) -> "Iterator[tuple[int, bytes, os.stat_result]]":
    """Yield all that is in a directory and below it, a directory before what is in it.

    What goes away meanwhile, or cannot be read, is left out. Mounts are entered as any directory.

    Args:
        directory: its descriptor.

    Returns:
        Of each entry the descriptor of the directory that it is in, its name there, and its status;
        a symlink's is its own. The descriptor holds until the next one is asked for.
    """
    with Descent(directory) as way:
        waiting = [iter(_names(way.directory))]
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                while waiting and not way.leave():
                    waiting.pop()
                continue
            try:
                status = os.stat(name, dir_fd=way.directory, follow_symlinks=False)
            except OSError:
                continue
            yield way.directory, name, status
            if stat.S_ISDIR(status.st_mode):
                with suppress_absence():
                    below = way.enter(name)
                    waiting.append(iter(()))
                    waiting[-1] = iter(_names(below))


def usage(path: str) -> tuple[int, int]:
    """Returns what the files below a directory take: bytes of them all, and of whole blocks.

    Files with several names count once. Directories have blocks, but count as no bytes.

    Args:
        path: the directory; what cannot be read, or is not there, counts as nothing.
    """
    size_bytes = blocks = 0
    seen: set[tuple[int, int]] = set()
    with suppress_absence(), owned(os.open(path, _DIRECTORY)) as top:
        for _, _, status in statuses(top):
            if not stat.S_ISDIR(status.st_mode):
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                size_bytes += status.st_size
            blocks += status.st_blocks
    return size_bytes, blocks * BLOCK_BYTES


def _names(directory: int) -> list[bytes]:
    return list(map(os.fsencode, os.listdir(directory)))


def _level(name: bytes, descriptor: int) -> tuple[bytes, int, int, int]:
    status = os.fstat(descriptor)
    return name, status.st_dev, status.st_ino, descriptor


def _same(directory: int, name: bytes, device: int, inode: int) -> int:
    """Open a directory if it is this one; returns -1 where it is another, or cannot be opened."""
    found = -1
    with suppress_absence():
        found = os.open(name, _DIRECTORY, dir_fd=directory)
    if found < 0:
        return -1
    status = os.fstat(found)
    if (status.st_dev, status.st_ino) == (device, inode):
        return found
    os.close(found)
    return -1
