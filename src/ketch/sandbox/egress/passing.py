"""Passing on what two ends of a connection say, until both have ended, or nobody says anything."""

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS = 900.0
_PIECE_BYTES = 256 << 10
_BUDGET_BYTES = 4 << 20  # after which the other direction has a turn
_SPLICE_FLAGS = 1 | 2  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_FEW_BYTES = 16 << 10


class End(Protocol):
    """An end of a connection: a socket that does not block, or TLS on one.

    What would wait raises BlockingIOError.
    """

    def fileno(self) -> int: ...  # noqa: D102
    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def send(self, data: bytes | memoryview, /) -> int: ...  # noqa: D102
    def shutdown(self, how: int, /) -> None: ...  # noqa: D102


def _end(target: End) -> None:
    """Tell a socket's other end that nothing more comes; it may have gone, as all may have said."""
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise


class Direction(Protocol):
    """One direction of a connection.

    Attributes:
        count: how many bytes have been passed on.
        is_over: whether its end has been passed on as well.
    """

    count: int
    is_over: bool

    def pump(self) -> bool:
        """Pass on what there is; returns whether there may be more at once."""

    def close(self) -> None:
        """Give back what it took."""


class Spliced:
    """Bytes that nobody looks at.

    As soon as there are many they go through a pipe in the kernel (splice(2)); a few, as most
    connections have, are passed on sooner than a pipe is made.
    """

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source, self._target = source, target
        self._few = memoryview(b"")
        self._are_many = False
        self._pipe: tuple[int, int] | None = None
        self._held = 0  # bytes in the pipe
        self._at_end = False
        self.count = 0
        self.is_over = False

    def pump(self) -> bool:
        """See ``Direction``."""
        budget = _BUDGET_BYTES
        try:
            while budget > 0 and not self.is_over:
                if not self._few and not self._held and not self._at_end:
                    self._take()
                if self._few:
                    passed = self._target.send(self._few)
                    self._few = self._few[passed:]
                elif self._held and self._pipe is not None:
                    passed = os.splice(
                        self._pipe[0], self._target.fileno(), self._held, flags=_SPLICE_FLAGS
                    )
                    self._held -= passed
                else:
                    _end(self._target)
                    self.is_over = True
                    break
                self.count += passed
                budget -= passed
        except BlockingIOError:
            return False
        return budget <= 0

    def _take(self) -> None:
        """Take what came next, in whichever way; raises BlockingIOError where nothing did."""
        if self._are_many:
            if self._pipe is None:
                self._pipe = os.pipe2(os.O_CLOEXEC)
            self._held = os.splice(
                self._source.fileno(), self._pipe[1], _PIECE_BYTES, flags=_SPLICE_FLAGS
            )
            self._at_end = not self._held
        else:
            data = self._source.recv(_FEW_BYTES)
            self._few = memoryview(data)
            self._at_end = not data
            self._are_many = len(data) == _FEW_BYTES

    def close(self) -> None:
        """See ``Direction``."""
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None


class Read:
    """Bytes that somebody looks at, and may change or refuse.

    Args:
        source: whence they come.
        target: where they go.
        through: is told what came and returns what is passed on; it raises ValueError where
            nothing more may be.
        first: what has come already, and been looked at.
    """

    def __init__(
        self,
        source: End,
        target: End,
        through: "Callable[[bytes], bytes]",
        first: bytes = b"",
    ) -> None:
        self._source, self._target = source, target
        self._flush = getattr(target, "flush", None)  # TLS keeps what the socket has no room for
        self._through = through
        self._held = memoryview(first)
        self._at_end = False
        self.count = 0
        self.is_over = False

    def pump(self) -> bool:
        """See ``Direction``.

        Raises:
            ValueError: as ``through``.
        """
        budget = _BUDGET_BYTES
        try:
            if self._flush is not None:
                self._flush()
            while budget > 0 and not self.is_over:
                if not self._held and not self._at_end:
                    data = self._source.recv(_PIECE_BYTES)
                    self._at_end = not data
                    self._held = memoryview(self._through(data) if data else b"")
                if self._held:
                    passed = self._target.send(self._held)
                    self._held = self._held[passed:]
                    self.count += passed
                    budget -= passed
                elif self._at_end:
                    _end(self._target)
                    self.is_over = True
        except BlockingIOError:
            return False
        return budget <= 0

    def close(self) -> None:
        """See ``Direction``."""


def pass_on(
    ends: "tuple[End, End]", directions: "tuple[Direction, Direction]", idle: float = IDLE_SECONDS
) -> None:
    """Pass on in both directions until both are over.

    Args:
        ends: what is waited for.
        directions: between these.
        idle: after how many seconds of silence it is given up.

    Raises:
        OSError: an end has gone; TimeoutError: nobody said anything.
        ValueError: something may not be passed on.
    """
    with select.epoll() as ready:
        for end in ends:
            ready.register(end.fileno(), _EDGES)
        try:
            said, count = time.monotonic(), -1
            while True:
                more = [one.pump() for one in directions]
                if all(one.is_over for one in directions):
                    return
                if any(more):
                    continue
                now, total = time.monotonic(), sum(one.count for one in directions)
                if total != count:
                    said, count = now, total
                if now - said > idle:
                    raise TimeoutError("nobody has said anything for a long time")
                ready.poll(max(0.1, idle - (now - said)))
        finally:
            for one in directions:
                one.close()
