"""A directory of this machine as a context: read in place, nothing is copied or looked at before.

Its files may change while they are read, and may be anybody's. That is seen to where they are read:
beneath the root's descriptor, by descriptor, and what is no file is not opened.
"""

import errno
import os

from ketch.errors import (
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)


def open_directory(path: str) -> int:
    """Open a context.

    Args:
        path: the user's own, so symlinks lead where they lead.

    Returns:
        Its descriptor, for reading, which the caller owns.

    Raises:
        NotFoundError: there is nothing.
        InvalidArgumentError: it is no directory.
        PermissionDeniedError: the caller may not read it.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error


def _refused(path: str, error: OSError | ValueError) -> KetchError:
    number = getattr(error, "errno", errno.EINVAL)
    if number == errno.ENOENT:
        return NotFoundError(f"unable to prepare context: path {path!r} not found")
    if number == errno.ENOTDIR:
        return InvalidArgumentError(
            f"unable to prepare context: context must be a directory: {path}"
        )
    message = f"unable to prepare context: {path}: {os.strerror(number).lower()}"
    if number in {errno.EACCES, errno.EPERM}:
        return PermissionDeniedError(message)
    if number in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}:
        return UnavailableError(message)
    return InvalidArgumentError(message)
