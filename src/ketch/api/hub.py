"""What happens to containers, images and networks, as it happens.

Whichever process records an event writes to the database's log, and inotify(7) tells of that: one
query for all who listen, and none while nothing happens. Where the kernel cannot, the clock does.
What is kept for slow listeners is one bounded list for all of them.
"""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from ketch.api.supervision import supervise
from ketch.engine.records import events
from ketch.engine.records.events import KEPT, Event, Settling
from ketch.errors import in_words
from ketch.linux.inotify import IN_CREATE, IN_MODIFY, Inotify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.api.application import Application
    from ketch.engine.engine import Engine

# The log may be replaced unseen, and a dead monitor records nothing.
_LOOK_MS = 2000
_DEAF_LOOK_MS = 100
_SETTLE_SECONDS = 0.001


class Hub:
    """Hands events to all who listen; looks for them as long as somebody does.

    Args:
        application: where to run queries.
    """

    def __init__(self, application: "Application") -> None:
        self._application = application
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._last = 0
        self._changed = asyncio.Event()
        self._listeners = 0
        self._task: asyncio.Task[None] | None = None
        self._deaf = False  # the kernel tells nothing, and that is known

    async def newest(self) -> int:
        """Returns the number of the newest event."""
        return await self._application.run(_newest)

    async def follow(self, after: int) -> "AsyncIterator[Event | None]":
        """Yield events as they happen, and None when nothing did for a while.

        Args:
            after: the number of the event to begin behind.
        """
        self._listeners += 1
        try:
            if self._task is None or self._task.done():
                # Nobody looked until now: what happened meanwhile comes by the first query.
                self._kept.clear()
                self._last = after
                looking = supervise(self._application, "looking for events", self._look)
                self._task = asyncio.create_task(looking)
            elif not self._kept or self._kept[0].id > after + 1:
                for event in await self._application.run(_since, after):
                    if event.id > self._last:
                        break
                    after = event.id
                    yield event
            while True:
                changed = self._changed
                for event in [one for one in self._kept if one.id > after]:
                    after = event.id
                    yield event
                if changed is not self._changed:
                    continue
                try:
                    async with asyncio.timeout(_LOOK_MS / 1000):
                        await changed.wait()
                except TimeoutError:
                    yield None
        finally:
            self._listeners -= 1
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _look(self) -> None:
        """Look for events whenever the database was written to, and now and then besides."""
        written = asyncio.Event()
        settling = Settling()
        queue: Inotify | None = None
        try:
            while True:
                # What fails for want of descriptors or watches may succeed soon.
                queue = queue or self._watch(written)
                written.clear()
                woken = queue is not None and queue.forget()
                found = await self._application.run(_since, self._last)
                settling.looked(woken=woken, found=bool(found))
                if found:
                    self._last = found[-1].id
                    self._kept.extend(found)
                    changed, self._changed = self._changed, asyncio.Event()
                    changed.set()
                longest_ms = _LOOK_MS if queue else _DEAF_LOOK_MS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(settling.milliseconds(longest_ms) / 1000):
                        await written.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
        finally:
            if queue:
                asyncio.get_running_loop().remove_reader(queue.fileno())
                queue.close()

    def _watch(self, written: asyncio.Event) -> Inotify | None:
        """Have the kernel tell of writes to the database; None where it cannot."""
        with contextlib.ExitStack() as owned:
            try:
                queue = Inotify()
                owned.callback(queue.close)
                queue.watch(self._application.settings.root, IN_MODIFY | IN_CREATE)
            except OSError as error:
                if not self._deaf:
                    self._application.log("warn", "events are looked for", cause=in_words(error))
                self._deaf = True
                return None
            asyncio.get_running_loop().add_reader(queue.fileno(), written.set)
            self._deaf = False
            owned.pop_all()
            return queue


def of(application: "Application") -> Hub:
    """Returns the application's hub."""
    hub = application.shared.get("hub")
    if not isinstance(hub, Hub):
        hub = application.shared["hub"] = Hub(application)
    return hub


def _newest(engine: "Engine") -> int:
    return events.last_id(engine.store)


def _since(engine: "Engine", number: int) -> list[Event]:
    return events.recorded(engine.store, after_id=number)
