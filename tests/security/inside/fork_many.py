"""Fork up to a hundred processes that do nothing; print how many there were."""

import os
import time

children = 0
for _ in range(100):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        break
    children += 1
print(children)
os.kill(-1, 9) if os.getpid() == 1 else None
