"""HTTP/1.1 over asyncio streams: framing by h11, streams with back-pressure, raw upgrades.

A connection serves its requests one after the other, pipelined ones included. Nothing is read
ahead but what the kernel and one small buffer hold, and nothing is written faster than the client
takes it, so a slow or silent client costs a bounded amount of memory. What breaks the protocol is
answered by 4xx and the connection's end.
"""

import asyncio
import contextlib
import select
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from ketch.api.encoding import encode
from ketch.errors import InvalidArgumentError, KetchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from ketch.api.rooms import Place

    Handler = Callable[["Exchange"], Awaitable[None]]

HEAD_BYTES_MAX = 64 * 1024
HEAD_TIMEOUT_SECONDS = 30
"""How long a request's head may take from its first byte on."""
STALL_SECONDS = 600
"""How long nothing may come of a request's body, or be taken of an answer that is copied."""
_CHUNK_BYTES = 64 * 1024
# What a client may still send of a body that nobody wants before its connection is cut.
_DRAIN_BYTES_MAX = 256 * 1024
_DRAIN_SECONDS = 2
_HANGUP_POLL_SECONDS = 1.0


NOTHING = object()
RAW_STREAM = "application/vnd.docker.raw-stream"


class ClientGoneError(Exception):
    """The client has left, or speaks no HTTP any more: there is nobody to answer."""


class TooLargeError(KetchError):
    """The request is larger than anything that is asked for in earnest."""


class TooSlowError(KetchError):
    """The request takes longer than anybody may who does not want to be in the way."""


class Connection:
    """One client's connection.

    Args:
        reader: what it sends.
        writer: what it is sent.
        place: its place in the listener's room.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: "Place"
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._place = place
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._ended = False  # the client sends nothing more
        self.hijacked = False

    async def serve(self, handle: "Handler", headers: "Mapping[str, str]") -> None:
        """Answer requests until the client leaves, or one of them took the connection over.

        Args:
            handle: answers one request.
            headers: what every answer says.
        """
        try:
            while True:
                head = await self._head()
                if head is None:
                    return
                self._place.begin()
                exchange = Exchange(self, head, headers)
                await handle(exchange)
                if self.hijacked or not await self._finish(exchange):
                    return
                self._place.end()
        except (ClientGoneError, ConnectionError):
            pass
        except h11.RemoteProtocolError as error:
            await self._refuse(error, headers)
        finally:
            await self.close()

    async def close(self) -> None:
        """Send what is kept and close; a client that does not read is cut off."""
        self.writer.close()
        try:
            await asyncio.wait_for(self.writer.wait_closed(), _DRAIN_SECONDS)
        except (OSError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        """Close without a word: nothing that is kept is sent."""
        self.writer.transport.abort()

    async def _head(self) -> h11.Request | None:
        """Read a request's head; None when the client leaves instead."""
        deadline = None
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                return event
            if isinstance(event, h11.ConnectionClosed):
                return None
            if event is not h11.NEED_DATA:
                raise ClientGoneError
            if deadline is None and self._h11.trailing_data[0]:
                deadline = asyncio.get_running_loop().time() + HEAD_TIMEOUT_SECONDS
            try:
                async with asyncio.timeout_at(deadline):
                    await self._receive()
            except TimeoutError:
                error = h11.RemoteProtocolError("the request's head takes too long", 408)
                raise error from None

    async def _receive(self) -> None:
        data = await self.reader.read(_CHUNK_BYTES)
        self._ended = self._ended or not data
        self._h11.receive_data(data)

    async def next_data(self) -> bytes | None:
        """Returns the next piece of the request's body, None at its end.

        Raises:
            ClientGoneError: the client left amid it.
            InvalidArgumentError: what comes is no body as HTTP frames it.
            TooSlowError: nothing comes.
        """
        while True:
            if self._h11.their_state is not h11.SEND_BODY:
                return None
            if self._h11.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise InvalidArgumentError(f"bad request: {error}") from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return None
            if event is h11.NEED_DATA:
                if self._ended:
                    raise ClientGoneError
                try:
                    async with asyncio.timeout(STALL_SECONDS):
                        await self._receive()
                except TimeoutError as error:
                    raise TooSlowError("the request's body takes too long") from error
            else:
                raise ClientGoneError

    async def send(self, event: "h11.Event") -> None:
        """Send a part of an answer, as fast as the client takes it.

        Raises:
            ClientGoneError: it has left.
        """
        try:
            data = self._h11.send(event)
            if data:
                self.writer.write(data)
                await self.writer.drain()
        except ConnectionError as error:
            raise ClientGoneError from error

    def take_over(self) -> bytes:
        """End HTTP on this connection; returns what came after the request."""
        self.hijacked = True
        data, _ = self._h11.trailing_data
        return bytes(data)

    async def gone(self) -> None:
        """Return when the client has left, or cannot be told from one that has.

        What it sends meanwhile, such as its next request, is kept up to a limit. On a Unix socket
        one that only ended its own side, and still listens, counts as present.
        """
        kept = 0
        while not self._ended and kept < HEAD_BYTES_MAX:
            try:
                data = await self.reader.read(_CHUNK_BYTES)
            except ConnectionError:
                return
            kept += len(data)
            self._ended = not data
            with contextlib.suppress(h11.RemoteProtocolError):
                self._h11.receive_data(data)
        peer = self.writer.get_extra_info("socket")
        if self._ended and (peer is None or peer.family != socket.AF_UNIX):
            return
        poll = select.poll()
        poll.register(peer.fileno(), 0)  # asks for POLLHUP alone
        while not poll.poll(0):
            await asyncio.sleep(_HANGUP_POLL_SECONDS)

    async def _finish(self, exchange: "Exchange") -> bool:
        """Take what is left of a request; returns whether another one may follow."""
        if not exchange.answered:
            return False
        taken = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while (data := await self.next_data()) is not None:
                    taken += len(data)
                    if taken > _DRAIN_BYTES_MAX:
                        return False
        except (TimeoutError, ClientGoneError, KetchError):
            return False
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def _refuse(self, error: h11.RemoteProtocolError, headers: "Mapping[str, str]") -> None:
        """Answer what is no HTTP, if an answer has not begun yet."""
        if self._h11.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = encode({"message": f"bad request: {error}"})
        fields = {**headers, "Content-Type": "application/json", "Connection": "close",
                  "Content-Length": str(len(body))}  # fmt: skip
        with contextlib.suppress(ClientGoneError, h11.LocalProtocolError):
            await self.send(
                h11.Response(
                    status_code=error.error_status_hint,
                    headers=list(fields.items()),
                    reason=_reason(error.error_status_hint),
                )
            )
            await self.send(h11.Data(data=body))
            await self.send(h11.EndOfMessage())


