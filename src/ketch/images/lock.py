"""The lock between those who add layers and content and those who delete what is unused.

Adding is many steps (a blob, a snapshot, a record that refers to them), and in between nothing
refers to what was added. Adders hold the lock together, a deleter holds it alone; the kernel drops
it with the process, however that ends: flock(2).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from ketch.linux import locks
from ketch.linux.scopes import owned

# Of many and large images, on a slow disk.
_DELETING_SECONDS = 1800


@contextlib.contextmanager
def shared(root: str) -> Iterator[None]:
    """Hold the lock of the engine in a directory as one of those who add; waits for a deleter.

    Raises:
        UnavailableError: a deleter does not come to its end.
    """
    with _file(root) as descriptor:
        locks.take(descriptor, fcntl.LOCK_SH, f"the images in {root}", _DELETING_SECONDS)
        yield


@contextlib.contextmanager
def exclusive(root: str) -> Iterator[bool]:
    """Hold the lock alone if nobody else holds it; the block is told whether it does."""
    with _file(root) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _file(root: str) -> Iterator[int]:
    path = f"{root}/images.lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(root, 0o700, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    with owned(descriptor):
        yield descriptor
