"""A program's streams in the caller's hands, and its exit status at the end."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

from ketch.engine.containers.ledger import RECORD_TIMEOUT_SECONDS
from ketch.engine.requests import launch, wire
from ketch.errors import (
    KetchError,
    ProgramFailedError,
    ProgramOutputError,
    ProgramTimeoutError,
    UnavailableError,
)
from ketch.library import given
from ketch.spec import signals as names

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from ketch.library.places import Places

    Ask = Callable[[Mapping[str, wire.Value]], "Session | None"]

_CHUNK_BYTES = 64 * 1024
# What says how the program stands: it runs, it has ended, there will be none.
_STANDS = {wire.STARTED, wire.EXIT, wire.FAILED}
_KILLED = 128 + signal.SIGKILL
_NAMES = {wire.OUTPUT: "stdout", wire.ERRORS: "stderr"}


class OutOfTimeError(UnavailableError):
    """Nothing came before a deadline."""


class Session:
    """A connection to a program in a container: iterate over it for the program's output.

    Each item is a stream's name, ``stdout`` or ``stderr``, and bytes; at the end ``exit_status``
    says what the program ended with. As a context manager it lets go of the program at the end,
    which goes on. One thread may write while another reads.

    Attributes:
        id: of the container or the exec.
        exit_status: None while the program runs.
        warnings: what the engine had to say of the request.
    """

    def __init__(self, places: "Places", connection: "_socket.socket") -> None:
        self._places = places
        self._socket = socket.socket(fileno=connection.detach())
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self._sending = threading.Lock()
        self._unsent = b""  # a frame that was begun is ended, whoever was called off meanwhile
        self._told: dict[int, bytes] = {}  # of the frames that tell how it stands, by their kinds
        self.id = ""
        self.exit_status: int | None = None
        self.warnings: list[str] = []

    def __enter__(self) -> "Session":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Let go of the program."""
        self.close()

    def __iter__(self) -> "Iterator[tuple[str, bytes]]":
        """Yield output as it comes, until the program ends.

        Raises:
            UnavailableError: the process that watches the program has gone.
        """
        return self._output(None)

    def _output(self, deadline: float | None) -> "Iterator[tuple[str, bytes]]":
        """Yield output as it comes.

        Raises:
            OutOfTimeError: nothing more has come until the deadline, of time.monotonic().
        """
        while self.exit_status is None:
            kind, payload = self._next(deadline)
            if kind in _NAMES:
                yield _NAMES[kind], payload
            elif kind == wire.EXIT:
                self.exit_status = int(payload)

    def read(self) -> tuple[bytes, bytes]:
        """Returns all of the program's output, on stdout and on stderr, once it has ended."""
        return _gathered(self)

    def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Give the program input, and the end of it, while its output is read.

        A program may end, or close its input, before it has read all of that.

        Returns:
            All of its output, on stdout and on stderr, once it has ended.
        """
        return _gathered(self._exchange(given.content("data", data)))

    def wait(self) -> int:
        """Wait for the program's end, whatever it writes; returns its exit status."""
        for _ in self:
            pass
        assert self.exit_status is not None
        return self.exit_status

    def write(self, data: bytes) -> None:
        """Give the program input; waits for as long as it takes none."""
        data = given.content("data", data)
        for start in range(0, len(data), _CHUNK_BYTES):
            self._send(wire.INPUT, data[start : start + _CHUNK_BYTES])

    def end_input(self) -> None:
        """Tell the program that no more input will come."""
        self._send(wire.INPUT, b"")

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
        self._send(wire.RESIZE, f"{rows} {columns}".encode())

    def kill(self, signal: str = "KILL") -> None:
        """Send the program a signal; how it ends is told to whoever reads or waits.

        Args:
            signal: its name, with or without ``SIG``, or its number as text.

        Raises:
            InvalidArgumentError: there is no such signal.
        """
        self._send(wire.SIGNAL, b"%d" % names.number(signal))

    def close(self) -> None:
        """Let go of the program."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self._socket.close()

    def expect(self, *kinds: int) -> bytes:
        """Returns the next frame of one of these kinds; warnings before it are kept."""
        return self._expect(kinds, None)

    def _expect(self, kinds: tuple[int, ...], deadline: float | None) -> bytes:
        while True:
            kind, payload = self._next(deadline)
            if kind in kinds:
                return payload
            if kind == wire.ERRORS:
                self.warnings.append(os.fsdecode(payload).strip())

    def _exchange(
        self, data: bytes, deadline: float | None = None
    ) -> "Iterator[tuple[str, bytes]]":
        """Yield output as it comes, while input goes where it came from.

        Raises:
            OutOfTimeError: the program is still there at the deadline, of time.monotonic().
        """
        starts = iter(range(0, len(data), _CHUNK_BYTES))
        giving = True
        while self.exit_status is None:
            while giving and not self._unsent:
                start = next(starts, None)
                piece = b"" if start is None else data[start : start + _CHUNK_BYTES]
                giving = start is not None
                self._begin(wire.INPUT, piece)
            if not self._frames:
                events = self._await(
                    select.POLLIN | (select.POLLOUT if self._unsent else 0), deadline
                )
                if events & select.POLLOUT:
                    with self._sending:
                        self._flush()
                if events & ~select.POLLOUT:
                    self._receive()
            while self._frames and self.exit_status is None:
                kind, payload = self._next()
                if kind in _NAMES:
                    yield _NAMES[kind], payload
                elif kind == wire.EXIT:
                    self.exit_status = int(payload)

    # The connection

    def _next(self, deadline: float | None = None) -> tuple[int, bytes]:
        while not self._frames:
            self._await(select.POLLIN, deadline)
            self._receive()
        kind, payload = self._frames.pop(0)
        if kind == wire.FAILED:
            raise wire.error(payload)
        return kind, payload

    def _receive(self) -> None:
        """Take what has come, after its coming has been waited for.

        Ctrl-C takes nothing of it away, and what tells how it stands is known from then on: whoever
        is interrupted before he has read that would wait for it in vain.
        """
        with _uninterrupted():
            try:
                data = self._socket.recv(_CHUNK_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                raise UnavailableError("the process that watches the program has gone")
            for frame in self._decoder.feed(data):
                if frame[0] in _STANDS:
                    self._told.setdefault(*frame)
                self._frames.append(frame)

    def _send(self, kind: int, payload: bytes) -> None:
        self._begin(kind, payload)
        while self._unsent:
            self._await(select.POLLOUT)
            with self._sending:
                self._flush()

    def _begin(self, kind: int, payload: bytes) -> None:
        """Send as much of a frame as is taken at once."""
        with self._sending:
            self._unsent += wire.frame(kind, payload)
            self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            # The other end has gone; what is still to be read says why.
            self._unsent = b""
            return
        self._unsent = self._unsent[sent:]

    def _await(self, events: int, deadline: float | None = None) -> int:
        """Wait for one of some events of poll(2) on the connection; returns which came.

        Raises:
            OutOfTimeError: none came in time.
            UnavailableError: the session is closed.
        """
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise UnavailableError("the session is closed")
        left_ms = None if deadline is None else max(0, int(1000 * (deadline - time.monotonic())))
        found = dict(self._places.patience.poll(left_ms, (descriptor, events)))
        if descriptor not in found and left_ms is not None:
            raise OutOfTimeError("the process that watches the program does not answer")
        return found.get(descriptor, 0)

    # What is not wanted any more

    def _withdraw(self) -> bool:
        """Call off what was asked for; returns whether it has come about nevertheless."""
        deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
        with self._places.uninterrupted(), contextlib.suppress(KetchError):
            if not self._told:
                self._send(wire.SIGNAL, b"%d" % signal.SIGTERM)
            while not self._told:
                self._await(select.POLLIN, deadline)
                self._receive()
        self.id = self._told.get(wire.STARTED, b"").decode()
        return bool(self.id)

    def _kill(self) -> None:
        """Kill the program, wait for its end, and let go of it."""
        deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
        with self._places.uninterrupted(), contextlib.suppress(KetchError):
            self._send(wire.SIGNAL, b"%d" % signal.SIGKILL)
            while wire.EXIT not in self._told:
                self._await(select.POLLIN, deadline)
                self._receive()
            self.exit_status = int(self._told[wire.EXIT])
        self.close()


@contextlib.contextmanager
def _uninterrupted() -> "Iterator[None]":
    """Have Ctrl-C wait for the end of a block that itself waits for nothing.

    In a program of several threads the kernel may give the signal to another one, and the block is
    left all the same: then for a few instructions.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def gather(
    session: Session,
    data: bytes,
    *,
    timeout: float | None,
    max_output: int | None,
    end: "Callable[[], object]",
) -> list[tuple[str, bytes]]:
    """Give a program input and take its output until it ends, which it is helped to where it must.

    Args:
        session: the program's.
        data: its input.
        timeout: how many seconds it may take; None for ever.
        max_output: how many bytes it may write, stdout and stderr together; None for any number.
        end: ends the program: when it takes or writes too much, or waiting is interrupted.

    Returns:
        What came, each piece with its stream's name.

    Raises:
        ProgramTimeoutError: its time was up.
        ProgramOutputError: it wrote more than it was to.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pieces: list[tuple[str, bytes]] = []
    left = max_output
    kind: type[ProgramFailedError] = ProgramTimeoutError
    why = f"had not ended after {timeout} s"
    try:
        for stream, piece in session._exchange(data, deadline):
            pieces.append((stream, piece if left is None else piece[:left]))
            if left is not None:
                left -= len(piece)
                if left < 0:
                    kind, why = ProgramOutputError, f"wrote more than {max_output} bytes"
                    break
            # Who writes all the time is never waited for.
            if deadline is not None and time.monotonic() > deadline:
                break
    except OutOfTimeError:
        pass
    except KetchError:
        raise
    except BaseException:  # nobody waits for it any more, and nobody else knows of it
        end()
        raise
    if session.exit_status is not None:
        return pieces
    end()
    raise kind(
        f"{session.id[:12]}: the program {why} and was killed",
        exit_status=_KILLED, stdout=joined(pieces, "stdout"), stderr=joined(pieces, "stderr"),
    )  # fmt: skip


def joined(pieces: "Sequence[tuple[str, bytes]]", *streams: str) -> bytes:
    """Returns what was written to some streams, in the order in which it came."""
    return b"".join(data for stream, data in pieces if stream in streams)


def _gathered(output: "Iterator[tuple[str, bytes]] | Session") -> tuple[bytes, bytes]:
    found = {"stdout": bytearray(), "stderr": bytearray()}
    for name, data in output:
        found[name] += data
    return bytes(found["stdout"]), bytes(found["stderr"])


def start(
    places: "Places", fields: "Mapping[str, wire.Value]", undo: "Callable[[Session], object]"
) -> Session:
    """Ask a process that serves one request, forked by the zygote; returns when it has started.

    Args:
        places: the engine's.
        fields: the request's.
        undo: what ends that which has been started, where nobody wants it any more.

    Raises:
        KetchError: it cannot be done.
    """
    with places.uninterrupted():  # it may have to start a process, which waits for nobody
        session = Session(places, launch.connect(places.settings))
    about: dict[str, wire.Value] = {
        **places.settings.fields, "directory": os.getcwd(),
        "environment": [f"{name}={value}" for name, value in os.environ.items()],
    }  # fmt: skip
    ask(session, {**fields, **about}, undo)
    return session


def ask(
    session: Session, fields: "Mapping[str, wire.Value]", undo: "Callable[[Session], object]"
) -> None:
    """Ask whoever is at the other end of a new session; returns when it has started.

    Args:
        session: it is closed where that fails.
        fields: the request's.
        undo: as for ``start``.

    Raises:
        KetchError: it cannot be done.
    """
    try:
        session._send(wire.REQUEST, wire.encode({**fields}))
        session.id = session.expect(wire.STARTED).decode()
    except KetchError:
        session.close()
        raise
    except BaseException:
        if session._withdraw():
            undo(session)
        session.close()
        raise
    session._places.unless_delivered(lambda: undo(session))


def attach(
    places: "Places", container_id: str, *, stdin: bool, stdout: bool, stderr: bool
) -> Session:
    """Attach to a container that runs.

    Raises:
        ConflictError: it does not.
    """
    session = Session(places, launch.reach_monitor(places.settings, container_id))
    fields: dict[str, wire.Value] = {
        "action": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr,
    }  # fmt: skip
    try:
        session._send(wire.REQUEST, wire.encode(fields))
        session.id = session.expect(wire.STARTED).decode()
    except BaseException:
        session.close()
        raise
    places.unless_delivered(session.close)
    return session
