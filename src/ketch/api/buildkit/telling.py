"""What a build says while it goes on, kept for its clients and told as BuildKit's status messages.

A client asks for it by the build's name, on a call of its own, sometimes before the build begins
and always until after its end. Events stay until then; of what programs write the latest
LOG_BYTES_MAX do. Source: moby/buildkit, api/services/control/control.proto, StatusResponse.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import schema
from ketch.build.progress import Log, Status, VertexState, Warned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from ketch.build.graph import Remark
    from ketch.build.progress import Event
    from ketch.spec.dockerfile.errors import Place

LOG_BYTES_MAX = 8 << 20
_EVENTS_MAX = 1000
"""How many events are told at once."""
_NS = 1_000_000_000


class Telling:
    """The events of one build.

    Attributes:
        warnings: what lint rules have found so far.
        steps: of each vertex that has begun, whether it was there already.
        log_bytes: how much of what programs wrote is kept.
    """

    def __init__(self) -> None:
        self.warnings: list[Warned] = []
        self.steps: dict[str, bool] = {}
        self._events: list[Event | None] = []
        self._logs: deque[int] = deque()
        self.log_bytes = 0
        self._ended = False
        self._changed = asyncio.Event()

    def tell(self, event: "Event") -> None:
        """Take an event, in the loop."""
        if isinstance(event, Log):
            self._logs.append(len(self._events))
            self.log_bytes += len(event.data)
        elif isinstance(event, Warned):
            self.warnings.append(event)
        elif isinstance(event, VertexState) and event.started_ns:
            self.steps[event.id] = event.cached
        self._events.append(event)
        while self.log_bytes > LOG_BYTES_MAX and len(self._logs) > 1:
            number = self._logs.popleft()
            dropped = self._events[number]
            if isinstance(dropped, Log):
                self.log_bytes -= len(dropped.data)
            self._events[number] = None
        self._changed.set()

    def forget_logs(self) -> None:
        """Keep nothing of what programs wrote."""
        for number in self._logs:
            self._events[number] = None
        self._logs.clear()
        self.log_bytes = 0

    def end(self) -> None:
        """There are no more events."""
        self._ended = True
        self._changed.set()

    async def messages(self) -> "AsyncIterator[Any]":
        """Yield all that is told, from the beginning on until the end."""
        told = 0
        while True:
            if told < len(self._events):
                some = self._events[told : told + _EVENTS_MAX]
                told += len(some)
                yield message(event for event in some if event is not None)
            elif self._ended:
                return
            else:
                self._changed.clear()
                await self._changed.wait()


def message(events: "Iterable[Event]") -> Any:
    """Returns events as one message."""
    words = schema.messages("control")
    found = words.StatusResponse()
    for event in events:
        if isinstance(event, VertexState):
            found.vertexes.append(_vertex(words, event))
        elif isinstance(event, Status):
            found.statuses.append(_status(words, event))
        elif isinstance(event, Log):
            found.logs.append(
                words.VertexLog(
                    vertex=event.vertex,
                    stream=event.stream,
                    msg=event.data,
                    timestamp=timestamp(event.time_ns),
                )
            )
        else:
            found.warnings.append(_warning(words, event))
    return found


def timestamp(time_ns: int) -> Any:
    """Returns a time as messages have it; None for 0."""
    if not time_ns:
        return None
    return schema.messages("control").Timestamp(seconds=time_ns // _NS, nanos=time_ns % _NS)


def ranges(place: "Place | None") -> list[Any]:
    """Returns a place in a Dockerfile as messages have it, with lines from 1 on; none for none."""
    words = schema.messages("control")
    if place is None:
        return []
    return [
        words.Range(start=words.Position(line=line), end=words.Position(line=line))
        for line in range(place.first, place.last + 1)
    ]


def detail(finding: "Remark") -> str:
    """Returns a finding as one line: what rule, and what it says of this."""
    return f"{finding.rule}: {finding.message}"


def _vertex(words: Any, event: VertexState) -> Any:
    return words.Vertex(
        digest=event.id,
        inputs=event.inputs,
        name=event.name,
        cached=event.cached,
        started=timestamp(event.started_ns),
        completed=timestamp(event.completed_ns),
        error=event.error,
    )


def _status(words: Any, event: Status) -> Any:
    return words.VertexStatus(
        ID=event.id,
        vertex=event.vertex,
        name=event.id,
        current=event.current,
        total=event.total,
        timestamp=timestamp(event.completed_ns or event.started_ns),
        started=timestamp(event.started_ns),
        completed=timestamp(event.completed_ns),
    )


def _warning(words: Any, event: Warned) -> Any:
    finding = event.warning
    return words.VertexWarning(
        vertex=event.vertex,
        level=1,
        short=f"{detail(finding)} (line {finding.place.first})".encode()
        if finding.place
        else detail(finding).encode(),
        detail=[finding.description.encode()],
        url=finding.url,
        info=words.SourceInfo(filename=event.filename, data=event.text, language="Dockerfile"),
        ranges=ranges(finding.place),
    )
