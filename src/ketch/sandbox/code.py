"""Interpreters that keep their state between pieces of code: what ``Sandbox.run_code`` talks to.

An interpreter is a program of the image's that runs one of ``guests/``. Python's and Node's take a
question as its length, four bytes, and the code; they answer in frames: the kind, one byte; the
length, four; then so many bytes. Kinds are ``o`` and ``e``, output; ``d``, done, a JSON object of
what came of it. A shell is marked the end of each piece by words on both its outputs.

Who answers is hostile: all that comes is bounded, and one that says nonsense is killed.
"""

import base64
import contextlib
import json
import secrets as randomness
import struct
import threading
import time
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.engine.volumes import branches
from ketch.errors import InvalidArgumentError
from ketch.library import given
from ketch.library.sessions import OutOfTimeError
from ketch.sandbox.ending import end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.library.container import Container
    from ketch.library.sessions import Session

_ANSWER_BYTES_MAX = 64 << 20  # figures among it
_CODE_BYTES_MAX = 8 << 20
_INTERPRETERS_MAX = 64  # of one sandbox
_TURN_SECONDS = 0.05  # between two looks whether who waits for his turn still wants it
_GRACE_SECONDS = 2.0  # for an interrupted piece to end


class CodeError(NamedTuple):
    """Why a piece of code failed."""

    name: str
    message: str
    traceback: str


class CodeResult(NamedTuple):
    """What came of a piece of code.

    Attributes:
        text: its last expression's value as the interpreter shows it, None where it has none.
        stdout: what it wrote there.
        stderr: likewise.
        error: why it failed, None where it has not.
        results: what it showed (its value, figures), each by kinds of content: ``text/plain``,
            ``text/html``, ``image/png``, ...; pictures are in base64.
        files: files below the sandbox's directory that it made or changed.
        status: a shell's exit status; 0, or 1 with an error, of other languages.
        timed_out: whether it was interrupted or killed because its time was up.
        truncated: whether it was killed because it wrote too much.
        duration: how many seconds it took.
    """

    text: str | None
    stdout: str
    stderr: str
    error: CodeError | None
    results: list[dict[str, str]]
    files: list[str]
    status: int
    timed_out: bool
    truncated: bool
    duration: float

    def pictures(self) -> list[bytes]:
        """Returns the PNG pictures among its results."""
        return [
            base64.b64decode(shown["image/png"]) for shown in self.results if "image/png" in shown
        ]


class Interpreters:
    """The interpreters of one sandbox."""

    def __init__(self, container: "Container") -> None:
        self._container = container
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Interpreter] = {}

    def run(
        self, code: str, language: str, context: str, *, timeout: float | None, max_output: int
    ) -> CodeResult:
        """Run a piece of code; see ``Sandbox.run_code``."""
        if language not in _LANGUAGES:
            known = ", ".join(_LANGUAGES)
            raise InvalidArgumentError(f"language={language!r}: one of {known} is wanted")
        data = code.encode()
        if len(data) > _CODE_BYTES_MAX:
            raise InvalidArgumentError(f"code: more than {_CODE_BYTES_MAX} bytes")
        given.limits(timeout, max_output)
        key = (language, context)
        with self._lock:
            interpreter = self._running.get(key)
            if interpreter is None or interpreter.ended:
                if len(self._running) >= _INTERPRETERS_MAX:
                    raise InvalidArgumentError(f"more than {_INTERPRETERS_MAX} contexts")
                interpreter = self._running[key] = _LANGUAGES[language](self._container)
        return interpreter.run(data, timeout=timeout, max_output=max_output)

    def interrupt(self, language: str, context: str) -> None:
        """Interrupt one that is there."""
        interpreter = self._running.get((language, context))
        if interpreter is not None and not interpreter.ended:
            interpreter.interrupt()

    def close(self) -> None:
        """Let go of all of them."""
        with self._lock:
            while self._running:
                self._running.popitem()[1].close()


