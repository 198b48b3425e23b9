"""ssh agents of a client's: sockets of ours, behind each of which is one of the client's.

Each connection is a stream of its own; the client decides what its agent answers. The sockets are
in a directory that only ketch enters, and go with it.
Source: moby/buildkit, session/sshforward/ssh.go, copy.go.
"""

import asyncio
import contextlib
import os
import socket as sockets
from typing import TYPE_CHECKING

from ketch.api.buildkit import fsutil, grpc, schema
from ketch.api.buildkit.grpc import StatusError
from ketch.errors import KetchError
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.api.buildkit.client import Client

_CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
_CHECK_SECONDS = 30.0
_CONNECTIONS_MAX = 64
_PIECE_BYTES = 32 * 1024


class Agents:
    """The agents of one client; a context manager whose end takes their sockets away.

    Args:
        client: whose.
        directory: makes a directory for the sockets, when there is a first one.
    """

    def __init__(self, client: "Client", directory: "Callable[[], str]") -> None:
        self._client = client
        self._make = directory
        self._directory = ""
        self._sockets: dict[str, str] = {}
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Agents":
        """Returns the agents themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take their sockets away."""
        if self._servers:
            self._client.soon(self._close())

    def socket(self, id: str) -> str | None:  # noqa: A002 - see ketch.build.request.Agents
        """Returns the path of an agent's socket, None where the client has none of that name.

        Raises:
            UnavailableError: the client has gone.
        """
        if not self._client.session.supports(_CHECK):
            return None
        if id not in self._sockets:
            try:
                words = schema.messages("session")
                request = words.CheckAgentRequest(ID=id)
                connection = self._client.session.connection
                answer = words.CheckAgentResponse
                self._client.wait_for(grpc.ask(connection, _CHECK, request, answer, _CHECK_SECONDS))
            except StatusError:
                return None
            self._sockets[id] = self._listen(id)
        return self._sockets[id]

    def _listen(self, name: str) -> str:
        if not self._directory:
            self._directory = self._make()
        path = f"{self._directory}/{len(self._sockets)}"
        listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            # A socket's address has room for 107 bytes, and this path for as many as it likes.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            with owned(os.open(self._directory, flags)) as directory:
                listener.bind(f"/proc/self/fd/{directory}/{len(self._sockets)}")
            os.chmod(path, 0o600)
            self._servers.append(self._client.wait_for(self._serve(listener, name)))
        except BaseException:
            listener.close()
            raise
        return path

    async def _serve(self, listener: sockets.socket, name: str) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None and len(self._connections) < _CONNECTIONS_MAX:
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
                await self._forward(name, reader, writer)
            writer.close()

        return await asyncio.start_unix_server(accept, sock=listener)

    async def _forward(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        metadata = fsutil.metadata({"buildkit.ssh.id": [name]})
        with contextlib.suppress(KetchError, OSError):
            calling = await grpc.call(self._client.session.connection, _FORWARD, metadata)
            there = asyncio.ensure_future(_pass_on(reader, calling))
            back = asyncio.ensure_future(_pass_back(calling, writer))
            try:
                await back
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
                calling.break_off()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, calling: grpc.Calling) -> None:
    words = schema.messages("session")
    while data := await reader.read(_PIECE_BYTES):
        await calling.send(words.BytesMessage(data=data))
    await calling.end()


async def _pass_back(calling: grpc.Calling, writer: asyncio.StreamWriter) -> None:
    words = schema.messages("session")
    while messages := await calling.receive():
        for message in messages:
            writer.write(schema.decode(words.BytesMessage, message).data)
        await writer.drain()
