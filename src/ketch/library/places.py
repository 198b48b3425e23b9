"""What the library's objects share: where the engine is, and a connection to it for each thread."""

import os
import threading

from ketch.engine.engine import Engine
from ketch.engine.settings import Settings


class Places:
    """One engine, usable from any thread; after a fork, by parent and child.

    Args:
        settings: where the engine keeps its state.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._local = threading.local()

    @property
    def engine(self) -> Engine:
        """The engine for this thread, since a connection to SQLite belongs to one."""
        found: Engine | None = getattr(self._local, "engine", None)
        if found is None or self._local.owner != os.getpid():
            found = self._local.engine = Engine(self.settings)
            self._local.owner = os.getpid()
        return found

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        found: Engine | None = getattr(self._local, "engine", None)
        if found is not None:
            found.store.close()
            self._local.engine = None
