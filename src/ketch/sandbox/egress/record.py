"""What a sandbox has tried to reach: the last few thousand attempts, and what came of each."""

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import on_one_line

if TYPE_CHECKING:
    from ketch.sandbox.egress.passing import Direction

KEPT_MAX = 4096
_TEXT_MAX = 300


class Connection(NamedTuple):
    """An attempt of a sandbox's to reach something.

    Attributes:
        time: when it was made, in seconds since the epoch.
        kind: ``lookup`` of a name, ``tcp``, ``udp``.
        name: what it was to reach, empty for an address without a name.
        address: what it was to reach: a port behind the last colon; where a name was reached, that
            is its true address. Empty for a lookup.
        verdict: ``allowed``; ``refused`` by the rules; ``failed`` otherwise.
        reason: why it was refused, or failed, or empty.
        sent: how many bytes went out.
        received: how many bytes came in.
        duration: how many seconds it has taken, or takes until now.
        is_open: whether it still goes on.
    """

    time: float
    kind: str
    name: str
    address: str
    verdict: str
    reason: str
    sent: int
    received: int
    duration: float
    is_open: bool


class Attempt:
    """One that may still go on."""

    def __init__(self, kind: str, name: str = "", address: str = "") -> None:
        self.time = time.time()
        self.kind = kind
        self.name = printable(name)
        self.address = address
        self.verdict = ""
        self.reason = ""
        self.sent = self.received = 0  # before it is passed on
        self._directions: tuple[Direction, Direction] | None = None
        self._begun = time.monotonic()
        self._ended = 0.0

    def follow(self, outward: "Direction", inward: "Direction") -> None:
        """Tell of what is passed on, as it is."""
        self._directions = outward, inward

    def end(self, verdict: str = "", reason: str = "") -> None:
        """It is over; a verdict that there is already stays."""
        self.verdict = self.verdict or verdict
        self.reason = self.reason or printable(reason)
        self._ended = self._ended or time.monotonic()

    def seen(self) -> Connection:
        """What is to be told of it now."""
        until = self._ended or time.monotonic()
        sent, received = (one.count for one in self._directions) if self._directions else (0, 0)
        return Connection(
            self.time, self.kind, self.name, self.address, self.verdict, self.reason,
            self.sent + sent, self.received + received, until - self._begun, not self._ended,
        )  # fmt: skip


class Record:
    """The attempts of one sandbox; it can be used from several threads.

    Each kind has room of its own, so that a flood of datagrams or lookups hides no connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, deque[Attempt]] = {}

    def begin(self, kind: str, name: str = "", address: str = "") -> Attempt:
        """One begins."""
        attempt = Attempt(kind, name, address)
        with self._lock:
            self._kept.setdefault(kind, deque(maxlen=KEPT_MAX)).append(attempt)
        return attempt

    def refuse(self, kind: str, name: str, address: str, reason: str) -> None:
        """One is refused at once."""
        self.begin(kind, name, address).end("refused", reason)

    def seen(self) -> list[Connection]:
        """Those that are kept, the oldest first."""
        with self._lock:
            kept = [one for kind in self._kept.values() for one in kind]
        return [one.seen() for one in sorted(kept, key=lambda one: one.time)]


def printable(text: str) -> str:
    """Text of a hostile program's, fit to be shown: on one line, and bounded."""
    return on_one_line(text[:_TEXT_MAX])
