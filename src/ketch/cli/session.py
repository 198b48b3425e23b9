"""The caller's side of an attached container: terminal, streams and signals, passed on as frames.

This runs in the client, whose whole start is a few milliseconds, so it is written on C modules
alone (``_signal`` for ``signal``, which would load ``enum``).
"""

import os
import select
import sys

from ketch.engine.requests import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import signal as _signal
    from collections.abc import Callable

    from ketch.spec.detach_keys import DetachKeys
else:
    import _signal

_CHUNK_BYTES = 64 * 1024
LOST_STATUS = 125
ENDING_SIGNALS = {_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM}
# Not passed on: what cannot be caught, what is about the client itself, what is a fault of it,
# job control of its own terminal, and two that glibc keeps for itself.
_OWN_SIGNALS = {
    _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG,
    _signal.SIGWINCH, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL,
    _signal.SIGTTIN, _signal.SIGTTOU, 32, 33,
}  # fmt: skip


class Failure(Exception):  # noqa: N818 - what the other side says, not an error of ours
    """The other side could not do what was asked.

    Args:
        exit_status: what the command is to exit with, None where that is the command's affair.
        message: what failed.
        hint: what to do about it, or empty.
        error_class: name of the class in ``ketch.errors``, or empty.
    """

    def __init__(
        self, exit_status: int | None, message: str, hint: str, error_class: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.message = message
        self.hint = hint
        self.error_class = error_class


class Signals:
    """What signals the client gets from now on, to be read between other things.

    Signals that the caller had this process ignore, as nohup(1) does, stay ignored.

    Args:
        every: whether to take all that a program may be sent, else only those that end one.
    """

    __slots__ = ("_reader", "_writer")

    def __init__(self, *, every: bool) -> None:
        # Non-blocking, because an old signal may have been read together with a new one.
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in range(1, 65) if every else sorted(ENDING_SIGNALS):
            if number not in _OWN_SIGNALS:
                self.take(number)

    def take(self, number: int) -> None:
        """Take this signal as well."""
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _wake)

    def fileno(self) -> int:
        """A descriptor that is readable when there are signals."""
        return self._reader

    def read(self) -> bytes:
        """The numbers of the signals that have come, a byte each."""
        try:
            return os.read(self._reader, 256)
        except BlockingIOError:
            return b""

    def release(self) -> None:
        """Let signals do again what they do to a program that has no use for them.

        For a child of this process; SIGINT raises KeyboardInterrupt there.
        """
        _signal.set_wakeup_fd(-1)
        for number in range(1, 65):
            if number not in _OWN_SIGNALS and _signal.getsignal(number) is _wake:
                _signal.signal(number, _signal.SIG_DFL)
        if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)

    def close(self) -> None:
        """Read no more signals."""
        _signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


