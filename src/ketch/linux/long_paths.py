"""Paths that are longer than the kernel takes at once: path_resolution(7), PATH_MAX."""

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES_MAX = 4095
# Before what is left of a path stands a way to the descriptor that it begins at.
_LEFT_BYTES_MAX = _BYTES_MAX - len(b"/proc/self/fd/2147483647/")
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def within_reach(path: bytes) -> "Iterator[bytes]":
    """Give a path to the same file that system calls take, for the length of a block.

    It is the path itself unless that is too long. Whoever can exchange directories on the way can
    do so between its pieces: it is for trees that stay as they are.

    Args:
        path: absolute, or from the working directory on.

    Raises:
        OSError: a directory on the way cannot be opened; its name alone is too long.
    """
    if len(path) <= _BYTES_MAX:
        yield path
        return
    place: int | None = None
    try:
        while len(path) > _LEFT_BYTES_MAX:
            head = path[:_LEFT_BYTES_MAX].rpartition(b"/")[0]
            deeper = os.open(head, _PLACE, dir_fd=place)
            if place is not None:
                os.close(place)
            place, path = deeper, path[len(head) :].lstrip(b"/")
        assert place is not None
        yield b"/proc/self/fd/%d/%s" % (place, path)
    finally:
        if place is not None:
            os.close(place)
