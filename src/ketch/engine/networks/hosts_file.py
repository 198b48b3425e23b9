"""A running container's /etc/hosts, changed in place: it is mounted there."""

import contextlib
import fcntl
import os

from ketch.linux import locks
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.settings import Settings


_LOCKED_SECONDS = 30
_BYTES_MAX = 1 << 20  # the container may write to it, and so says how long it is


@contextlib.contextmanager
def locked(settings: "Settings", container_id: str) -> "Iterator[None]":
    """Keep others from changing what a running container is told of networks.

    Raises:
        FileNotFoundError: there is no such container any more.
        UnavailableError: another process does not let go of it.
    """
    # The directory is the host's own: nobody in the container can lock it.
    path = settings.container_directory(container_id)
    with owned(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        locks.take(directory, fcntl.LOCK_EX, f"the hosts file in {path}", _LOCKED_SECONDS)
        yield


def change(
    settings: "Settings",
    container_id: str,
    gone: "Callable[[str, list[str]], bool]",
    added: str = "",
) -> None:
    """Take lines away, and put others in the place of the first of them, or at the end.

    To be called by who has it locked.

    Args:
        settings: the engine's places.
        container_id: the container; one that has ended meanwhile has nothing to be changed.
        gone: whether a line goes, by its address and its names.
        added: the others, each with its end.
    """
    path = f"{settings.container_directory(container_id)}/hosts"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    with open(descriptor, "r+", encoding="utf-8", errors="surrogateescape") as file:
        if os.fstat(descriptor).st_size <= _BYTES_MAX:
            lines = file.read(_BYTES_MAX).splitlines(keepends=True)
            _rewrite(lines, gone, added, descriptor)


def _rewrite(
    lines: list[str], gone: "Callable[[str, list[str]], bool]", added: str, descriptor: int
) -> None:
    kept: list[str] = []
    place = -1
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if address and gone(address, names):
            place = len(kept) if place < 0 else place
        else:
            kept.append(line)
    kept.insert(place if place >= 0 else len(kept), added)
    text = "".join(kept).encode(errors="surrogateescape")
    # Whoever reads it meanwhile finds the longer of both, not an empty file.
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))
