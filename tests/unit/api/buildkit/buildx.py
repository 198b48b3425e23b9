"""A client as buildx is one: it serves a session, and asks the server's gRPC for builds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from ketch.api.buildkit import grpc, schema
from ketch.api.buildkit.grpc import Call
from ketch.api.buildkit.http2 import Connection, Stream
from ketch.api.http import RawStream

Handler = Callable[[Call], Awaitable[None]]

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
words, files = schema.messages("control"), schema.messages("session")


async def upgraded(
    socket: str, path: str, headers: Sequence[tuple[str, str]] = (), protocol: str = "h2c"
) -> tuple[str, RawStream, asyncio.StreamWriter]:
    """Ask for HTTP/2; return the answer's first line and the connection."""
    reader, writer = await asyncio.open_unix_connection(socket)
    lines = [f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade"]
    lines += [f"Upgrade: {protocol}"] * bool(protocol)
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    return head.partition("\r\n")[0], RawStream(reader, writer, b""), writer


@contextlib.asynccontextmanager
async def running(
    connection: Connection, writer: asyncio.StreamWriter
) -> AsyncIterator[Connection]:
    """Carry a connection for the length of a block."""
    carrying = asyncio.ensure_future(connection.run())
    try:
        yield connection
    finally:
        connection.stop("the client has what it wants")
        await asyncio.wait_for(carrying, 10)
        writer.close()


@contextlib.asynccontextmanager
async def session(
    socket: str, name: str, methods: Mapping[str, Handler], shared_key: str = ""
) -> AsyncIterator[Connection]:
    """Serve some methods, as the session of a name."""

    async def accept(stream: Stream) -> None:
        await grpc.answer(stream, methods)

    named = [("X-Docker-Expose-Session-Grpc-Method", method) for method in methods]
    line, raw, writer = await upgraded(
        socket, "/session",
        [("X-Docker-Expose-Session-Uuid", name),
         ("X-Docker-Expose-Session-Sharedkey", shared_key), *named],
    )  # fmt: skip
    assert line == "HTTP/1.1 101 Switching Protocols"
    async with running(Connection(raw, client=False, accept=accept), writer) as connection:
        yield connection


@contextlib.asynccontextmanager
async def dialled(socket: str) -> AsyncIterator[Connection]:
    """Reach the server's gRPC."""
    line, raw, writer = await upgraded(socket, "/v1.45/grpc")
    assert line == "HTTP/1.1 101 Switching Protocols"
    async with running(Connection(raw, client=True), writer) as connection:
        yield connection


async def ask(
    connection: Connection, path: str, request: Any, kind: Any, build: str = ""
) -> list[Any]:
    """Ask, and return all that is answered."""
    metadata = [("buildkit-controlapi-buildid", build)] if build else []
    calling = await grpc.call(connection, path, metadata)
    await calling.send(request)
    await calling.end()
    found = []
    while messages := await calling.receive():
        found += [schema.decode(kind, one) for one in messages]
    return found
