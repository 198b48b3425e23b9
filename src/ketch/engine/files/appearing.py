"""Files that appear under their names when all of them is written, and what is written to pipes."""

import contextlib
import os
import stat
import sys

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux import sparse
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# What is there and no file, in Docker's words.
_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link directly",
    stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device file", stat.S_IFBLK: "a block device file",
}  # fmt: skip


@contextlib.contextmanager
def output(name: str, doing: str, mode: int = 0o600) -> "Iterator[int]":
    """Open what is written to; a file appears under its name when all of it is written.

    Args:
        name: the file, empty for standard output.
        doing: what fails if it does, for errors.
        mode: the file's permissions, less those of the umask.

    Raises:
        InvalidArgumentError: it is a terminal, no regular file, or cannot be made.
    """
    if not name:
        if sys.stdout.isatty():
            raise InvalidArgumentError(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect"
            )
        yield 1
        return
    directory = os.path.dirname(name) or "."
    if not os.path.isdir(directory):
        missing = f"stat {directory}: no such file or directory"
        raise InvalidArgumentError(f"failed to {doing}: invalid output path: {missing}")
    with contextlib.suppress(FileNotFoundError):
        kind = stat.S_IFMT(os.lstat(name).st_mode)
        if kind != stat.S_IFREG:
            raise InvalidArgumentError(
                f"failed to {doing}: cannot write to {_KINDS.get(kind, 'an irregular file')}",
                "leave -o out, and redirect the output there",
            )
    temporary = f"{directory}/.tmp-{os.path.basename(name)}{os.urandom(5).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
    except OSError as error:
        reason = f"open {name}: {(error.strerror or '').lower()}"
        raise InvalidArgumentError(f"failed to {doing}: {reason}") from error
    with owned(descriptor):
        try:
            yield descriptor
            os.rename(temporary, name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def write(descriptor: int, content: bytes, *, holes: bool = False) -> None:
    """Write all of some bytes.

    Args:
        descriptor: where to.
        content: the bytes.
        holes: whether it is a file of our own making, in which many zeros become a hole.

    Raises:
        UnavailableError: the disk is full or failing.
    """
    rest = memoryview(content)
    try:
        if holes:
            sparse.append(descriptor, content)
            return
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnavailableError(f"cannot write the archive: {error.strerror}") from error
