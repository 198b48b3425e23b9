"""Programs in a sandbox: one that is run to its end, and one whose streams the caller has."""

import time
from typing import TYPE_CHECKING, NamedTuple

from ketch.engine.volumes import branches
from ketch.errors import ProgramOutputError, ProgramTimeoutError
from ketch.library import given, sessions
from ketch.sandbox.ending import end

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from ketch.library.container import Container
    from ketch.library.places import Places
    from ketch.library.sessions import Ask, Session
    from ketch.sandbox.attendance import Attendance

OUTPUT_BYTES_MAX = 8 << 20
"""How much a program may write where nobody says otherwise."""

_KILLED = 137


class RunResult(NamedTuple):
    """What came of a program.

    Attributes:
        status: what it ended with; 128 + n for signal n.
        stdout: what it wrote there.
        stderr: likewise.
        timed_out: whether it was killed because its time was up.
        oom_killed: whether the kernel killed a process meanwhile for want of memory.
        truncated: whether it was killed because it wrote too much; the rest is not there.
        duration: how many seconds it took.
    """

    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    oom_killed: bool
    truncated: bool
    duration: float

    @property
    def text(self) -> str:
        """What it wrote to its standard output, as text."""
        return self.stdout.decode(errors="replace")


class Process:
    """A program that runs in a sandbox: iterate over it for its output, until it ends.

    Each item is a stream's name, ``stdout`` or ``stderr``, and bytes. As a context manager it lets
    go of the program at the end, which goes on as long as the sandbox does. One thread may write
    while another reads.
    """

    def __init__(self, places: "Places", session: "Session") -> None:
        self._places = places
        self._session = session

    def __enter__(self) -> "Process":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Let go of the program."""
        self.close()

    def __iter__(self) -> "Iterator[tuple[str, bytes]]":
        """Yield output as it comes, until the program ends."""
        return self.stream()

    @property
    def id(self) -> str:
        """The ID under which the engine has it."""
        return self._session.id

    @property
    def exit_status(self) -> int | None:
        """What it ended with, 128 + n for signal n; None until its end has been read."""
        return self._session.exit_status

    def stream(self, *, timeout: float | None = None) -> "Iterator[tuple[str, bytes]]":
        """Yield output as it comes, until the program ends.

        Args:
            timeout: how many seconds that may take; then the program is killed. None for ever.

        Raises:
            ProgramTimeoutError: it had not ended in time.
        """
        given.limits(timeout, None)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            for piece in self._session._output(deadline):
                yield piece
                if deadline is not None and time.monotonic() > deadline:
                    break  # it writes all the time
        except sessions.OutOfTimeError:
            pass
        if self.exit_status is None:
            self.kill()
            raise ProgramTimeoutError(
                f"{self.id[:12]}: the program had not ended after {timeout} s and was killed",
                exit_status=_KILLED,
            )

    def read(self) -> tuple[bytes, bytes]:
        """Returns all of the program's output, on stdout and on stderr, once it has ended."""
        return self._session.read()

    def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Give the program input, and the end of it, while its output is read.

        Returns:
            All of its output, on stdout and on stderr, once it has ended.
        """
        return self._session.communicate(data)

    def wait(self, *, timeout: float | None = None) -> int:
        """Wait for the program's end, whatever it writes; returns its exit status.

        Args:
            timeout: how many seconds that may take; then the program is killed. None for ever.

        Raises:
            ProgramTimeoutError: it had not ended in time.
        """
        for _ in self.stream(timeout=timeout):
            pass
        assert self.exit_status is not None
        return self.exit_status

    def write(self, data: bytes) -> None:
        """Give the program input; waits for as long as it takes none."""
        self._session.write(data)

    def end_input(self) -> None:
        """Tell the program that no more input will come."""
        self._session.end_input()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
        self._session.resize(rows, columns)

    def signal(self, signal: str) -> None:
        """Send the program a signal; how it ends is told to whoever reads or waits.

        Args:
            signal: its name, with or without ``SIG``, or its number as text.

        Raises:
            InvalidArgumentError: there is no such signal.
        """
        self._session.kill(signal)

    def kill(self) -> None:
        """Kill the program, and what it has started unless that leads a session of its own."""
        if self.exit_status is None:
            end(self._places, self._session)

    def close(self) -> None:
        """Let go of the program, which goes on."""
        self._session.close()


def start(
    container: "Container", command: "str | Iterable[str]", *, env: "Mapping[str, str] | None",
    user: str, cwd: str, tty: bool = False, stdin: bool = False, lasts: bool = True,
    ask: "Ask | None" = None,
) -> "Session":  # fmt: skip
    """Run a program in a sandbox's container; see ``Sandbox.start``.

    Args:
        container: the sandbox's.
        command: as there, like all that is not named here.
        env: as there.
        user: as there.
        cwd: as there.
        tty: as there.
        stdin: as there.
        lasts: whether it is expected to run for long.
        ask: who is asked first; what it returns None for is asked of the zygote.
    """
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else [*command]
    with branches.undisturbed(container._places.settings, container.id):
        action = "exec-lasting" if lasts else "exec"
        return container._exec(action, words, env or {}, user, cwd, tty=tty, stdin=stdin, ask=ask)


def run(
    attendance: "Attendance", command: "str | Iterable[str]", stdin: bytes, *,
    timeout: float | None, max_output: int | None, env: "Mapping[str, str] | None", user: str,
    cwd: str,
) -> RunResult:  # fmt: skip
    """Run a program to its end; see ``Sandbox.run``."""
    given.limits(timeout, max_output)
    data = given.content("stdin", stdin)
    container = attendance.container
    begun, kills = time.monotonic(), attendance.oom_kills()
    timed_out = truncated = False
    with (
        attendance.turn() as ask,
        start(
            container, command, env=env, user=user, cwd=cwd, stdin=bool(data), lasts=False, ask=ask
        ) as session,
    ):
        try:
            pieces = sessions.gather(
                session, data, timeout=timeout, max_output=max_output,
                end=lambda: end(container._places, session),
            )  # fmt: skip
            status = session.exit_status or 0
            stdout, stderr = (sessions.joined(pieces, one) for one in ("stdout", "stderr"))
        except (ProgramTimeoutError, ProgramOutputError) as error:
            status, stdout, stderr = error.exit_status, error.stdout, error.stderr
            timed_out = isinstance(error, ProgramTimeoutError)
            truncated = not timed_out
    duration = time.monotonic() - begun
    oom_killed = attendance.oom_kills() > kills
    return RunResult(status, stdout, stderr, timed_out, oom_killed, truncated, duration)
