"""Whose turn it is to choose a subnet on this host.

What is taken is known by the host's routes, and a choice shows there only once its bridge has its
address. So engines that know nothing of each other take turns from the look at the routes until
then. The lock is an abstract socket's name (unix(7)): it belongs to the network namespace, as the
routes do, leaves no file, and goes with its process.
"""

import _socket
import contextlib
import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = b"\0ketch/subnets"
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.002
_LOOK_SECONDS = 0.1  # a turn is shorter, so that mostly there is nothing to look for


@contextlib.contextmanager
def turn() -> "Iterator[None]":
    """Wait for the caller's turn, which lasts as long as the block.

    Any user of the host may take the name and keep it. So only those are waited for who may make
    networks as the caller may, and they not without end: else the block is entered anyway.

    Raises:
        OSError: the kernel refused.
    """
    lock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        started = looked = time.monotonic()
        while not _bound(lock) and time.monotonic() - started < _PATIENCE_SECONDS:
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if _is_strangers():
                    break
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        lock.close()


def _is_strangers() -> bool:
    from ketch.linux import sock_diag  # noqa: PLC0415 - mostly nobody has it, or not for long

    return sock_diag.owner_of(_NAME) not in {None, 0, os.geteuid()}


def _bound(lock: _socket.socket) -> bool:
    try:
        lock.bind(_NAME)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True
