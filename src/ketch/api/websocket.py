"""A websocket's server end, as far as attaching needs it: RFC 6455.

Messages from the client are a program's input, whatever their type; output goes out as binary
messages, which is what dockerd sends. No extensions, no subprotocols.
"""

import asyncio
import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING

from ketch.api.http import ClientGoneError
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ketch.api.http import Exchange, RawStream

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PAYLOAD_BYTES_MAX = 1 << 20

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_NORMAL, _PROTOCOL_ERROR, _TOO_BIG = 1000, 1002, 1009


async def accept(exchange: "Exchange") -> "WebSocket":
    """Turn a request into a websocket.

    Raises:
        InvalidArgumentError: it does not ask for one.
    """
    key = exchange.headers.get("sec-websocket-key", "")
    upgrade = exchange.headers.get("upgrade", "").lower()
    version = exchange.headers.get("sec-websocket-version", "")
    if upgrade != "websocket" or not key or version != "13":
        raise InvalidArgumentError("bad request: a websocket handshake of version 13 is needed")
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
    }
    return WebSocket(await exchange.hijack("", upgrade=headers))


class WebSocket:
    """A stream of bytes in websocket frames.

    Args:
        raw: the connection.
    """

    def __init__(self, raw: "RawStream") -> None:
        self._raw = raw
        self._buffer = bytearray()
        self._writing = asyncio.Lock()
        self._closed = False

    async def read(self) -> bytes:
        """Returns what the client sends next, empty when it has ended the session."""
        while True:
            head = await self._take(2)
            if not head:
                return b""
            kind, length = head[0] & 0x0F, head[1] & 0x7F
            if length >= 126:
                wide = await self._take(2 if length == 126 else 8)
                length = int.from_bytes(wide, "big") if wide else 0
            # RFC 6455, 5.1: a client that does not mask is cut off; 5.2: no extension was agreed.
            if not head[1] & 0x80 or head[0] & 0x70:
                await self.close(_PROTOCOL_ERROR)
                return b""
            if length > _PAYLOAD_BYTES_MAX:
                await self.close(_TOO_BIG)
                return b""
            mask = await self._take(4)
            masked = await self._take(length) if length else b""
            if not mask or (length and not masked):
                return b""
            payload = _unmasked(masked, mask)
            if kind == _PING:
                await self._send(_PONG, payload)
            elif kind == _CLOSE:
                await self.close()
                return b""
            elif kind != _PONG and payload:
                return payload

    async def write(self, data: bytes) -> None:
        """Send a binary message, as fast as the client takes it.

        Raises:
            ClientGoneError: it has left.
        """
        await self._send(_BINARY, data)

    async def hung_up(self) -> None:
        """Return at once: a client that has ended its side of a websocket has ended it whole."""

    async def close(self, code: int = _NORMAL) -> None:
        """Tell the client that the session is over."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(ClientGoneError):
                await self._send(_CLOSE, code.to_bytes(2, "big"))

    async def _send(self, kind: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = bytes((0x80 | kind, length))
        elif length < 1 << 16:
            head = bytes((0x80 | kind, 126)) + length.to_bytes(2, "big")
        else:
            head = bytes((0x80 | kind, 127)) + length.to_bytes(8, "big")
        async with self._writing:
            await self._raw.write(head + payload)

    async def _take(self, count: int) -> bytes:
        """Read exactly so many bytes; nothing when the client leaves before."""
        while len(self._buffer) < count:
            data = await self._raw.read()
            if not data:
                return b""
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _unmasked(data: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    whole = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return whole.to_bytes(len(data), "big")
