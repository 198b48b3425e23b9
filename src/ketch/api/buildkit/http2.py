"""One HTTP/2 connection over a raw stream, either end of it: framing by h2, streams with limits.

h2 decides what frames mean and never sees a socket; here bytes are carried, streams are handed out,
and what a peer can make us keep is bounded. A stream's window is given back as its data is taken,
so a peer can have sent only so much that nobody has read; the connection's is given back whoever
reads, so that no stream waits for another one's reader. Every wait for the peer has an end: one
that takes nothing for STALL_SECONDS is cut off. Source: RFC 9113.
"""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

from ketch.api.http import ClientGoneError
from ketch.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ketch.api.http import RawStream

    Headers = list[tuple[str, str]]

STALL_SECONDS = 120
"""How long a peer may take nothing of what it is sent."""
STREAMS_MAX = 100
"""How many streams a peer may have open at once."""
WINDOW_BYTES = 256 * 1024
"""How much of one stream may be on its way, or wait for its reader."""
_CONNECTION_WINDOW_BYTES = 8 << 20
_FIRST_WINDOW_BYTES = 65_535  # what RFC 9113, section 6.9.2, begins with
_FRAME_BYTES_MAX = 64 * 1024
_HEADER_BYTES_MAX = 64 * 1024
# Streams that the peer takes back at once cost work and leave nothing to bound: CVE-2023-44487.
_RESETS_MAX, _RESETS_SECONDS = 500, 10.0


class StreamEndedError(UnavailableError):
    """The stream, or its connection, has ended before what was asked of it was done."""


