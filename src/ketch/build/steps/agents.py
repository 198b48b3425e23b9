"""SSH agents for steps: sockets of a step's own, led on to the agent's.

The agent's socket itself is its user's: who is somebody else in the step could not connect to it,
and agents serve nobody but their user. So each connection to the step's socket is answered by one
of the caller's to the agent.
"""

import contextlib
import selectors
import socket
import threading

from ketch.dataclass import dataclass, field

_CHUNK_BYTES = 64 * 1024
_CONNECTIONS_MAX = 32


@dataclass(eq=False)
class _End:
    """One end of a connection that is led on.

    Attributes:
        socket: it.
        other: the other end.
        waiting: what that one has said and this has not taken yet.
        ended: whether nothing more comes from it.
    """

    socket: socket.socket
    other: "_End | None" = None
    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Relay:
    """Leads connections on to agents, in a thread of its own, until it is closed."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stopping, self._stop = socket.socketpair()
        self._selector.register(self._stopping, selectors.EVENT_READ)
        self._listeners: dict[socket.socket, str] = {}
        self._ends: set[_End] = set()
        self._thread: threading.Thread | None = None

    def add(self, listener: socket.socket, agent: str) -> None:
        """Lead on what comes to a listening socket, which is the relay's from now on.

        Args:
            listener: the step's.
            agent: path of the agent's socket.
        """
        listener.setblocking(False)
        self._listeners[listener] = agent
        self._selector.register(listener, selectors.EVENT_READ)

    def start(self) -> None:
        """Begin; all listeners must have been added."""
        self._thread = threading.Thread(target=self._run, name="ketch-agents", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections, and wait for the thread."""
        self._stop.close()
        if self._thread is not None:
            self._thread.join()
        for end in list(self._ends):
            end.socket.close()
        for listener in self._listeners:
            listener.close()
        self._stopping.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopping:
                    return
                if key.fileobj in self._listeners:
                    assert isinstance(key.fileobj, socket.socket)
                    self._accept(key.fileobj)
                elif key.data in self._ends:
                    self._serve(key.data)

    def _accept(self, listener: socket.socket) -> None:
        try:
            ours, _ = listener.accept()
        except OSError:
            return
        theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if len(self._ends) >= 2 * _CONNECTIONS_MAX:
                raise ConnectionRefusedError
            theirs.settimeout(1)
            theirs.connect(self._listeners[listener])
        except OSError:
            ours.close()
            theirs.close()
            return
        ends = _End(ours), _End(theirs)
        ends[0].other, ends[1].other = ends[1], ends[0]
        for end in ends:
            end.socket.setblocking(False)
            self._ends.add(end)
            self._selector.register(end.socket, selectors.EVENT_READ, end)

    def _serve(self, end: _End) -> None:
        """Take what an end says, as long as the other one keeps up, and give what waits for it."""
        other = end.other
        assert other is not None
        try:
            if end.waiting:
                with contextlib.suppress(BlockingIOError):
                    del end.waiting[: end.socket.send(end.waiting)]
            if not other.waiting and not end.ended:
                with contextlib.suppress(BlockingIOError):
                    data = end.socket.recv(_CHUNK_BYTES)
                    other.waiting += data
                    end.ended = not data
                    with contextlib.suppress(BlockingIOError):
                        del other.waiting[: other.socket.send(other.waiting)]
            for one in (end, other):
                assert one.other is not None
                if one.other.ended and not one.waiting:
                    with contextlib.suppress(OSError):
                        one.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._forget(end)
            return
        if end.ended and other.ended and not end.waiting and not other.waiting:
            self._forget(end)
            return
        for one in (end, other):
            self._watch(one)

    def _watch(self, end: _End) -> None:
        assert end.other is not None
        events = selectors.EVENT_WRITE if end.waiting else 0
        if not end.ended and not end.other.waiting:
            events |= selectors.EVENT_READ
        with contextlib.suppress(KeyError):
            self._selector.unregister(end.socket)
        if events:
            self._selector.register(end.socket, events, end)

    def _forget(self, end: _End) -> None:
        for one in (end, end.other):
            assert one is not None
            with contextlib.suppress(KeyError):
                self._selector.unregister(one.socket)
            one.socket.close()
            self._ends.discard(one)
