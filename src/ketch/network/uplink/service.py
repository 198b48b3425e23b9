"""The process in the machine's network that leads out of a user's network, and into it.

One a state directory, started by the first container that needs it; it leaves when the last one has
gone. Each has a connection to it, and when that ends what it was for ends. It is in the user's user
and mount namespaces, so it is trusted with no more than any other of the user's processes.
"""

import _socket
import os
import select
import struct
import sys
import time

from ketch.errors import UnavailableError
from ketch.linux.scopes import suppress
from ketch.network.uplink import outside, uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Answer = tuple[Sequence[str], int | None]

IDLE_SECONDS = 2.0
# After which a way out that failed, or did not last, is tried again; one that lasted, at once.
RETRY_SECONDS = 5.0
_LASTING_SECONDS = 1.0


class Service:
    """Serves until nobody is connected any more.

    Args:
        listener: SOCK_SEQPACKET, listening.
        network: a path to the user's network namespace.
        directory: a directory of the user's alone.
    """

    __slots__ = ("_clients", "_directory", "_led", "_listener", "_network", "_poll", "_problem",
                 "_tried_at", "_uplink")  # fmt: skip

    def __init__(self, listener: _socket.socket, network: str, directory: str) -> None:
        self._listener = listener
        self._network = network
        self._directory = directory
        self._clients: dict[int, _socket.socket] = {}
        self._led: set[int] = set()  # those who have asked for the way out
        self._uplink: uplink.Uplink | None = None
        self._problem: UnavailableError | None = None
        self._tried_at = 0.0
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        listener.setblocking(False)

    def close(self) -> None:
        """End the way out."""
        if self._uplink is not None:
            self._uplink.close()
            self._uplink = None

    def serve(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Do what is asked until nobody has been connected for a while."""
        idle_until = time.monotonic() + idle_seconds
        while self._clients or time.monotonic() < idle_until:
            self._mend()
            for descriptor, _ in self._poll.poll(self._patience(idle_until) * 1000):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._clients:
                    self._hear(self._clients[descriptor])
            if self._clients:
                idle_until = time.monotonic() + idle_seconds

    def _patience(self, idle_until: float) -> float:
        """For how many seconds there is nothing to do unless something happens."""
        now = time.monotonic()
        if self._led and self._uplink is None:
            return max(0.0, self._tried_at + RETRY_SECONDS - now)
        return RETRY_SECONDS if self._clients else max(0.0, idle_until - now)

    # Connections

    def _accept(self) -> None:
        with suppress(OSError):  # it has left again
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            client = _socket.socket(fileno=descriptor)
            credentials = client.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            if struct.unpack("iii", credentials)[1] != os.getuid():
                client.close()
                return
            client.setblocking(False)
            self._clients[descriptor] = client
            self._poll.register(client, select.POLLIN)

    def _hear(self, client: _socket.socket) -> None:
        try:
            outside.answer(client, *self._do(client, *outside.receive(client)))
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:  # it has left, or is not one of us
            if isinstance(error, ValueError):
                sys.stderr.write(f"ketch-uplink: {error}\n")
            self._leave(client)

    def _leave(self, client: _socket.socket) -> None:
        self._poll.unregister(client)
        del self._clients[client.fileno()]
        self._led.discard(client.fileno())
        client.close()

    def _do(self, client: _socket.socket, verb: str, words: "Sequence[str]") -> "Answer":
        if verb == "way" and not words:
            self._led.add(client.fileno())
            self._lead()
            if self._problem is not None:
                return ("none", self._problem.message, self._problem.hint), None
            return ("ok",), None
        raise ValueError(f"{verb!r} with {len(words)} words means nothing")

    # The way out

    def _lead(self) -> None:
        """See that there is a way out, or know why not."""
        self._look()
        if self._uplink is not None or (
            self._problem is not None and time.monotonic() < self._tried_at + RETRY_SECONDS
        ):
            return
        self._tried_at = time.monotonic()
        self._problem = None
        try:
            self._uplink = uplink.start(self._network, self._directory)
        except UnavailableError as error:
            self._problem = error
        except OSError as error:
            self._problem = UnavailableError(f"the way out of this user's network: {error}")
        else:
            self._poll.register(self._uplink, select.POLLIN)

    def _look(self) -> None:
        """Notice that the way out has ended."""
        if self._uplink is not None and select.select((self._uplink,), (), (), 0)[0]:
            self._poll.unregister(self._uplink)
            self._uplink.close()
            self._uplink = None
            if time.monotonic() > self._tried_at + _LASTING_SECONDS:
                self._tried_at = 0.0

    def _mend(self) -> None:
        """Make the way out anew that somebody is on, at once if it has lasted for a while."""
        self._look()
        again_at = self._tried_at + RETRY_SECONDS
        if self._led and self._uplink is None and time.monotonic() >= again_at:
            self._lead()
