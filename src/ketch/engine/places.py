"""The engine's own directories, closed to other users whoever made them.

They hold images' and containers' setuid programs, volumes, and blobs that others have no right to
read (CVE-2021-41091, CVE-2024-25621). The engine makes them 0700; one that an administrator, a
packet or a service manager has made is looked at by everyone who opens it.
"""

import os
import stat

from ketch.engine.settings import is_closed
from ketch.errors import PermissionDeniedError
from ketch.linux.scopes import owned

_CLOSED = 0o710
_WRITABLE = 0o022
# What shows that a directory is an engine's, and what may be in one that is about to be.
_OURS = {"ketch.db", "services.lock"}
_BEFORE_US = {"config.json", "lost+found"}


def check(path: str, status: os.stat_result) -> None:
    """Close a directory of the engine's to others, where it is open: ``settings.is_closed``.

    Args:
        path: the directory.
        status: of it.

    Raises:
        PermissionDeniedError: it is another user's, or it is not the engine's alone: others may
            have put something there, or others' files are there that this would close.
    """
    if is_closed(status) or not stat.S_ISDIR(status.st_mode):
        return
    user = os.geteuid()
    if status.st_uid != user:
        raise PermissionDeniedError(
            f"{path}: belongs to user {status.st_uid}, who could change all that is in it",
            "choose a directory of this user's own, or give it away with chown",
        )
    mode = stat.S_IMODE(status.st_mode)
    try:
        with owned(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            names = set(os.listdir(directory))
            is_foreign = not (names & _OURS or names <= _BEFORE_US)
            if is_foreign or (names and mode & _WRITABLE):
                raise PermissionDeniedError(
                    f"{path}: is open to other users (mode {mode:o}) and has files that may be "
                    "theirs",
                    "choose a directory for ketch alone, or close this one with chmod 700",
                )
            os.fchmod(directory, mode & _CLOSED)
    except OSError as error:
        raise PermissionDeniedError(
            f"{path}: is open to other users (mode {mode:o}) and cannot be closed: "
            f"{(error.strerror or '').lower()}",
            "choose another directory, or close this one with chmod 700",
        ) from error
