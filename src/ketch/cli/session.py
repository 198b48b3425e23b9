"""The caller's side of an attached container: terminal, streams and signals, passed on as frames.

This runs in the client, whose whole start is a few milliseconds, so it is written on C modules
alone (``_signal`` for ``signal``, which would load ``enum``).
"""

import os
import select
import sys
import termios

from ketch.engine import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import signal as _signal
else:
    import _signal

_CHUNK_BYTES = 64 * 1024
LOST_STATUS = 125
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
    """

    def __init__(self, exit_status: int | None, message: str, hint: str) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.message = message
        self.hint = hint


class Session:
    """One request and what comes of it. It owns its connection.

    Args:
        connection: to a process that takes one request (``launch.connect``).
        request: the request's fields.
    """

    __slots__ = ("_connection", "_decoder", "_frames", "_pending")

    def __init__(self, connection: "_socket.socket", request: "dict[str, wire.Value]") -> None:
        self._connection = connection
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self._pending = b""
        connection.sendall(wire.frame(wire.REQUEST, wire.encode(request)))

    def await_started(self) -> str:
        """Wait until the program runs; returns the container's or exec's identifier.

        Raises:
            Failure: it could not be started.
        """
        while True:
            for kind, payload in self._receive():
                if kind == wire.STARTED:
                    return payload.decode()
                _raise_failure(kind, payload)

    def attach(
        self, *, interactive: bool, terminal: bool, forward_signals: bool, detach_keys: bytes
    ) -> int:
        """Pass streams and signals on until the program ends.

        Args:
            interactive: whether standard input goes to the program.
            terminal: whether the program has a terminal of its own.
            forward_signals: whether signals that the client gets go to the program.
            detach_keys: what typed on the terminal ends the session and not the program.

        Returns:
            The program's exit status, 0 after detaching.

        Raises:
            Failure: the program's side broke off.
        """
        raw = terminal and interactive and os.isatty(0)
        saved = termios.tcgetattr(0) if raw else None
        wakeup, wakeup_writer = os.pipe()
        os.set_blocking(wakeup_writer, False)
        _signal.set_wakeup_fd(wakeup_writer)
        try:
            if terminal:
                self._send_size()
                _signal.signal(_signal.SIGWINCH, _wake)
            if forward_signals:
                for number in range(1, 65):
                    if number not in _OWN_SIGNALS:
                        _signal.signal(number, _wake)
            if raw:
                set_raw(0)
            return self._pump(interactive, detach_keys if raw else b"", wakeup)
        finally:
            if saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def _pump(self, interactive: bool, detach_keys: bytes, wakeup: int) -> int:
        self._connection.setblocking(False)
        connection = self._connection.fileno()
        keys = _DetachKeys(detach_keys)
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        reading = interactive
        while True:
            status = self._deliver()
            if status is not None:
                return status
            poll.register(connection, select.POLLIN | (select.POLLOUT if self._pending else 0))
            # Input waits here while the program is not taking any: never more than one chunk.
            if reading and not self._pending:
                poll.register(0, select.POLLIN)
            elif reading or interactive:
                _unregister(poll, 0)
            for descriptor, events in poll.poll():
                if descriptor == wakeup:
                    self._pass_signals(os.read(wakeup, 256))
                elif descriptor == 0:
                    data = os.read(0, _CHUNK_BYTES)
                    reading = bool(data)
                    kept, detached = keys.filter(data)
                    if kept or not data:
                        self._pending += wire.frame(wire.INPUT, kept)
                    if detached:
                        return 0
                else:
                    if events & select.POLLOUT:
                        self._flush()
                    if events & ~select.POLLOUT:
                        self._frames += self._receive()

    def _deliver(self) -> int | None:
        """Write what has come; returns the exit status once it is known."""
        frames, self._frames = self._frames, []
        for kind, payload in frames:
            if kind == wire.OUTPUT:
                write_all(1, payload)
            elif kind == wire.ERRORS:
                write_all(2, payload)
            elif kind == wire.EXIT:
                return int(payload)
            else:
                _raise_failure(kind, payload)
        return None

    def _pass_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == _signal.SIGWINCH:
                self._send_size()
            else:
                self._pending += wire.frame(wire.SIGNAL, b"%d" % number)

    def _send_size(self) -> None:
        try:
            columns, rows = os.get_terminal_size(1)
        except OSError:
            return
        self._pending += wire.frame(wire.RESIZE, b"%d %d" % (rows, columns))

    def _flush(self) -> None:
        try:
            sent = self._connection.send(self._pending)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._pending)  # nobody reads any more; what is still to come says why
        self._pending = self._pending[sent:]

    def _receive(self) -> list[tuple[int, bytes]]:
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            raise Failure(LOST_STATUS, "the container's monitor has gone", "ketch ps -a tells more")
        return list(self._decoder.feed(data))


class _DetachKeys:
    """Finds the detach sequence in what is typed, holding back what may be its beginning."""

    __slots__ = ("_held", "_sequence")

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = 0

    def filter(self, data: bytes) -> tuple[bytes, bool]:
        """Returns what to pass on, and whether the sequence is complete."""
        if not self._sequence:
            return data, False
        passed = bytearray()
        for index in range(len(data)):
            byte = data[index : index + 1]
            if byte != self._sequence[self._held : self._held + 1]:
                passed += self._sequence[: self._held]
                self._held = 0
            if byte == self._sequence[self._held : self._held + 1]:
                self._held += 1
                if self._held == len(self._sequence):
                    return bytes(passed), True
            else:
                passed += byte
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    r"""Turn ``ctrl-p,ctrl-q`` into the bytes that a terminal sends.

    Raises:
        ValueError: a key is neither one character nor ``ctrl-`` and one of ``a-z@[\\]^_``.
    """
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            keys += key.encode()
        elif (
            key.startswith("ctrl-")
            and len(key) == 6
            and key[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
        ):
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise ValueError(key)
    return bytes(keys)


def set_raw(descriptor: int) -> None:
    """Make a terminal pass every key on unchanged: cfmakeraw(3)."""
    mode = termios.tcgetattr(descriptor)
    mode[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; a reader that has gone ends the client as it ends other filters."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BrokenPipeError:
            sys.exit(128 + _signal.SIGPIPE)
        except BlockingIOError:
            select.select((), (descriptor,), ())


def _raise_failure(kind: int, payload: bytes) -> None:
    if kind == wire.FAILED:
        status, message, hint = payload.decode(errors="replace").split("\0")
        raise Failure(int(status) if status else None, message, hint)


def _unregister(poll: "select.poll", descriptor: int) -> None:
    try:  # noqa: SIM105 - contextlib's import takes longer than all the rest here
        poll.unregister(descriptor)
    except KeyError:
        pass


def _wake(_number: int, _frame: object) -> None:
    """The wakeup descriptor has the number already."""
