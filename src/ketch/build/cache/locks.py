"""Who makes what: of builders that want the same step one makes it, and the others wait for that.

A lock is a file of ROOT/build-cache/locks, by the step's key, flock(2): the kernel drops it with
the process, however that ends.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.errors import UnavailableError
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from ketch.engine.processes import Patience

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_PAUSES_MS = (5, 10, 20, 50, 100)


@contextlib.contextmanager
def held(root: str, key: str, patience: "Patience") -> Iterator[None]:
    """Hold the lock of a step, for a block; waits for whoever has it.

    Args:
        root: the engine's directory.
        key: the step's.
        patience: how the caller waits.

    Raises:
        UnavailableError: the disk is full or failing.
    """
    directory = f"{root}/build-cache/locks"
    path = f"{directory}/{key.partition(':')[2]}"
    for tried in range(1 << 30):
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            descriptor = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise UnavailableError(f"cannot write to {directory}: {reason}") from error
        with owned(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                patience.wait(_PAUSES_MS[min(tried, len(_PAUSES_MS) - 1)])
                continue
            if not _is_at(path, descriptor):
                continue  # whoever had it has taken it away
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            return


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
