"""When the cache is looked through for what has become too much: once an hour."""

import contextlib
import os
import time

_HOUR_NS = 3_600_000_000_000


def take_turn(root: str) -> bool:
    """Whether it is time to look; then it is not for the next hour.

    Args:
        root: the engine's directory.
    """
    stamp = f"{root}/build-cache/collected"
    with contextlib.suppress(OSError):
        if 0 <= time.time_ns() - os.stat(stamp).st_mtime_ns < _HOUR_NS:
            return False
    try:
        os.makedirs(os.path.dirname(stamp), 0o700, exist_ok=True)
        with open(stamp, "wb"):
            os.utime(stamp)
    except OSError:
        return False  # the disk is full, or not ours
    return True
