"""Whether the engine that a server answers for is still there.

Who removes an engine, or its directory, cannot know of every server: one that has only just begun,
or that was overruled (``ketch system reset --force``), goes on. The next request would then make a
new and empty engine in the removed one's place, which nobody has asked for.
"""

import os
import threading
from typing import TYPE_CHECKING

from ketch.engine.records.store import taken_away

if TYPE_CHECKING:
    from ketch.errors import UnavailableError


class Presence:
    """Remembers which database a server began with; may be asked by any thread.

    Args:
        path: the database's. Where there is none yet, the first that is seen counts.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Held, so that no other file gets the same number; O_PATH is nothing to SQLite's locks.
        self._file = -1
        self.lost()

    def lost(self) -> "UnavailableError | None":
        """Returns what there is to say once the database is no more, or is another one."""
        with self._lock:
            try:
                if self._file < 0:
                    self._file = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
                if os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                    return None
            except FileNotFoundError:
                if self._file < 0:
                    return None
            except OSError:  # who opens it says what is the matter
                return None
            return taken_away(self._path)
