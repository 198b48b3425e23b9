"""A websocket's server end, as far as attaching needs it: RFC 6455, framed by wsproto.

Messages from the client are a program's input, whatever their type; output goes out as binary
messages, which is what dockerd sends, or as text, which is what it sent once. No extensions, no
subprotocols.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from wsproto import events
from wsproto.connection import Connection, ConnectionType
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, generate_accept_token

from ketch.api.http import ClientGoneError
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.api.http import Exchange, RawStream

_MESSAGE_BYTES_MAX = 1 << 20


async def accept(exchange: "Exchange", *, text: bool = False) -> "WebSocket":
    """Turn a request into a websocket.

    Args:
        exchange: the request.
        text: whether output goes out as text.

    Raises:
        InvalidArgumentError: it does not ask for one.
    """
    key = exchange.headers.get("sec-websocket-key", "")
    upgrade = exchange.headers.get("upgrade", "").lower()
    version = exchange.headers.get("sec-websocket-version", "")
    if upgrade != "websocket" or not key or version != "13":
        raise InvalidArgumentError("bad request: a websocket handshake of version 13 is needed")
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": generate_accept_token(key.encode("latin-1")).decode(),
    }
    return WebSocket(await exchange.hijack("", upgrade=headers), text=text)


class WebSocket:
    """A stream of bytes in websocket messages.

    Args:
        raw: the connection.
        text: whether output goes out as text.
    """

    def __init__(self, raw: "RawStream", *, text: bool = False) -> None:
        self._raw = raw
        self._text = text
        self._protocol = Connection(ConnectionType.SERVER)
        self._events: Iterator[events.Event] = iter(())
        self._message_bytes = 0
        self._writing = asyncio.Lock()

    async def read(self) -> bytes:
        """Returns what the client sends next, empty when it has ended the session."""
        while True:
            event = next(self._events, None)
            if event is None:
                data = await self._raw.read()
                if not data:
                    return b""
                self._protocol.receive_data(data)
                self._events = self._protocol.events()
            elif isinstance(event, events.Message):
                data = event.data if isinstance(event.data, bytes) else event.data.encode()
                self._message_bytes += len(data)
                if self._message_bytes > _MESSAGE_BYTES_MAX:
                    await self.close(CloseReason.MESSAGE_TOO_BIG)
                    return b""
                if event.message_finished:
                    self._message_bytes = 0
                if data:
                    return bytes(data)
            elif isinstance(event, events.Ping):
                await self._send(event.response())
            elif isinstance(event, events.CloseConnection):
                # Its own, or what it did wrong.
                await self.close(event.code)
                return b""

    async def write(self, data: bytes) -> None:
        """Send a message, as fast as the client takes it.

        Raises:
            ClientGoneError: it has left.
        """
        if self._text:
            await self._send(events.TextMessage(data.decode(errors="replace")))
        else:
            await self._send(events.BytesMessage(data))

    async def hung_up(self) -> None:
        """Return at once: a client that has ended its side of a websocket has ended it whole."""

    async def close(self, code: int = CloseReason.NORMAL_CLOSURE) -> None:
        """Tell the client that the session is over."""
        with contextlib.suppress(ClientGoneError):
            await self._send(events.CloseConnection(code))

    async def _send(self, event: events.Event) -> None:
        async with self._writing:
            try:
                data = self._protocol.send(event)
            except LocalProtocolError as error:  # it is over already
                raise ClientGoneError from error
            await self._raw.write(data)