class Session:
    """One request and what comes of it. It owns its connection.

    Args:
        connect: connects to a process that takes one request (``launch.connect``).
        request: the request's fields.
        signals: what the client is sent.
        explain: takes what is told of each step, where that was asked for, and at the end nothing;
            gives what is to be written of it.

    Attributes:
        id: the container's or exec's identifier, empty as long as none is told.
    """

    __slots__ = (
        "_connect", "_connection", "_decoder", "_explain", "_frames", "_pending", "_poll",
        "_request", "_signals", "id",
    )  # fmt: skip

    def __init__(
        self,
        connect: "Callable[[], _socket.socket]",
        request: "dict[str, wire.Value]",
        signals: Signals,
        explain: "Callable[[bytes], bytes] | None" = None,
    ) -> None:
        self._connect = connect
        self._explain = explain
        self._request = wire.frame(wire.REQUEST, wire.encode(request))
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self._signals = signals
        self.id = ""
        self._ask()

    def _ask(self) -> None:
        self._connection = self._connect()
        self._connection.setblocking(False)
        self._pending = self._request
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)

    def await_started(self, awaited: int = wire.STARTED) -> None:
        """Wait until the program runs, or the container is there if that is all that was asked for.

        A signal that ends programs calls the start off; a second one does not wait for the answer.

        Args:
            awaited: the frame that says so: STARTED or CREATED.

        Raises:
            Failure: it could not be started; ``id`` is told if it was made all the same.
        """
        called_off = False
        while not self._take_first(awaited):
            for descriptor, events in self._wait():
                if descriptor != self._signals.fileno():
                    self._exchange(events)
                    continue
                for number in self._signals.read():
                    if called_off and number in ENDING_SIGNALS:
                        sys.exit(128 + number)
                    called_off |= number in ENDING_SIGNALS
                    self._request = b""
                    self._pending += wire.frame(wire.SIGNAL, b"%d" % number)
        kind, payload = self._frames.pop(0)
        if kind != awaited:
            raise _failure(kind, payload)
        self.id = payload.decode()

    def _take_first(self, awaited: int) -> bool:
        """Take what comes before the start, warnings and an id; returns whether more came."""
        while self._frames:
            kind, payload = self._frames[0]
            if kind == wire.CREATED != awaited:
                self.id = payload.decode()
            elif kind == wire.ERRORS:
                self._write(2, payload, forward_signals=False)
            elif kind == wire.STEP:
                self._tell(payload, forward_signals=False)
            else:
                if self._explain is not None:
                    self._tell(b"", forward_signals=False)
                return True
            del self._frames[0]
        return False

    def attach(
        self,
        *,
        interactive: bool,
        terminal: bool,
        forward_signals: bool,
        detach_keys: bytes,
        shown: tuple[int, ...] = (wire.OUTPUT, wire.ERRORS),
    ) -> int:
        """Pass streams and signals on until the program ends.

        Args:
            interactive: whether standard input goes to the program.
            terminal: whether the program has a terminal of its own.
            forward_signals: whether signals that the client gets go to the program; else those
                that end programs end the client alone.
            detach_keys: what typed on the terminal ends the session and not the program.
            shown: which of its output is passed on.

        Returns:
            The program's exit status, 0 after detaching.

        Raises:
            Failure: the program's side broke off.
        """
        raw = terminal and interactive and os.isatty(0)
        if terminal:
            self._signals.take(_signal.SIGWINCH)
            self._send_size()
        if not raw:
            return self._pump(interactive, forward_signals, None, shown)
        from ketch.cli import raw_terminal  # noqa: PLC0415 - where somebody types
        from ketch.spec.detach_keys import DetachKeys  # noqa: PLC0415 - likewise

        saved = raw_terminal.make_raw(0)
        try:
            return self._pump(interactive, forward_signals, DetachKeys(detach_keys), shown)
        finally:
            raw_terminal.restore(0, saved)

    def _pump(
        self,
        reading: bool,
        forward_signals: bool,
        keys: "DetachKeys | None",
        shown: tuple[int, ...],
    ) -> int:
        listening = False
        while True:
            while self._frames:
                kind, payload = self._frames.pop(0)
                if kind in {wire.OUTPUT, wire.ERRORS}:
                    if kind in shown:
                        self._write(1 if kind == wire.OUTPUT else 2, payload, forward_signals)
                elif kind == wire.STEP:
                    self._tell(payload, forward_signals)
                elif kind == wire.EXIT:
                    if self._explain is not None:
                        self._tell(b"", forward_signals)
                    return int(payload)
                else:
                    raise _failure(kind, payload)
            # Input waits here while the program is not taking any: never more than one chunk.
            if listening != (reading and not self._pending):
                listening = not listening
                if listening:
                    self._poll.register(0, select.POLLIN)
                else:
                    self._poll.unregister(0)
            for descriptor, events in self._wait():
                if descriptor == self._signals.fileno():
                    self._pass_signals(forward_signals)
                elif descriptor == 0:
                    data = _read_input()
                    if data is None:
                        continue
                    reading = bool(data)
                    passed, detached = keys.filter(data) if keys is not None else (data, False)
                    if passed or not data:
                        self._pending += wire.frame(wire.INPUT, passed)
                    if detached:
                        return 0
                else:
                    self._exchange(events)

    def _wait(self) -> list[tuple[int, int]]:
        self._poll.register(
            self._connection, select.POLLIN | (select.POLLOUT if self._pending else 0)
        )
        return self._poll.poll()

    def _exchange(self, events: int) -> None:
        """Send what is pending and take what has come, as far as either is possible."""
        if events & select.POLLOUT:
            try:
                self._pending = self._pending[self._connection.send(self._pending) :]
            except BlockingIOError:
                pass
            except OSError:
                self._pending = b""  # nobody reads any more; what is still to come says why
        if not events & ~select.POLLOUT:
            return
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            if self._request:
                # The zygote was killed before anyone had read what is asked for: unix(7) tells
                # that from an end after reading. So it can be asked of another one.
                self._connection.close()
                self._ask()
                self._request = b""
                return
            data = b""
        self._request = b""
        if not data:
            raise Failure(
                LOST_STATUS,
                "the container's monitor has gone",
                "ketch ps -a tells of the container, errors.log in the state directory of others",
            )
        self._frames += self._decoder.feed(data)

    def _write(self, descriptor: int, data: bytes, forward_signals: bool) -> None:
        """Write all of it; a reader that has gone ends the client as it ends other filters.

        Signals are attended to while the reader takes its time. That is why a pipe gets no more at
        once than it takes without blocking once it takes anything: pipe(7), PIPE_BUF.
        """
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.register(self._signals, select.POLLIN)
        piece = select.PIPE_BUF if _is_pipe(descriptor) else len(data)
        view = memoryview(data)
        while view:
            if any(ready == self._signals.fileno() for ready, _ in poll.poll()):
                self._pass_signals(forward_signals)
                self._exchange(select.POLLOUT)
                continue
            try:
                view = view[os.write(descriptor, view[:piece]) :]
            except BrokenPipeError:
                sys.exit(128 + _signal.SIGPIPE)
            except BlockingIOError:
                pass

    def _tell(self, payload: bytes, forward_signals: bool) -> None:
        if self._explain is not None:
            self._write(2, self._explain(payload), forward_signals)

    def _pass_signals(self, forward: bool) -> None:
        for number in self._signals.read():
            if number == _signal.SIGWINCH:
                self._send_size()
            elif forward:
                self._pending += wire.frame(wire.SIGNAL, b"%d" % number)
            elif number in ENDING_SIGNALS:
                sys.exit(128 + number)

    def _send_size(self) -> None:
        if size := window():
            self._pending += wire.frame(wire.RESIZE, b"%d %d" % (size["rows"], size["columns"]))


def window() -> dict[str, int]:
    """The size of the caller's terminal as a request tells it; empty where there is no terminal."""
    for descriptor in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        return {"rows": rows, "columns": columns}
    return {}


def _read_input() -> bytes | None:
    """A piece of standard input, empty at its end; None where there is none after all."""
    try:
        return os.read(0, _CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError:  # closed, a directory, or a terminal that has gone
        return b""


def _is_pipe(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_mode & 0o170000 == 0o010000
    except OSError:
        return False


def _failure(kind: int, payload: bytes) -> Failure:
    if kind != wire.FAILED:
        return Failure(LOST_STATUS, f"the container's monitor sent a frame of kind {kind}", "")
    return Failure(*wire.decode_failure(payload))


def _wake(_number: int, _frame: object) -> None:
    """The wakeup descriptor has the number already."""
