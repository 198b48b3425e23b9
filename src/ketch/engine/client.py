"""The monitor's end of a connection: frames in and out, without ever blocking on a slow client."""

import select

from ketch.engine import wire
from ketch.errors import KetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

_CHUNK_BYTES = 64 * 1024
# A client that is this far behind holds up the program's output until it has caught up, as a
# pipe would: nothing is lost and memory stays bounded.
BEHIND_BYTES = 1024 * 1024
_LAST_WORDS_SECONDS = 10


class Client:
    """One connected client. It owns its socket.

    Args:
        connection: a connected stream socket.
    """

    __slots__ = ("_connection", "_decoder", "_out", "_waiting", "gone")

    def __init__(self, connection: "_socket.socket") -> None:
        self._connection = connection
        self._decoder = wire.Decoder()
        self._out = bytearray()
        self._waiting: list[tuple[int, bytes]] = []
        self.gone = False

    def fileno(self) -> int:
        """The connection's descriptor, for polling."""
        return self._connection.fileno()

    def read_request(self) -> "dict[str, wire.Value]":
        """Wait for the request; the connection does not block from then on.

        Raises:
            wire.ProtocolError: something else came, or nothing did.
        """
        while not self._waiting:
            data = self._connection.recv(_CHUNK_BYTES)
            if not data:
                raise wire.ProtocolError("the client left without a request")
            self._waiting += self._decoder.feed(data)
        self._connection.setblocking(False)
        kind, payload = self._waiting.pop(0)
        if kind != wire.REQUEST:
            raise wire.ProtocolError(f"the first frame is of kind {kind}")
        return wire.decode(payload)

    def receive(self) -> list[tuple[int, bytes]]:
        """Take what has come; sets ``gone`` when the client has left or speaks nonsense."""
        frames, self._waiting = self._waiting, []
        try:
            data = self._connection.recv(_CHUNK_BYTES)
            frames += self._decoder.feed(data)
            self.gone = not data
        except BlockingIOError:
            pass
        except (OSError, wire.ProtocolError):
            self.gone = True
        return frames

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame, or keep it until the client takes it."""
        self._out += wire.frame(kind, payload)
        self.flush()

    def started(self, identifier: str) -> None:
        """Tell that the program runs."""
        self.send(wire.STARTED, identifier.encode())

    def ended(self, exit_status: int) -> None:
        """Tell the program's exit status."""
        self.send(wire.EXIT, b"%d" % exit_status)

    def failed(self, error: KetchError) -> None:
        """Tell why the request came to nothing."""
        status = getattr(error, "exit_status", "")
        words = (str(status), error.message, error.hint)
        self.send(wire.FAILED, "\0".join(words).encode("utf-8", "surrogateescape"))

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

    def close(self) -> None:
        """Send what is kept, giving the client a moment for it, and close the connection."""
        if self._connection.fileno() < 0:
            return
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        while self._out and not self.gone and poll.poll(_LAST_WORDS_SECONDS * 1000):
            self.flush()
        self._connection.close()
