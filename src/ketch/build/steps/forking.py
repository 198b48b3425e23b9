"""Whoever forks the processes of a build's steps: one process of one thread, asked for once."""

import contextlib
import socket
import threading

from ketch.engine.requests import launch, wire
from ketch.engine.settings import Settings


class Forker:
    """Has processes forked for steps; its methods may be called from any thread.

    Args:
        settings: the engine's places.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._server: socket.socket | None = None

    def fork(self) -> socket.socket:
        """Have a process forked; returns the connection to it, which is the caller's.

        Raises:
            UnavailableError: that cannot be done here.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                try:
                    self._hand_over(theirs)
                except BrokenPipeError:  # it was killed: another one takes its place
                    self._leave()
                    self._hand_over(theirs)
        except BaseException:
            ours.close()
            raise
        return ours

    def close(self) -> None:
        """Let it go; what it has forked goes on."""
        with self._lock:
            self._leave()

    def _hand_over(self, connection: socket.socket) -> None:
        if self._server is None:
            self._server = socket.socket(fileno=launch.connect(self._settings).detach())
            fields: dict[str, wire.Value] = {
                "action": "steps", **self._settings.fields,
            }  # fmt: skip
            self._server.sendall(wire.frame(wire.REQUEST, wire.encode(fields)))
        descriptors = [connection.fileno()]
        socket.send_fds(self._server, [wire.frame(wire.DESCRIPTORS)], descriptors)

    def _leave(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.close()
