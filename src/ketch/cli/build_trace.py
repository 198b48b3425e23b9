"""What is known of a build that goes on, for those who show it.

The rules of what is shown when are BuildKit's: util/progress/progressui.
"""

import time
from collections import deque

from ketch.build.progress import Log, Status, VertexState, Warned
from ketch.dataclass import dataclass, field
from ketch.errors import spelt_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.build.progress import Event

NS = 1_000_000_000
CANCELED = "context canceled"
_KEPT_LINES = 512
_LINE_BYTES_MAX = 16 * 1024


@dataclass
class Shown:
    """One vertex.

    Attributes:
        state: what was last said of it.
        index: its number, in the order in which vertices were begun.
        intervals: when it ran, by the time of its begin: several runs of one name are one line.
        statuses: what takes its time in it, in the order in which it was begun.
        updated: statuses that have news.
        lines: what its program wrote and has not been shown.
        kept: the last lines of all, for an error.
        tail: the line that has no end yet.
        logged: bytes that it wrote.
        warnings: findings about it.
        since: when it was first updated since it was turned to, in the monotonic clock's seconds.
        count: updates since then.
    """

    state: VertexState
    index: int
    intervals: dict[int, int] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    updated: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    tail: bytes = b""
    logged: int = 0
    warnings: list[Warned] = field(default_factory=list)
    since: float = 0.0
    count: int = 0

    @property
    def is_completed(self) -> bool:
        """Whether it has ended."""
        return self.state.completed_ns != 0

    @property
    def is_canceled(self) -> bool:
        """Whether it was called off, for another one's failure or the user's wish."""
        return self.state.error.endswith(CANCELED)

    def seconds(self, now_ns: int) -> float:
        """How long it ran, or has run."""
        return sum((end or now_ns) - begin for begin, end in self.intervals.items()) / NS

    def touch(self) -> None:
        """Count an update."""
        if not self.count:
            self.since = time.monotonic()
        self.count += 1

    def write(self, log: Log) -> None:
        """Take what its program wrote, a line at a time, each with the time since the begin."""
        self.logged += len(log.data)
        *whole, self.tail = (self.tail + log.data).split(b"\n")
        if len(self.tail) > _LINE_BYTES_MAX:
            whole.append(self.tail)
            self.tail = b""
        for line in whole:
            self._add(line, log.time_ns)

    def end(self) -> None:
        """Take the last line, which may have no end."""
        if self.tail:
            self._add(self.tail, self.state.completed_ns or time.time_ns())
            self.tail = b""

    def _add(self, line: bytes, time_ns: int) -> None:
        seconds = max(0, time_ns - self.state.started_ns) / NS if self.state.started_ns else 0.0
        digits = 3 if seconds < 10 else 2 if seconds < 100 else 1
        text = spelt_out(line.rstrip(b"\r").decode("utf-8", "replace"))
        told = f"{seconds:.{digits}f} {text}"
        self.lines.append(told)
        self.kept.append(told)


class Trace:
    """All vertices of a build.

    Attributes:
        vertices: those that were begun, by id, in that order.
        known: ids of all that were told of.
        updates: ids of those that have news.
        started_ns: when the first was begun, 0 for not yet.
        warnings: all findings.
    """

    def __init__(self) -> None:
        self.vertices: dict[str, Shown] = {}
        self.known: dict[str, VertexState] = {}
        self.updates: set[str] = set()
        self.started_ns = 0
        self.warnings: list[Warned] = []

    def update(self, event: "Event") -> None:
        """Take an event."""
        if isinstance(event, VertexState):
            self._update_vertex(event)
            return
        if isinstance(event, Warned):
            self.warnings.append(event)
        shown = self.vertices.get(event.vertex)
        if shown is None:
            return
        if isinstance(event, Status):
            shown.statuses[event.id] = event
            shown.updated.add(event.id)
        elif isinstance(event, Log):
            shown.write(event)
        else:
            shown.warnings.append(event)
        shown.touch()
        self.updates.add(event.vertex)

    def _update_vertex(self, state: VertexState) -> None:
        self.known[state.id] = state
        if not state.started_ns:
            return
        self.started_ns = self.started_ns or state.started_ns
        shown = self.vertices.get(state.id)
        if shown is None:
            shown = self.vertices[state.id] = Shown(state, len(self.vertices) + 1)
        elif shown.state == state:
            return
        shown.state = state
        shown.intervals[state.started_ns] = state.completed_ns
        if state.completed_ns:
            shown.end()
        shown.touch()
        self.updates.add(state.id)

    @property
    def completed(self) -> int:
        """How many have ended."""
        return sum(state.completed_ns != 0 for state in self.known.values())

    def failures(self) -> list[str]:
        """Lines on what failed, with the end of what it wrote."""
        lines = []
        for shown in self.vertices.values():
            if shown.state.error and not shown.is_canceled:
                lines += ["------", f" > {spelt_out(shown.state.name)}:", *shown.kept, "------"]
        return lines


def bytes_text(count: int) -> str:
    """Returns a number of bytes as BuildKit writes it: ``1.23kB``."""
    if count < 1000:
        return f"{count}B"
    amount, units = count / 1000, list("kMGTPE")
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.2f}{units[0]}B"


def amount_text(status: Status) -> str:
    """Returns how far something is, empty where that is not said."""
    if status.total:
        return f"{bytes_text(status.current)} / {bytes_text(status.total)}"
    return bytes_text(status.current) if status.current else ""
