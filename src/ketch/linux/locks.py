"""Advisory locks that are not waited for without end: flock(2), lockf(3)."""

import fcntl
import time

from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


def take(
    descriptor: int,
    how: int,
    what: str,
    seconds: float,
    lock: "Callable[[int, int], object]" = fcntl.flock,
) -> None:
    """Lock an open file, or wait until others have let go of it.

    Args:
        descriptor: of the file; flock(2)'s lock lasts until it is closed by every process that has
            it, lockf(3)'s until this one closes any descriptor of the file.
        how: fcntl.LOCK_SH or LOCK_EX.
        what: what it keeps from others, for the error.
        seconds: how long to wait; whoever holds it is given that long for what it does.
        lock: ``fcntl.flock`` or ``fcntl.lockf``, the same for all who take it.

    Raises:
        UnavailableError: it is still held.
        OSError: the file cannot be locked.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            lock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{what}: locked by another process for {seconds:.0f} seconds",
                    "look for a stopped or hanging ketch process (lslocks)",
                ) from None
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
