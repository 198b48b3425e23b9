"""WORKDIR: a directory that is there afterwards."""

import os

from ketch.build.files import destinations, paths
from ketch.build.files.failures import failure


def make(root: int, path: str, owner: tuple[int, int] = (0, 0), time_ns: int | None = None) -> None:
    """Make a directory and its parents where they are missing, 0755; what is there stays as it is.

    Args:
        root: descriptor of the root.
        path: absolute; symlinks in it lead somewhere beneath the root.
        owner: user and group of what is made.
        time_ns: when that was changed, None for now.

    Raises:
        InvalidArgumentError: something on the way is no directory, or links go in a circle.
        KetchError: it cannot be made.
    """
    try:
        names = paths.Resolver(root).resolve(paths.names_of(path), must_exist=False)
    except OSError as error:
        raise failure(error, "make", path) from error
    os.close(destinations.make_directories(root, names, owner=owner, time_ns=time_ns))