class Exchange:
    """One request and its answer.

    Args:
        connection: whose.
        head: the request's head.
        headers: what every answer says.

    Attributes:
        method: such as ``GET``.
        target: path and query as they came.
        headers: the request's, by lower-case name; of several the last.
        status: the answer's, once given; 0 before.
        answered: whether the answer is complete.
    """

    def __init__(
        self, connection: Connection, head: h11.Request, headers: "Mapping[str, str]"
    ) -> None:
        self._connection = connection
        self.method = head.method.decode("ascii")
        self.target = head.target.decode("latin-1")
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers
        }
        self._fields = head.headers
        self._common = headers
        self.status = 0
        self.answered = False

    # The request

    def values(self, name: str) -> list[str]:
        """Returns a header as often as it was given, by its lower-case name."""
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in self._fields if key == wanted]

    @property
    def body_bytes(self) -> int | None:
        """How long the body is, None where it is not said before: RFC 9112, section 6.3."""
        if self.values("transfer-encoding"):
            return None
        return sum(map(int, self.values("content-length")))

    async def chunks(self) -> "AsyncIterator[bytes]":
        """Yield the body as it comes."""
        while (data := await self._connection.next_data()) is not None:
            yield data

    async def read(self) -> bytes:
        """Returns the next piece of the body, empty at its end."""
        return await self._connection.next_data() or b""

    # The answer

    async def reply(
        self,
        status: int = 200,
        document: object = NOTHING,
        *,
        headers: "Mapping[str, str] | None" = None,
        text: str | None = None,
    ) -> None:
        """Answer with a JSON document, a text, or nothing.

        Args:
            status: the status code.
            document: what is encoded as JSON, null included.
            headers: what else the answer says.
            text: sent instead of a document.
        """
        body = b"" if document is NOTHING else encode(document)
        fields = {**self._common}
        if text is not None:
            body = text.encode()
            fields["Content-Type"] = "text/plain; charset=utf-8"
        elif document is not NOTHING:
            fields["Content-Type"] = "application/json"
        if status not in {204, 304}:
            fields["Content-Length"] = str(len(body))
        await self._begin(status, fields, headers)
        if body and self.method != "HEAD" and status not in {204, 304}:
            await self._connection.send(h11.Data(data=body))
        await self.end()

    async def begin(
        self, content_type: str, status: int = 200, headers: "Mapping[str, str] | None" = None
    ) -> None:
        """Begin an answer of unknown length, which ``write`` and ``end`` continue."""
        await self._begin(status, {**self._common, "Content-Type": content_type}, headers)

    async def write(self, data: bytes) -> None:
        """Send a piece of the answer that ``begin`` began, as fast as the client takes it."""
        if data and self.method != "HEAD":
            await self._connection.send(h11.Data(data=data))

    async def end(self) -> None:
        """End the answer."""
        await self._connection.send(h11.EndOfMessage())
        self.answered = True

    async def gone(self) -> None:
        """Return when the client has left."""
        await self._connection.gone()

    def abort(self) -> None:
        """End the connection amid an answer, which is not whole then."""
        self._connection.abort()

    async def hijack(self, content_type: str, *, upgrade: "Mapping[str, str] | None" = None,
                     ) -> "RawStream":  # fmt: skip
        """Leave HTTP: what follows on the connection is the caller's.

        A client that asked for an upgrade is answered 101, any other 200, as Docker does, which
        tells the latter nothing of frames either.

        Args:
            content_type: what the stream is.
            upgrade: other headers than those of a raw upgrade, for a protocol of its own.
        """
        while await self.read():
            pass
        if upgrade is not None or "upgrade" in self.headers:
            lines = upgrade or {
                "Content-Type": content_type, "Connection": "Upgrade", "Upgrade": "tcp",
            }  # fmt: skip
            self.status = 101
            start = "HTTP/1.1 101 UPGRADED" if upgrade is None else (
                "HTTP/1.1 101 Switching Protocols"
            )  # fmt: skip
        else:
            self.status, start = 200, "HTTP/1.1 200 OK"
            lines = {"Content-Type": RAW_STREAM}  # whatever it is
        rest = self._connection.take_over()
        head = "\r\n".join([start, *(f"{name}: {value}" for name, value in lines.items()), "", ""])
        self.answered = True
        stream = RawStream(self._connection.reader, self._connection.writer, rest)
        await stream.write(head.encode())
        return stream

    async def _begin(
        self, status: int, fields: "dict[str, str]", headers: "Mapping[str, str] | None"
    ) -> None:
        self.status = status
        fields["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        await self._connection.send(
            h11.Response(
                status_code=status,
                reason=_reason(status),
                headers=[
                    (name.encode("latin-1"), value.encode("latin-1", "replace"))
                    for name, value in {**fields, **(headers or {})}.items()
                ],
            )
        )


class RawStream:
    """A connection that has left HTTP.

    Args:
        reader: what the client sends.
        writer: what it is sent.
        rest: what it had sent already.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = rest

    async def read(self, size: int = _CHUNK_BYTES) -> bytes:
        """Returns what comes next, empty at the end of the client's side."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        try:
            return await self._reader.read(size)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send, as fast as the client takes it.

        Raises:
            ClientGoneError: it has left.
        """
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise ClientGoneError from error

    async def hung_up(self) -> None:
        """Return when the client, whose side has ended, does not listen any more either."""
        peer = self._writer.get_extra_info("socket")
        if peer is None or peer.family != socket.AF_UNIX:
            # Over TCP only writing would tell.
            await asyncio.Event().wait()
        poll = select.poll()
        poll.register(peer.fileno(), 0)
        while not poll.poll(0):
            await asyncio.sleep(_HANGUP_POLL_SECONDS)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
