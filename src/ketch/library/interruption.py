"""Calls that another thread may call off while they wait: what ``ketch.aio`` is cancelled by."""

import contextlib
import os
import select
from typing import TYPE_CHECKING

from ketch.engine.processes import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CalledOffError(BaseException):
    """Whoever asked for this does not want it any more.

    As with ``asyncio.CancelledError``, nothing that deals with errors takes it for one.
    """


class Interruption(Patience):
    """How a thread waits whose calls may be called off, one call after the other.

    Whatever waits by it then raises CalledOffError, and so does the next wait.

    """

    __slots__ = ("_breaks", "_called_off", "_event", "_noticed", "_shields")

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._called_off = False
        self._noticed = False
        self._shields = 0
        self._breaks: Callable[[], object] | None = None

    def begin(self) -> None:
        """Begin another call."""
        self._called_off = self._noticed = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)

    def call_off(self) -> None:
        """Call off what the thread does now; from any thread, between ``begin`` and its end."""
        self._called_off = True
        os.eventfd_write(self._event, 1)
        if (breaks := self._breaks) is not None:
            breaks()

    @property
    def is_attended_to(self) -> bool:
        """Whether the call has heard of it, or does what is to be done whole; from any thread."""
        return self._noticed or self._shields > 0

    def check(self) -> None:
        """Look whether the call is still wanted.

        Raises:
            CalledOffError: it is not.
        """
        if self._called_off and not self._shields:
            self._noticed = True
            raise CalledOffError

    @contextlib.contextmanager
    def shielded(self) -> "Iterator[None]":
        """Do in a block what must be done even so, such as putting things back in order.

        Whoever calls the call off waits for its end.
        """
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1

    @contextlib.contextmanager
    def broken_off_by(self, breaks: "Callable[[], object]") -> "Iterator[None]":
        """Do in a block what waits in a way of its own.

        Args:
            breaks: ends such waiting, from any thread.
        """
        self._breaks = breaks
        try:
            self.check()
            yield
        finally:
            self._breaks = None

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        """Wait as poll(2) does.

        Raises:
            CalledOffError: the call is not wanted any more.
        """
        if self._shields:
            return super().poll(milliseconds, *watched)
        found = super().poll(milliseconds, *watched, (self._event, select.POLLIN))
        self.check()
        return found

    def close(self) -> None:
        """Let go of it; there are no more calls."""
        os.close(self._event)
