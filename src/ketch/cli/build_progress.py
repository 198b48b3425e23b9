"""How a build shows: lines for files and people, live ones on a terminal, JSON for programs.

What is shown, and how it is worded, is BuildKit's (util/progress/progressui), since it is what
people know and scripts read.
"""

import base64
import contextlib
import json
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

from ketch.build.progress import Log, Status, VertexState, Warned
from ketch.cli.build_trace import NS, Shown, Trace, amount_text
from ketch.errors import InvalidArgumentError, spelt_out
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from ketch.build.progress import Event

MODES = ("auto", "plain", "quiet", "rawjson", "tty")
_INTERVAL_SECONDS = 0.1
# Plain lines: one vertex at a time, and not for ever while others have something to say.
_ANTI_FLICKER_SECONDS = 5.0
_HIDDEN_SECONDS_MAX = 10.0
_STATUS_SECONDS = 5.0
_STATUS_SHARE = 0.05
# A terminal: the last lines of each program that runs.
_TAIL_LINES = 6
_BLUE, _RED, _YELLOW, _FAINT, _RESET = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class Display(ABC):
    """Shows a build; its ``take`` is a ``ketch.build.progress.Progress``.

    Args:
        stream: where to.
    """

    def __init__(self, stream: "TextIO") -> None:
        self.trace = Trace()
        self._stream = stream
        self._lock = threading.Lock()
        self._shown = 0.0
        self._over = threading.Event()

    def take(self, event: "Event") -> None:
        """Take an event, from any thread."""
        with self._lock:
            self.trace.update(event)
            if time.monotonic() - self._shown >= _INTERVAL_SECONDS:
                self._refresh()

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Show what goes on for the length of a block, and what came of it at the end."""
        ticking = threading.Thread(target=self._tick, name="ketch-build-display", daemon=True)
        ticking.start()
        try:
            yield
        finally:
            self._over.set()
            ticking.join()
            with self._lock:
                self._finish()
                self._write("".join(f"{line}\n" for line in self.trace.failures()))

    def _tick(self) -> None:
        while not self._over.wait(_INTERVAL_SECONDS * 1.5):
            with self._lock:
                self._refresh()

    def _refresh(self) -> None:
        self._shown = time.monotonic()
        self._show()

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()

    @abstractmethod
    def _show(self) -> None:
        """Show what is new."""

    @abstractmethod
    def _finish(self) -> None:
        """Show how it ended."""


class Silent(Display):
    """Shows nothing."""

    def _show(self) -> None:
        pass

    def _finish(self) -> None:
        self.trace.vertices.clear()  # not even what failed


class Plain(Display):
    """Lines, each with its vertex's number in front."""

    def __init__(self, stream: "TextIO") -> None:
        super().__init__(stream)
        self._current: Shown | None = None
        self._said: dict[str, tuple[int, float]] = {}
        self._is_first = True

    def _finish(self) -> None:
        self._show()

    def _show(self) -> None:
        trace = self.trace
        changed = [trace.vertices[id] for id in trace.updates]  # noqa: A001 - the field's word
        ended = sorted(
            (one for one in changed if one.is_completed), key=lambda one: one.state.completed_ns
        )
        rest = [one for one in changed if not one.is_completed]
        current = self._current
        for one in sorted(ended, key=lambda one: one is not current):
            self._print(one)
        if not rest:
            self._turn_to_open(current)
            return
        if current in rest:
            self._print(current)
        now = time.monotonic()
        waiting = list({id(one): one for one in [*rest, *([current] if current else [])]}.values())
        times = {id(one): max(now - one.since, 1e-6) for one in waiting}
        speeds = {id(one): one.count / times[id(one)] for one in waiting}
        busiest = max(waiting, key=lambda one: (self._is_overdue(one, times), speeds[id(one)]))
        if self._current is None:
            self._print(busiest)
            return
        overdue = next((one for one in waiting if self._is_overdue(one, times)), None)
        if overdue is not None:
            self._print(overdue)
            return
        share = speeds.get(id(self._current), 0.0) / (sum(speeds.values()) or 1.0)
        patience = _ANTI_FLICKER_SECONDS / max(1e-6, 1.0 - share)
        if busiest is not self._current and patience < times.get(id(self._current), 0.0):
            self._print(busiest)

    def _is_overdue(self, one: Shown, times: dict[int, float]) -> bool:
        return times[id(one)] > _HIDDEN_SECONDS_MAX and one is not self._current

    def _turn_to_open(self, current: Shown | None) -> None:
        if current is not None and not current.is_completed:
            return
        for one in self.trace.vertices.values():
            if not one.is_completed:
                self._print(one)
                return

    def _print(self, one: Shown) -> None:
        lines: list[str] = []
        if one is not self._current:
            if self._current is not None:
                self._current.count = 0
                lines.append(f"#{self._current.index} ...")
            if not self._is_first:
                lines.append("")
            self._is_first = False
            lines.append(f"#{one.index} {spelt_out(one.state.name)}")
        lines += self._status_lines(one)
        lines += [f"#{one.index} {line}" for line in one.lines]
        one.lines.clear()
        self._current = one
        if one.is_completed:
            self._current = None
            one.count = 0
            lines.append(f"#{one.index} {_outcome(one)}")
        self._write("".join(f"{line}\n" for line in lines))
        self.trace.updates.discard(one.state.id)

    def _status_lines(self, one: Shown) -> Iterator[str]:
        now = time.monotonic()
        for status in one.statuses.values():
            if status.id not in one.updated:
                continue
            key = f"{one.index} {status.id}"
            said = self._said.get(key)
            if said is not None and not status.completed_ns:
                gained = (status.current - said[0]) / status.total if status.total else 0.0
                if gained < _STATUS_SHARE and now - said[1] < _STATUS_SECONDS:
                    continue
            self._said[key] = (status.current, now)
            amount = amount_text(status)
            seconds = ((status.completed_ns or time.time_ns()) - status.started_ns) / NS
            took = f" {seconds:.1f}s" if status.started_ns and seconds > 0.01 else ""
            done = " done" if status.completed_ns else ""
            text = f"{spelt_out(status.id)}{' ' if amount else ''}{amount}{took}{done}"
            yield f"#{one.index} {text}"
        one.updated.clear()


