"""An attendant: a process that runs programs in one container, one after the other, for one client.

It has what a program's start needs at hand: the database, the container's configuration, and a gate
into the container (``runtime.gate``). So a program costs one fork, where a process of the zygote's
that does the same once takes several, and has to find all of that first. It leaves when its client
does, when the container ends, and when nobody has asked for a while; the client is then told EXIT,
and knows that what it has asked for meanwhile was not begun.
"""

import _socket
import os
import select
from contextlib import ExitStack, suppress

from ketch.engine.configuration import cgroup_paths
from ketch.engine.containers.execs import check_running
from ketch.engine.monitor import execution, filtering
from ketch.engine.processes import open_process
from ketch.engine.requests import wire
from ketch.errors import ConflictError, UnsupportedError
from ketch.runtime.gate import ClosedError, Gate
from ketch.spec import runtime_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.engine.requests.client import Client
    from ketch.runtime.create import Container as Entered
    from ketch.spec.container import ExecConfig
    from ketch.spec.runtime import Process


class Gatekeeper:
    """Has a gate into a container for the kind of program that was asked for last.

    Args:
        engine: whose container it is.
        container: the container.
        pidfd: of its init.

    Attributes:
        engine: as it was given.
        config: the container's configuration, which stays the same while it runs.
    """

    def __init__(self, engine: "Engine", container: "Container", pidfd: int) -> None:
        self.engine = engine
        self.config = execution.configuration(engine, container)
        self._container = container
        self._pidfd = pidfd
        self._gate: Gate | None = None

    def suits(self, specification: "Process") -> bool:
        """Whether a program can come in by a gate; one with a terminal has a way of its own."""
        if specification.get("terminal"):
            return False
        if self._gate is not None and self._gate.suits(specification):
            return True
        self.close()
        section = self.config["linux"].get("seccomp")
        if section and section.get("listenerPath"):
            return False
        filter_, notified = filtering.prepare(self.engine.settings, section, specification)
        if notified is not None:
            return False
        self._gate = Gate(
            self._container.init_pid,
            self._pidfd,
            specification,
            filter_,
            cgroup_paths.manager(self.engine.settings, self._container),
            config=self.config,
            container_id=self._container.id,
        )
        return True

    def open(self) -> None:
        """Have a gate for programs of the container's own user before one is asked for."""
        asked: ExecConfig = {"Cmd": ["true"]}
        self.suits(execution.specify(self._container, self.config, asked, []))

    def enter(self, specification: "Process", streams: tuple[int, int, int]) -> "Entered":
        """Make a process in the container, up to the moment before its program runs.

        Args:
            specification: what it is to become; one that suits.
            streams: descriptors of its standard input, output and error.

        Raises:
            KetchError: why it could not be made.
        """
        assert self._gate is not None
        try:
            return self._gate.enter(specification, streams)
        except ClosedError:  # the kernel, or somebody on the host, has killed it: another one
            self.close()
            if not self.suits(specification):
                raise
            return self._gate.enter(specification, streams)

    def close(self) -> None:
        """Close the gate, and reap what died before it became a program."""
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def attend(
    client: "Client",
    engine: "Engine",
    reference: str,
    run: "Callable[[_socket.socket, Gatekeeper], None]",
    idle_seconds: int,
) -> None:
    """Run programs in a container until the client leaves, or has not asked for a while.

    Args:
        client: who asks.
        engine: whose container it is.
        reference: the container.
        run: does what is asked for on a connection.
        idle_seconds: how long that may be; 0 for any time.

    Raises:
        NotFoundError: there is no such container.
        ConflictError: it does not run.
        UnsupportedError: another runtime runs it.
    """
    container = engine.containers.find(reference)
    check_running(container)
    if runtime_names.is_other(container.record):
        raise UnsupportedError("another runtime alone leads into what it runs")
    with ExitStack() as held:
        pidfd = held.enter_context(open_process(container.init_pid, container.init_start_time))
        if pidfd is None:
            raise ConflictError(f"container {container.id} is not running")
        gate = Gatekeeper(engine, container, pidfd)
        held.callback(gate.close)
        gate.open()
        client.started(container.id)
        client.drain()
        poll = select.poll()
        poll.register(client, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        patience_ms = idle_seconds * 1000 or None
        while (found := poll.poll(patience_ms)) and pidfd not in dict(found):
            try:
                descriptors = client.read_descriptors()
            except (OSError, wire.ProtocolError):
                break
            for descriptor in descriptors:
                run(_socket.socket(fileno=descriptor), gate)
    client.ended(0)
