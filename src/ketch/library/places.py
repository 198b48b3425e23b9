"""What the library's objects share: where the engine is, and a connection to it for each thread."""

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from ketch.engine.engine import Engine
from ketch.engine.processes import ENDLESS
from ketch.engine.settings import Settings
from ketch.library.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.processes import Patience


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
            found = self._local.engine = Engine(self.settings, patience=self.patience)
            self._local.owner = os.getpid()
        return found

    @property
    def patience(self) -> "Patience":
        """How this thread waits."""
        found: Patience = getattr(self._local, "patience", ENDLESS)
        return found

    def adopt(self, patience: Interruption) -> None:
        """Have this thread wait in such a way that it can be called off."""
        self._local.patience = patience

    def unless_delivered(self, undo: "Callable[[], object] | None") -> None:
        """Say what takes back what this thread's call has made, for nobody else knows of it.

        Args:
            undo: what is done where the caller does not want the result any more.
        """
        self._local.undo = undo

    def take_undo(self) -> "Callable[[], object] | None":
        """Returns what this thread's call said last, and forgets it."""
        found: Callable[[], object] | None = getattr(self._local, "undo", None)
        self._local.undo = None
        return found

    def uninterrupted(self) -> "contextlib.AbstractContextManager[None]":
        """Do in a block what must be done even where the call is not wanted any more."""
        patience = self.patience
        if isinstance(patience, Interruption):
            return patience.shielded()
        return contextlib.nullcontext()

    def broken_off_by(
        self, breaks: "Callable[[], object]"
    ) -> "contextlib.AbstractContextManager[None]":
        """Do in a block what waits in a way of its own, which ``breaks`` ends from any thread."""
        patience = self.patience
        if isinstance(patience, Interruption):
            return patience.broken_off_by(breaks)
        return contextlib.nullcontext()

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        found: Engine | None = getattr(self._local, "engine", None)
        if found is not None:
            found.store.close()
            self._local.engine = None