class Stream:
    """One stream of a connection.

    Args:
        connection: whose.
        number: its identifier.

    Attributes:
        headers: the request's on a server, the answer's on a client; empty until they have come.
        trailers: what came after the data.
        held_bytes: what has come, and is kept for whoever reads.
    """

    def __init__(self, connection: "Connection", number: int) -> None:
        self.number = number
        self.headers: Headers = []
        self.trailers: Headers = []
        self.held_bytes = 0
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._unacknowledged = 0  # of the window, by what came and was not given back
        self._ended = False
        self._sending_ended = False
        self._failure = ""
        self._changed = asyncio.Event()

    # What comes

    async def read(self) -> bytes:
        """Returns what has come, as much as there is; empty at the end.

        Raises:
            StreamEndedError: it broke off.
        """
        while not self._pieces and not self._ended:
            self._check()
            await self._wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._account(-len(data))
        return data

    async def head(self) -> "Headers":
        """Returns the headers, once they have come.

        Raises:
            StreamEndedError: it broke off before.
        """
        while not self.headers:
            self._check()
            if self._ended:
                raise StreamEndedError("the stream ended without headers")
            await self._wait()
        return self.headers

    async def gone(self) -> None:
        """Return when the peer has broken the stream off, or the connection has ended."""
        while not self._failure:
            await self._wait()

    # What goes

    async def send_headers(self, headers: "Headers", *, end: bool = False) -> None:
        """Send headers, or trailers, which end it.

        Raises:
            StreamEndedError: it broke off.
        """
        self._check()
        self._sending_ended = end
        await self._connection.act(
            lambda protocol: protocol.send_headers(self.number, headers, end_stream=end)
        )

    async def send(self, data: "bytes | memoryview", *, end: bool = False) -> None:
        """Send data, as fast as the peer takes it.

        Raises:
            StreamEndedError: it broke off, or the peer takes nothing.
        """
        rest = memoryview(data)
        while rest or end:
            self._check()
            room = self._connection.room(self.number)
            if rest and room <= 0:
                await self._wait_for_room()
                continue
            piece, rest = rest[:room], rest[room:]
            last = end and not rest
            end = end and not last
            self._sending_ended = self._sending_ended or last
            await self._connection.send_data(self.number, bytes(piece), end=last)

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Break it off, unless it is over; it is not waited for that the peer hears of it."""
        if not self._failure and not (self._ended and self._sending_ended):
            self._connection.reset(self, code)
        self.fail("it was broken off here")

    # For the connection

    def receive(self, data: bytes, window_bytes: int) -> None:
        """Take data that has come, ``window_bytes`` of the window."""
        self._unacknowledged += window_bytes
        if data:
            self._pieces.append(data)
        self._account(len(data))
        self._changed.set()

    def receive_headers(self, headers: "Headers") -> None:
        """Take headers that have come, or trailers."""
        if self.headers:
            self.trailers = headers
        else:
            self.headers = headers
        self._changed.set()

    def receive_end(self) -> None:
        """The peer sends nothing more."""
        self._ended = True
        self._changed.set()

    def fail(self, reason: str) -> None:
        """It is over; whoever waits for it hears why.

        What has come whole before can still be read: a server of Go's breaks off what it has
        answered where the request has not ended.
        """
        self._failure = self._failure or reason
        if not self._ended:
            self._account(-self.held_bytes)
            self._pieces.clear()
        self._changed.set()

    def wake(self) -> None:
        """There may be room to send."""
        self._changed.set()

    def _account(self, bytes_more: int) -> None:
        self.held_bytes += bytes_more
        self._connection.held_bytes += bytes_more
        # What is not kept any more may be on its way again, in steps that are worth a frame.
        spare = self._unacknowledged - self.held_bytes
        if spare >= WINDOW_BYTES // 4 and not self._ended and not self._failure:
            self._unacknowledged -= spare
            self._connection.open_window(self.number, spare)

    def _check(self) -> None:
        if self._failure:
            raise StreamEndedError(f"the client's connection: {self._failure}")

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._wait()
        except TimeoutError:
            self.reset()
            raise StreamEndedError("the client takes nothing of what it is sent") from None


class Connection:
    """One connection.

    Args:
        raw: what carries it.
        client: whether this end is HTTP/2's client.
        accept: is called with each stream that the peer opens; what it returns is awaited in a task
            of its own, which is cancelled when the stream breaks off.
        held_max: how many bytes of all streams together may wait for their readers.

    Attributes:
        held_bytes: how many do.
    """

    def __init__(
        self,
        raw: "RawStream",
        *,
        client: bool,
        accept: "Callable[[Stream], Awaitable[None]] | None" = None,
        held_max: int = 64 << 20,
    ) -> None:
        self.held_bytes = 0
        self._raw = raw
        self._client = client
        self._accept = accept
        self._held_max = held_max
        self._protocol = _protocol(client=client)
        self._streams: dict[int, Stream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._received_bytes = 0  # of the connection's window, and not given back yet
        self._resets: deque[float] = deque()
        self._over = ""
        self._stopped = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Carry it until it ends; all its streams have ended then."""
        reading = asyncio.ensure_future(self._read())
        stopping = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        except StreamEndedError:
            pass
        finally:
            reading.cancel()
            stopping.cancel()
            self._end("it has ended")
            others = [*self._tasks.values(), reading, stopping]
            others += [self._flushing] if self._flushing else []
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def stop(self, reason: str) -> None:
        """Have it end; ``run`` returns soon."""
        self._end(reason)
        self._stopped.set()

    async def open(self, headers: "Headers", *, end: bool = False) -> Stream:
        """Open a stream, on a client.

        Raises:
            StreamEndedError: the connection has ended, or the peer has as many as it wants.
        """
        if self._over:
            raise StreamEndedError(f"the client's connection: {self._over}")
        try:
            stream = Stream(self, self._protocol.get_next_available_stream_id())
            self._streams[stream.number] = stream
            await stream.send_headers(headers, end=end)
        except H2Error as error:
            raise StreamEndedError(f"the client's connection: {error}") from error
        return stream

    # For its streams

    async def act(self, what: "Callable[[H2Connection], object]") -> None:
        """Have the protocol do something, and send what it wants sent.

        Raises:
            StreamEndedError: the protocol does not allow it any more, or the peer has gone.
        """
        try:
            what(self._protocol)
        except (H2Error, KeyError) as error:
            raise StreamEndedError(f"the client's connection: {error}") from error
        await self._flush()

    def room(self, number: int) -> int:
        """Returns how much a stream may send now, in bytes."""
        try:
            window: int = self._protocol.local_flow_control_window(number)
        except H2Error as error:
            raise StreamEndedError(f"the client's connection: {error}") from error
        largest: int = self._protocol.max_outbound_frame_size
        return min(window, largest)

    async def send_data(self, number: int, data: bytes, *, end: bool) -> None:
        """Send a stream's data, for which there is room."""
        await self.act(lambda protocol: protocol.send_data(number, data, end_stream=end))

    def open_window(self, number: int, window_bytes: int) -> None:
        """Let the peer send more of a stream."""
        with contextlib.suppress(H2Error, KeyError):
            self._protocol.increment_flow_control_window(window_bytes, number)
            self._flush_soon()

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """Break a stream off."""
        with contextlib.suppress(H2Error, KeyError):
            self._protocol.reset_stream(stream.number, code)
            self._flush_soon()
        self._streams.pop(stream.number, None)

    def finished(self, stream: Stream) -> None:
        """Nobody wants anything of a stream any more."""
        stream.reset(ErrorCodes.NO_ERROR)
        self._streams.pop(stream.number, None)

    # Reading

    async def _read(self) -> None:
        protocol = self._protocol
        await self._flush()
        while not self._over:
            data = await self._raw.read()
            if not data:
                return
            try:
                happened = protocol.receive_data(data)
            except ProtocolError:
                await self._flush()  # what it did wrong
                return
            for event in happened:
                self._take(event)
            await self._flush()

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._take_request(event)
        elif isinstance(event, events.DataReceived):
            self._take_data(event)
        elif isinstance(event, events.ResponseReceived | events.TrailersReceived):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.receive_headers(_texts(event.headers))
        elif isinstance(event, events.StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.receive_end()
        elif isinstance(event, events.StreamReset):
            self._take_reset(event)
        elif isinstance(event, events.WindowUpdated | events.RemoteSettingsChanged):
            for stream in self._streams.values():
                stream.wake()
        elif isinstance(event, events.ConnectionTerminated):
            self.stop("the client has said good-bye")

    def _take_request(self, event: events.RequestReceived) -> None:
        number = event.stream_id
        stream = self._streams[number] = Stream(self, number)
        stream.receive_headers(_texts(event.headers))
        if self._accept is None:
            stream.reset(ErrorCodes.REFUSED_STREAM)
            return
        task = asyncio.ensure_future(self._accept(stream))
        self._tasks[number] = task

        def end(_: "asyncio.Future[None]") -> None:
            self._tasks.pop(number, None)
            self.finished(stream)

        task.add_done_callback(end)

    def _take_data(self, event: events.DataReceived) -> None:
        window_bytes = event.flow_controlled_length or 0
        self._received_bytes += window_bytes
        if self._received_bytes >= _CONNECTION_WINDOW_BYTES // 8:
            self._protocol.increment_flow_control_window(self._received_bytes)
            self._received_bytes = 0
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.receive(event.data or b"", window_bytes)
        if self.held_bytes > self._held_max:
            self.stop("it is sent more than is read")

    def _take_reset(self, event: events.StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            stream.fail(f"the client broke off (error {int(event.error_code or 0)})")
        if (task := self._tasks.get(event.stream_id)) is not None:
            task.cancel()
        now = asyncio.get_running_loop().time()
        self._resets.append(now)
        while self._resets[0] < now - _RESETS_SECONDS:
            self._resets.popleft()
        if len(self._resets) > _RESETS_MAX and not self._client:
            with contextlib.suppress(H2Error):
                self._protocol.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self.stop("it breaks off too much")

    # Sending

    async def _flush(self) -> None:
        data = self._protocol.data_to_send()
        if not data:
            return
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._raw.write(data)
        except TimeoutError:
            self.stop("the client takes nothing of what it is sent")
            raise StreamEndedError("the client takes nothing of what it is sent") from None
        except ClientGoneError as error:
            self.stop("the client has left")
            raise StreamEndedError("the client has left") from error

    def _flush_soon(self) -> None:
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        with contextlib.suppress(StreamEndedError):
            await self._flush()

    def _end(self, reason: str) -> None:
        self._over = self._over or reason
        for stream in list(self._streams.values()):
            stream.fail(self._over)
        self._streams.clear()


def _protocol(*, client: bool) -> H2Connection:
    protocol = H2Connection(H2Configuration(client_side=client, header_encoding=None))
    values = {
        SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
        SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES_MAX,
        SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_BYTES_MAX,
        SettingCodes.ENABLE_PUSH: 0,
    }
    if not client:
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS_MAX
    # So that they are among the first settings that are sent, and hold from then on.
    protocol.local_settings = Settings(client=client, initial_values=values)
    protocol.max_inbound_frame_size = _FRAME_BYTES_MAX
    protocol.decoder.max_header_list_size = _HEADER_BYTES_MAX
    protocol.initiate_connection()
    protocol.increment_flow_control_window(_CONNECTION_WINDOW_BYTES - _FIRST_WINDOW_BYTES)
    return protocol


def _texts(headers: "Iterable[tuple[bytes | str, bytes | str]] | None") -> "Headers":
    return [(_text(name), _text(value)) for name, value in headers or ()]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
