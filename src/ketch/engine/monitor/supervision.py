"""Watching over a running program: its streams, its clients, its end.

One loop over poll(2), in the process that is the program's parent. Output goes to the log first
and then to whoever is attached; input comes from them. Nothing here blocks on a client.
"""

import _socket
import contextlib
import errno
import math
import os
import select
import time

from ketch.engine.requests import wire
from ketch.engine.requests.client import Client
from ketch.linux import malloc, process, tty
from ketch.linux.memory_image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, Self

    class Log(Protocol):
        """Where a program's output is recorded."""

        def write(self, stream: str, data: bytes, time_ns: int) -> None:
            """Record a piece of output."""

        def flush(self) -> bool:
            """Pass on what could not be yet; returns whether nothing is left of that."""


_CHUNK_BYTES = 64 * 1024
_KINDS = {"stdout": wire.OUTPUT, "stderr": wire.ERRORS}
_INPUT_BYTES_MAX = 1024 * 1024
_REST_SECONDS = 1
_MUCH_BYTES = 256 * 1024
_LONGEST_WAIT_MS = 24 * 60 * 60 * 1000  # poll(2) takes an int, and a health check has time
PATIENCE_SECONDS = 10  # with a client that attached and takes nothing
_PIPE_BYTES_MAX = 1024 * 1024  # pipe(7): as large as anyone without privileges can make one


class Streams:
    """The supervisor's ends of a program's streams.

    Attributes:
        given: the program's own ends, for standard input, output and error.
        input: where to write the program's input, or None.
        outputs: descriptor to (frame kind, stream's name in the log).
        console: the terminal's master, which is both input and output, or None.
    """

    __slots__ = ("_theirs", "console", "given", "input", "outputs")

    def __init__(self) -> None:
        self.console: int | None = None
        self.input: int | None = None
        self.outputs: dict[int, tuple[int, str]] = {}
        self._theirs: list[int] = []
        self.given = (-1, -1, -1)

    @classmethod
    def make(cls, *, interactive: bool, terminal: bool) -> "Self":
        """Make pipes for a program; a terminal is made by the program's side.

        Args:
            interactive: whether it has an input.
            terminal: whether it has a terminal.
        """
        self = cls()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._theirs.append(null)
        given = [null, null, null]
        if not terminal:
            if interactive:
                given[0], self.input = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self.input, False)
                self._theirs.append(given[0])
            for name, number in _KINDS.items():
                reader, given[number] = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(reader, False)
                self._theirs.append(given[number])
                self.outputs[reader] = (number, name)
        self.given = (given[0], given[1], given[2])
        return self

    def outputs_by_name(self) -> list[tuple[str, int]]:
        """Names and descriptors of the outputs, for ``adopt`` in another process."""
        if self.console is not None:
            return [("console", self.console)]
        return [(name, reader) for reader, (_, name) in self.outputs.items()]

    def adopt(self, name: str, descriptor: int) -> None:
        """Take a descriptor that was handed over; it is the streams' from now on."""
        if name == "console":
            self.started(descriptor)
        elif name == "input":
            self.input = descriptor
        else:
            self.outputs[descriptor] = (_KINDS[name], name)

    def started(self, console: int | None) -> None:
        """Let go of the program's ends, and take the terminal's master if it has one."""
        self._close_theirs()
        if console is not None:
            os.set_blocking(console, False)
            self.console = self.input = console
            self.outputs[console] = (wire.OUTPUT, "stdout")

    def close_input(self) -> None:
        """Tell the program that no more input comes; a terminal stays open."""
        if self.input is not None and self.input != self.console:
            os.close(self.input)
            self.input = None

    def close_output(self, descriptor: int) -> None:
        """Let go of an output that has ended."""
        del self.outputs[descriptor]
        os.close(descriptor)
        if descriptor == self.console:
            self.console = self.input = None

    def close(self) -> None:
        """Close what is still open."""
        self._close_theirs()
        self.close_input()
        for descriptor in list(self.outputs):
            self.close_output(descriptor)

    def _close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())


class Alarm:
    """Something that a supervisor does when its time has come.

    Args:
        ring: does it; returns when to do it next, by ``time.monotonic()``, or None for never.
        due: when to do it first, likewise.
    """

    __slots__ = ("due", "ring")

    def __init__(self, ring: "Callable[[], float | None]", due: float | None) -> None:
        self.ring = ring
        self.due = due


