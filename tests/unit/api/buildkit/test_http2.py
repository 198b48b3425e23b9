"""HTTP/2 connections: streams, windows, limits, and ends."""

import asyncio
import socket

import h2.connection
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.api.buildkit import http2
from ketch.api.buildkit.http2 import WINDOW_BYTES, Connection, Stream, StreamEndedError
from tests.unit.api.buildkit.wires import connected, raw, talk

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "x")]


async def echo(stream: Stream) -> None:
    await stream.send_headers([(":status", "200")])
    while data := await stream.read():
        await stream.send(data)
    await stream.send_headers([("told", str(len(stream.headers)))], end=True)


async def _read_all(stream: Stream) -> None:
    while await stream.read():
        pass


async def _break_off(client: Connection, times: int) -> None:
    for _ in range(times):
        (await client.open(HEADERS)).reset()
        await asyncio.sleep(0)


def test_more_than_a_window_goes_both_ways() -> None:
    data = bytes(range(256)) * (WINDOW_BYTES // 64)
    assert asyncio.run(talk(echo, data)) == data


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=70_000), st.integers(1, 20_000))
def test_what_is_sent_arrives_however_it_is_cut(data: bytes, chunk: int) -> None:
    assert asyncio.run(talk(echo, data, chunk=max(chunk, len(data) // 20 or 1))) == data


def test_a_stream_that_nobody_reads_holds_a_window_at_most_and_no_other_stream() -> None:
    reading = asyncio.Event()
    held: list[Stream] = []

    async def accept(stream: Stream) -> None:
        if held:
            await echo(stream)
            return
        held.append(stream)
        await reading.wait()
        await echo(stream)

    async def main() -> None:
        async with connected(accept) as (client, server):
            first = await client.open(HEADERS)
            flood = asyncio.ensure_future(first.send(bytes(4 * WINDOW_BYTES), end=True))
            second = await client.open(HEADERS)
            await second.send(b"through", end=True)
            assert await second.read() == b"through"
            await asyncio.sleep(0.1)
            assert not flood.done()
            assert WINDOW_BYTES // 2 <= server.held_bytes <= WINDOW_BYTES
            reading.set()
            total = 0
            while piece := await first.read():
                total += len(piece)
            assert total == 4 * WINDOW_BYTES
            await flood
            assert client.held_bytes == server.held_bytes == 0

    asyncio.run(main())


def test_a_broken_off_stream_ends_its_answer_and_a_lost_connection_all() -> None:
    ended: list[str] = []

    async def accept(stream: Stream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(stream.headers[2][1])

    async def main() -> None:
        async with connected(accept) as (client, _):
            first, second = [await client.open(HEADERS) for _ in range(2)]
            await asyncio.sleep(0.05)
            first.reset()
            await asyncio.sleep(0.05)
            assert ended == ["/x"]
            client.stop("enough")
            with pytest.raises(StreamEndedError, match="enough"):
                await second.read()
            with pytest.raises(StreamEndedError):
                await client.open(HEADERS)
        assert ended == ["/x"] * 2

    asyncio.run(main())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_bytes_that_are_no_http2_end_the_connection(pieces: list[bytes], preface: bool) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        server = Connection(await raw(far), client=False, accept=echo)
        running = asyncio.ensure_future(server.run())
        near.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            if preface:
                peer = h2.connection.H2Connection()
                peer.initiate_connection()
                await loop.sock_sendall(near, peer.data_to_send())
            for piece in pieces:
                await loop.sock_sendall(near, piece)
            near.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        await asyncio.wait_for(running, 5)
        near.close()

    asyncio.run(main())


def test_a_peer_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "STALL_SECONDS", 0.2)

    async def pour(stream: Stream) -> None:
        await stream.send_headers([(":status", "200")])
        await stream.send(bytes(8 << 20))

    async def main() -> None:
        async with connected(pour) as (client, _):
            stream = await client.open(HEADERS)
            await asyncio.sleep(1)  # its window is full long since
            with pytest.raises(StreamEndedError, match="broke off"):
                await asyncio.wait_for(_read_all(stream), 5)

    asyncio.run(main())


def test_a_peer_that_breaks_off_all_it_begins_is_sent_away() -> None:
    async def main() -> None:
        async with connected(echo) as (client, server):
            with pytest.raises(StreamEndedError):
                await _break_off(client, 5000)
            assert server.held_bytes == 0

    asyncio.run(main())
