"""Frames of RFC 6455, byte by byte, to and from the server's end of a websocket."""

import asyncio
from collections.abc import Iterable

import pytest

from ketch.api.websocket import WebSocket

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x01\x02\x03\x04"


class Wire:
    """A connection: what the client sends, and what it is sent."""

    def __init__(self, sent: Iterable[bytes]) -> None:
        self._sent = list(sent)
        self.got = b""

    async def read(self, _size: int = 0) -> bytes:
        return self._sent.pop(0) if self._sent else b""

    async def write(self, data: bytes) -> None:
        self.got += data


def frame(kind: int, payload: bytes, *, last: bool = True, masked: bool = True) -> bytes:
    if len(payload) < 126:
        length = bytes([len(payload) | masked << 7])
    elif len(payload) < 1 << 16:
        length = bytes([126 | masked << 7]) + len(payload).to_bytes(2, "big")
    else:
        length = bytes([127 | masked << 7]) + len(payload).to_bytes(8, "big")
    if masked:
        payload = MASK + bytes(byte ^ MASK[index % len(MASK)] for index, byte in enumerate(payload))
    return bytes([last << 7 | kind]) + length + payload


def read(*sent: bytes) -> tuple[bytes, bytes]:
    """Return all that is read of what a client sends, and what it is sent meanwhile."""
    wire = Wire(sent)

    async def main() -> bytes:
        socket = WebSocket(wire)  # type: ignore[arg-type] # all that it needs of one
        found = b""
        while data := await socket.read():
            found += data
        return found

    return asyncio.run(main()), wire.got


@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_messages_of_either_kind_in_any_pieces(kind: int) -> None:
    whole = frame(kind, b"one") + frame(kind, b"") + frame(kind, b"t", last=False)
    whole += frame(PING, b"?") + frame(0, b"wo") + frame(kind, b"x" * 300) + frame(PONG, b"")
    whole += frame(kind, b"y" * 70_000)
    expected = b"onetwo" + b"x" * 300 + b"y" * 70_000
    assert read(whole) == (expected, frame(PONG, b"?", masked=False))
    assert read(*(whole[at : at + 7] for at in range(0, len(whole), 7)))[0] == expected


def test_an_end_that_is_said_is_answered() -> None:
    said = frame(CLOSE, (1000).to_bytes(2, "big"))
    assert read(frame(TEXT, b"a"), said, frame(TEXT, b"late")) == (
        b"a", frame(CLOSE, (1000).to_bytes(2, "big"), masked=False),
    )  # fmt: skip
    assert read(frame(TEXT, b"a")[:-1]) == (b"", b"")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(BINARY, b"bare", masked=False), 1002),
        (bytes([0xC1]) + frame(TEXT, b"x")[1:], 1002),  # an extension that nobody agreed to
        (frame(0, b"goes on"), 1002),
        (frame(3, b"of no kind"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, b"x" * ((1 << 20) + 1)), 1009),
        (b"".join(frame(BINARY if not n else 0, b"x" * (1 << 17), last=False) for n in range(9)),
         1009),
    ],
)  # fmt: skip
def test_what_is_wrong_ends_it(sent: bytes, code: int) -> None:
    pieces = [sent[at : at + 65536] for at in range(0, len(sent), 65536)]
    found, got = read(*pieces, frame(BINARY, b"after"))
    assert b"after" not in found
    assert len(found) <= 1 << 20
    assert got[0] == 0x80 | CLOSE
    assert int.from_bytes(got[2:4], "big") == code


def test_output() -> None:
    async def main(*, text: bool) -> bytes:
        wire = Wire([])
        socket = WebSocket(wire, text=text)  # type: ignore[arg-type]
        await socket.write(b"hi\xff")
        await socket.write(b"z" * 70_000)
        await socket.close()
        await socket.close()
        return wire.got

    end = frame(CLOSE, (1000).to_bytes(2, "big"), masked=False)
    large = b"z" * 70_000
    binary = frame(BINARY, b"hi\xff", masked=False) + frame(BINARY, large, masked=False)
    assert asyncio.run(main(text=False)) == binary + end
    words = frame(TEXT, "hi\ufffd".encode(), masked=False) + frame(TEXT, large, masked=False)
    assert asyncio.run(main(text=True)) == words + end
