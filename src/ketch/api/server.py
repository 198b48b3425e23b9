"""The server's life: accept, answer, leave when idle or told to."""

import asyncio
import contextlib
import errno
import functools
import os
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING

from ketch.api import answering
from ketch.api.http import Connection
from ketch.api.rooms import Place, Room
from ketch.api.supervision import supervise
from ketch.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.api.application import Application
    from ketch.api.listeners import Listener

CONNECTIONS_MAX = 1000
_DESCRIPTORS_EACH = 4  # a connection may need its own, the monitor's and a log's
_TLS_SECONDS = 10
_ABSENCE_SECONDS = 60
_GRACE_SECONDS = 2
_LOOK_SECONDS = 0.5
_READ_BUFFER_BYTES = 64 * 1024
_WRITE_BUFFER_BYTES = 256 * 1024


class Server:
    """Serves the API on some sockets.

    Args:
        application: what answers.
        listeners: where.
        idle_seconds: leave after so long without a request; 0 for never.
    """

    def __init__(
        self, application: "Application", listeners: "Sequence[Listener]", idle_seconds: int = 0
    ) -> None:
        self._application = application
        self._listeners = listeners
        self._idle_seconds = idle_seconds
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = max(8, (soft - 64) // _DESCRIPTORS_EACH) if soft > 0 else CONNECTIONS_MAX
        self._room_size = max(4, min(CONNECTIONS_MAX, room) // max(1, len(listeners)))
        self._connections: set[asyncio.Task[None]] = set()
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, idle for long enough, or without an engine any more."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        tasks = [
            asyncio.create_task(
                supervise(self._application, f"accepting on {one.name}", self._accept, one)
            )
            for one in self._listeners
        ]
        for listener in self._listeners:
            self._application.log("info", "listening", address=listener.name)
        try:
            if self._idle_seconds:
                waiting = supervise(self._application, "awaiting idleness", self._await_idleness)
                tasks.append(asyncio.create_task(waiting))
            looking = supervise(self._application, "looking for the engine", self._await_removal)
            tasks.append(asyncio.create_task(looking))
            await self._told.wait()
        finally:
            for task in tasks:
                task.cancel()
            for listener in self._listeners:
                listener.close()
            if self._connections:
                # Streams that would never end are cut; their containers do not notice.
                _, late = await asyncio.wait(self._connections, timeout=_GRACE_SECONDS)
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late, timeout=_GRACE_SECONDS)
        self._application.log("info", "ended")

    async def _await_idleness(self) -> None:
        while True:
            idle = time.monotonic() - self._application.last_used
            if not self._application.active and idle >= self._idle_seconds:
                self._application.log("info", "idle", seconds=round(idle))
                self._told.set()
                return
            await asyncio.sleep(max(0.1, self._idle_seconds - idle))

    async def _await_removal(self) -> None:
        while not (lost := self._application.presence.lost()):
            await asyncio.sleep(_LOOK_SECONDS)
        self._application.log("error", "the engine is gone", cause=str(lost))
        self._told.set()

    async def _accept(self, listener: "Listener") -> None:
        loop = asyncio.get_running_loop()
        room = Room(self._room_size)
        while True:
            try:
                client, _ = await loop.sock_accept(listener.socket)
            except OSError as error:
                if error.errno not in {errno.ECONNABORTED, errno.EINTR}:
                    self._application.log("error", "accept", cause=in_words(error))
                    await asyncio.sleep(0.1)  # no descriptor, no memory: some may come free
                continue
            try:
                # Who comes while nobody can give way waits here, others in the kernel's queue.
                await room.await_space()
            except BaseException:
                client.close()
                raise
            self._admit(client, listener, room)

    def _admit(self, client: socket.socket, listener: "Listener", room: Room) -> None:
        place = Place(room, proven=listener.tls is None)
        task = asyncio.create_task(self._serve(client, listener, place))
        self._connections.add(task)

        def forget(_: "asyncio.Task[None]") -> None:
            room.leave(place)
            self._forget(task)

        task.add_done_callback(forget)
        room.enter(place, task.cancel)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._application.log("error", "connection", cause=repr(error))

    async def _serve(self, client: socket.socket, listener: "Listener", place: Place) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ_BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            if listener.tls:
                _notice_absence(client)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=listener.tls,
                ssl_handshake_timeout=_TLS_SECONDS if listener.tls else None,
            )
        except OSError as error:  # ssl.SSLError is one
            client.close()
            self._application.log("info", "refused", address=listener.name, cause=in_words(error))
            return
        except BaseException:
            client.close()
            raise
        place.proven = True
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = Connection(reader, writer, place)
        with contextlib.suppress(asyncio.CancelledError):
            handle = functools.partial(answering.handle, self._application, listener.names)
            await connection.serve(handle, self._application.headers)


def _notice_absence(client: socket.socket) -> None:
    """Have the kernel ask for who is silent: a peer that has vanished says nothing, tcp(7)."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ABSENCE_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ABSENCE_SECONDS // 4)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def run(application: "Application", listeners: "Sequence[Listener]", idle_seconds: int = 0) -> None:
    """Serve, and end the process: threads that still wait for somebody are not waited for."""

    async def main() -> None:
        await Server(application, listeners, idle_seconds).run()

    asyncio.run(main())
    os._exit(0)
