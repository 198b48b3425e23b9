"""Where files go in a root: directories found, or made where they are missing.

Symlinks that the root has on the way lead somewhere inside it. What is made belongs to whom the
instruction says, to root where it says nothing.
"""

import errno
import os
import stat
from collections.abc import Sequence

from ketch.build.files import paths
from ketch.build.files.failures import failure
from ketch.errors import InvalidArgumentError
from ketch.linux import owners
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned

MODE = 0o755
"""Of directories that nobody asked for."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NONE = {errno.ENOENT, errno.ENOTDIR}


def make_directories(
    root: int,
    names: Sequence[str],
    *,
    owner: tuple[int, int] = (0, 0),
    mode: int = MODE,
    time_ns: int | None = None,
) -> int:
    """Open a directory, making it and its parents where they are missing.

    Args:
        root: descriptor of the root.
        names: path without symlinks: see ``paths.Resolver``.
        owner: user and group of what is made.
        mode: its permission bits.
        time_ns: when it was changed, None for now.

    Returns:
        A descriptor for reading, which the caller owns.

    Raises:
        InvalidArgumentError: something on the way is no directory.
        KetchError: it cannot be made.
    """
    done: list[str] = []
    made = 0
    current = openat2(root, ".", _DIRECTORY)
    try:
        for name in names:
            done.append(name)
            below, is_new = _open_or_make(current, name, owner, mode)
            os.close(current)
            current = below
            made += is_new
    except OSError as error:
        os.close(current)
        if error.errno == errno.ENOTDIR:
            raise InvalidArgumentError(f"mkdir {paths.shown(done)}: not a directory") from error
        raise failure(error, "make", paths.shown(done)) from error
    if made and time_ns is not None:
        _set_times(root, names, made, time_ns)
    return current


def _set_times(root: int, names: Sequence[str], made: int, time_ns: int) -> None:
    """Give the last of some directories a time, once all of them are there."""
    for length in range(len(names) - made + 1, len(names) + 1):
        with owned(paths.open_below(root, names[:length], _DIRECTORY)) as directory:
            os.utime(directory, ns=(time_ns, time_ns))


def is_directory(root: int, names: Sequence[str]) -> bool | None:
    """Whether there is a directory at a path without symlinks; None where there is nothing.

    Raises:
        KetchError: it cannot be told.
    """
    try:
        found = paths.open_below(root, names, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise failure(error, "look at", paths.shown(names)) from error
    with owned(found):
        return stat.S_ISDIR(os.fstat(found).st_mode)


def _open_or_make(parent: int, name: str, owner: tuple[int, int], mode: int) -> tuple[int, bool]:
    """Returns a directory, and whether it was made."""
    try:
        return openat2(parent, name, _DIRECTORY, resolve=paths.BELOW), False
    except FileNotFoundError:
        pass
    os.mkdir(name, 0o700, dir_fd=parent)
    made = openat2(parent, name, _DIRECTORY, resolve=paths.BELOW)
    try:
        owners.give(made, *owner)
        os.fchmod(made, mode)
    except BaseException:
        os.close(made)
        raise
    return made, True
