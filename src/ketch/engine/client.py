"""The monitor's end of a connection: frames in and out, without ever blocking on a slow client."""

import select
import signal

from ketch.engine import wire
from ketch.errors import KetchError, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

_CHUNK_BYTES = 64 * 1024
# A client that is this far behind holds up the program's output until it has caught up, as a
# pipe would: nothing is lost and memory stays bounded.
BEHIND_BYTES = 1024 * 1024
# A client that gets one of these before the program runs wants it not to.
_ENDING_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}


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

    def check_interest(self) -> None:
        """Look whether the client still wants what it asked for; what it sends else is kept.

        Raises:
            StartError: it was interrupted, or has left.
        """
        self._waiting = self.receive()
        for kind, payload in self._waiting:
            if kind == wire.SIGNAL and payload.isdigit() and int(payload) in _ENDING_SIGNALS:
                name = signal.Signals(int(payload)).name
                raise StartError(
                    f"interrupted by {name} before the program was started",
                    exit_status=128 + int(payload),
                )
        if self.gone:
            raise StartError(
                "the command ended before the program was started", exit_status=128 + signal.SIGHUP
            )

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame, or keep it until the client takes it."""
        self._out += wire.frame(kind, payload)
        self.flush()

    def started(self, identifier: str) -> None:
        """Tell that the program runs."""
        self.send(wire.STARTED, identifier.encode())

    def explain(self, words: str) -> None:
        """Pass a step's description on; init's come by way of its handshake."""
        self.send(wire.ERRORS, f"{words}\n".encode())

    def ended(self, exit_status: int) -> None:
        """Tell the program's exit status."""
        self.send(wire.EXIT, b"%d" % exit_status)

    def failed(self, error: KetchError) -> None:
        """Tell why the request came to nothing."""
        status = getattr(error, "exit_status", None)
        self.send(wire.FAILED, wire.encode_failure(status, error.message, error.hint))

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
        """Send what is kept, however long the client takes, and close the connection.

        What it shows may be read page by page; its end is noticed at once.
        """
        if self._connection.fileno() < 0:
            return
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        while self._out and not self.gone:
            poll.poll()
            self.flush()
        self._connection.close()
