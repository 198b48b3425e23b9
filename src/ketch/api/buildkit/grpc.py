"""gRPC on HTTP/2's streams: messages with their lengths, statuses, calls made and calls answered.

Source: grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/statuscodes.md. No compression: nothing here is
asked for often enough. Metadata names are in lower case, as HTTP/2 has them.
"""

import asyncio
import base64
import binascii
import contextlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ketch import errors
from ketch.api.buildkit import schema
from ketch.api.buildkit.http2 import StreamEndedError
from ketch.api.errors import message as message_of
from ketch.errors import InvalidArgumentError, KetchError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ketch.api.buildkit.http2 import Connection, Headers, Stream

    Handler = Callable[["Call"], Awaitable[None]]

MESSAGE_BYTES_MAX = 16 << 20
"""How large one message may be: BuildKit's own limit (containerd's DefaultMaxRecvMsgSize)."""
_PREFIX_BYTES = 5
_STATUS_TEXT_MAX = 8 * 1024
_TYPE = ("content-type", "application/grpc+proto")


class Code(IntEnum):
    """Statuses."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def paths(service: str, handlers: "Mapping[str, Handler]") -> "dict[str, Handler]":
    """Returns what answers which path of a service, from what answers which of its methods."""
    return {f"/{service}/{name}": handler for name, handler in handlers.items()}


_CODES: "tuple[tuple[type[KetchError], Code], ...]" = (
    (errors.InvalidArgumentError, Code.INVALID_ARGUMENT),
    (errors.NotFoundError, Code.NOT_FOUND),
    (errors.AlreadyExistsError, Code.ALREADY_EXISTS),
    (errors.ConflictError, Code.FAILED_PRECONDITION),
    (errors.UnauthenticatedError, Code.UNAUTHENTICATED),
    (errors.PermissionDeniedError, Code.PERMISSION_DENIED),
    (errors.UnsupportedError, Code.UNIMPLEMENTED),
)


class StatusError(UnavailableError):
    """A call that ended with a status other than OK.

    Args:
        code: the status.
        text: what is said of it.
        details: what else is: messages ``Any`` of the file ``control``.
    """

    def __init__(self, code: int, text: str, details: "Sequence[Any]" = ()) -> None:
        super().__init__(text)
        self.code = code
        self.details = details


class Reader:
    """Takes messages out of a stream's data: pure, so that it can be tried with any bytes.

    Args:
        bytes_max: how large one may be.
    """

    def __init__(self, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the messages that are whole by now.

        Raises:
            InvalidArgumentError: a message is compressed, or too large.
        """
        self._data += data
        found = []
        at = 0
        while len(self._data) - at >= _PREFIX_BYTES:
            size = int.from_bytes(self._data[at + 1 : at + _PREFIX_BYTES], "big")
            if self._data[at]:
                raise InvalidArgumentError("a compressed gRPC message, which was not agreed on")
            if size > self._bytes_max:
                raise InvalidArgumentError(
                    f"a gRPC message of {size} bytes: at most {self._bytes_max} are taken"
                )
            end = at + _PREFIX_BYTES + size
            if len(self._data) < end:
                break
            found.append(bytes(self._data[at + _PREFIX_BYTES : end]))
            at = end
        del self._data[:at]
        return found

    @property
    def is_amid(self) -> bool:
        """Whether a message has begun that is not whole."""
        return bool(self._data)


def framed(data: bytes) -> bytes:
    """Returns a message as it stands in a stream."""
    return b"\0" + len(data).to_bytes(4, "big") + data


class Call:
    """One call, from either end.

    Args:
        stream: what carries it.
        headers: the request's.
    """

    def __init__(self, stream: "Stream", headers: "Headers") -> None:
        self._stream = stream
        self._reader = Reader()
        self._metadata = headers
        self._answered = False

    @property
    def path(self) -> str:
        """``/package.Service/Method``."""
        return self.value(":path")

    def value(self, name: str) -> str:
        """Returns metadata of the request; of several values the first, empty for none."""
        return next((value for key, value in self._metadata if key == name), "")

    async def receive(self) -> list[bytes]:
        """Returns the messages that have come, at least one; none at the end.

        Raises:
            StreamEndedError: the call broke off.
            InvalidArgumentError: what comes is no message.
        """
        while True:
            data = await self._stream.read()
            if not data:
                if self._reader.is_amid:
                    raise InvalidArgumentError("the call ends amid a message")
                return []
            if found := self._reader.feed(data):
                return found

    async def request(self, kind: Any) -> Any:
        """Returns the one message that is asked with.

        Raises:
            InvalidArgumentError: there is none, or another one.
        """
        found = await self.receive()
        if not found:
            raise InvalidArgumentError("the call has no message")
        return schema.decode(kind, found[0])

    async def send(self, *messages: Any) -> None:
        """Send messages, as fast as the other end takes them.

        Raises:
            StreamEndedError: the call broke off.
        """
        await self.send_encoded(b"".join(framed(schema.encode(one)) for one in messages))

    async def send_encoded(self, data: bytes) -> None:
        """Send messages that are framed already."""
        await self._stream.send(data)

    async def gone(self) -> None:
        """Return when the other end has broken it off."""
        await self._stream.gone()


# Answered here


