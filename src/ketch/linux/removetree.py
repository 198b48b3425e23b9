"""Removing a directory tree that a hostile container may have written."""

import errno
import os
import stat

from ketch.linux import contested, inodeflags
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from ketch.linux.scopes import owned

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def remove_tree(path: str) -> None:
    """Remove a directory and everything in it; nothing happens when it is not there.

    Symlinks are removed and never followed, and what is mounted in the directory makes the
    removal fail and keeps its content. Depth does not matter: what cannot be removed at once is
    first moved up to the top, so that two descriptors are enough. A removal that was interrupted
    can be begun again.

    Args:
        path: the directory; its parents are trusted.

    Raises:
        OSError: something cannot be removed; the rest may be gone.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    with owned(top):
        _clear_flags(top)
        while names := os.listdir(top):
            for name in names:
                if not _remove(top, name):
                    _empty(top, name)
                    os.rmdir(name, dir_fd=top)
    os.rmdir(path)


def _empty(top: int, name: str) -> None:
    """Empty a directory in the top one; its own directories that are not empty go to the top."""
    with owned(openat2(top, name, _DIRECTORY, resolve=_RESOLVE)) as directory:
        _clear_flags(directory)
        for inner in os.listdir(directory):
            if not _remove(directory, inner):
                # Any name will do that the container cannot have guessed.
                aside = f".removing-{os.urandom(8).hex()}"
                os.rename(inner, aside, src_dir_fd=directory, dst_dir_fd=top)


def _remove(directory: int, name: str) -> bool:
    """Remove an entry; returns False for a directory that is not empty."""
    try:
        return _remove_plainly(directory, name)
    except PermissionError:
        # chattr +i or +a, which a privileged container may have set.
        with owned(openat2(directory, name, _PATH, resolve=_RESOLVE)) as place:
            mode = os.fstat(place).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise
            # This very file: the name may mean a fifo by now, which would keep us waiting.
            with owned(os.open(contested.path(place), os.O_RDONLY | os.O_CLOEXEC)) as entry:
                _clear_flags(entry)
        return _remove_plainly(directory, name)


def _remove_plainly(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            return False
    return True


def _clear_flags(descriptor: int) -> None:
    """Take the flags away that would forbid a removal."""
    inodeflags.change(descriptor, remove=inodeflags.IMMUTABLE | inodeflags.APPEND_ONLY)
