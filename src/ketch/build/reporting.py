"""Telling what goes on: one event at a time, whichever threads it comes from."""

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.build.progress import Log, Status, VertexState, Warned
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.graph import Remark
    from ketch.build.progress import Event, Progress

_INTERVAL_NS = 100_000_000  # between what is told of something that goes on


class Reporter:
    """Tells of one build.

    Args:
        progress: who is told.
    """

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._build = os.urandom(16)
        self._numbers = itertools.count()

    @property
    def build_id(self) -> str:
        """What tells this build from others."""
        return self._build.hex()

    def tell(self, event: "Event") -> None:
        """Tell of something."""
        with self._lock:
            self._progress(event)

    def vertex(self, name: str, inputs: "Sequence[str]" = (), group: str = "") -> "Track":
        """Tell of a vertex that will be made.

        Args:
            name: what people are shown.
            inputs: ids of what it needs.
            group: the progress group.
        """
        number = next(self._numbers)
        digits = hashlib.sha256(self._build + number.to_bytes(8, "big")).hexdigest()
        track = Track(self, f"sha256:{digits}", name, tuple(inputs), group)
        track.announce()
        return track

    @contextlib.contextmanager
    def internal(self, name: str) -> Iterator["Track"]:
        """Tell of something that a build does beside its vertices, for a block."""
        track = self.vertex(f"[internal] {name}")
        with track.made():
            yield track


class Track:
    """One vertex that is told of.

    Attributes:
        id: by which it is told of.
        name: what people are shown.
    """

    def __init__(
        self,
        reporter: Reporter,
        id: str,  # noqa: A002 - the events' word
        name: str,
        inputs: tuple[str, ...],
        group: str,
    ) -> None:
        self.id = id
        self.name = name
        self._reporter = reporter
        self._inputs = inputs
        self._group = group
        self._started_ns = 0

    def announce(self) -> None:
        """Tell that it is there."""
        self._tell()

    def begin(self) -> None:
        """Tell that it begins; once will do."""
        if not self._started_ns:
            self._started_ns = time.time_ns()
            self._tell()

    def end(self, *, cached: bool = False, error: str = "") -> None:
        """Tell that it has ended."""
        self._started_ns = self._started_ns or time.time_ns()
        self._tell(time.time_ns(), cached=cached, error=error)

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Tell that it begins and ends with a block."""
        self.begin()
        try:
            yield
        except KetchError as error:
            self.end(error=error.message)
            raise
        except BaseException:
            self.end(error="context canceled")
            raise
        self.end()

    @contextlib.contextmanager
    def part(self, name: str, total: int = 0) -> Iterator["Part"]:
        """Tell of something within it, for a block."""
        part = Part(self, name, total)
        try:
            yield part
        finally:
            part.end()

    def status(self, status: Status) -> None:
        """Tell how far something within it is."""
        self._reporter.tell(status)

    def log(self, stream: int, data: bytes) -> None:
        """Tell what its program wrote."""
        self._reporter.tell(Log(self.id, stream, data, time.time_ns()))

    def warn(self, warning: "Remark", filename: str, text: bytes) -> None:
        """Tell what a lint rule found."""
        self._reporter.tell(Warned(self.id, warning, filename, text))

    def _tell(self, completed_ns: int = 0, *, cached: bool = False, error: str = "") -> None:
        self._reporter.tell(
            VertexState(
                self.id, self.name, self._inputs, self._started_ns, completed_ns, cached, error,
                self._group,
            )
        )  # fmt: skip


class Part:
    """Something within a vertex that takes its time.

    Args:
        track: the vertex.
        name: what it is.
        total: how much there is to do, 0 for unknown.
    """

    def __init__(self, track: Track, name: str, total: int = 0) -> None:
        self._track = track
        self._name = name
        self._current = 0
        self._total = total
        self._started_ns = self._told_ns = time.time_ns()
        self._has_ended = False
        self._tell()

    def advance(self, current: int, total: int = 0) -> None:
        """Tell how much is done, now and then."""
        self._current, self._total = current, total or self._total
        now_ns = time.time_ns()
        if now_ns - self._told_ns >= _INTERVAL_NS:
            self._told_ns = now_ns
            self._tell()

    def end(self) -> None:
        """Tell that it is done; once will do."""
        if not self._has_ended:
            self._has_ended = True
            self._tell(time.time_ns())

    def _tell(self, completed_ns: int = 0) -> None:
        self._track.status(
            Status(
                self._track.id, self._name, self._current, self._total, self._started_ns,
                completed_ns,
            )
        )  # fmt: skip
