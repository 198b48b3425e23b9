"""How many connections a listener serves at once, and who gives way when it is full.

Each listener has a room of its own, so that a crowd at one keeps nobody from another. In a full
room those who have not asked anything, or nothing any more, give way to who comes: first those who
have not proven yet who they are, then whoever has been silent for longest. Requests under way are
never cut.
"""

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Place:
    """One connection's place in a room.

    Args:
        room: where it is.
        proven: whether it is known who is at the other end.

    Attributes:
        silent_since: when it last had a request to answer; None while it has one.
    """

    __slots__ = ("_room", "proven", "silent_since")

    def __init__(self, room: "Room", *, proven: bool) -> None:
        self._room = room
        self.proven = proven
        self.silent_since: float | None = time.monotonic()

    def begin(self) -> None:
        """A request has come, whole."""
        self.silent_since = None

    def end(self) -> None:
        """It has been answered; whoever waits for space may have this one's now."""
        self.silent_since = time.monotonic()
        self._room.changed()


class Room:
    """The connections of one listener.

    Args:
        size: how many there may be.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._leaving: dict[Place, Callable[[], object]] = {}
        self._changed = asyncio.Event()

    async def await_space(self) -> None:
        """Return when one more has space, for which somebody may have to leave."""
        while len(self._leaving) >= self._size:
            self._changed.clear()
            if not self._send_away(lambda place: place.silent_since is not None):
                await self._changed.wait()

    def enter(self, place: Place, leave: "Callable[[], object]") -> None:
        """Take a place.

        Args:
            place: it.
            leave: ends the connection.
        """
        # Strangers take no more than half of it from those who are known.
        strangers = 0 if place.proven else sum(not one.proven for one in self._leaving)
        if strangers and strangers >= self._size // 2:
            self._send_away(lambda one: not one.proven)
        self._leaving[place] = leave

    def leave(self, place: Place) -> None:
        """Give a place back; it may have been taken away."""
        self._leaving.pop(place, None)
        self.changed()

    def changed(self) -> None:
        """There may be space for who waits."""
        self._changed.set()

    def _send_away(self, may_go: "Callable[[Place], bool]") -> bool:
        """End the connection that matters least; returns whether there was one."""
        least = min(
            filter(may_go, self._leaving), key=lambda one: (one.proven, one.silent_since or 0.0),
            default=None,
        )  # fmt: skip
        if least is not None:
            self._leaving.pop(least)()
        return least is not None
