"""Network namespaces of a build, each lent to one step at a time.

To make one takes longer than all else that a step needs, so those of ended steps serve the next. No
process of the earlier step lives by then. One in which connections have remained, or whose step had
all privileges, is given up.
"""

import json
import os
import socket
import threading
from collections.abc import Sequence

from ketch.dataclass import dataclass
from ketch.engine.requests import launch, wire
from ketch.engine.settings import Settings
from ketch.errors import UnavailableError

_ANSWER_BYTES = 64 * 1024


@dataclass(eq=False)
class Sandbox:
    """A network namespace that a process holds for as long as we are connected to it.

    Attributes:
        connection: to its holder.
        descriptor: of the namespace.
        named: whether the engine's name server answers in it.
        gateways: the host's addresses as they are reached from it.
        connections: how many TCP sockets are there while no step is.
        warning: what it does without; empty mostly.
        is_used: whether a step has left more of them.
    """

    connection: socket.socket
    descriptor: int
    named: bool
    gateways: Sequence[str]
    connections: int
    warning: str
    is_used: bool = False

    def close(self) -> None:
        """Give it up."""
        os.close(self.descriptor)
        self.connection.close()

    @property
    def is_held(self) -> bool:
        """Whether its holder lives."""
        try:
            return self.connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


class Networks:
    """The namespaces of one build, for all its threads.

    Args:
        settings: the engine's places.
        network: the network that they are on: a name, or ``default``.
        hosts: ``--add-host``.
    """

    def __init__(self, settings: Settings, network: str, hosts: Sequence[str] = ()) -> None:
        self._settings = settings
        self._request = json.dumps({"network": network, "hosts": list(hosts)})
        self._lock = threading.Lock()
        self._idle: list[Sandbox] = []

    def take(self) -> Sandbox:
        """Lend a namespace that nobody else has.

        Raises:
            NotFoundError: there is no such network.
            UnavailableError: no address is free.
            KetchError: it cannot be made.
        """
        while True:
            with self._lock:
                sandbox = self._idle.pop() if self._idle else None
            if sandbox is None:
                return self._make()
            if sandbox.is_held:
                return sandbox
            sandbox.close()

    def give_back(self, sandbox: Sandbox, *, clean: bool) -> None:
        """Take a namespace back.

        Args:
            sandbox: which.
            clean: whether the next step may have it.
        """
        if not clean:
            sandbox.close()
            return
        with self._lock:
            self._idle.append(sandbox)

    def close(self) -> None:
        """Give up all that are not lent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for sandbox in idle:
            sandbox.close()

    def _make(self) -> Sandbox:
        fields: dict[str, wire.Value] = {
            "action": "sandbox", **self._settings.fields,
            "request": self._request,
        }  # fmt: skip
        connection = socket.socket(fileno=launch.connect(self._settings).detach())
        try:
            connection.sendall(wire.frame(wire.REQUEST, wire.encode(fields)))
            return self._await(connection)
        except BaseException:
            connection.close()
            raise

    def _await(self, connection: socket.socket) -> Sandbox:
        decoder = wire.Decoder()
        while True:
            data, descriptors, _, _ = socket.recv_fds(
                connection, _ANSWER_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
            for kind, payload in decoder.feed(data):
                if kind == wire.FAILED:
                    raise wire.error(payload)
                if kind == wire.DESCRIPTORS and descriptors:
                    return Sandbox(connection, descriptors[0], **json.loads(payload))
            if not data:
                raise UnavailableError(
                    "the process that was to make a build's network has gone",
                    f"{self._settings.state}/{launch.ERROR_LOG} tells more",
                )
