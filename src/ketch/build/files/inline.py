"""Files that stand in a Dockerfile itself: here-documents of COPY and ADD."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from ketch.build.files.failures import failure
from ketch.build.trees import Tree
from ketch.errors import InvalidArgumentError
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def tree(files: Mapping[str, bytes], place: str) -> Iterator[Tree]:
    """Give a tree with some files in it, 0644, for as long as the block lasts.

    Args:
        files: what they hold, by name.
        place: path of a directory of the build's own to keep them in.

    Raises:
        InvalidArgumentError: a name is none that a file can have.
        KetchError: they cannot be written.
    """
    path = os.path.join(place, f"inline-{os.urandom(8).hex()}")
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise failure(error, "make", path) from error
    try:
        with owned(os.open(path, _DIRECTORY)) as directory:
            for name, content in files.items():
                _write(directory, name, content)
            yield Tree(directory, owned=False)
    finally:
        remove_tree(path)


def _write(directory: int, name: str, content: bytes) -> None:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise InvalidArgumentError(f"a here-document cannot be a file of the name {name!r}")
    try:
        with owned(os.open(name, _NEW, 0o600, dir_fd=directory)) as file:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fchmod(file, 0o644)
    except OSError as error:
        raise failure(error, "write", name) from error