def _outcome(one: Shown) -> str:
    if one.is_canceled:
        return "CANCELED"
    if one.state.error:
        return f"ERROR: {spelt_out(one.state.error)}"
    if one.state.cached:
        return "CACHED"
    return f"DONE {one.seconds(time.time_ns()):.1f}s"


class Terminal(Display):
    """Lines that change in their place, with times, and the end of what programs write."""

    def __init__(self, stream: "TextIO") -> None:
        super().__init__(stream)
        self._drawn = 0
        self._colored = "NO_COLOR" not in os.environ

    def _show(self) -> None:
        self._draw(last=False)

    def _finish(self) -> None:
        self._draw(last=True)

    def _draw(self, *, last: bool) -> None:
        import shutil  # noqa: PLC0415 - where there is a terminal

        size = shutil.get_terminal_size()
        columns, rows = size.columns, size.lines
        body = [text for text, _ in self._body(columns, rows, last=last)]
        total, completed = len(self.trace.known), self.trace.completed
        word = "FINISHED" if last and total and completed == total else ""
        begun = self.trace.started_ns or time.time_ns()
        seconds = (time.time_ns() - begun) / NS
        head = f"[+] Building {seconds:.1f}s ({completed}/{total}) {word}"[:columns]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\x1b[2K{line}\n" for line in [head, *body])
        left = self._drawn - len(body) - 1
        clear = "\x1b[2K\n" * left + f"\x1b[{left}A" if left > 0 else ""
        self._write(f"\x1b[?25l\r{up}{text}{clear}\x1b[?25h")
        self._drawn = len(body) + 1

    def _body(self, columns: int, rows: int, *, last: bool) -> list[tuple[str, bool]]:
        now_ns = time.time_ns()
        lines: list[tuple[str, bool]] = []  # each with whether it may be left out
        for one in self.trace.vertices.values():
            lines += self._vertex_lines(one, columns, now_ns)
        room = rows - 2
        if not last and len(lines) > room:
            surplus = len(lines) - room
            kept = []
            for line in lines:
                if line[1] and surplus:
                    surplus -= 1
                else:
                    kept.append(line)
            lines = kept[-room:] if room > 0 else []
        return lines

    def _vertex_lines(self, one: Shown, columns: int, now_ns: int) -> Iterator[tuple[str, bool]]:
        state = one.state
        word, color = "", _BLUE if one.is_completed else ""
        if one.is_canceled:
            word, color = "CANCELED ", _YELLOW
        elif state.error:
            word, color = "ERROR ", _RED
        elif state.cached:
            word = "CACHED "
        name = f"{word}{spelt_out(state.name)}".replace("\t", " ")
        yield self._line(name, "", one.seconds(now_ns), columns, color), one.is_completed
        for status in one.statuses.values():
            seconds = ((status.completed_ns or now_ns) - status.started_ns) / NS
            color = _BLUE if status.completed_ns else ""
            text = f"=> {spelt_out(status.id)}"
            yield self._line(text, amount_text(status), seconds, columns, color), one.is_completed
        for warned in one.warnings:
            text = f"WARN: {short(warned)}"
            yield self._line(text, "", one.seconds(now_ns), columns, _YELLOW), one.is_completed
        if not one.is_completed and one.logged:
            recent = [*one.kept][-_TAIL_LINES:]
            for line in recent:
                text = f" => => # {line.partition(' ')[2]}"[:columns]
                yield self._painted(text, _FAINT), True

    def _line(self, name: str, amount: str, seconds: float, columns: int, color: str) -> str:
        timer = f" {seconds if seconds >= 0.05 else 0.0:3.1f}s"
        room = columns - len(" => ") - len(timer) - 1
        if amount and room + len(amount) > 20:
            room -= len(amount) + 1
        else:
            amount = ""
        text = f" => {name[: max(room, 0)]}{' ' if amount else ''}{amount}"
        return self._painted(f"{text:<{max(0, columns - len(timer) - 1)}}{timer}", color)

    def _painted(self, text: str, color: str) -> str:
        return f"{color}{text}{_RESET}" if color and self._colored else text


class RawJson(Display):
    """BuildKit's status messages, one a line."""

    def take(self, event: "Event") -> None:
        """See ``Display``."""
        with self._lock:
            self._write(f"{json.dumps(_document(event), separators=(',', ':'))}\n")

    def _show(self) -> None:
        pass

    def _finish(self) -> None:
        pass


def _document(event: "Event") -> "dict[str, Any]":
    if isinstance(event, VertexState):
        vertex: dict[str, Any] = {"digest": event.id}
        if event.inputs:
            vertex["inputs"] = list(event.inputs)
        vertex["name"] = event.name
        vertex |= _times(event.started_ns, event.completed_ns)
        if event.cached:
            vertex["cached"] = True
        if event.error:
            vertex["error"] = event.error
        return {"vertexes": [vertex]}
    if isinstance(event, Status):
        now = timestamps.rfc3339(time.time_ns())
        status: dict[str, Any] = {"id": event.id, "vertex": event.vertex}
        if event.total:
            status["total"] = event.total
        status |= {"current": event.current, "timestamp": now}
        status |= _times(event.started_ns, event.completed_ns)
        return {"statuses": [status]}
    if isinstance(event, Log):
        data = base64.b64encode(event.data).decode("ascii")
        log = {"vertex": event.vertex, "stream": event.stream, "data": data,
               "timestamp": timestamps.rfc3339(event.time_ns)}  # fmt: skip
        return {"logs": [log]}
    warning = event.warning
    text = base64.b64encode(short(event).encode()).decode("ascii")
    detail = [base64.b64encode(warning.description.encode()).decode("ascii")]
    shown: dict[str, Any] = {"vertex": event.vertex, "level": 1, "short": text, "detail": detail}
    if warning.url:
        shown["url"] = warning.url
    shown["sourceInfo"] = {
        "filename": event.filename, "data": base64.b64encode(event.text).decode("ascii"),
    }  # fmt: skip
    if warning.place is not None:
        first, last = warning.place.first, warning.place.last
        shown["range"] = [
            {"start": {"line": first, "character": 0}, "end": {"line": last, "character": 0}}
        ]
    return {"warnings": [shown]}


def _times(started_ns: int, completed_ns: int) -> dict[str, str]:
    found = {}
    if started_ns:
        found["started"] = timestamps.rfc3339(started_ns)
    if completed_ns:
        found["completed"] = timestamps.rfc3339(completed_ns)
    return found


def short(warned: Warned) -> str:
    """Returns what a finding says, in a line."""
    finding = warned.warning
    where = f" (line {finding.place.first})" if finding.place is not None else ""
    return spelt_out(f"{finding.rule}: {finding.message}{where}")


def summary(warnings: "list[Warned]") -> str:
    """Returns what is said of all findings at the end, empty where there are none."""
    if not warnings:
        return ""
    count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    lines = "".join(f" - {short(one)}\n" for one in warnings)
    return f"\n {count} found (ketch build --check shows where):\n{lines}"


def display(mode: str, stream: "TextIO") -> Display:
    """Returns what shows a build.

    Args:
        mode: one of ``MODES``; empty is ``auto``.
        stream: where to.

    Raises:
        InvalidArgumentError: there is no such mode, or no terminal for it.
    """
    if mode in {"", "auto"}:
        dumb = os.environ.get("TERM") == "dumb"
        return Terminal(stream) if stream.isatty() and not dumb else Plain(stream)
    if mode == "tty":
        if not stream.isatty():
            raise InvalidArgumentError("failed to get console: provided file is not a console")
        return Terminal(stream)
    kinds: dict[str, type[Display]] = {"plain": Plain, "quiet": Silent, "rawjson": RawJson}
    if mode not in kinds:
        raise InvalidArgumentError(f"invalid progress mode {mode}", f"modes: {', '.join(MODES)}")
    return kinds[mode](stream)
