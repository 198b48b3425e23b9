"""Runs pieces of Python one after another, and tells what came of each.

It runs in the sandbox, in the image's Python (3.6 or later), which has nothing of ketch's. What is
to be run comes on standard input, answers go to standard output, both in frames: see
``ketch.sandbox.code``. What the code itself writes is read from pipes, so that its children's
output is told as well.
"""

import ast
import asyncio
import base64
import contextlib
import inspect
import json
import linecache
import os
import signal
import struct
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_FILES_MAX = 10000
_PIPE_BYTES = 65536
_DRAIN_SECONDS = 5
_MIMES = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_latex_", "text/latex"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_json_", "application/json"),
)
_AWAITS = getattr(ast, "PyCF_ALLOW_TOP_LEVEL_AWAIT", 0)  # from 3.8 on


class _Streams:
    """The code's standard streams: what it writes goes into pipes, which threads read."""

    def __init__(self) -> None:
        self.questions, self._answers = os.dup(0), os.dup(1)
        self._telling = threading.Lock()
        self._ends: dict[int, bytes] = {}
        self._drained = {1: threading.Event(), 2: threading.Event()}
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (1, 2):
            reader, writer = os.pipe()
            os.dup2(writer, number)
            os.close(writer)
            threading.Thread(target=self._pump, args=(reader, number), daemon=True).start()

    def tell(self, kind: bytes, data: bytes) -> None:
        with self._telling:
            rest = memoryview(kind + struct.pack(">I", len(data)) + data)
            while rest:
                rest = rest[os.write(self._answers, rest) :]

    def _pump(self, reader: int, number: int) -> None:
        kind, held = (b"o" if number == 1 else b"e"), b""
        while True:
            data = os.read(reader, _PIPE_BYTES)
            if not data:
                return
            held += data
            end = self._ends.get(number, b"")
            before, found, after = held.partition(end) if end else (held, b"", b"")
            if found:
                del self._ends[number]
            else:
                # What may be the beginning of the end's mark waits for the rest of it.
                kept = len(end) - 1 if end else 0
                before, after = held[: len(held) - kept], held[len(held) - kept :]
            if before:
                self.tell(kind, before)
            held = after
            if found:
                self._drained[number].set()

    def drain(self) -> None:
        """Wait until all that has been written is told."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the code may have put anything there
                stream.flush()
        for number, drained in self._drained.items():
            drained.clear()
            self._ends[number] = b"\0" + base64.b64encode(os.urandom(18)) + b"\0"
            try:
                os.write(number, self._ends[number])
            except OSError:  # the code has closed it
                continue
            drained.wait(_DRAIN_SECONDS)


def _exactly(source: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(source, count - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def _files() -> "dict[str, tuple[int, int]]":
    """When each file below the working directory was written, and its size."""
    found: dict[str, tuple[int, int]] = {}
    for directory, _, names in os.walk("."):
        for name in names:
            path = os.path.normpath(os.path.join(directory, name))
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                found[path] = (status.st_mtime_ns, status.st_size)
            if len(found) >= _FILES_MAX:
                return found
    return found


def _shown(value: object) -> "dict[str, str]":
    """What a value looks like, by kinds of content."""
    bundle = {}
    for method, mime in _MIMES:
        try:
            data = getattr(value, method)()
        except Exception:  # noqa: BLE001 - it has none, or one that fails
            continue
        if isinstance(data, tuple):
            data = data[0]
        if isinstance(data, bytes):
            data = base64.b64encode(data).decode()
        if data is not None:
            bundle[mime] = data if isinstance(data, str) else json.dumps(data)
    try:
        bundle["text/plain"] = repr(value)
    except Exception as error:  # noqa: BLE001 - the code's own
        bundle["text/plain"] = f"<repr failed: {error}>"
    return bundle


def _figures() -> "list[dict[str, str]]":
    """The figures that matplotlib has open, as PNG; they are closed."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    import io  # noqa: PLC0415 - matplotlib has loaded it

    shown = []
    for number in pyplot.get_fignums():
        target = io.BytesIO()
        pyplot.figure(number).savefig(target, format="png", bbox_inches="tight")
        shown.append({"image/png": base64.b64encode(target.getvalue()).decode()})
    pyplot.close("all")
    return shown


def _run(code: str, name: str, scope: "dict[str, Any]", loop: "Any") -> object:
    """Run a piece; returns the value of the expression that it ends with."""
    tree = ast.parse(code, name)
    parts: list[tuple[Any, str]] = [(tree, "exec")]
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body.pop()
        assert isinstance(last, ast.Expr)
        parts.append((ast.Expression(last.value), "eval"))
    value = None
    for part, mode in parts:
        compiled = compile(part, name, mode, flags=_AWAITS)
        value = eval(compiled, scope)
        if compiled.co_flags & inspect.CO_COROUTINE:
            value = loop.run_until_complete(value)
    return value if len(parts) > 1 else None


def _answer(code: str, name: str, scope: "dict[str, Any]", loop: "Any") -> "dict[str, Any]":
    answer: dict[str, Any] = {"results": [], "error": None, "text": None}
    before = _files()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            value = _run(code, name, scope, loop)
            if value is not None:
                scope["_"] = value
                answer["results"].append(_shown(value))
                answer["text"] = answer["results"][0]["text/plain"]
            answer["results"] += _figures()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException as error:  # noqa: BLE001 - the code's own, whatever it is
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == _NAME:
            trace = trace.tb_next
        answer["error"] = {
            "name": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(type(error), error, trace)),
        }
    after = _files()
    answer["files"] = sorted(path for path in after if after[path] != before.get(path))
    return answer


def main() -> None:
    """Answer until there are no more questions."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    streams = _Streams()
    scope: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    sys.argv = [""]
    count = 0
    while True:
        length = struct.unpack(">I", _exactly(streams.questions, 4))[0]
        code = _exactly(streams.questions, length).decode()
        count += 1
        name = f"<code {count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        answer = _answer(code, name, scope, loop)
        streams.drain()
        streams.tell(b"d", json.dumps(answer).encode())


# As what code that comes on the command line is known.
_NAME = "<string>"
if __name__ == "__main__":
    main()
