"""Whose turn it is to choose a subnet on this host.

What is taken is known by the host's routes, and a choice shows there only once its bridge has its
address. So engines that know nothing of each other take turns from the look at the routes until
then. The lock is an abstract socket's name (unix(7)): it belongs to the network namespace, as the
routes do, leaves no file, and goes with its process.
"""

import _socket
import contextlib
import errno
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = b"\0ketch/subnets"
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.002


@contextlib.contextmanager
def turn() -> "Iterator[None]":
    """Wait for the caller's turn, which lasts as long as the block.

    Any user of the host may take the name and keep it. So nobody is waited for without end: after
    a while the block is entered anyway.

    Raises:
        OSError: the kernel refused.
    """
    lock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _bound(lock) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        lock.close()


def _bound(lock: _socket.socket) -> bool:
    try:
        lock.bind(_NAME)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True