class _Interpreter:
    """One interpreter: a program of the image's, and what it has answered."""

    command: tuple[str, ...]

    def __init__(self, container: "Container") -> None:
        self.ended = False
        self._places = container._places
        with branches.undisturbed(self._places.settings, container.id):
            self.session: Session = container._exec(
                "exec-lasting", self.command, _ENVIRONMENT, "", "", stdin=True
            )
        self._busy = threading.Lock()
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._left = 0

    def close(self) -> None:
        """Kill it, and what its code has started."""
        self.ended = True
        end(self._places, self.session)

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self.session.kill("INT")

    def ask(self, code: bytes) -> None:
        """Hand a piece of code over."""
        raise NotImplementedError

    def pieces(self, deadline: float | None) -> "Iterator[dict[str, Any] | None]":
        """Yield None for each piece of output that was taken; at the end, what came of it.

        Raises:
            OutOfTimeError: nothing came until the deadline.
            _NonsenseError: it does not speak its protocol.
        """
        raise NotImplementedError

    def run(self, code: bytes, *, timeout: float | None, max_output: int) -> CodeResult:
        """Run a piece of code; one at a time."""
        with self._alone():
            begun = time.monotonic()
            self._output = {"stdout": bytearray(), "stderr": bytearray()}
            self._left = max_output
            answer: dict[str, Any] | None = None
            timed_out = False
            try:
                self.ask(code)
                deadline = None if timeout is None else begun + timeout
                answer, timed_out = self._await(deadline)
            except _NonsenseError as error:
                answer = _failed("InterpreterError", str(error))
            except _TooMuchError:
                pass
            except BaseException:
                self.close()
                raise
            if answer is None or "fatal" in answer:
                self.close()
            return self._result(answer, begun, timed_out=timed_out)

    @contextlib.contextmanager
    def _alone(self) -> "Iterator[None]":
        """Have nobody else ask for a block. Who is called off before his turn changes nothing."""
        while not self._busy.acquire(timeout=_TURN_SECONDS):
            self._places.patience.wait(0)
        try:
            yield
        finally:
            self._busy.release()

    def _await(self, deadline: float | None) -> "tuple[dict[str, Any] | None, bool]":
        """Wait for the end of a piece; one that takes too long is interrupted, then given up."""
        timed_out = False
        while True:
            try:
                for answer in self.pieces(deadline):
                    if answer is not None:
                        return answer, timed_out
                    if deadline is not None and time.monotonic() > deadline:
                        break  # it talks all the time
            except OutOfTimeError:
                pass
            if timed_out:
                return None, True
            timed_out = True
            deadline = time.monotonic() + _GRACE_SECONDS
            self.interrupt()

    def take(self, stream: str, data: bytes) -> None:
        """Keep output, as far as it is wanted."""
        self._output[stream] += data[: self._left]
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuchError

    def _result(
        self, answer: "dict[str, Any] | None", begun: float, *, timed_out: bool
    ) -> CodeResult:
        truncated = answer is None and not timed_out
        if answer is None:
            name = "TimeoutError" if timed_out else "OutputError"
            answer = _failed(name, "the interpreter was killed, and its state is lost")
        error = answer.get("error")
        status = answer.get("status", int(bool(error)))
        stdout, stderr = (bytes(data).decode(errors="replace") for data in self._output.values())
        return CodeResult(
            answer.get("text"), stdout, stderr,
            CodeError(**error) if error else None,
            answer.get("results", []), answer.get("files", []), status,
            timed_out, truncated, time.monotonic() - begun,
        )  # fmt: skip

    def receive(self, deadline: float | None) -> tuple[str, bytes]:
        """Returns the next piece of one of its outputs."""
        try:
            return next(self.session._output(deadline))
        except StopIteration:
            raise _NonsenseError(
                f"the interpreter has ended with status {self.session.exit_status}"
            ) from None


class _NonsenseError(Exception):
    """An interpreter has ended, or does not speak its protocol."""


class _TooMuchError(Exception):
    """An interpreter has written more than was wanted."""


def _failed(name: str, message: str) -> "dict[str, Any]":
    return {"fatal": True, "error": {"name": name, "message": message, "traceback": ""}}


class _Framed(_Interpreter):
    """One that answers in frames on its standard output."""

    def __init__(self, container: "Container") -> None:
        super().__init__(container)
        self._held = bytearray()

    def ask(self, code: bytes) -> None:
        """Hand a piece of code over, behind its length."""
        self.session.write(struct.pack(">I", len(code)) + code)

    def pieces(self, deadline: float | None) -> "Iterator[dict[str, Any] | None]":
        """Read frames."""
        while True:
            while len(self._held) >= _HEAD_BYTES:
                kind, length = bytes(self._held[:1]), struct.unpack_from(">I", self._held, 1)[0]
                if length > _ANSWER_BYTES_MAX or kind not in {b"o", b"e", b"d"}:
                    raise _NonsenseError("the interpreter does not speak its protocol")
                if len(self._held) < _HEAD_BYTES + length:
                    break
                data = bytes(self._held[_HEAD_BYTES : _HEAD_BYTES + length])
                del self._held[: _HEAD_BYTES + length]
                if kind == b"d":
                    yield _answer(data)
                else:
                    self.take("stdout" if kind == b"o" else "stderr", data)
                    yield None
            stream, data = self.receive(deadline)
            if stream == "stdout":
                self._held += data
            else:  # of the interpreter itself, or past it
                self.take("stderr", data)
                yield None


