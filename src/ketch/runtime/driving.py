"""Another OCI runtime's command line, as runc has it: called, waited for, and asked for reasons.

What it says of itself goes into a pipe that is its log as well (``--log /proc/self/fd/3``), since
its standard streams may be the container's. Of that no more is kept than a message takes, and each
call has an end: a runtime is a program that somebody has installed, and may be a script that hangs.
"""

import fcntl
import json
import os
import re
import select
import signal
import time
from contextlib import nullcontext, suppress

from ketch.errors import StartError, UnavailableError
from ketch.linux import process
from ketch.linux.scopes import owned
from ketch.runtime import null_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.spec.runtime import Resources

    Streams = Sequence[int | None]  # None for the log

MAKING_SECONDS = 120
"""How long making a container, or a process in one, may take: Docker's time for it."""

_ASKING_SECONDS = 20
_KEPT_BYTES = 16 * 1024
_MESSAGE_CHARACTERS_MAX = 1000
_NOT_FOUND, _CANNOT_RUN = 127, 126
# Beyond the streams that a call is given, so that none is overwritten before it is copied.
_FIRST_FREE = 10
_LOG = 3
_INHERITED = ("HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What Docker's daemon makes of a runtime's words: the status that a shell would give.
_WORDS_OF_ABSENCE = ("executable file not found", "no such file or directory")
_WORDS_OF_REFUSAL = (
    "permission denied",
    "operation not permitted",
    "is a directory",
    "not a directory",
    "exec format error",
)


class Runtime:
    """A runtime that is installed, and where it keeps what it knows of one container.

    Args:
        words: its path, and the arguments that it always has.
        state: that directory, ``--root``.
        container_id: the container's.
    """

    __slots__ = ("_container_id", "_state", "_words")

    def __init__(self, words: list[str], state: str, container_id: str) -> None:
        self._words = words
        self._state = state
        self._container_id = container_id

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return os.path.basename(self._words[0])

    def create(self, streams: "Streams", *, terminal: bool, abandoned: int) -> int:
        """Make the container of the bundle in the working directory; returns its process's pid.

        Args:
            streams: what become the program's standard streams.
            terminal: whether the runtime makes a terminal, and sends it to ``console.sock`` there.
            abandoned: a descriptor that can be read from when nobody wants the container any more.

        Raises:
            StartError: the program cannot be run.
            UnavailableError: the runtime failed, or took too long.
        """
        words = ["create", "--bundle", ".", "--pid-file", "pid"]
        words += ["--console-socket", "console.sock"] if terminal else []
        self._make(words, streams, abandoned)
        return self._made_pid()

    def exec(self, streams: "Streams", *, terminal: bool, abandoned: int) -> int:
        """Run the program of ``process.json`` in the working directory; returns its pid.

        Args and raises: as for ``create``.
        """
        words = ["exec", "--detach", "--process", "process.json", "--pid-file", "pid"]
        words += ["--console-socket", "console.sock"] if terminal else []
        self._make(words, streams, abandoned)
        return self._made_pid()

    def start(self, abandoned: int) -> None:
        """Let the program of a created container run.

        Raises: as ``create``.
        """
        with owned(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) as null:
            self._make(["start"], (null, null, None), abandoned)

    def kill(self, number: int) -> None:
        """Send a signal to the container's program.

        Raises:
            UnavailableError: the runtime failed.
        """
        self._ask(["kill"], [str(number)])

    def update(self, resources: "Resources") -> None:
        """Change the container's limits.

        Raises:
            UnavailableError: the runtime failed.
        """
        descriptor = os.memfd_create("resources", os.MFD_CLOEXEC)
        with owned(descriptor):
            os.write(descriptor, json.dumps(resources).encode())
            os.lseek(descriptor, 0, os.SEEK_SET)
            self._ask(["update", "--resources", "-"], [], descriptor)

    def delete(self) -> None:
        """Have the runtime forget the container, whatever of it is left.

        Raises:
            UnavailableError: it failed.
        """
        self._ask(["delete", "--force"], [])

    def _ask(self, before: list[str], after: list[str], given: int = -1) -> None:
        with owned(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) as null:
            streams = (null if given < 0 else given, null, None)
            words = [*before, self._container_id, *after]
            status, said = self._run(words, streams, _ASKING_SECONDS, -1)
        if status:
            raise UnavailableError(f"{self.name} {before[0]}: {_reason(said, status)}")

    def _make(self, before: list[str], streams: "Streams", abandoned: int) -> None:
        words = [*before, self._container_id]
        status, said = self._run(words, streams, MAKING_SECONDS, abandoned)
        if status == 0:
            return
        reason = _reason(said, status)
        told = f"{before[0]} failed" in reason  # runc says so itself
        message = reason if told else f"{self.name} {before[0]} failed: {reason}"
        known = reason.lower()
        if "exec" in known and any(each in known for each in _WORDS_OF_ABSENCE):
            raise StartError(message, exit_status=_NOT_FOUND)
        if "exec" in known and any(each in known for each in _WORDS_OF_REFUSAL):
            raise StartError(message, exit_status=_CANNOT_RUN)
        raise UnavailableError(message)

    def _made_pid(self) -> int:
        """The pid that the runtime has written down, of a process that is the caller's child."""
        with open("pid", "rb") as file:
            written = file.read(32)
        try:
            pid = int(written)
            with open(f"/proc/{pid}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (ValueError, FileNotFoundError, ProcessLookupError):
            parent = 0
        # Else anything could be killed by it, or taken for the container.
        if parent != os.getpid():
            shown = written.decode(errors="replace").strip()
            raise UnavailableError(
                f"{self.name} says that its process is {shown!r}, which is none that it has made"
            )
        return pid

    def _run(
        self, words: list[str], streams: "Streams", seconds: int, abandoned: int
    ) -> tuple[int, bytes]:
        """Run one command to its end; returns its exit status, and the end of what it logged."""
        os.makedirs(self._state, 0o700, exist_ok=True)
        common = ["--root", self._state, "--log", f"/proc/self/fd/{_LOG}", "--log-format", "json"]
        command = [*self._words, *common, *words]
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment["PATH"] = os.environ.get("PATH") or _PATH
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        null = null_device.open_unchangeable()
        with owned(reader):
            with owned(writer), owned(null) if null >= 0 else nullcontext():
                os.set_blocking(writer, True)
                given = [_passed(each, writer, null) for each in (*streams, None)]
                pid = _spawn(command, environment, given)
            with owned(process.pidfd_open(pid)) as pidfd:
                said = _hear(reader, pidfd, abandoned, time.monotonic() + seconds)
                if not select.select([pidfd], [], [], 0)[0]:
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    raise UnavailableError(
                        f"{self.name} {words[0]} has not come to an end within {seconds} s",
                        "run it by hand to see what it waits for",
                    )
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def _spawn(command: list[str], environment: dict[str, str], descriptors: "Sequence[int]") -> int:
    """Start a program in a session of its own, with descriptors as 0, 1, 2 and the log."""
    actions: list[tuple[int, int, int]] = []
    copies = []
    try:
        for number, descriptor in enumerate(descriptors):
            copies.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE))
            actions.append((os.POSIX_SPAWN_DUP2, copies[-1], number))
        return os.posix_spawn(
            command[0], command, environment, file_actions=actions, setsid=True, setsigmask=[],
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )  # fmt: skip
    except OSError as error:
        raise UnavailableError(f"{command[0]}: {error.strerror}") from error
    finally:
        for copy in copies:
            os.close(copy)


