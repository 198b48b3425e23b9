"""A step that runs: what it writes passed on, its connections to agents led on, its end heard."""

import json
import os
import select
import socket
from collections.abc import Callable, Sequence

from ketch.build.steps.agents import Relay
from ketch.dataclass import dataclass
from ketch.engine.processes import Patience
from ketch.engine.requests import wire

_CHUNK_BYTES = 64 * 1024

Output = Callable[[int, bytes], None]
"""Takes what a program wrote: 1 for standard output or 2 for standard error, and the bytes."""


@dataclass(frozen=True)
class Outcome:
    """How a step's program ended.

    Attributes:
        status: its exit status; 128 + n where signal n ended it.
        signal: that signal, or 0.
        oom: whether the kernel killed one of its processes for want of memory.
    """

    status: int
    signal: int = 0
    oom: bool = False


class Following:
    """Follows a step to its end; to be closed.

    Args:
        connection: to the step's process.
        pipes: descriptors of its standard output and error, in this order.
        output: takes what comes of them.
        agents: paths of agents' sockets, one for each listener that the process will send.

    Attributes:
        connections: how many TCP sockets were in its network when it had ended.
    """

    def __init__(
        self,
        connection: socket.socket,
        pipes: Sequence[int],
        output: Output,
        agents: Sequence[str] = (),
    ) -> None:
        self._connection = connection
        self._pipes = {descriptor: number for number, descriptor in enumerate(pipes, 1)}
        self._output = output
        self._agents = list(agents)
        self._relay: Relay | None = None
        self._decoder = wire.Decoder()
        self._outcome: Outcome | None = None
        self.connections = 0

    def close(self) -> None:
        """End the connections to agents."""
        if self._relay is not None:
            self._relay.close()

    def follow(self, patience: Patience) -> Outcome | None:
        """Pass on what the program writes until it has ended; None where nobody says how.

        Args:
            patience: how to wait.

        Raises:
            KetchError: it could not be run.
        """
        talking = True
        while self._pipes or talking:
            # What a program writes can be whose that waits for an answer of an agent's: so before
            # anything of it agents are led to, which its process sends before it starts.
            waits = talking and self._agents and self._relay is None
            wanted = [] if waits else [(descriptor, select.POLLIN) for descriptor in self._pipes]
            if talking:
                wanted.append((self._connection.fileno(), select.POLLIN))
            for descriptor, _ in patience.poll(None, *wanted):
                if descriptor in self._pipes:
                    self._read(descriptor)
                else:
                    talking = self._hear()
            if not talking and self._outcome is None:
                break
        return self._outcome

    def _read(self, descriptor: int) -> None:
        if data := os.read(descriptor, _CHUNK_BYTES):
            self._output(self._pipes[descriptor], data)
        else:
            del self._pipes[descriptor]

    def _hear(self) -> bool:
        """Take what the process says; returns whether there is more to come."""
        data, rights, _, _ = socket.recv_fds(
            self._connection, _CHUNK_BYTES, len(self._agents) or 1, socket.MSG_CMSG_CLOEXEC
        )
        if rights:
            self._lead_on([socket.socket(fileno=descriptor) for descriptor in rights])
        for kind, payload in self._decoder.feed(data):
            if kind == wire.FAILED:
                raise wire.error(payload)
            if kind == wire.EXIT:
                told = json.loads(payload)
                self.connections = told.pop("connections")
                self._outcome = Outcome(**told)
        return bool(data) and self._outcome is None

    def _lead_on(self, listeners: Sequence[socket.socket]) -> None:
        self._relay = Relay()
        for listener, agent in zip(listeners, self._agents, strict=True):
            self._relay.add(listener, agent)
        self._relay.start()
