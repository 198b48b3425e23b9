"""Work that its client may leave: the thread that does it hears of that wherever it waits."""

import os
import select
from typing import TYPE_CHECKING

from ketch.engine.processes import Patience
from ketch.errors import UnavailableError

if TYPE_CHECKING:
    from types import TracebackType


class Leaving(Patience):
    """How a thread waits for a client that may leave meanwhile; a context manager.

    Args:
        reason: what a wait then says.
    """

    __slots__ = ("_event", "_reason", "left")

    def __init__(self, reason: str = "context canceled") -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reason = reason
        self.left = False

    def __enter__(self) -> "Leaving":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """Close it; nobody waits any more."""
        os.close(self._event)

    def leave(self) -> None:
        """Say that the client has left; from any thread."""
        self.left = True
        os.eventfd_write(self._event, 1)

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        """See ``Patience.poll``.

        Raises:
            UnavailableError: the client has left.
        """
        found = super().poll(milliseconds, (self._event, select.POLLIN), *watched)
        if self.left:
            raise UnavailableError(self._reason)
        return [(descriptor, events) for descriptor, events in found if descriptor != self._event]
