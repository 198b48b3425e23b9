"""What somebody who waits for a transfer is told."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.tar import Stream

_REPORT_BYTES = 1 << 19


class Progress:
    """A listener that is told everything and says nothing: the base of those who show it.

    Its methods are called from several threads.
    """

    __slots__ = ()

    def begin(self, identifier: str, text: str) -> None:
        """Take what is beginning now, which stays as it is.

        Args:
            identifier: what it is about, such as a tag.
            text: in Docker's words, such as ``Pulling from library/busybox``.
        """
        self.say(identifier, text)

    def say(self, identifier: str, status: str) -> None:
        """Take a new state of something, or a line of text.

        Args:
            identifier: what it is about, such as a layer's short ID; empty for a line by itself.
            status: in Docker's words, such as ``Pull complete``.
        """

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """Take how far something is.

        Args:
            identifier: what it is about.
            action: in Docker's words, such as ``Downloading``.
            current_bytes: how much is done.
            total_bytes: how much there is.
        """


class Watched:
    """A stream, of which somebody is told now and then how far it was read, and of its end.

    Args:
        stream: what is read.
        total_bytes: how much there is.
        tell: is told how much was read.
    """

    __slots__ = ("_position", "_reported", "_stream", "_tell", "_total_bytes")

    def __init__(self, stream: "Stream", total_bytes: int, tell: "Callable[[int], object]") -> None:
        self._stream = stream
        self._total_bytes = total_bytes
        self._tell = tell
        self._position = 0
        self._reported = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        content = self._stream.read(size)
        self._position += len(content)
        is_last = bool(content) and self._position == self._total_bytes
        if is_last or self._position - self._reported >= _REPORT_BYTES:
            self._reported = self._position
            self._tell(self._position)
        return content
