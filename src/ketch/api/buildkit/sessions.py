"""Clients that are there while they build, and serve us files, secrets and more meanwhile.

A client gives us a connection of its own, ``POST /session``, on which it is the server. What it
builds names the session; whatever waits for a client's answer ends when its session does, which is
when its connection breaks off or it stops answering. Source: moby/buildkit, session/manager.go.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ketch.api.buildkit import grpc, schema
from ketch.api.buildkit.grpc import StatusError
from ketch.api.buildkit.http2 import Connection
from ketch.errors import ConflictError, InvalidArgumentError, KetchError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ketch.api.http import RawStream

ID = "x-docker-expose-session-uuid"
SHARED_KEY = "x-docker-expose-session-sharedkey"
METHOD = "x-docker-expose-session-grpc-method"

ARRIVAL_SECONDS = 5.0
"""How long a build waits for its session to be there: its client opens both at once."""
_HEALTH = "/grpc.health.v1.Health/Check"
_HEALTH_PAUSE_SECONDS, _HEALTH_SECONDS = 5.0, 30.0
_ID_CHARACTERS_MAX = 200
_METHODS_MAX = 200


class Session:
    """One client's session.

    Args:
        connection: the client's, on which it is the server; None for one that serves nothing.
        shared_key: what its places are known by.
        methods: what it serves, as ``/package.Service/Method``.
    """

    def __init__(
        self, connection: Connection | None, shared_key: str = "", methods: "Collection[str]" = ()
    ) -> None:
        self._connection = connection
        self.shared_key = shared_key
        self._methods = {one.lower() for one in methods}

    @property
    def connection(self) -> Connection:
        """The client's connection.

        Raises:
            UnavailableError: it has none.
        """
        if self._connection is None:
            raise UnavailableError("the client has no session", "open one: POST /session")
        return self._connection

    def supports(self, path: str) -> bool:
        """Whether the client serves a method."""
        return path.lower() in self._methods


class Sessions:
    """All sessions of a server."""

    def __init__(self) -> None:
        self._there: dict[str, Session] = {}
        self._arrived = asyncio.Event()

    async def get(self, name: str, seconds: float = ARRIVAL_SECONDS) -> Session:
        """Returns a session, which may still be on its way.

        Args:
            name: its id.
            seconds: how long it may take to come.

        Raises:
            UnavailableError: it does not come.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while name not in self._there:
                    self._arrived.clear()
                    await self._arrived.wait()
        if name not in self._there:
            raise UnavailableError(f"no active session for {name[:_ID_CHARACTERS_MAX]}")
        return self._there[name]

    @contextlib.contextmanager
    def entered(self, name: str, session: Session) -> "Iterator[None]":
        """Have a session be there for the length of a block.

        Raises:
            ConflictError: there is one of its name.
        """
        self.check(name)
        self._there[name] = session
        self._arrived.set()
        try:
            yield
        finally:
            del self._there[name]

    def check(self, name: str) -> None:
        """Look whether a session may have a name.

        Raises:
            InvalidArgumentError: it is none.
            ConflictError: another one has it.
        """
        if not name or len(name) > _ID_CHARACTERS_MAX:
            raise InvalidArgumentError(f"a session needs an id, in a header {ID}")
        if name in self._there:
            raise ConflictError(f"session {name} already exists")

    async def serve(
        self, raw: "RawStream", name: str, shared_key: str, methods: "Collection[str]"
    ) -> None:
        """Have a session on a connection until it ends.

        Args:
            raw: the connection, which has left HTTP/1.
            name: the session's id.
            shared_key: see ``Session``.
            methods: see ``Session``.

        Raises:
            ConflictError: there is one of its name.
        """
        connection = Connection(raw, client=True)
        session = Session(connection, shared_key, list(methods)[:_METHODS_MAX])
        with self.entered(name, session):
            watching = asyncio.ensure_future(_watch(connection))
            try:
                await connection.run()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)


async def _watch(connection: Connection) -> None:
    """Ask a client again and again whether it is well; end its session when it does not answer."""
    words = schema.messages("session")
    while True:
        await asyncio.sleep(_HEALTH_PAUSE_SECONDS)
        request = words.HealthCheckRequest()
        try:
            await grpc.ask(connection, _HEALTH, request, words.HealthCheckResponse, _HEALTH_SECONDS)
        except StatusError:
            continue  # it answers, which is what is asked for
        except KetchError as error:
            connection.stop(f"the client does not answer: {error.message}")
            return