_HEAD_BYTES = 5


def _answer(data: bytes) -> "dict[str, Any]":
    """What came of a piece of code, each field of the type that it should have.

    Raises:
        _NonsenseError: it is something else.
    """
    try:
        told = json.loads(data)
        error = told.get("error")
        answer: dict[str, Any] = {
            "text": None if told.get("text") is None else str(told["text"]),
            "error": error and {
                key: str(error[key]) for key in ("name", "message", "traceback")
            },
            "results": [
                {str(kind): str(content) for kind, content in shown.items()}
                for shown in told.get("results", ())
            ],
            "files": [str(path) for path in told.get("files", ())],
        }  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _NonsenseError("the interpreter does not speak its protocol") from error
    return answer


def _guest(name: str) -> str:
    """Returns a program that runs in the sandbox."""
    return resources.files("ketch.sandbox.guests").joinpath(name).read_text(encoding="utf-8")


class _Python(_Framed):
    command = (
        "sh", "-c",
        'for name in python3 python; do command -v $name >/dev/null && exec $name -u -c "$0"; done;'
        ' echo "the image has no Python" >&2; exit 127',
        _guest("python.py"),
    )  # fmt: skip


class _Node(_Framed):
    command = (
        "sh", "-c",
        'command -v node >/dev/null && exec 3>&1 1>&2 && exec node -e "$0";'
        ' echo "the image has no Node" >&2; exit 127',
        _guest("node.js"),
    )  # fmt: skip


class _Shell(_Interpreter):
    """A shell: both its outputs are the code's, and end with a mark."""

    command = (
        "sh", "-c",
        _guest("shell.sh"),
    )  # fmt: skip

    def __init__(self, container: "Container") -> None:
        super().__init__(container)
        self._container = container
        self._mark = b""
        self._held: dict[str, bytes] = {}  # the beginnings of marks
        self._status = 0
        told = b""
        try:
            while not told.endswith(b"\n") and len(told) < _STATUS_BYTES:
                told += self.receive(time.monotonic() + _BEGIN_SECONDS)[1]
        except BaseException:
            self.close()
            raise
        self._group = int(told) if told.strip().isdigit() else 0

    def interrupt(self) -> None:
        """Do what Ctrl-C does: to the shell, and to what it waits for."""
        if self._group:
            self._container.exec_run(
                ["sh", "-c", f"kill -INT -{self._group}"], timeout=_BEGIN_SECONDS
            )

    def ask(self, code: bytes) -> None:
        """Hand a piece of code over, behind its length and a mark."""
        self._mark = randomness.token_hex(16).encode()
        self._held = {"stdout": b"", "stderr": b""}
        self._status = 0
        self.session.write(b"%d %s\n%s" % (len(code), self._mark, code))

    def pieces(self, deadline: float | None) -> "Iterator[dict[str, Any] | None]":
        """Read until both outputs have their marks."""
        mark = b"\0%s " % self._mark
        while self._held:
            try:
                stream, data = self.receive(deadline)
            except _NonsenseError:  # the code has ended the shell
                for stream, rest in self._held.items():
                    self.take(stream, rest)
                yield {"status": self.session.exit_status, "fatal": True}
                return
            if stream not in self._held:
                continue
            data = self._held[stream] + data
            before, found, rest = data.partition(mark)
            if not found:
                kept = max(0, len(data) - len(mark) + 1)
                before, self._held[stream] = data[:kept], data[kept:]
            elif b"\0" not in rest:
                self._held[stream] = found + rest[:_STATUS_BYTES]
            else:
                del self._held[stream]
                with contextlib.suppress(ValueError):
                    self._status = int(rest.partition(b"\0")[0])
            self.take(stream, before)
            yield None
        yield {"status": self._status}


_STATUS_BYTES = 16
_BEGIN_SECONDS = 10.0
_LANGUAGES: "dict[str, type[_Interpreter]]" = {"python": _Python, "shell": _Shell, "node": _Node}
_ENVIRONMENT = {"MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
