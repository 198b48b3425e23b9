"""How a transfer shows on the screen: Docker's lines, or its bars where there is a terminal.

Why not rich: these are Docker's very lines, some fifty lines of code, and `run` shows them without
importing anything large.
"""

import os
import threading
import time

from ketch.images.registry.progress import Progress
from ketch.spec.sizes import bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_INTERVAL_SECONDS = 0.1


class Lines(Progress):
    """A line for each change of state; what merely goes on is not told.

    Args:
        stream: where to.
    """

    __slots__ = ("_lock", "_stream")

    def __init__(self, stream: "TextIO") -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, identifier: str, status: str) -> None:
        """See ``Progress.say``."""
        with self._lock:
            self._stream.write(f"{identifier}: {status}\n" if identifier else f"{status}\n")
            self._stream.flush()


class Bars(Progress):
    """A line for each layer that changes in its place, with a bar where there is room for one.

    Args:
        stream: a terminal.
    """

    __slots__ = ("_drawn", "_lines", "_lock", "_stream")

    def __init__(self, stream: "TextIO") -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lines: dict[str, int] = {}  # identifiers by their line, the first of a group 0
        self._drawn: dict[str, float] = {}

    def begin(self, identifier: str, text: str) -> None:
        """See ``Progress.begin``."""
        self.say("", f"{identifier}: {text}")

    def say(self, identifier: str, status: str) -> None:
        """See ``Progress.say``."""
        with self._lock:
            self._drawn.pop(identifier, None)
            # Docker leaves room for a bar, and terminals that compare lines see it.
            self._draw(identifier, f"{status} " if identifier else status)

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """See ``Progress.advance``."""
        with self._lock:
            now = time.monotonic()
            is_last = current_bytes >= total_bytes
            if not is_last and now - self._drawn.get(identifier, 0.0) < _INTERVAL_SECONDS:
                return
            self._drawn[identifier] = now
            columns = os.get_terminal_size(self._stream.fileno()).columns
            self._draw(identifier, f"{action} {bar(current_bytes, total_bytes, columns)}")

    def _draw(self, identifier: str, text: str) -> None:
        if not identifier:
            # What follows a line by itself begins a new group below it.
            self._lines.clear()
            self._stream.write(f"{text}\n")
            self._stream.flush()
            return
        new = identifier not in self._lines
        if new:
            self._lines[identifier] = len(self._lines)
            self._stream.write("\n")
        up = len(self._lines) - self._lines[identifier]
        self._stream.write(f"\x1b[{up}A\x1b[2K\r{identifier}: {text}\r\x1b[{up}B")
        self._stream.flush()


def shown_on(stream: "TextIO") -> Progress:
    """Returns what shows a transfer on a stream."""
    return Bars(stream) if stream.isatty() else Lines(stream)
