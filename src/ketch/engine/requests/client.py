"""The engine's end of a connection: frames in and out, without ever blocking on a slow client."""

import _socket
import os
import select
import signal
import struct
import time

from ketch.engine.requests import wire
from ketch.errors import KetchError, StartError
from ketch.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.told import Told

_CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 8
# A client that is this far behind holds up the program's output until it has caught up, as a
# pipe would: nothing is lost and memory stays bounded.
BEHIND_BYTES = 1024 * 1024
# A client that gets one of these before the program runs wants it not to.
_DIGITS_MAX = 3  # of a signal's number
_ENDING_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}


class Client:
    """One connected client. It owns its socket.

    A process that reads a request takes nothing off the socket that comes after it, so that the
    connection can be handed to another process, which finds the rest.

    Args:
        connection: a connected stream socket.

    Attributes:
        gone: whether it has left, or speaks nonsense.
        asked: whether its request has been read.
        withdrawn: whether it was found not to want any more what it asked for.
        starter: whether it is the one that started the program.
        takes: kinds of output frames that it wants.
        gives: whether its input goes to the program.
        deadline: until when it is waited for, by ``time.monotonic()``; None while it keeps up.
    """

    __slots__ = (
        "_connection", "_decoder", "_out", "asked", "deadline", "gives", "gone", "starter", "takes",
        "withdrawn",
    )  # fmt: skip

    def __init__(self, connection: "_socket.socket") -> None:
        self._connection = connection
        self._decoder = wire.Decoder()
        self._out = bytearray()
        self.gone = False
        self.asked = False
        self.withdrawn = False
        self.starter = False
        self.takes: tuple[int, ...] = ()
        self.gives = False
        self.deadline: float | None = None

    def fileno(self) -> int:
        """The connection's descriptor, for polling."""
        return self._connection.fileno()

    def open_process(self) -> int:
        """Open the client's process: a pidfd, close-on-exec, which the caller owns.

        Raises:
            StartError: it has ended.
        """
        pid, _user, _group = process.peer(self._connection)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self.gone = True
            descriptor = -1
        # While it is connected the pid is still its own.
        self.check_interest()
        return descriptor

    def read_request(self) -> "dict[str, wire.Value]":
        """Wait for the request; the connection does not block from then on.

        Raises:
            wire.ProtocolError: something else came, or nothing did.
        """
        header = self._read_exactly(_HEADER_BYTES)
        length = int.from_bytes(header[4:], "big")
        if header[:4] != bytes((wire.REQUEST, 0, 0, 0)) or length > wire.PAYLOAD_BYTES_MAX:
            raise wire.ProtocolError(f"bad frame header {header.hex()}")
        payload = self._read_exactly(length)
        self._connection.setblocking(False)
        self.asked = True
        return wire.decode(payload)

    def _read_exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._connection.recv(min(count, _CHUNK_BYTES))
            if not part:
                raise wire.ProtocolError("the client left without a request")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def read_descriptors(self) -> list[int]:
        """Wait for the DESCRIPTORS frame; they are close-on-exec, and the caller's.

        Raises:
            wire.ProtocolError: something else came, or nothing did.
        """
        room = _socket.CMSG_SPACE(4 * wire.DESCRIPTORS_MAX)
        self._connection.setblocking(True)
        try:
            data, rights, _, _ = self._connection.recvmsg(
                _HEADER_BYTES, room, _socket.MSG_CMSG_CLOEXEC
            )
        finally:
            self._connection.setblocking(False)
        packed = rights[0][2] if rights else b""
        if data != wire.frame(wire.DESCRIPTORS):
            raise wire.ProtocolError(f"bad frame header {data.hex()}")
        return list(struct.unpack(f"{len(packed) // 4}i", packed))

    def hand_over(self, payload: bytes, *descriptors: int) -> None:
        """Send a DESCRIPTORS frame; what was to be sent before has to be sent."""
        packed = struct.pack(f"{len(descriptors)}i", *descriptors)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]
        try:
            self._connection.sendmsg([wire.frame(wire.DESCRIPTORS, payload)], rights)
        except OSError:
            self.gone = True

    def receive(self) -> list[tuple[int, bytes]]:
        """Take what has come; sets ``gone`` when the client has left or speaks nonsense."""
        try:
            data = self._connection.recv(_CHUNK_BYTES)
            self.gone = not data
            return list(self._decoder.feed(data))
        except BlockingIOError:
            pass
        except (OSError, wire.ProtocolError):
            self.gone = True
        return []

    def check_interest(self) -> None:
        """Look whether the client still wants what it asked for; what it sends stays to be read.

        Raises:
            StartError: it was interrupted, or has left.
        """
        frames: list[tuple[int, bytes]] = []
        try:
            data = self._connection.recv(_CHUNK_BYTES, _socket.MSG_PEEK)
            self.gone = not data
            frames += wire.Decoder().feed(data)
        except BlockingIOError:
            pass
        except (OSError, wire.ProtocolError):
            self.gone = True
        for kind, payload in frames:
            told = kind == wire.SIGNAL and payload.isdigit() and len(payload) <= _DIGITS_MAX
            number = int(payload) if told else 0
            if number in _ENDING_SIGNALS:
                self.withdrawn = True
                raise StartError(
                    f"interrupted by {signal.Signals(number).name} before the program was started",
                    exit_status=128 + number,
                )
        if self.gone:
            self.withdrawn = True
            raise StartError(
                "the command ended before the program was started", exit_status=128 + signal.SIGHUP
            )

    def await_go(self) -> None:
        """Wait for the word that the program may start.

        Raises:
            StartError: another word came, or the client has left.
        """
        self.drain()
        self._connection.setblocking(True)
        try:
            header = self._read_exactly(_HEADER_BYTES)
        except (OSError, wire.ProtocolError) as error:
            self.gone = True
            raise StartError(
                "the command ended before the program was started", exit_status=128 + signal.SIGHUP
            ) from error
        finally:
            self._connection.setblocking(False)
        if header != wire.frame(wire.GO):
            raise StartError(
                "interrupted before the program was started", exit_status=128 + signal.SIGINT
            )

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame, or keep it until the client takes it."""
        self._out += wire.frame(kind, payload)
        self.flush()

    def started(self, identifier: str) -> None:
        """Tell that the program runs."""
        self.send(wire.STARTED, identifier.encode())

    def created(self, identifier: str) -> None:
        """Tell that the container is there."""
        self.send(wire.CREATED, identifier.encode())

    def warn(self, words: str) -> None:
        """Tell a warning on the client's standard error."""
        self.send(wire.ERRORS, f"{words}\n".encode("utf-8", "surrogateescape"))

    def explain(self, told: "Told") -> None:
        """Tell of a step."""
        self.tell(told.encode())

    def tell(self, step: str) -> None:
        """Tell of a step that is text already."""
        self.send(wire.STEP, step.encode("utf-8", "surrogateescape"))

    def ended(self, exit_status: int) -> None:
        """Tell the program's exit status."""
        self.send(wire.EXIT, b"%d" % exit_status)

    def ended_as(self, payload: bytes) -> None:
        """Tell how a step ended."""
        self.send(wire.EXIT, payload)

    def failed(self, error: KetchError) -> None:
        """Tell why the request came to nothing."""
        status = getattr(error, "exit_status", None)
        kind = type(error).__name__
        self.send(wire.FAILED, wire.encode_failure(status, error.message, error.hint, kind))

    def flush(self) -> None:
        """Send what is kept, as far as the client takes it now."""
        if self.gone or not self._out:
            return
        try:
            sent = self._connection.send(self._out)
        except BlockingIOError:
            return
        except OSError:
            self.gone = True
            return
        del self._out[:sent]

    @property
    def has_output(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits that nothing more should be added."""
        return len(self._out) > BEHIND_BYTES

    def drain(self, timeout_seconds: float | None = None) -> None:
        """Send what is kept, however long the client takes; its end is noticed at once.

        What it shows may be read page by page.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        while self._out and not self.gone:
            left = None if until is None else (until - time.monotonic()) * 1000
            if left is not None and left <= 0:
                return
            poll.poll(left)
            self.flush()

    def let_go(self) -> None:
        """Close the connection, whatever is still to be sent."""
        self._out.clear()
        self._connection.close()

    def close(self, timeout_seconds: float | None = None) -> None:
        """Send what is kept, and close the connection.

        Args:
            timeout_seconds: how long a client that is slow may take, None for ever.
        """
        if self._connection.fileno() < 0:
            return
        self.drain(timeout_seconds)
        self.let_go()