class Supervisor:
    """Watches over one program until it has ended.

    Args:
        pidfd: descriptor of the program, a child of the caller.
        streams: the caller's ends of its streams.
        log: where its output goes as well, or None.
        listener: where more clients come, a listening socket that does not block, or None.
        identifier: what clients are told when they are attached.
        once: whether the program's input ends with that of the client that gives it.
        memory: the calling process's, as it was when it was forked.

    Attributes:
        pidfd: descriptor of the program.
        clients: who is attached.
        watched: further descriptors to what to do when they are readable; it may change this.
        alarms: what to do in time.
        on_names: what to do for a client that wants the program's names answered.
        on_times: what to do for a client that has changed how long the program may run.
    """

    __slots__ = (
        "_identifier", "_input", "_input_ended", "_listener", "_log", "_memory", "_once",
        "_read_bytes", "_rest_at", "_streams", "alarms", "clients", "on_names", "on_times", "pidfd",
        "watched",
    )  # fmt: skip

    def __init__(
        self,
        pidfd: int,
        streams: Streams,
        log: "Log | None" = None,
        *,
        listener: "_socket.socket | None" = None,
        identifier: str = "",
        once: bool = True,
        memory: Image | None = None,
    ) -> None:
        self.pidfd = pidfd
        self._memory = memory or Image()
        self._streams = streams
        self._log = log
        self._listener = listener
        self._identifier = identifier
        self._once = once
        self._input = bytearray()
        self._input_ended = False
        self._rest_at: float | None = time.monotonic() + _REST_SECONDS
        self._read_bytes = 0  # since the last rest
        self.clients: list[Client] = []
        self.watched: dict[int, Callable[[], None]] = {}
        self.alarms: list[Alarm] = []
        self.on_names: Callable[[Client], None] | None = None
        self.on_times: Callable[[Client], None] | None = None

    def attach(self, client: "Client", *, gives: bool, takes: tuple[int, ...]) -> None:
        """Take on a client.

        Args:
            client: one whose request has been read.
            gives: whether its input goes to the program.
            takes: kinds of output frames that it wants.
        """
        client.gives, client.takes = gives, takes
        if client not in self.clients:
            self.clients.append(client)

    def run(self) -> int:
        """Pass streams and signals on until the program has ended and its output is read.

        Returns:
            Its exit status: 0 to 255, 128 + n for signal n.
        """
        # Before any output is read: who came before the program ran shall see all of it.
        self._accept()
        for client in list(self.clients):
            self._serve(client, select.POLLIN)
        while True:
            self._write_input()
            for descriptor, events in self._wait():
                if descriptor in self._streams.outputs:
                    if events & ~select.POLLOUT:
                        self._read(descriptor)
                elif descriptor == self.pidfd:
                    self._accept()
                    self._drain()
                    return _exit_status(self.pidfd)
                elif descriptor in self.watched:
                    self.watched[descriptor]()
                elif self._listener is not None and descriptor == self._listener.fileno():
                    self._accept()
                else:
                    for client in list(self.clients):
                        if client.fileno() == descriptor:
                            self._serve(client, events)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait for what there is something to do about.

        A client that is behind holds the program's output up; input that the program does not
        take holds clients up.
        """
        streams = self._streams
        awaited = {self.pidfd: select.POLLIN, **dict.fromkeys(self.watched, select.POLLIN)}
        if self._listener is not None:
            awaited[self._listener.fileno()] = select.POLLIN
        held_until = self._held_until()
        for descriptor in streams.outputs:
            if held_until is None:
                awaited[descriptor] = select.POLLIN
        for client in self.clients:
            takes = select.POLLIN if len(self._input) < _INPUT_BYTES_MAX else 0
            awaited[client.fileno()] = takes | (select.POLLOUT if client.has_output else 0)
        if self._input and streams.input is not None:
            reads = select.POLLIN if streams.input == streams.console and held_until is None else 0
            awaited[streams.input] = reads | select.POLLOUT
        dues = [alarm.due for alarm in self.alarms]
        due_ms = _milliseconds_until(held_until, self._rest_at, *dues)
        if self._rest_at is None:
            found = self._memory.wait(awaited.items(), due_ms)
            self._rest_at = time.monotonic() + _REST_SECONDS
        else:
            poll = select.poll()
            for descriptor, events in awaited.items():
                poll.register(descriptor, events)
            found = poll.poll(due_ms)
        if not found and self._rest_at is not None and time.monotonic() >= self._rest_at:
            self._rest()
        for alarm in self.alarms:
            if alarm.due is not None and time.monotonic() >= alarm.due:
                alarm.due = alarm.ring()
        return found

    def _rest(self) -> None:
        """Tidy up once nothing has happened for a while, or the program has been silent."""
        sent = self._log is None or self._log.flush()
        self._rest_at = None if sent else time.monotonic() + _REST_SECONDS
        if self._read_bytes > _MUCH_BYTES:
            malloc.trim()
        self._read_bytes = 0

    def _held_until(self) -> float | None:
        """Let go of attached clients that take nothing; returns until when others are waited for.

        None where nobody is behind. Who started the program is waited for without end, as a
        pipe's reader would be.
        """
        held = None
        for client in list(self.clients):
            if not client.is_behind:
                client.deadline = None
                continue
            if client.starter:
                client.deadline = math.inf
            elif client.deadline is None:
                client.deadline = time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() < client.deadline:
                held = client.deadline if held is None else min(held, client.deadline)
            else:
                self._dismiss(client)
        return held

    def _accept(self) -> None:
        if self._listener is None:
            return
        while True:
            try:
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            except OSError:  # nobody there any more
                return
            connection = _socket.socket(fileno=descriptor)
            connection.setblocking(False)
            client = Client(connection)
            self.clients.append(client)
            self._serve(client, select.POLLIN)

    def _serve(self, client: "Client", events: int) -> None:
        if events & select.POLLOUT:
            client.flush()
        if events & ~select.POLLOUT:
            for kind, payload in client.receive():
                try:
                    self._obey(client, kind, payload)
                except (ValueError, KeyError, TypeError, wire.ProtocolError):
                    client.gone = True  # nonsense: nobody whom the program should suffer for
        if client.gone:
            self._dismiss(client)

    def _dismiss(self, client: "Client") -> None:
        self.clients.remove(client)
        client.let_go()
        if client.gives and self._once:
            self._input_ended = True

    def _obey(self, client: "Client", kind: int, payload: bytes) -> None:
        if not client.asked:
            if kind != wire.REQUEST:
                raise wire.ProtocolError(f"the first frame is of kind {kind}")
            client.asked = True
            self._answer(client, wire.decode(payload))
        elif kind == wire.INPUT:
            if client.gives:
                self._input += payload
                self._input_ended |= not payload and self._once
        elif kind == wire.SIGNAL:
            # The program may have ended, and the number may be no signal.
            with contextlib.suppress(OSError):
                process.pidfd_send_signal(self.pidfd, int(payload) & 0x7F)
        elif kind == wire.RESIZE:
            self._resize(*(int(size) for size in payload.split()))

    def _answer(self, client: "Client", fields: "dict[str, wire.Value]") -> None:
        """Do what somebody asks who has come to the socket."""
        action = fields["action"]
        if action == "attach":
            takes = [wire.OUTPUT] if fields["stdout"] else []
            if fields["stderr"]:
                takes.append(wire.ERRORS)
            gives = bool(fields["stdin"]) and self._streams.input is not None
            self.attach(client, gives=gives, takes=tuple(takes))
            client.started(self._identifier)
        elif action == "resize":
            self._resize(int(fields["rows"]), int(fields["columns"]))  # type: ignore[arg-type]
            client.ended(0)
        elif action == "end":
            client.takes = (wire.STEP,)
            client.started(self._identifier)
        elif action == "names" and self.on_names is not None:
            self.on_names(client)
        elif action == "times" and self.on_times is not None:
            self.on_times(client)
        else:
            client.gone = True

    def _resize(self, rows: int, columns: int) -> None:
        if self._streams.console is not None:
            tty.set_window_size(self._streams.console, rows & 0xFFFF, columns & 0xFFFF)

    def _write_input(self) -> None:
        descriptor = self._streams.input
        if descriptor is None:
            self._input.clear()
            return
        if self._input:
            try:
                del self._input[: os.write(descriptor, self._input)]
            except BlockingIOError:
                return
            except OSError:  # the program has closed its standard input
                self._input.clear()
                self._streams.close_input()
                return
        if self._input_ended and not self._input:
            self._streams.close_input()

    def _read(self, descriptor: int) -> int:
        """Read a piece of output; returns how many bytes, 0 where there are none now."""
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says once its other end is closed
                raise
            data = b""
        if not data:
            self._streams.close_output(descriptor)
            return 0
        kind, name = self._streams.outputs[descriptor]
        if self._log is not None:
            self._log.write(name, data, time.time_ns())
        self._rest_at = time.monotonic() + _REST_SECONDS
        self._read_bytes += len(data)
        for client in list(self.clients):
            if kind in client.takes:
                client.send(kind, data)
                if client.gone:
                    self._dismiss(client)
        return len(data)

    def _drain(self) -> None:
        """Read what the program has written and nobody has read yet.

        Its descendants may hold the streams open in a PID namespace that is not theirs alone, and
        may go on writing, so the end is where nothing is left or more has come than a pipe holds.
        """
        for descriptor in list(self._streams.outputs):
            left = _PIPE_BYTES_MAX
            while left > 0 and (count := self._read(descriptor)):
                left -= count


def _milliseconds_until(*moments: float | None) -> int | None:
    """How long to wait for the first of some moments; None where none will come."""
    first = math.inf
    for moment in moments:
        if moment is not None and moment < first:
            first = moment
    if first == math.inf:
        return None
    return min(max(0, math.ceil((first - time.monotonic()) * 1000)), _LONGEST_WAIT_MS)


def _exit_status(pidfd: int) -> int:
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    if result.si_code == os.CLD_EXITED:
        return result.si_status
    return 128 + result.si_status
