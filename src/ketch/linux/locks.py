"""Advisory locks that are not waited for without end: flock(2)."""

import fcntl
import time

from ketch.errors import UnavailableError

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


def take(descriptor: int, how: int, what: str, seconds: float) -> None:
    """Lock an open file, or wait until others have let go of it.

    Args:
        descriptor: of the file; the lock lasts until it is closed, by every process that has it.
        how: fcntl.LOCK_SH or LOCK_EX.
        what: what it keeps from others, for the error.
        seconds: how long to wait; whoever holds it is given that long for what it does.

    Raises:
        UnavailableError: it is still held.
        OSError: the file cannot be locked.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
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
