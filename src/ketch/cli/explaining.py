"""What ``--explain`` writes: steps in words, as JSON, or as the commands of a shell script."""

import contextlib
import json
import os
import threading

from ketch.engine.settings import is_ordinary
from ketch.errors import on_one_line
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.settings import Settings

    _Write = Callable[[Told | None, Told | None], Iterator[str]]

_COLOURS = {
    "namespaces": 36, "network": 34, "files": 32, "limits": 33, "privileges": 31, "program": 35,
    "image": 96, "plan": 95, "record": 37,
}  # fmt: skip
_FAINT, _RESET = "\x1b[2m", "\x1b[0m"
_WRAPPERS = ("nsenter ", "unshare ")
_HEAD = """\
#!/bin/sh
# What ketch did, by hand. It takes ip(8), nft(8), mount(8), unshare(1), nsenter(1), setpriv(1).
set -eu
"""
_USERS = "# It is for the namespaces of your engine: ketch unshare --rootless-netns sh SCRIPT\n"
_NOTHING = "# Nothing was done.\n"
_NO_COMMANDS = "# There are no commands with which a person does this. What was done:"
_WITHOUT = " (no command does that)"


class Explainer:
    """Writes steps as they come, in the form that was asked for.

    Args:
        form: one of ``told.FORMS``.
        terminal: whether people see it as it comes; asked of standard error where it is None.
    """

    def __init__(self, form: str, *, terminal: bool | None = None) -> None:
        if terminal is None:
            terminal = os.isatty(2)
        self._write: _Write
        if form == "json":
            self._write = _json
        elif form == "commands":
            self._write = _Script().take
        else:
            self._write = _Groups("NO_COLOR" not in os.environ).take if terminal else _plain
        self._last: Told | None = None

    def take(self, payload: bytes) -> bytes:
        """Take a step, or nothing when there are no more for now.

        Returns:
            What is to be written.
        """
        step = Told.decode(payload.decode("utf-8", "surrogateescape")) if payload else None
        lines = self._write(self._last, step)
        self._last = step
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def explained(settings: "Settings", form: str) -> "Iterator[None]":
    """Have the steps that an engine takes in a block told on standard error.

    Whoever does not listen any more keeps nothing from being done.

    Args:
        settings: the engine's.
        form: one of ``told.FORMS``.
    """
    explainer, turn = Explainer(form), threading.Lock()
    count = 0

    def write(payload: bytes) -> None:
        nonlocal count
        with turn, contextlib.suppress(OSError):
            count += bool(payload)
            text = explainer.take(payload)
            if not count and form == "commands":
                text = f"{_head()}\n{_NOTHING}".encode()
            left = memoryview(text)
            while left:
                left = left[os.write(2, left) :]

    settings.say = lambda step: write(step.encode().encode("utf-8", "surrogateescape"))
    try:
        yield
    finally:
        settings.say = None
        write(b"")


def _head() -> str:
    return _HEAD + _USERS if is_ordinary() else _HEAD


def _plain(_last: Told | None, step: Told | None) -> "Iterator[str]":
    if step is not None:
        yield from map(on_one_line, str(step).split("\n"))


def _json(last: Told | None, step: Told | None) -> "Iterator[str]":
    """A line for each step, once it is known how long it took; the last one's time is not."""
    if last is not None:
        words, _, calls = last.words.partition(" · ")
        yield json.dumps({
            "topic": last.topic,
            "step": words,
            "calls": calls.split(", ") if calls else [],
            "values": [{"name": name, "value": str(value)} for name, value in last.values],
            "elapsedNs": _took_ns(last, step) if step is not None else None,
        })  # fmt: skip


def _took_ns(last: Told, step: Told) -> int:
    """How long a step took: until the next began. Init and its parent work at once for a while."""
    return max(step.began_ns - last.began_ns, 0)


class _Groups:
    """Steps on a terminal: by topic, with the time that each took."""

    def __init__(self, coloured: bool) -> None:
        self._coloured = coloured
        self._topic = ""

    def take(self, last: Told | None, step: Told | None) -> "Iterator[str]":
        if last is None:
            return
        if last.topic != self._topic:
            self._topic = last.topic
            yield self._painted(last.topic, f"\x1b[1;{_COLOURS.get(last.topic, 37)}m")
        took = f"{_took_ns(last, step) / 1e6:6.2f} ms" if step is not None else " " * 9
        words, middle, calls = on_one_line(last.words).partition(" · ")
        yield f"{self._painted(took, _FAINT)}  {words}{self._painted(middle + calls, _FAINT)}"
        for name, value in last.values:
            yield f"{' ' * 13}{on_one_line(name)} = {on_one_line(str(value))}"

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._coloured and text else text


class _Script:
    """Steps as a shell script: what is done on the host, then what is done inside, then the end."""

    def __init__(self) -> None:
        self._outside: list[str] = []
        self._inside: list[str] = []
        self._begun = self._started = self._helps = False

    def take(self, last: Told | None, step: Told | None) -> "Iterator[str]":
        if last is None:
            return
        if not self._begun:
            self._begun = True
            yield _head()
        words = on_one_line(last.words.partition(" · ")[0])
        if last.outside:
            self._outside += [f"# {words}", *last.outside]
        if last.inside:
            self._inside += [f"# {words}", *last.inside]
        commands = (*last.outside, *last.inside)
        self._helps |= any(not command.startswith("#") for command in commands)
        if not commands:
            self._outside.append(f"# {words}{'' if last.topic == 'plan' else _WITHOUT}")
        if step is None:
            if not self._helps:
                yield _NO_COMMANDS
            yield from self._all()
            if self._started:
                yield 'exit "$status"'
            self._started = True

    def _all(self) -> "Iterator[str]":
        """All that has been collected; the namespaces are made by one command around the inside."""
        wrappers = [line for line in self._outside if line.startswith(_WRAPPERS)]
        yield from (line for line in self._outside if not line.startswith(_WRAPPERS))
        if self._inside:
            entered = [line for line in wrappers if line.startswith("nsenter ")]
            made = [line.removeprefix("unshare ") for line in wrappers if line not in entered]
            around = [*entered, *([f"unshare {' '.join(made)} --fork"] if made else [])]
            end = "INSIDE"
            while end in "\n".join(self._inside).split("\n"):  # an argument may have such a line
                end += "_"
            yield "status=0"
            yield f"{' '.join([*around, 'sh -eu'])} <<'{end}' || status=$?"
            yield from self._inside
            yield end
        self._outside, self._inside = [], []
