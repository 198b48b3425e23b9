"""A client's session as a build sees it, from threads: files, secrets, credentials, results.

The connection belongs to the server's loop, and builds run in threads; each call here has the loop
do something and waits for it. Each such wait ends: with the session at the latest.
"""

import asyncio
import contextlib
import io
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from ketch.api.buildkit import fsutil, grpc, schema
from ketch.api.buildkit.grpc import Code, StatusError, framed
from ketch.api.buildkit.receiving import Receiver
from ketch.api.buildkit.sending import Sender
from ketch.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ketch.images.registry.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Future

    from ketch.api.buildkit.sessions import Session

FILE_SYNC = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_UPLOAD = "/moby.upload.v1.Upload/Pull"
_OUTPUT = "buildkit-attachable-exporter-id"
_ANSWER_SECONDS = 60.0
_STALL_SECONDS = 600.0
"""How long a client may take for the next piece of what it sends."""
SECRET_BYTES_MAX = 512 * 1024
"""BuildKit's own limit: session/secrets/secrets.go."""
_PIECE_BYTES = 256 * 1024

_MOMENT_SECONDS = 5.0

R = TypeVar("R")


class Client:
    """One client.

    Args:
        session: its session.
        loop: that its connection belongs to.
    """

    def __init__(self, session: "Session", loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self._loop = loop
        self._waits = _Waits()
        self._words = schema.messages("session")

    def of(self, session: "Session") -> "Client":
        """Returns the same for another session of the client's."""
        other = Client(session, self._loop)
        other._waits = self._waits
        return other

    def wait_for(self, work: "Coroutine[Any, Any, R]") -> R:
        """Have the loop do something; returns what comes of it.

        Raises:
            UnavailableError: nobody wants anything of the client any more.
        """
        return self._waits.wait_for(asyncio.run_coroutine_threadsafe(work, self._loop))

    def soon(self, work: "Coroutine[Any, Any, object]") -> None:
        """Have the loop do something, whatever comes of it; it is waited for a moment."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        with contextlib.suppress(TimeoutError):
            future.result(_MOMENT_SECONDS)

    def call_off(self) -> None:
        """Have all that waits for the client fail, from now on."""
        self._waits.call_off()

    # Files of its own

    @property
    def key(self) -> str:
        """What its places are known by: see ``ketch.build.request.Session``."""
        return self.session.shared_key

    def fetch(
        self,
        name: str,
        directory: int,
        *,
        include: "Sequence[str]" = (),
        exclude: "Sequence[str]" = (),
        follow: "Sequence[str]" = (),
        tell: "Callable[[int], object] | None" = None,
    ) -> None:
        """Bring a directory of the client's into one of ours: ``ketch.build.request.Session``.

        Raises:
            UnavailableError: the client has gone, or failed.
            InvalidArgumentError: what it sends cannot be.
        """
        asked = {
            "dir-name": [name],
            "include-patterns": list(include),
            "exclude-patterns": list(exclude),
            "followpaths": list(follow),
        }
        calling = self.call(FILE_SYNC, fsutil.metadata(asked))
        try:
            with Receiver(directory) as receiver:
                self._receive(calling, receiver, name, tell)
        finally:
            self.break_off(calling)

    def _receive(
        self,
        calling: grpc.Calling,
        receiver: Receiver,
        name: str,
        tell: "Callable[[int], object] | None",
    ) -> None:
        ended = False
        while messages := self.next(calling):
            try:
                answer = b"".join(map(receiver.take, messages))
            except InvalidArgumentError as error:
                answer = fsutil.packet(fsutil.Kind.ERR, data=error.message.encode())
                self.wait_for(calling.send_encoded(answer))
                raise
            if answer:
                self.wait_for(calling.send_encoded(answer))
            if tell is not None:
                tell(receiver.size_bytes)
            if receiver.is_finished and not ended:
                ended = True
                self.wait_for(calling.end())
        if not receiver.is_finished:
            raise UnavailableError(f"the client broke off amid the files of {name!a}")

    # Secrets

    def get(self, id: str) -> bytes | None:  # noqa: A002 - see ketch.build.request.Secrets
        """Returns a secret, None where the client has none of that name.

        Raises:
            UnavailableError: the client has gone, or failed.
            InvalidArgumentError: the secret is larger than any may be.
        """
        if not self.session.supports(_SECRET):
            return None
        request = self._words.GetSecretRequest(ID=id)
        try:
            answer = self._ask(_SECRET, request, self._words.GetSecretResponse)
        except StatusError as error:
            if error.code == Code.NOT_FOUND:
                return None
            raise
        data: bytes = answer.data
        if len(data) > SECRET_BYTES_MAX:
            raise InvalidArgumentError(
                f"secret {id!a} has {len(data)} bytes: at most {SECRET_BYTES_MAX} can be"
            )
        return data

    # Registries

    def credentials(self, host: str) -> Credentials:
        """Returns what the client shows to a registry; empty for nothing.

        Args:
            host: the registry's; Docker's own is ``registry-1.docker.io``.

        Raises:
            UnavailableError: the client has gone, or failed.
        """
        if not self.session.supports(_CREDENTIALS):
            return Credentials()
        request = self._words.CredentialsRequest(Host=host)
        answer = self._ask(_CREDENTIALS, request, self._words.CredentialsResponse)
        if answer.Secret and not answer.Username:
            return Credentials(identity_token=answer.Secret)
        return Credentials(answer.Username, answer.Secret)

    # What it uploads, and is sent

    def upload(self, host: str, path: str) -> io.BufferedReader:
        """Returns what the client uploads, such as its standard input, to be read once.

        Args:
            host: in the URL that it gave, ``buildkit-session``.
            path: there.
        """
        named = fsutil.metadata({"urlpath": [path], "urlhost": [host]})
        return io.BufferedReader(_Download(self, self.call(_UPLOAD, named)), _PIECE_BYTES)

    def writer(self, number: int) -> "Writer":
        """Returns where an archive is written that the client keeps.

        Args:
            number: of the output, in the order that they were asked for.
        """
        return Writer(self, fsutil.metadata({_OUTPUT: [str(number)]}))

    def send(self, number: int, directory: int) -> None:
        """Send the client all files of a directory of ours, which it writes to a directory.

        Args:
            number: of the output.
            directory: a descriptor.

        Raises:
            UnavailableError: the client has gone, or cannot write them.
        """
        calling = self.call(FILE_SEND, fsutil.metadata({_OUTPUT: [str(number)]}))
        try:
            sender = Sender(directory)
            for packets in sender.names():
                self.wait_for(calling.send_encoded(packets))
            while messages := self.next(calling):
                for message in messages:
                    for packet in sender.take(message):
                        self.wait_for(calling.send_encoded(packet))
                if sender.is_finished:
                    self.wait_for(calling.end())
            if not sender.is_finished:
                raise UnavailableError("the client broke off amid the result's files")
        finally:
            self.break_off(calling)

    def call(self, path: str, metadata: "Sequence[tuple[str, str]]") -> grpc.Calling:
        """Begin a call.

        Raises:
            UnsupportedError: the client does not serve it.
            UnavailableError: the client has gone.
        """
        if not self.session.supports(path):
            raise UnsupportedError(f"method {path} not supported by the client")
        return self.wait_for(grpc.call(self.session.connection, path, metadata))

    def next(self, calling: grpc.Calling) -> list[bytes]:
        """Returns the messages that come next in a call, none at the end.

        Raises:
            UnavailableError: the client sends nothing, or has gone.
        """
        return self.wait_for(_next(calling))

    def break_off(self, calling: grpc.Calling) -> None:
        """Have a call end, whatever comes of it; it is not waited for."""
        self._loop.call_soon_threadsafe(calling.break_off)

    def _ask(self, path: str, request: Any, kind: Any) -> Any:
        return self.wait_for(
            grpc.ask(self.session.connection, path, request, kind, _ANSWER_SECONDS)
        )


class _Waits:
    """What a build's threads wait for, so that it can be called off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()
        self._called_off = False

    def wait_for(self, future: "Future[R]") -> R:
        """Wait for a future; see ``Client.wait_for``."""
        with self._lock:
            self._futures.add(future)
            if self._called_off:
                future.cancel()
        try:
            return future.result()
        except CancelledError as error:
            raise UnavailableError("the build was called off") from error
        finally:
            with self._lock:
                self._futures.discard(future)

    def call_off(self) -> None:
        """Cancel all of them, and those to come."""
        with self._lock:
            self._called_off = True
            for future in self._futures:
                future.cancel()


class _Download(io.RawIOBase):
    """What a client sends as messages of bytes, to be read.

    Args:
        client: who.
        calling: the call.
    """

    def __init__(self, client: Client, calling: grpc.Calling) -> None:
        self._client = client
        self._calling = calling
        self._messages: list[bytes] = []
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on; 0 at the end."""
        while not self._rest:
            if not self._messages:
                self._messages = self._client.next(self._calling)
                if not self._messages:
                    return 0
            kind = schema.messages("session").BytesMessage
            self._rest = memoryview(schema.decode(kind, self._messages.pop(0)).data)
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Let go of it, whether or not all has been read."""
        if not self.closed:
            self._client.break_off(self._calling)
        super().close()


class Writer(io.RawIOBase):
    """An archive that a client keeps, sent as messages of bytes while it is written.

    Args:
        client: who.
        metadata: the call's.
    """

    def __init__(self, client: Client, metadata: "Sequence[tuple[str, str]]") -> None:
        self._client = client
        self._metadata = metadata
        self._calling: grpc.Calling | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Write on; all of it is taken.

        Raises:
            UnavailableError: the client has gone, or cannot write it.
        """
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _PIECE_BYTES):
            self._pieces.append(bytes(view[at : at + _PIECE_BYTES]))
            self._size += len(self._pieces[-1])
            if self._size >= _PIECE_BYTES:
                self._send()
        return len(view)

    def finish(self) -> None:
        """Say that it is whole, and wait until the client has it.

        Raises:
            UnavailableError: the client has gone, or cannot write it.
        """
        self._send()
        calling = self._begun()
        self._client.wait_for(calling.end())
        while self._client.next(calling):
            pass

    def close(self) -> None:
        """Let go of it; unless it is finished, the client hears that it is not whole."""
        if not self.closed and self._calling is not None:
            self._client.break_off(self._calling)
        super().close()

    def _send(self) -> None:
        kind = schema.messages("session").BytesMessage
        message = schema.encode(kind(data=b"".join(self._pieces)))
        self._pieces.clear()
        self._size = 0
        if message:
            self._client.wait_for(self._begun().send_encoded(framed(message)))

    def _begun(self) -> grpc.Calling:
        if self._calling is None:
            self._calling = self._client.call(FILE_SEND, self._metadata)
        return self._calling


async def _next(calling: grpc.Calling) -> list[bytes]:
    try:
        async with asyncio.timeout(_STALL_SECONDS):
            return await calling.receive()
    except TimeoutError as error:
        raise UnavailableError("the client sends nothing more") from error
