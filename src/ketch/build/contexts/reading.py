"""Small files of a context, read whole: the Dockerfile, and what it ignores.

Whoever wrote the context chose what is at their names: a symlink is followed beneath the root, a
fifo or a device is not opened, and no more is read than BuildKit's frontend takes.
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError, PermissionDeniedError
from ketch.linux import beneath, contested
from ketch.linux.scopes import owned

SIZE_MAX = 16 << 20
"""Of one file: moby/buildkit, frontend/dockerui/readfile.go."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR}


def read(directory: int, path: str) -> bytes | None:
    """Read a file.

    Args:
        directory: descriptor of the root, which nothing leads out of.
        path: in it.

    Returns:
        Its content, None where there is nothing.

    Raises:
        InvalidArgumentError: it is no file, too large, or no path at all.
        PermissionDeniedError: the caller may not read it.
    """
    try:
        place = beneath.open_path(directory, path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise _refused(path, error) from error
    with owned(place):
        status = os.fstat(place)
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArgumentError(f"read {path}: is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgumentError(f"read {path}: not a regular file")
        if status.st_size > SIZE_MAX:
            raise too_large(path)
        try:
            # This very file; O_NONBLOCK for a lease, the one thing that could keep us waiting.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(contested.path(place), flags)
        except OSError as error:
            raise _refused(path, error) from error
    with owned(file):
        return _content(path, file)


def too_large(name: str) -> InvalidArgumentError:
    """Returns the error that a file has more than anybody reads."""
    return InvalidArgumentError(f"{name} exceeds maximum allowed size of {SIZE_MAX} bytes")


def _content(path: str, file: int) -> bytes:
    pieces = []
    size_bytes = 0
    try:
        while piece := os.read(file, 1 << 16):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > SIZE_MAX:
                raise too_large(path)
    except OSError as error:
        raise _refused(path, error) from error
    return b"".join(pieces)


def _refused(path: str, error: OSError) -> InvalidArgumentError | PermissionDeniedError:
    reason = os.strerror(error.errno or 0).lower()
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionDeniedError(f"open {path}: {reason}")
    return InvalidArgumentError(f"open {path}: {reason}")
