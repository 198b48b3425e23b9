"""A client of the API that speaks raw HTTP to a server in this process."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

from ketch.api.application import Application
from ketch.api.listeners import Tls, listen
from ketch.api.server import Server
from ketch.engine.settings import Settings


@contextlib.asynccontextmanager
async def served(directory: pathlib.Path, *, idle_seconds: int = 0) -> AsyncIterator[str]:
    """Serve an engine below a directory; give the socket's path."""
    settings = Settings(str(directory / "root"), str(directory / "state"))
    path = str(directory / "api.sock")
    application = Application(settings, "warn")
    listener = listen(f"unix://{path}", Tls(), "root", lambda _: None)
    task = asyncio.create_task(Server(application, [listener], idle_seconds).run())
    try:
        yield path
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Answer:
    """One answer as it came."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def answer_head(reader: asyncio.StreamReader) -> Answer:
    """Read the head of an answer."""
    start = await reader.readline()
    assert start.startswith(b"HTTP/1.1 "), start
    headers = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return Answer(int(start.split()[1]), headers, b"")


async def answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    """Read one answer."""
    head = await answer_head(reader)
    headers, body = head.headers, b""
    if head_only:
        pass
    elif headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).strip() or b"0", 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    return Answer(head.status, headers, body)


async def ask(path: str, request: bytes, *, half_close: bool = False) -> tuple[Answer, bytes]:
    """Send bytes on a new connection; return the first answer and all that follows it."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        if half_close:
            writer.write_eof()
        found = await asyncio.wait_for(answer(reader, head_only=request.startswith(b"HEAD")), 10)
        rest = b""
        if half_close:
            rest = await asyncio.wait_for(reader.read(), 10)
        return found, rest
    finally:
        writer.close()


def get(target: str, *, method: str = "GET", headers: str = "", body: bytes = b"") -> bytes:
    """Write a request; a body is called JSON unless the headers say otherwise."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    if "Content-Type" not in headers and (body or "chunked" in headers):
        length += "Content-Type: application/json\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n".encode() + body
