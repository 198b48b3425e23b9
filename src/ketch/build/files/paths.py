"""Paths beneath a root, resolved name by name: symlinks lead somewhere inside it, never out.

The kernel resolves as well (openat2, RESOLVE_IN_ROOT), but says neither by which names it went nor
where a path would lead that is not there yet. So names are taken one by one, each looked at by
descriptor from the root on without following anything: what somebody exchanges meanwhile is an
error, not another place. The rules are BuildKit's: containerd/continuity, ``fs.RootPath``.
"""

import os
import posixpath
import stat
from collections.abc import Sequence

from ketch.errors import InvalidArgumentError
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ketch.linux.scopes import owned

BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
"""Nothing but what is beneath a directory, by names alone."""

_LINKS_MAX = 255  # BuildKit's
_PATH_BYTES_MAX = 4000  # of what the kernel takes at once: PATH_MAX, 4096


class Missing(Exception):  # noqa: N818 - an answer, which its asker turns into words
    """There is nothing at a path.

    Args:
        names: the path.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.names = tuple(names)


def names_of(path: str) -> list[str]:
    """Returns the names of a path from the root on; ``..`` takes the one before it away."""
    return [name for name in posixpath.normpath("/" + path).split("/") if name]


def shown(names: Sequence[str]) -> str:
    """Returns names as an absolute path."""
    return "/" + "/".join(names)


class Resolver:
    """Finds where paths lead.

    Args:
        root: descriptor of the root, which stays the caller's.
    """

    __slots__ = ("_root",)

    def __init__(self, root: int) -> None:
        self._root = root

    def resolve(
        self, names: Sequence[str], *, must_exist: bool, passed: list[list[str]] | None = None
    ) -> list[str]:
        """Returns a path without symlinks.

        Args:
            names: the path; the last symlink is followed too.
            must_exist: whether it has to be there; where a link leads, if it is the last name. Else
                what is missing stays as it is.
            passed: gets the paths of the symlinks on the way.

        Raises:
            Missing: it is not there, and must be.
            InvalidArgumentError: its symlinks go in a circle.
            OSError: something cannot be looked at.
        """
        done: list[str] = []
        rest = list(reversed(names))
        asked = list(names)
        missing = links = 0  # how many of the names that are done are not there
        while rest:
            name = rest.pop()
            if name == "..":
                if done:
                    done.pop()
                    missing = max(missing - 1, 0)
                continue
            done.append(name)
            if missing:
                missing += 1
                continue
            target = self._look(done)
            if target is None:
                if must_exist:
                    raise Missing(asked)
                missing = 1
            elif target:
                links += 1
                if passed is not None:
                    passed.append(done)
                if links > _LINKS_MAX:
                    raise InvalidArgumentError(f"{shown(names)}: too many symbolic links")
                done = [] if target.startswith("/") else done[:-1]
                parts = [part for part in target.split("/") if part and part != "."]
                if not rest:
                    asked = names_of("/".join([*done, *parts]))
                rest += reversed(parts)
        return done

    def _look(self, names: Sequence[str]) -> str | None:
        """Returns a symlink's target, nothing for what is no symlink, None for what is not there.

        What would be in something that is no directory is not there either.
        """
        try:
            found = open_below(self._root, names, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with owned(found):
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                return ""
            return os.readlink("", dir_fd=found) or "/"


def open_below(directory: int, names: Sequence[str], flags: int) -> int:
    """Open what is at a path without symlinks, however long it is.

    Args:
        directory: descriptor of where it begins.
        names: the path; the directory itself where empty.
        flags: ``os.O_*``; close-on-exec is added.

    Raises:
        OSError: there is no such thing; ELOOP where a symlink is on the way.
    """
    current = -1
    try:
        while True:
            path, names = _first_part(names)
            at = directory if current < 0 else current
            if not names:
                return openat2(at, path, flags, resolve=BELOW)
            below = openat2(at, path, os.O_PATH | os.O_DIRECTORY, resolve=BELOW)
            if current >= 0:
                os.close(current)
            current = below
    finally:
        if current >= 0:
            os.close(current)


def _first_part(names: Sequence[str]) -> tuple[bytes, Sequence[str]]:
    """Returns as much of a path as the kernel takes, and what is left."""
    size = 0
    for count, name in enumerate(names):
        size += len(os.fsencode(name)) + 1
        if size > _PATH_BYTES_MAX and count:
            return os.fsencode("/".join(names[:count])), names[count:]
    return os.fsencode("/".join(names)) or b".", ()
