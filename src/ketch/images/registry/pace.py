"""At what pace an answer must come, and how much of it may be no content.

A socket's time limit begins anew with each byte, so a registry that sends one a minute never meets
it; and http.client reads as many interim answers, chunk extensions and trailers as there come. Here
both have an end.
"""

import http.client
import io
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

BYTES_MIN = 1 << 10
"""What must come while the time limit is waited, else it counts as met."""

_OVERHEAD_MAX = 1 << 20  # of heads, and of what is between and after the content
_PIECE_SECONDS = 0.5  # then whoever reads gets what there is: somebody may watch the progress


class _Paced(io.RawIOBase):
    """The bytes of an answer as they come."""

    def __init__(self, raw: io.RawIOBase, seconds: float) -> None:
        self._raw = raw
        self._seconds = seconds
        self._waited_seconds = 0.0
        self._came_bytes = 0
        self._left_bytes = _OVERHEAD_MAX

    def allow(self, size_bytes: int) -> None:
        """Have so much content come; shortest chunks take six bytes for one."""
        self._left_bytes = 6 * size_bytes + _OVERHEAD_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        begun = time.monotonic()
        count = self._raw.readinto(buffer) or 0
        # Only the waiting counts: who reads may have its reasons to pause.
        self._waited_seconds += time.monotonic() - begun
        self._came_bytes += count
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise http.client.HTTPException("more head or trailer than any answer needs")
        if self._waited_seconds > self._seconds:
            if self._came_bytes < BYTES_MIN:
                raise TimeoutError("timed out")
            self._waited_seconds, self._came_bytes = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer whose pace is watched.

    Attributes:
        seconds: the time limit; a subclass sets it.
    """

    seconds = 60.0

    def __init__(self, sock: "socket.socket", *args: object, **options: object) -> None:
        super().__init__(sock, *args, **options)  # type: ignore[arg-type] # http.client's own
        self._paced = _Paced(self.fp.detach(), self.seconds)
        self.fp = io.BufferedReader(self._paced)

    def read(self, amt: int | None = None) -> bytes:
        """Return up to ``amt`` bytes, none at the end; fewer where they come slowly."""
        if amt is None:
            return super().read()
        self._paced.allow(amt)
        until = time.monotonic() + _PIECE_SECONDS
        pieces: list[bytes] = []
        while amt and (piece := self.read1(amt)):
            pieces.append(piece)
            amt -= len(piece)
            if time.monotonic() > until:
                break
        return b"".join(pieces)
