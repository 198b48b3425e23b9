r"""Patterns of paths: Go's ``path.Match``, and with ``**`` what Docker makes of it.

=============  ================================================================
``*``          any characters but ``/``
``?``          one character but ``/``
``[a-z]``      one of some characters, ``[^a-z]`` one of all others
``\x``         x, whatever it is
``**``         any number of directories, or what is left of the path (deep patterns alone)
=============  ================================================================

Sources: Go's path/match.go; github.com/moby/patternmatcher. Where moby's translation to a regular
expression gives ``|``, ``^``, ``{`` or a letter after a backslash a meaning, Go's holds.
"""

import re

from ketch.errors import InvalidArgumentError
from ketch.spec.wildcards import Part, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def has_wildcards(text: str) -> bool:
    """Whether a path is a pattern: one of ``*?[`` is in it that no backslash is before."""
    position = 0
    while position < len(text):
        if text[position] in "*?[":
            return True
        position += 2 if text[position] == "\\" else 1
    return False


class Pattern:
    """A pattern, read once.

    Args:
        text: the pattern.
        deep: whether ``**`` has its meaning; without, it is as ``*``.

    Raises:
        InvalidArgumentError: it is malformed: ``syntax error in pattern``.
    """

    def __init__(self, text: str, *, deep: bool = False) -> None:
        self.text = text
        reader = _Reader(text, deep=deep)
        reader.read()
        self._parts = reader.parts
        # A regular expression is fast, and safe where at most one star can take from another.
        simple = reader.deep_count <= 1 and reader.stars_max <= 1
        self._expression = re.compile("".join(reader.expression)) if simple else None

    def matches(self, path: str) -> bool:
        """Whether a path matches as a whole."""
        if self._expression is not None:
            return self._expression.fullmatch(path) is not None
        return Text(path).fullmatch(self._parts)


def _within_name(character: str) -> bool:
    return character != "/"


def _within_line(character: str) -> bool:
    return character != "\n"


class _Reader:
    """Reads a pattern, as parts and as a regular expression."""

    def __init__(self, pattern: str, *, deep: bool) -> None:
        self.pattern = pattern
        self.deep = deep
        self.position = 0
        self.parts: list[Part] = []
        self.expression: list[str] = []
        self.deep_count = 0
        self.stars_max = self._stars = 0

    def read(self) -> None:
        while self.position < len(self.pattern):
            character = self._next()
            if character == "*":
                self._star()
            elif character == "?":
                self._add(Part(_within_name), "[^/]")
            elif character == "[":
                self._class()
            else:
                self._literal(self._next() if character == "\\" else character)

    def _next(self) -> str:
        if self.position == len(self.pattern):
            raise _malformed()
        self.position += 1
        return self.pattern[self.position - 1]

    def _peek(self) -> str:
        return self.pattern[self.position : self.position + 1]

    def _add(self, part: Part, expression: str) -> None:
        self.parts.append(part)
        self.expression.append(expression)

    def _literal(self, character: str) -> None:
        if character == "/":
            self._stars = 0
        self._add(Part(character), re.escape(character))

    def _star(self) -> None:
        if self.deep and self._peek() == "*":
            self.position += 1
            self._directories()
            return
        while not self.deep and self._peek() == "*":
            self.position += 1
        self._stars += 1
        self.stars_max = max(self.stars_max, self._stars)
        self._add(Part(_within_name, repeated=True), "[^/]*")

    def _directories(self) -> None:
        if self._peek() == "/":
            self.position += 1
        self.deep_count += 1
        self._stars = 0
        if self._peek():
            self._add(Part(_within_line, repeated=True, ending="/"), "(?:.*/)?")
        else:
            self._add(Part(_within_line, repeated=True), ".*")

    def _class(self) -> None:
        negated = self._peek() == "^"
        self.position += negated
        ranges: list[tuple[str, str]] = []
        while self._peek() != "]" or not ranges:
            low = high = self._member()
            if self._peek() == "-":
                self.position += 1
                high = self._member()
            ranges.append((low, high))
        self.position += 1
        shown = "".join(
            f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high
        )
        nothing = "[^\\s\\S]" if not negated else "[\\s\\S]"
        expression = f"[{'^' if negated else ''}{shown}]" if shown else nothing
        self._add(Part(_member_of(ranges, negated=negated)), expression)

    def _member(self) -> str:
        character = self._next()
        if character in "-]":
            raise _malformed()
        return self._next() if character == "\\" else character


def _member_of(ranges: list[tuple[str, str]], *, negated: bool) -> "Callable[[str], bool]":
    def test(character: str) -> bool:
        return any(low <= character <= high for low, high in ranges) != negated

    return test


def _malformed() -> InvalidArgumentError:
    return InvalidArgumentError("syntax error in pattern", "a backslash before [ makes it itself")