class Answering(Call):
    """A call that is answered here."""

    async def send_encoded(self, data: bytes) -> None:
        """Send messages, the headers before the first."""
        if not self._answered:
            self._answered = True
            await self._stream.send_headers([(":status", "200"), _TYPE])
        await self._stream.send(data)

    async def end(self, code: int, text: str = "", details: "Sequence[Any]" = ()) -> None:
        """End it with a status."""
        trailers = [("grpc-status", str(int(code)))]
        text = text[:_STATUS_TEXT_MAX]
        if text:
            trailers.append(("grpc-message", quote(text, safe=" !#$&'()*+,/:;=?@[]")))
        if details:
            status = schema.messages("control").Status(code=code, message=text, details=details)
            encoded = base64.b64encode(schema.encode(status)).decode().rstrip("=")
            trailers.append(("grpc-status-details-bin", encoded))
        if not self._answered:
            trailers = [(":status", "200"), _TYPE, *trailers]
        await self._stream.send_headers(trailers, end=True)


async def answer(stream: "Stream", methods: "Mapping[str, Handler]") -> BaseException | None:
    """Answer a call.

    Args:
        stream: what carries it.
        methods: what answers which path.

    Returns:
        What went wrong that nobody was prepared for.
    """
    call = Answering(stream, stream.headers)
    handler = methods.get(call.path)
    mistake: BaseException | None = None
    try:
        if handler is None:
            await call.end(Code.UNIMPLEMENTED, f"unknown method {call.path[:200]}")
            return None
        try:
            await handler(call)
        except StreamEndedError:
            raise
        except StatusError as error:
            await call.end(error.code, error.message, error.details)
        except KetchError as error:
            await call.end(code_of(error), message_of(error))
        except Exception as error:  # noqa: BLE001 - the caller must hear of it, and the log
            mistake = error
            await call.end(Code.INTERNAL, message_of(error))
        else:
            await call.end(Code.OK)
    except StreamEndedError:
        pass  # nobody is there to hear of it
    return mistake


def code_of(error: KetchError) -> Code:
    """Returns the status that an error is told as."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.UNKNOWN)


# Made here


class Calling(Call):
    """A call that is made here."""

    async def send_encoded(self, data: bytes) -> None:
        """Send messages that are framed already.

        Raises:
            StatusError: the call has ended with a status other than OK.
            StreamEndedError: it has ended otherwise.
        """
        try:
            await self._stream.send(data)
        except StreamEndedError:
            if self._stream.trailers:
                _check_status([*self._stream.headers, *self._stream.trailers])
            raise

    async def end(self) -> None:
        """Send nothing more; that it has ended already is heard by ``receive``."""
        with contextlib.suppress(StreamEndedError):
            await self._stream.send(b"", end=True)

    async def receive(self) -> list[bytes]:
        """Returns the messages that have come, none at the end.

        Raises:
            StatusError: it ended with a status other than OK.
        """
        headers = await self._stream.head()
        self._check_head(headers)
        found = await super().receive()
        if not found:
            _check_status([*headers, *self._stream.trailers])
        return found

    def break_off(self) -> None:
        """Have it end, whatever comes of it."""
        self._stream.reset()

    def _check_head(self, headers: "Headers") -> None:
        fields = dict(headers)
        if fields.get(":status") != "200":
            raise StatusError(Code.UNKNOWN, f"HTTP status {fields.get(':status', '')[:20]}")


async def call(
    connection: "Connection", path: str, metadata: "Sequence[tuple[str, str]]" = ()
) -> Calling:
    """Begin a call.

    Args:
        connection: to whom.
        path: ``/package.Service/Method``.
        metadata: names, in lower case, and values of visible ASCII characters.

    Raises:
        StreamEndedError: the connection has ended.
    """
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
        ("te", "trailers"), _TYPE, ("user-agent", "ketch"), *metadata,
    ]  # fmt: skip
    return Calling(await connection.open(headers), headers)


async def ask(connection: "Connection", path: str, request: Any, kind: Any, seconds: float) -> Any:
    """Ask one message, and return the one that is answered.

    Args:
        connection: whom.
        path: what for.
        request: the message.
        kind: the answer's class.
        seconds: how long it may take.

    Raises:
        StatusError: it was refused.
        UnavailableError: it takes too long, or the connection has ended.
    """
    calling = None
    try:
        async with asyncio.timeout(seconds):
            calling = await call(connection, path)
            await calling.send(request)
            await calling.end()
            found = await calling.receive()
            if found:
                await calling.receive()
    except TimeoutError as error:
        raise UnavailableError(f"the client does not answer {path} in time") from error
    finally:
        if calling is not None:
            calling.break_off()
    if not found:
        raise UnavailableError(f"the client answers nothing to {path}")
    return schema.decode(kind, found[0])


def _check_status(headers: "Headers") -> None:
    fields = dict(headers)
    status = fields.get("grpc-status", "2")
    code = int(status) if status.isascii() and status.isdigit() and len(status) < 4 else 2
    if code == Code.OK:
        return
    text = unquote(fields.get("grpc-message", ""), errors="replace")[:_STATUS_TEXT_MAX]
    raise StatusError(code, text or f"status {code}", _details(fields))


def _details(fields: "Mapping[str, str]") -> "Sequence[Any]":
    encoded = fields.get("grpc-status-details-bin", "")
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        details: Sequence[Any] = schema.decode(schema.messages("control").Status, data).details
    except (binascii.Error, InvalidArgumentError):
        return ()
    return details
