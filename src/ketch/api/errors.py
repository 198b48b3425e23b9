"""One table from ketch's errors to HTTP's status codes, and the body that tells of one."""

from typing import TYPE_CHECKING

from ketch import errors
from ketch.api.http import TooLargeError, TooSlowError

if TYPE_CHECKING:
    from ketch.errors import KetchError

_STATUS: "tuple[tuple[type[KetchError], int], ...]" = (
    (TooLargeError, 413),
    (TooSlowError, 408),
    (errors.InvalidArgumentError, 400),
    (errors.NotFoundError, 404),
    (errors.AlreadyExistsError, 409),
    (errors.ConflictError, 409),
    (errors.NotModifiedError, 304),
    (errors.UnauthenticatedError, 401),
    (errors.PermissionDeniedError, 403),
    (errors.UnsupportedError, 501),
    (errors.UnavailableError, 503),
    (errors.StartError, 400),
    (errors.KetchError, 500),
)

# By these words the docker command tells 127 and 126 from 125.
_NOT_FOUND_WORDS = ("executable file not found", "no such file or directory")
_NOT_RUNNABLE_WORDS = ("permission denied", "is a directory")


def status(error: BaseException) -> int:
    """Returns the HTTP status that an error is answered with."""
    return next((number for kind, number in _STATUS if isinstance(error, kind)), 500)


def message(error: BaseException) -> str:
    """Returns what the answer says; of a mistake of ketch's own no more than its name."""
    if isinstance(error, errors.StartError):
        return _start_message(error)
    if isinstance(error, errors.KetchError):
        return error.message
    if isinstance(error, OSError):
        return str(error)
    return f"internal error: {type(error).__name__}"


def _start_message(error: errors.StartError) -> str:
    text = error.message
    if error.exit_status == 127 and not any(words in text for words in _NOT_FOUND_WORDS):
        return f"{text}: executable file not found in $PATH"
    if error.exit_status == 126 and not any(words in text for words in _NOT_RUNNABLE_WORDS):
        return f"{text}: permission denied"
    return text
