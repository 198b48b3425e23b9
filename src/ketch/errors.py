"""The error tree.

A class says what the caller should do about the failure, not which layer found it. Two tables turn
classes into numbers: an exit status in ``ketch.cli``, an HTTP status in the API. Libraries raise;
only the command line prints and exits. A layer that can add a phrase of context raises anew with
``raise ... from``.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Unicode's separators of words beside the blank, which draw nothing and move nothing.
_SPACES = (
    "\t\n\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
    "\u3000"
)

ENGINE_FAILED = 125
"""Exit status for a failure of ketch itself, as distinct from the program's (Docker's)."""


def in_words(error: BaseException, named: str = "") -> str:
    """Returns what an error says, to end a message with: ``no such file or directory``.

    The text of an OSError begins with its number, which the words beside it say already. Its path
    is kept where it is whole: one beneath a descriptor tells nobody anything.

    Args:
        error: what was raised.
        named: the path that the message names already.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    if error.strerror != os.strerror(error.errno):
        return error.strerror or str(error)  # a system call's, TLS's or the resolver's own words
    words = error.strerror.lower()
    place = error.filename
    whole = isinstance(place, str) and place.startswith("/") and place != named
    return f"{place}: {words}" if whole else words


def spelt_out(text: str) -> str:
    """Returns text for people in which nothing speaks to a terminal, nor hides from its reader.

    All that is neither a letter, a sign nor a space stands as an escape, but for tab and newline:
    controls, what turns the direction of writing around or is not seen, bytes that are no UTF-8
    (surrogateescape), and what Python's table of characters does not know.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in _SPACES else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else ascii(character)[1:-1]


def on_one_line(text: str) -> str:
    """Returns the same with tabs and newlines as escapes too: for what has a line or a cell."""
    return spelt_out(text).translate({9: "\\t", 10: "\\n"})


class KetchError(Exception):
    """Base of everything that ketch raises on purpose.

    Args:
        message: what failed, where, and on which value. It may quote a stranger, who is not to
            speak to the reader's terminal: see ``spelt_out``.
        hint: what to do about it, one sentence, or empty where nothing better than the message
            can be said.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = spelt_out(message)
        self.hint = spelt_out(hint)
        super().__init__(self.message)

    def __reduce__(self) -> "tuple[Callable[..., KetchError], tuple[Any, ...]]":
        """How it crosses over to another process, as from a pool's: whole, whatever made it."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[KetchError], args: "tuple[Any, ...]", facts: "dict[str, Any]"
) -> KetchError:
    error = kind.__new__(kind, *args)
    error.args = args  # which an OSError has only from its __init__
    error.__dict__.update(facts)
    return error


class InvalidArgumentError(KetchError):
    """The request is wrong in itself: mend it and ask again."""


class NotFoundError(KetchError):
    """The named thing does not exist."""


class ImageNotFoundError(NotFoundError):
    """There is no such image here; a registry may have it."""


class DriverNotFoundError(NotFoundError):
    """There is no such driver here."""


class AlreadyExistsError(KetchError):
    """The name is taken."""


class ConflictError(KetchError):
    """The thing is in a state, or in a use, that forbids the request."""


class NotModifiedError(KetchError):
    """The thing is already as the request wants it."""


class UnauthenticatedError(KetchError):
    """Credentials are missing or were refused."""


class PermissionDeniedError(KetchError):
    """The caller may not do this."""


class UnsupportedError(KetchError):
    """This kernel, file system or build cannot do this."""


class UnavailableError(KetchError):
    """Something that ketch needs is missing or broken; later it may work."""


class DigestMismatchError(KetchError):
    """Bytes are not the ones that their digest promised."""


class RegistryError(KetchError):
    """A registry answered against its protocol, or not at all."""


class StartError(KetchError):
    """The container's program could not be started.

    Args:
        message: which path failed and why.
        hint: what to do about it.
        exit_status: 127 where the program was not found, 126 where it was found but could not be
            run (the shell's and Docker's convention).
    """

    def __init__(self, message: str, hint: str = "", *, exit_status: int = 126) -> None:
        super().__init__(message, hint)
        self.exit_status = exit_status


class ProgramFailedError(KetchError):
    """A program that was run to its end ended with another status than 0: the library's alone.

    Args:
        message: which program.
        exit_status: what it ended with.
        stdout: what it wrote to its standard output.
        stderr: what it wrote to its standard error.
    """

    def __init__(
        self, message: str, *, exit_status: int, stdout: bytes = b"", stderr: bytes = b""
    ) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.stdout = stdout
        self.stderr = stderr


class ProgramTimeoutError(ProgramFailedError, TimeoutError):
    """A program had not ended when its time was up, and was killed: the library's alone."""


class ProgramOutputError(ProgramFailedError):
    """A program wrote more than it was to, and was killed: the library's alone."""


class SyscallError(OSError):
    """A system call failed.

    Args:
        errno: the error number.
        call: the call as the kernel names it, such as ``mount``.
        detail: what the call was to do, in words or as its telling arguments.
    """

    def __init__(self, errno: int, call: str, detail: str) -> None:
        super().__init__(errno, f"{call}({detail}): {os.strerror(errno)}")
        self.call = call
        self.detail = detail

    def __reduce__(self) -> "tuple[type[SyscallError], tuple[int | None, str, str]]":
        """How it crosses over to another process."""
        return type(self), (self.errno, self.call, self.detail)

    def __str__(self) -> str:
        """The message without OSError's "[Errno 22]", which the words beside it say already."""
        return self.strerror or ""