def _hear(reader: int, pidfd: int, abandoned: int, deadline: float) -> bytes:
    """Wait for a process's end; returns the last of what came out of the pipe meanwhile."""
    said = b""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reader, select.POLLIN)
    if abandoned >= 0:
        poll.register(abandoned, select.POLLIN)
    while True:
        left_ms = int(1000 * (deadline - time.monotonic()))
        ready = dict(poll.poll(max(0, left_ms)))
        if reader in ready:
            with suppress(BlockingIOError):
                data = os.read(reader, _KEPT_BYTES)
                said = (said + data)[-_KEPT_BYTES:]
                if not data:
                    poll.unregister(reader)
        if pidfd in ready:
            with suppress(BlockingIOError):
                while data := os.read(reader, _KEPT_BYTES):
                    said = (said + data)[-_KEPT_BYTES:]
                    if time.monotonic() > deadline:
                        break
            return said
        if left_ms <= 0 or abandoned in ready:
            return said


def _passed(stream: int | None, log: int, null: int) -> int:
    """What a runtime is given for a stream.

    Its null device, which is the host's own, is one that cannot be changed: crun gives a program's
    streams to the program's user, whatever they are.
    """
    if stream is None:
        return log
    return null if null >= 0 and os.fstat(stream).st_rdev == null_device.NUMBER else stream


def _reason(said: bytes, status: int) -> str:
    """What a runtime's log says went wrong, in one line that a terminal can be shown."""
    reasons, others = [], []
    for line in said.decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            message, level = str(entry["msg"]), entry.get("level")
        except (ValueError, TypeError, KeyError, AttributeError):
            others.append(line)
            continue
        if level in {"error", "fatal", "panic"}:
            reasons.append(message)
    found = (reasons or [each for each in others if each.strip()] or [""])[-1]
    shown = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", " ", found).strip()[-_MESSAGE_CHARACTERS_MAX:]
    if shown:
        return shown
    return f"signal {-status}" if status < 0 else f"exit status {status}"
