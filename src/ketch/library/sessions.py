"""A program's streams in the caller's hands, and its exit status at the end."""

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from ketch.engine.requests import launch, wire
from ketch.errors import UnavailableError

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from ketch.engine.settings import Settings

_CHUNK_BYTES = 64 * 1024
_NAMES = {wire.OUTPUT: "stdout", wire.ERRORS: "stderr"}


class Session:
    """A connection to a program in a container: iterate over it for the program's output.

    Each item is a stream's name, ``stdout`` or ``stderr``, and bytes; at the end ``exit_status``
    says what the program ended with. As a context manager it lets go of the program at the end,
    which goes on.

    Attributes:
        id: of the container or the exec.
        exit_status: None while the program runs.
        warnings: what the engine had to say of the request.
    """

    def __init__(self, connection: "_socket.socket") -> None:
        self._socket = socket.socket(fileno=connection.detach())
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []
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
        while self.exit_status is None:
            kind, payload = self._next()
            if kind in _NAMES:
                yield _NAMES[kind], payload
            elif kind == wire.EXIT:
                self.exit_status = int(payload)

    def read(self) -> tuple[bytes, bytes]:
        """Returns all of the program's output, on stdout and on stderr, once it has ended."""
        found = {"stdout": bytearray(), "stderr": bytearray()}
        for name, data in self:
            found[name] += data
        return bytes(found["stdout"]), bytes(found["stderr"])

    def wait(self) -> int:
        """Wait for the program's end, whatever it writes; returns its exit status."""
        for _ in self:
            pass
        assert self.exit_status is not None
        return self.exit_status

    def write(self, data: bytes) -> None:
        """Give the program input; waits for as long as it takes none."""
        for start in range(0, len(data), _CHUNK_BYTES):
            self._send(wire.INPUT, data[start : start + _CHUNK_BYTES])

    def end_input(self) -> None:
        """Tell the program that no more input will come."""
        self._send(wire.INPUT, b"")

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
        self._send(wire.RESIZE, f"{rows} {columns}".encode())

    def close(self) -> None:
        """Let go of the program."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self._socket.close()

    def expect(self, *kinds: int) -> bytes:
        """Returns the next frame of one of these kinds; warnings before it are kept."""
        while True:
            kind, payload = self._next()
            if kind in kinds:
                return payload
            if kind == wire.ERRORS:
                self.warnings.append(os.fsdecode(payload).strip())

    def _next(self) -> tuple[int, bytes]:
        while not self._frames:
            try:
                data = self._socket.recv(_CHUNK_BYTES)
            except OSError:
                data = b""
            if not data:
                raise UnavailableError("the process that watches the program has gone")
            self._frames += self._decoder.feed(data)
        kind, payload = self._frames.pop(0)
        if kind == wire.FAILED:
            raise wire.error(payload)
        return kind, payload

    def _send(self, kind: int, payload: bytes) -> None:
        # Where the other end has gone, what is still to be read says why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(wire.frame(kind, payload))


def start(settings: "Settings", fields: "Mapping[str, wire.Value]") -> Session:
    """Ask a process that serves one request, forked by the zygote; returns when it has started.

    Raises:
        KetchError: it cannot be done.
    """
    session = Session(launch.connect(settings))
    about: dict[str, wire.Value] = {
        "root": settings.root, "state": settings.state, "directory": os.getcwd(),
        "environment": [f"{name}={value}" for name, value in os.environ.items()],
    }  # fmt: skip
    try:
        session._send(wire.REQUEST, wire.encode({**fields, **about}))
        session.id = session.expect(wire.STARTED).decode()
    except BaseException:
        session.close()
        raise
    return session


def attach(
    settings: "Settings", container_id: str, *, stdin: bool, stdout: bool, stderr: bool
) -> Session:
    """Attach to a container that runs.

    Raises:
        ConflictError: it does not.
    """
    session = Session(launch.reach_monitor(settings, container_id))
    fields: dict[str, wire.Value] = {
        "action": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr,
    }  # fmt: skip
    try:
        session._send(wire.REQUEST, wire.encode(fields))
        session.id = session.expect(wire.STARTED).decode()
    except BaseException:
        session.close()
        raise
    return session
