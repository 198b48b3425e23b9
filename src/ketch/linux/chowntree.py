"""Giving a whole tree to somebody, whoever else writes to it meanwhile."""

import os
import stat

from ketch.linux import contested, owners
from ketch.linux.descent import Descent
from ketch.linux.scopes import owned

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def chown_tree(top: int, uid: int, gid: int) -> None:
    """Give a directory, and all that is in it on its file system, to somebody.

    Symlinks are given themselves and never followed; what has gone meanwhile is passed over, and
    what has that owner already is left as it is, with its set-id bits.

    Args:
        top: descriptor of the directory.
        uid: the user.
        gid: the group.

    Raises:
        OSError: something cannot be given.
    """
    _give(top, uid, gid)
    device = os.fstat(top).st_dev
    with Descent(top) as way:
        begun = [iter(os.listdir(way.directory))]
        while begun:
            name = next(begun[-1], None)
            if name is None:
                begun.pop()
                while begun and not way.leave():
                    begun.pop()  # moved away meanwhile
                continue
            try:
                found = os.open(name, _PATH, dir_fd=way.directory)
            except FileNotFoundError:
                continue
            with owned(found):
                status = os.fstat(found)
                if status.st_dev != device:
                    continue
                _give(found, uid, gid)
                if not stat.S_ISDIR(status.st_mode):
                    continue
                below = os.open(contested.path(found), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            begun.append(iter(os.listdir(way.enter(os.fsencode(name), below))))


def _give(file: int, uid: int, gid: int) -> None:
    status = os.fstat(file)
    if (status.st_uid, status.st_gid) != (uid, gid):
        owners.give(contested.path(file), uid, gid)
