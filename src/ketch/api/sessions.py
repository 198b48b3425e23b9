"""Starting containers, and carrying streams between clients and the processes that watch them.

A client of the API may attach to a container before it is started, so as to miss nothing. Such a
client waits here; whoever starts the container has the start held until all who wait are attached.
"""

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from ketch.api import hub
from ketch.api.http import ClientGoneError
from ketch.engine.requests import launch, wire
from ketch.errors import InvalidArgumentError, KetchError, UnavailableError
from ketch.spec import detach_keys
from ketch.spec.told import Told

if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping
    from typing import Protocol

    from ketch.api.application import Application
    from ketch.engine.containers.execs import Exec
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

    class Stream(Protocol):
        """What a client's end looks like: a raw connection, or a websocket."""

        async def read(self) -> bytes:
            """Returns what it sends next, empty at the end."""

        async def write(self, data: bytes) -> None:
            """Send, as fast as it takes it."""

        async def hung_up(self) -> None:
            """Return when it has left, given that its own side has ended."""


_CHUNK_BYTES = 64 * 1024


class Session:
    """A connection to a process that starts or watches a program.

    Args:
        reader: what comes from it.
        writer: what goes to it.
        settings: the engine's, and who is told of steps.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: "Settings"
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._writer = writer
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []

    async def next(self) -> tuple[int, bytes] | None:
        """Returns the next frame, None when the other end has left."""
        while not self._frames:
            try:
                data = await self._reader.read(_CHUNK_BYTES)
                self._frames += self._decoder.feed(data)
            except (ConnectionError, wire.ProtocolError):
                return None
            if not data:
                return None
            for kind, payload in self._frames:
                if kind == wire.STEP:
                    told = payload.decode("utf-8", "surrogateescape")
                    self._settings.tell(Told.decode, told)
            self._frames = [frame for frame in self._frames if frame[0] != wire.STEP]
        return self._frames.pop(0)

    async def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame; that the other end has left is learnt by reading."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(wire.frame(kind, payload))
            await self._writer.drain()

    async def expect(self, *kinds: int) -> tuple[int, bytes]:
        """Returns the next frame of one of these kinds; warnings before it are passed over.

        Raises:
            KetchError: the request failed.
            UnavailableError: the other end has left.
        """
        while (told := await self.next()) is not None:
            if told[0] in kinds:
                return told
            if told[0] == wire.FAILED:
                raise wire.error(told[1])
        raise UnavailableError("the process that was asked ended without an answer")

    def close(self) -> None:
        """End the connection; the program stays."""
        self._writer.close()


async def _open(connection: "_socket.socket", settings: "Settings") -> Session:
    own = socket.socket(fileno=connection.detach())
    own.setblocking(False)
    return Session(*await asyncio.open_unix_connection(sock=own), settings)


async def ask_starter(application: "Application", fields: "Mapping[str, wire.Value]") -> Session:
    """Ask a process that serves one request, forked by the zygote."""
    settings = application.settings
    connection = await application.run(lambda engine: launch.connect(engine.settings))
    session = await _open(connection, settings)
    about: dict[str, wire.Value] = {
        **settings.fields, "directory": "/", "environment": [],
        "--explain": settings.say is not None,
    }  # fmt: skip
    await session.send(wire.REQUEST, wire.encode({**fields, **about}))
    return session


async def ask_monitor(
    application: "Application", container_id: str, fields: "Mapping[str, wire.Value]"
) -> Session:
    """Ask the process that watches a container.

    Raises:
        ConflictError: there is none: the container does not run, or its monitor was killed.
    """
    connection = await application.run(
        lambda engine: launch.reach_monitor(engine.settings, container_id)
    )
    session = await _open(connection, application.settings)
    await session.send(wire.REQUEST, wire.encode(dict(fields)))
    return session


async def ask_exec(
    application: "Application", session: "Exec", fields: "Mapping[str, wire.Value]"
) -> Session:
    """Ask the process that watches an exec session with a terminal.

    Raises:
        ConflictError: there is none: it does not run, or has no terminal.
    """
    name = launch.exec_socket(session.id)
    connection = await application.run(
        lambda engine: launch.reach_monitor(engine.settings, session.container_id, name)
    )
    asked = await _open(connection, application.settings)
    await asked.send(wire.REQUEST, wire.encode(dict(fields)))
    return asked


# Attached clients


class Attachment:
    """A client on a container's, or an exec's, streams.

    Args:
        stream: the client's end.
        plain: whether output comes as it is, as a terminal's does, else in Docker's frames.
        wanted: which of ``stdin``, ``stdout``, ``stderr``.
        keys: the bytes that end the session; empty for none that do.
    """

    def __init__(
        self, stream: "Stream", *, plain: bool, wanted: "Mapping[str, bool]", keys: bytes = b""
    ) -> None:
        self._stream = stream
        self._plain = plain
        self.wanted = dict(wanted)
        self._keys = detach_keys.DetachKeys(keys)
        self.session: asyncio.Future[Session] = asyncio.get_running_loop().create_future()

    async def attach(self, application: "Application", container_id: str) -> None:
        """Attach to a container that runs or is about to."""
        # STARTED comes when the program runs: before a start, nobody may wait for that here.
        session = await ask_monitor(application, container_id, {"action": "attach", **self.wanted})
        if not self.session.done():
            self.session.set_result(session)
        else:
            session.close()

    async def hung_up(self) -> None:
        """Return when the client has left without a word."""
        await self._stream.hung_up()

    async def pump(self, session: Session) -> None:
        """Carry streams until the program ends, or the client leaves or detaches."""
        typed = asyncio.ensure_future(self._pass_input(session))
        shown = asyncio.ensure_future(self._pass_output(session))
        try:
            done, _ = await asyncio.wait((typed, shown), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (typed, shown):
                task.cancel()
            await asyncio.gather(typed, shown, return_exceptions=True)
            session.close()

    async def _pass_input(self, session: Session) -> None:
        """Returns when the client detached, or is not there any more."""
        while data := await self._stream.read():
            if not self.wanted.get("stdin"):
                continue
            passed, detached = self._keys.filter(data)
            if passed:
                await session.send(wire.INPUT, passed)
            if detached:
                return
        if self.wanted.get("stdin"):
            await session.send(wire.INPUT)
        await self._stream.hung_up()

    async def _pass_output(self, session: Session) -> None:
        while (told := await session.next()) is not None:
            kind, payload = told
            if kind not in {wire.OUTPUT, wire.ERRORS}:
                if kind in {wire.EXIT, wire.FAILED}:
                    return
                continue
            if kind == wire.ERRORS and not self.wanted.get("stderr"):
                continue
            # The frames are Docker's own, header and all.
            await self._stream.write(payload if self._plain else wire.frame(kind, payload))


def sequence(keys: str) -> bytes:
    """Returns the bytes of a detach sequence.

    Raises:
        InvalidArgumentError: there is an unknown key in it.
    """
    text = keys or detach_keys.DEFAULT
    try:
        return detach_keys.parse_detach_keys(text)
    except ValueError as error:
        raise InvalidArgumentError(f"Invalid detach keys ({text}): unknown key {error}") from error


def _waiting(application: "Application", container_id: str) -> list[Attachment]:
    found = application.shared.setdefault("attachments", {})
    assert isinstance(found, dict)
    attachments: list[Attachment] = found.setdefault(container_id, [])
    return attachments


async def await_start(
    application: "Application", container: "Container", attachment: Attachment, newest: int
) -> Session | None:
    """Wait with a client for a container's start.

    Args:
        application: the server.
        container: not running yet.
        attachment: the client.
        newest: number of the newest event before it was looked at.

    Returns:
        The session, None when it came to nothing.
    """
    waiting = _waiting(application, container.id)
    waiting.append(attachment)
    elsewhere = asyncio.ensure_future(
        _await_other_start(application, container, attachment, newest)
    )
    gone = asyncio.ensure_future(attachment.hung_up())
    try:
        await asyncio.wait(
            (attachment.session, elsewhere, gone), return_when=asyncio.FIRST_COMPLETED
        )
        if not attachment.session.done():
            for task in (elsewhere, gone):
                if task.done():
                    task.result()
        done = attachment.session.done() and attachment.session.exception() is None
        return attachment.session.result() if done else None
    finally:
        elsewhere.cancel()
        gone.cancel()
        waiting.remove(attachment)
        if not waiting:
            _forget(application, container.id)


def _forget(application: "Application", container_id: str) -> None:
    found = application.shared["attachments"]
    assert isinstance(found, dict)
    found.pop(container_id, None)


async def _await_other_start(
    application: "Application", container: "Container", attachment: Attachment, newest: int
) -> None:
    """Attach when another process starts the container; return when it is gone."""
    async for event in hub.of(application).follow(newest):
        if event is None or event.actor_id != container.id:
            continue
        if event.action == "destroy":
            return
        if event.action == "start" and not attachment.session.done():
            with contextlib.suppress(KetchError):
                await attachment.attach(application, container.id)
                return


async def start(
    application: "Application",
    container: "Container",
    *,
    checkpoint: str = "",
    directory: str = "",
) -> None:
    """Start a container, with all who wait for that attached before its first word.

    Args:
        application: the server.
        container: the container.
        checkpoint: name of the checkpoint that it is to go on from, or empty.
        directory: where that is, empty for the container's own.

    Raises:
        KetchError: it cannot be started.
    """
    waiting = list(_waiting(application, container.id))
    if not waiting:
        _forget(application, container.id)
    session = await ask_starter(
        application,
        {
            "action": "start",
            "container": container.id,
            "hold": bool(waiting),
            "checkpoint": checkpoint,
            "checkpoint-dir": directory,
        },
    )
    try:
        if waiting:
            await session.expect(wire.CREATED)
            for attachment in waiting:
                await attachment.attach(application, container.id)
            await session.send(wire.GO)
        await session.expect(wire.STARTED)
    except BaseException as error:
        for attachment in waiting:
            if not attachment.session.done():
                attachment.session.set_exception(
                    error if isinstance(error, KetchError) else ClientGoneError()
                )
        raise
    finally:
        session.close()
