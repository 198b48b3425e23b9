"""Watching over a running program: its streams, its clients, its end.

One loop over poll(2), in the process that is the program's parent. Output goes to the log first
and then to whoever is attached; input comes from them. Nothing here blocks on a client.
"""

import contextlib
import errno
import os
import select
import time

from ketch.engine import wire
from ketch.linux import process, tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ketch.engine.client import Client

    class Log(Protocol):
        """Where a program's output is recorded."""

        def write(self, stream: str, data: bytes, time_ns: int) -> None:
            """Record a piece of output."""


_CHUNK_BYTES = 64 * 1024
_INPUT_BYTES_MAX = 1024 * 1024
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

    def __init__(self, *, interactive: bool, terminal: bool) -> None:
        self.console: int | None = None
        self.input: int | None = None
        self.outputs: dict[int, tuple[int, str]] = {}
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._theirs = [null]
        given = [null, null, null]
        if not terminal:
            if interactive:
                given[0], self.input = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self.input, False)
                self._theirs.append(given[0])
            for number, name in ((wire.OUTPUT, "stdout"), (wire.ERRORS, "stderr")):
                reader, given[number] = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(reader, False)
                self._theirs.append(given[number])
                self.outputs[reader] = (number, name)
        self.given = (given[0], given[1], given[2])

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


class Supervisor:
    """Watches over one program until it has ended.

    Args:
        pidfd: descriptor of the program, a child of the caller.
        streams: the caller's ends of its streams.
        client: who started it and stays attached, or None.
        log: where its output goes as well, or None.
    """

    __slots__ = ("_client", "_input", "_input_ended", "_log", "_pidfd", "_streams")

    def __init__(
        self, pidfd: int, streams: Streams, client: "Client | None", log: "Log | None"
    ) -> None:
        self._pidfd = pidfd
        self._streams = streams
        self._client = client
        self._log = log
        self._input = bytearray()
        self._input_ended = client is None

    def run(self) -> int:
        """Pass streams and signals on until the program has ended and its output is read.

        Returns:
            Its exit status: 0 to 255, 128 + n for signal n.
        """
        if self._client is not None:
            self._serve_client(select.POLLIN)  # what it sent before the program ran
        while True:
            self._write_input()
            for descriptor, events in self._wait():
                if self._client is not None and descriptor == self._client.fileno():
                    self._serve_client(events)
                elif descriptor in self._streams.outputs and events & ~select.POLLOUT:
                    self._read(descriptor)
                elif descriptor == self._pidfd:
                    self._drain()
                    return _exit_status(self._pidfd)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait for what there is something to do about.

        A client that is behind holds the program's output up; input that the program does not
        take holds the client up.
        """
        client, streams = self._client, self._streams
        wanted = {self._pidfd: select.POLLIN}
        if client is None or not client.is_behind:
            wanted |= dict.fromkeys(streams.outputs, select.POLLIN)
        if client is not None:
            wanted[client.fileno()] = (
                select.POLLIN if len(self._input) < _INPUT_BYTES_MAX else 0
            ) | (select.POLLOUT if client.has_output else 0)
        if self._input and streams.input is not None:
            wanted[streams.input] = wanted.get(streams.input, 0) | select.POLLOUT
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        return poll.poll()

    def _serve_client(self, events: int) -> None:
        client = self._client
        assert client is not None
        if events & select.POLLOUT:
            client.flush()
        if events & ~select.POLLOUT:
            for kind, payload in client.receive():
                try:
                    self._obey(kind, payload)
                except ValueError:
                    client.gone = True  # nonsense: nobody whom the program should suffer for
        if client.gone:
            client.close()
            self._client = None
            self._input_ended = True

    def _obey(self, kind: int, payload: bytes) -> None:
        if kind == wire.INPUT:
            self._input += payload
            self._input_ended |= not payload
        elif kind == wire.SIGNAL:
            # The program may have ended, and the number may be no signal.
            with contextlib.suppress(OSError):
                process.pidfd_send_signal(self._pidfd, int(payload) & 0x7F)
        elif kind == wire.RESIZE and self._streams.console is not None:
            rows, columns = (int(size) & 0xFFFF for size in payload.split())
            tty.set_window_size(self._streams.console, rows, columns)

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
        if self._client is not None:
            self._client.send(kind, data)
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


def _exit_status(pidfd: int) -> int:
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    if result.si_code == os.CLD_EXITED:
        return result.si_status
    return 128 + result.si_status
