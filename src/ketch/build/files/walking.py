"""Walking what is selected: what is there, in an order that depends on names alone.

Whoever digests and whoever copies see the same, one after the other, and hold neither paths nor
many descriptors, however deep and large a tree is. A directory of which only something further
down is wanted comes when that has been found.
"""

import errno
import os
import stat
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, Protocol

from ketch.dataclass import dataclass
from ketch.linux import contested
from ketch.linux.descent import Descent

# Of paths that patterns are held against: each level of a tree has its own, so that they would grow
# with the square of its depth.
_PATH_MAX = 1 << 13


class Event(Enum):
    """What an entry tells of."""

    FILE = 1
    """A regular file, not looked at yet: whoever opens it looks."""
    OTHER = 2
    """Anything else that is no directory."""
    ENTER = 3
    """A directory; what is in it follows."""
    LEAVE = 4
    """The directory that was entered last and not left has no more."""


class Entry(NamedTuple):
    """Something met.

    Attributes:
        event: what.
        directory: descriptor of the directory that it is in, until the next one is asked for; of
            the directory itself where it is left. Nothing of use where it is entered.
        name: its own; empty for the directory that the walk began in.
        status: its own, a symlink's not followed; of directories and what is no regular file.
    """

    event: Event
    directory: int
    name: str
    status: os.stat_result | None


class Sight(Protocol):
    """Tells what of a directory is wanted, by paths relative to it."""

    def shows(self, path: str) -> bool:
        """Whether what is at a path is wanted."""

    def may_show_below(self, path: str) -> bool:
        """Whether anything below a directory that is not wanted may be."""


@dataclass
class _Level:
    """A directory on the way down.

    Attributes:
        name: its name.
        status: what it was like when it was entered.
        prefix: of the paths of what is in it.
        rest: what it has left: names, and whether each is a regular file.
    """

    name: str
    status: os.stat_result
    prefix: str
    rest: Iterator[tuple[str, bool]]


def walk(directory: int, sight: Sight | None = None) -> Iterator[Entry]:
    """Yield what is in a directory and below it.

    Args:
        directory: its descriptor, for reading.
        sight: what is wanted of it; everything if None.

    Yields:
        What is met; last of all that the directory itself is left.

    Raises:
        OSError: something cannot be read; ESTALE where it was moved meanwhile.
    """
    with Descent(directory) as way:
        levels = [_Level("", os.fstat(way.directory), "", _listed(way.directory))]
        told = 1  # how many of the directories on the way have been told of
        while levels:
            level = levels[-1]
            name, is_regular = next(level.rest, ("", False))
            if not name:
                if told == len(levels):
                    yield Entry(Event.LEAVE, way.directory, level.name, level.status)
                    told -= 1
                levels.pop()
                if levels and not way.leave():
                    raise contested.exchanged("..")
                continue
            path = level.prefix + name if sight is not None else ""
            if len(path) > _PATH_MAX:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            shown = sight is None or sight.shows(path)
            status = None
            if not is_regular:
                status = os.stat(name, dir_fd=way.directory, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if not shown and sight is not None and not sight.may_show_below(path):
                        continue
                    below = way.enter(os.fsencode(name))
                    prefix = f"{path}/" if path else ""
                    levels.append(_Level(name, os.fstat(below), prefix, _listed(below)))
            if not shown:
                continue
            while told < len(levels):
                yield Entry(Event.ENTER, -1, levels[told].name, levels[told].status)
                told += 1
            if status is None or not stat.S_ISDIR(status.st_mode):
                event = Event.FILE if is_regular else Event.OTHER
                yield Entry(event, way.directory, name, status)


def _listed(directory: int) -> Iterator[tuple[str, bool]]:
    with os.scandir(directory) as entries:
        return iter(sorted((one.name, one.is_file(follow_symlinks=False)) for one in entries))
