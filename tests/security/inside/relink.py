"""Put a symlink at a path again and again, for 20 seconds. usage: relink.py PATH TARGET"""

import contextlib
import os
import sys
import time

path, target = sys.argv[1:]
aside = f"{path}.aside"
until = time.monotonic() + 20
while time.monotonic() < until:
    for _ in range(200):
        with contextlib.suppress(FileExistsError):
            os.symlink(target, aside)
        # Where a directory is in the way, away with it.
        try:
            os.rename(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(path, f"{path}.{time.monotonic_ns()}")
        with contextlib.suppress(OSError):
            os.unlink(path)
