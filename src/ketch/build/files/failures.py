"""What the kernel's errors mean to whoever builds."""

import errno
import os

from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    PermissionDeniedError,
    UnavailableError,
)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE,
            errno.ENFILE, errno.EFBIG}  # fmt: skip
_EXCHANGED = {errno.ESTALE, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def failure(error: OSError, doing: str, path: str) -> KetchError:
    """Returns the error that one of the kernel's is.

    Args:
        error: the kernel's.
        doing: what could not be done: ``copy``.
        path: with what, as its owner knows it.
    """
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    message = f"failed to {doing} {path}: {reason}"
    if error.errno in _EXCHANGED:
        return ConflictError(message, "somebody changed it meanwhile: try again")
    if error.errno in _NO_ROOM:
        return UnavailableError(message, "the disk or the process has run out of something")
    if error.errno in {errno.EPERM, errno.EACCES}:
        return PermissionDeniedError(message)
    return InvalidArgumentError(message)
