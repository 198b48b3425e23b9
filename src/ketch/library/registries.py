"""Registries for the library's calls, which end when whoever asked does not wait any more."""

import contextlib
import os
from typing import TYPE_CHECKING

from ketch.images.registry.progress import Progress
from ketch.images.registry.registries import Registries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.images.registry.credentials import Credentials
    from ketch.library.places import Places


@contextlib.contextmanager
def opened(places: "Places", credentials: "Credentials | None" = None) -> "Iterator[Registries]":
    """Reach registries in a block, as the caller's environment says."""
    patience = places.patience

    def sleep(seconds: float) -> None:
        patience.wait(int(1000 * seconds))

    with Registries(os.environ, credentials=credentials) as registries:
        transport = registries.transport
        transport.sleep = sleep
        with places.broken_off_by(transport.abort):
            yield registries


class WhileWanted(Progress):
    """Tells another one, as long as the caller wants to know.

    Args:
        places: the engine's, for the thread that calls.
        inner: who is told.
    """

    __slots__ = ("_inner", "_patience")

    def __init__(self, places: "Places", inner: Progress | None) -> None:
        self._inner = inner or Progress()
        self._patience = places.patience

    def begin(self, identifier: str, text: str) -> None:
        """Take what is beginning now."""
        self._patience.wait(0)
        self._inner.begin(identifier, text)

    def say(self, identifier: str, status: str) -> None:
        """Take a new state of something."""
        self._patience.wait(0)
        self._inner.say(identifier, status)

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """Take how far something is."""
        self._patience.wait(0)
        self._inner.advance(identifier, action, current_bytes, total_bytes)
