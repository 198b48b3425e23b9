"""Bodies and answers that blocking code reads and writes, in its thread, as fast as clients do."""

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from ketch.api.encoding import encode
from ketch.api.http import STALL_SECONDS, ClientGoneError
from ketch.errors import UnavailableError
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.api.call import Call

_PIPE_BYTES = 1 << 20


class Outlet:
    """An answer that a thread writes: its head is sent with the first piece.

    What fails before that is answered as an error of its own.

    Args:
        call: the request.
        content_type: what the answer is.

    Attributes:
        headers: what else its head says; to be set before the first piece.
    """

    def __init__(self, call: "Call", content_type: str) -> None:
        self._call = call
        self._type = content_type
        self.headers: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._left = False

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Send a piece, in a thread; returns when the client has room for more.

        Raises:
            UnavailableError: the client has left.
        """
        if self._left:
            raise UnavailableError("the client has left")
        sending = asyncio.run_coroutine_threadsafe(self.send(bytes(data)), self._loop)
        try:
            sending.result()
        except (ClientGoneError, asyncio.CancelledError) as error:
            self._left = True
            raise UnavailableError("the client has left") from error

    def tell(self, document: object) -> None:
        """Send a line of JSON, in a thread."""
        self.write(line(document))

    async def send(self, data: bytes) -> None:
        """Send a piece, in the loop.

        Raises:
            ClientGoneError: the client has left, or takes nothing for so long that it is cut off.
        """
        try:
            async with asyncio.timeout(STALL_SECONDS):
                if not self._call.exchange.status:
                    await self._call.exchange.begin(self._type, headers=self.headers)
                await self._call.exchange.write(data)
        except TimeoutError as error:
            self._call.exchange.abort()
            raise ClientGoneError from error

    async def end(self) -> None:
        """End the answer, which may be empty."""
        await self.send(b"")
        await self._call.exchange.end()


def line(document: object) -> bytes:
    """Returns a line of a stream of JSON documents, ended as dockerd ends them."""
    return encode(document).rstrip() + b"\r\n"


class Inlet:
    """A request's body that a thread reads.

    Attributes:
        ended: is set when all of it has been read.
    """

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self.ended = asyncio.Event()

    def read(self, size: int, /) -> bytes:
        """Returns up to ``size`` bytes, none at the end.

        Raises:
            UnavailableError: the client left before the end.
        """
        if not self._rest:
            reading = asyncio.run_coroutine_threadsafe(self._call.exchange.read(), self._loop)
            try:
                self._rest = reading.result()
            except (ClientGoneError, ConnectionError, asyncio.CancelledError) as error:
                raise UnavailableError("the client left before the end of its request") from error
            if not self._rest:
                self._loop.call_soon_threadsafe(self.ended.set)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@contextlib.asynccontextmanager
async def body_descriptor(call: "Call") -> "AsyncIterator[int]":
    """Give a descriptor from which a request's body can be read; it belongs to the block.

    Raises:
        KetchError: the body broke off: what was read ended too early.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # a limit of pipe(7) for users with many
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.set_blocking(writing, False)
    feeding = asyncio.ensure_future(_feed(call, writing))
    try:
        with owned(reading):
            yield reading
    finally:
        feeding.cancel()
        await asyncio.wait((feeding,))
        os.close(writing)
        broken = None if feeding.cancelled() else feeding.exception()
    if broken is not None:
        raise broken


async def _feed(call: "Call", writing: int) -> None:
    loop = asyncio.get_running_loop()
    room = asyncio.Event()
    try:
        async for data in call.exchange.chunks():
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[os.write(writing, rest) :]
                except BlockingIOError:
                    room.clear()
                    loop.add_writer(writing, room.set)
                    try:
                        await room.wait()
                    finally:
                        loop.remove_writer(writing)
                except BrokenPipeError:
                    return
    finally:
        # The reader's end of file.
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, writing, inheritable=False)
        os.close(null)
