"""The route of logs, and the log as those see it who attach with ``logs=1``."""

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING

from ketch.api.events import moment
from ketch.api.http import RAW_STREAM
from ketch.dataclass import dataclass
from ketch.engine import logs
from ketch.engine.requests import wire
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.spec import timestamps
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.logs.reading import Entry
    from ketch.engine.records.rows import Container

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
STREAMS = {"stdout": wire.OUTPUT, "stderr": wire.ERRORS}

_BATCH_BYTES = 64 * 1024
_PAUSE_SECONDS = (0.005, 0.1)


@dataclass(frozen=True)
class Form:
    """How a log is shown.

    Attributes:
        chosen: which of the streams.
        plain: whether the bytes come as they are, else in Docker's frames.
        stamped: whether each line begins with its time.
        detailed: whether each line begins with what its entry tells besides.
    """

    chosen: set[str]
    plain: bool
    stamped: bool = False
    detailed: bool = False

    def show(self, batch: "list[Entry]") -> bytes:
        """Returns entries as they are shown."""
        out = bytearray()
        for time_ns, stream, data, attributes in batch:
            if stream not in self.chosen:
                continue
            text = data
            # Also within a line that was cut, as Docker does.
            if self.detailed:
                text = logs.details(attributes).encode() + b" " + text
            if self.stamped:
                text = timestamps.rfc3339_fixed(time_ns).encode() + b" " + text
            if not self.plain:
                out += struct.pack(">BxxxI", STREAMS[stream], len(text))
            out += text
        return bytes(out)


def content_type(call: "Call", *, terminal: bool) -> str:
    """Returns what a stream is called; before 1.42 there was one name for both kinds."""
    return RAW_STREAM if terminal or call.version < (1, 42) else MULTIPLEXED


def has_terminal(container: "Container") -> bool:
    """Whether a container's program has a terminal."""
    return bool(container.record.get("Config", {}).get("Tty"))


async def answer(call: "Call") -> None:
    """Answer ``GET /containers/{id}/logs``."""
    chosen = {name for name in STREAMS if call.flag(name)}
    container = await call.run(_find, call["id"])
    if not chosen:
        raise InvalidArgumentError("Bad parameters: you must choose at least one stream")
    plain = has_terminal(container)
    form = Form(chosen, plain=plain, stamped=call.flag("timestamps"), detailed=call.flag("details"))
    pieces = show(
        call, container, form, follow=call.flag("follow"), tail=_tail(call.text("tail")),
        since_ns=_since(call.text("since")), until_ns=_since(call.text("until")),
    )  # fmt: skip
    # What cannot be read is told before the answer begins.
    first = await anext(pieces, None)
    await call.exchange.begin(content_type(call, terminal=plain))
    if first is not None:
        await call.exchange.write(first)
        await call.while_there(_send(call, pieces))
    await call.exchange.end()


def _find(engine: "Engine", reference: str) -> "Container":
    return engine.containers.find(reference)


async def _send(call: "Call", pieces: "AsyncIterator[bytes]") -> None:
    async for piece in pieces:
        await call.exchange.write(piece)


async def show(
    call: "Call",
    container: "Container",
    form: Form,
    *,
    follow: bool = False,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> "AsyncIterator[bytes]":
    """Yield a container's log piece by piece, no faster than they are taken; the first at once.

    Raises:
        UnsupportedError: the log's driver keeps nothing that could be read.
    """
    state = _State(container.id, follow=follow)
    directory = call.application.settings.container_directory(container.id)
    entries = logs.reader(container, directory).polled(
        state.has_ended, tail=tail, since_ns=since_ns, until_ns=until_ns
    )
    pause = _PAUSE_SECONDS[0]
    begun = False
    try:
        while True:
            batch, more = await call.run(_take, entries, state)
            if batch or not begun:
                begun = True
                yield form.show(batch)
            if more is None:
                return
            if more:
                pause = _PAUSE_SECONDS[0]
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_SECONDS[1])
    finally:
        with contextlib.suppress(ValueError):  # a thread is still at it: then it goes unclosed
            entries.close()


@dataclass
class _State:
    """Whether more is to come of a container's log, as seen in whatever thread reads it."""

    container_id: str
    follow: bool
    engine: "Engine | None" = None

    def has_ended(self) -> bool:
        """Whether nothing more will be written, or nobody wants to know."""
        if not self.follow or self.engine is None:
            return True
        try:
            return not self.engine.containers.find(self.container_id).is_active
        except NotFoundError:
            return True


def _take(
    engine: "Engine", entries: "Iterator[Entry | None]", state: _State
) -> "tuple[list[Entry], bool | None]":
    """Returns entries, and whether there are more now; None when there never will be."""
    state.engine = engine
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if entry is None:
            return batch, False
        batch.append(entry)
        size += len(entry[2])
        if size >= _BATCH_BYTES:
            return batch, True
    return batch, None


def _tail(text: str) -> int | None:
    """Read ``tail``; what is no number, or a negative one, means all, as in Docker."""
    return decimal(text)


def _since(text: str) -> int | None:
    return None if text in {"", "0"} else moment(text)


ROUTES: "Routes" = (("GET", "/containers/{id*}/logs", answer),)
