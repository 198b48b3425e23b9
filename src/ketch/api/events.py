"""The route of events: those that were, then those that come."""

import asyncio
import time
from typing import TYPE_CHECKING

from ketch.api import hub
from ketch.api.encoding import encode
from ketch.engine.records import events
from ketch.errors import InvalidArgumentError
from ketch.spec import timestamps

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.records.events import Event


async def stream(call: "Call") -> None:
    """Answer ``GET /events``."""
    since_ns, until_ns = moment(call.text("since")), moment(call.text("until"))
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise InvalidArgumentError(
            f"`since` time ({call.text('since')}) cannot be after `until` time "
            f"({call.text('until')})"
        )
    chosen = events.chooser(call.filters_given())
    untold = {("image", "create")} if call.version < (1, 46) else set()

    def fits(event: "Event") -> bool:
        return (event.type, event.action) not in untold and chosen(event)

    newest = await hub.of(call.application).newest()
    await call.exchange.begin("application/json")
    if since_ns is not None or until_ns is not None:
        past = await call.run(_past, since_ns or 0, until_ns, newest)
        for event in past:
            if fits(event):
                await call.exchange.write(encode(event.document()))
    if until_ns is None or until_ns > time.time_ns():
        await call.while_there(_send(call, newest, fits, until_ns))
    await call.exchange.end()


def _past(engine: "Engine", since_ns: int, until_ns: int | None, newest: int) -> "list[Event]":
    found = events.recorded(engine.store, since_ns=since_ns, until_ns=until_ns)
    return [event for event in found if event.id <= newest]


async def _send(
    call: "Call", after: int, fits: "Callable[[Event], bool]", until_ns: int | None
) -> None:
    seconds = None if until_ns is None else max(0.0, (until_ns - time.time_ns()) / 1e9)
    try:
        async with asyncio.timeout(seconds):
            async for event in hub.of(call.application).follow(after):
                if event is None or not fits(event):
                    continue
                if until_ns is not None and event.time_ns > until_ns:
                    return
                await call.exchange.write(encode(event.document()))
    except TimeoutError:
        pass


def moment(text: str) -> int | None:
    """Returns the moment that a query names, in nanoseconds since the epoch.

    Raises:
        InvalidArgumentError: it is none.
    """
    return timestamps.moment(text, time.time_ns()) if text else None


ROUTES: "Routes" = (("GET", "/events", stream),)
