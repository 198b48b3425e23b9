"""A container at rest: whoever works on its files while it does not run keeps it from starting.

The writable layer is mounted by either, and what two overlays make of one is undefined. A lock on
the container's directory is held together by those who work on files, and alone by a start; the
kernel lets go of it with the process, however that ends: flock(2).
"""

import fcntl
import os
import time
from contextlib import contextmanager

from ketch.linux import locks
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_PAUSE_SECONDS = 0.01
_STARTING_SECONDS = 60


@contextmanager
def kept(directory: str) -> "Generator[None, None, None]":
    """Keep a container from starting during a block; a start that is under way is waited for.

    Args:
        directory: the container's.

    Raises:
        UnavailableError: the start does not come to its end.
        OSError: it is gone.
    """
    with owned(_open(directory)) as descriptor:
        locks.take(descriptor, fcntl.LOCK_SH, directory, _STARTING_SECONDS)
        yield


@contextmanager
def left(directory: str, look: "Callable[[], None]") -> "Generator[None, None, None]":
    """Start a container in a block, once nobody works on its files.

    Args:
        directory: the container's.
        look: called again and again while somebody does; may raise to give up.

    Raises:
        OSError: it is gone.
    """
    with owned(_open(directory)) as descriptor:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                look()
                time.sleep(_PAUSE_SECONDS)
        yield


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
