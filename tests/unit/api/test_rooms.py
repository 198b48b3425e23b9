"""Who is served, who waits and who gives way when a listener is full."""

import asyncio
from collections.abc import Callable

from ketch.api.rooms import Place, Room


class Guests:
    """A room, and who was sent away from it."""

    def __init__(self, size: int) -> None:
        self.room = Room(size)
        self.gone: list[str] = []

    def add(self, name: str, *, proven: bool = True, busy: bool = False) -> Place:
        place = Place(self.room, proven=proven)
        self.room.enter(place, lambda: self.gone.append(name))
        if busy:
            place.begin()
        return place


def test_silent_ones_give_way_strangers_first() -> None:
    async def check() -> None:
        guests = Guests(4)
        first = guests.add("first")
        guests.add("busy", busy=True)
        guests.add("stranger", proven=False)
        guests.add("last")
        await asyncio.wait_for(guests.room.await_space(), 1)
        assert guests.gone == ["stranger"]
        guests.add("new")
        first.begin()
        first.end()  # now it is the last one that was heard of
        await asyncio.wait_for(guests.room.await_space(), 1)
        assert guests.gone == ["stranger", "last"]

    asyncio.run(check())


def test_requests_under_way_are_waited_for() -> None:
    async def check() -> None:
        guests = Guests(2)
        ends, leaves = guests.add("ends", busy=True), guests.add("leaves", busy=True)
        releases: list[Callable[[], None]] = [lambda: guests.room.leave(leaves), ends.end]
        for release in releases:
            waiting = asyncio.create_task(guests.room.await_space())
            await asyncio.sleep(0)
            assert not waiting.done()
            release()
            await asyncio.wait_for(waiting, 1)
            guests.add("next", busy=True)
        assert guests.gone == ["ends"]

    asyncio.run(check())


def test_strangers_take_half_of_it_at_most() -> None:
    async def check() -> None:
        guests = Guests(6)
        for number in range(5):
            guests.add(f"stranger {number}", proven=False)
        assert guests.gone == ["stranger 0", "stranger 1"]
        guests.add("known")
        assert len(guests.gone) == 2

    asyncio.run(check())
