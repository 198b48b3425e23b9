"""Both ends of HTTP/2 connections, in one process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from ketch.api.buildkit.http2 import Connection, Stream
from ketch.api.http import RawStream


async def raw(end: socket.socket) -> RawStream:
    """What the server has of a connection that left HTTP."""
    reader, writer = await asyncio.open_connection(sock=end)
    return RawStream(reader, writer, b"")


@contextlib.asynccontextmanager
async def connected(
    accept: Callable[[Stream], Awaitable[None]] | None, held_max: int = 64 << 20
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two ends that run: the client's, and the server's, which hands its streams to ``accept``."""
    near, far = socket.socketpair()
    client = Connection(await raw(near), client=True, held_max=held_max)
    server = Connection(await raw(far), client=False, accept=accept, held_max=held_max)
    running = [asyncio.ensure_future(one.run()) for one in (client, server)]
    try:
        yield client, server
    finally:
        for end in (client, server):
            end.stop("the test is over")
        await asyncio.wait_for(asyncio.gather(*running), 10)
        near.close()
        far.close()


async def talk(
    accept: Callable[[Stream], Awaitable[None]], data: bytes, *, chunk: int = 1 << 16
) -> bytes:
    """Send data on a stream, and return what is answered."""
    async with connected(accept) as (client, _):
        stream = await client.open([(":method", "POST"), (":scheme", "http"), (":path", "/x"),
                                    (":authority", "x")])  # fmt: skip

        async def send() -> None:
            for at in range(0, len(data), chunk):
                await stream.send(data[at : at + chunk])
            await stream.send(b"", end=True)

        sending = asyncio.ensure_future(send())
        answer = bytearray()
        while piece := await stream.read():
            answer += piece
        await sending
        return bytes(answer)
