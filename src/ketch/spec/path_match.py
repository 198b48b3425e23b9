r"""Patterns of Go's ``filepath.Match``: what COPY and ADD name their sources by.

    *       any number of characters but slashes
    ?       one character but a slash
    [a-c]   one of a class; [^a-c] one that is not of it
    \c      the character c

Go's own way of matching is kept: a star gives its place up once what follows it has matched, so
that no pattern takes longer than its length times the name's. A regular expression would take
years for some of a stranger's patterns. Source: path/filepath/match.go.
"""

from ketch.errors import InvalidArgumentError

Class = tuple[bool, tuple[tuple[str, str], ...]]
"""Whether it is negated, and the first and last character of each of its ranges."""

_ANY: Class = (True, (("/", "/"),))


class Pattern:
    """A pattern, taken apart.

    Args:
        text: as it is written.

    Raises:
        InvalidArgumentError: it is malformed: ``syntax error in pattern``.
    """

    __slots__ = ("_chunks", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # What stands between stars: each matches as many characters as it has items.
        self._chunks: list[tuple[bool, list[str | Class]]] = [(False, [])]
        position = 0
        while position < len(text):
            if text[position] == "*":
                if self._chunks[-1][1] or not self._chunks[-1][0]:
                    self._chunks.append((True, []))
                position += 1
            else:
                item, position = _item(text, position)
                self._chunks[-1][1].append(item)

    def matches(self, name: str) -> bool:
        """Whether a name is what the pattern describes, all of it."""
        position = 0
        last = len(self._chunks) - 1
        for number, (star, chunk) in enumerate(self._chunks):
            if star and not chunk:  # only at the end
                return "/" not in name[position:]
            while True:
                end = position + len(chunk)
                if _fits(chunk, name, position) and (number < last or end == len(name)):
                    break
                if not star or position >= len(name) or name[position] == "/":
                    return False
                position += 1
            position = end
        return position == len(name)


def has_wildcards(text: str) -> bool:
    """Whether a text is a pattern for more than itself, as BuildKit tells it."""
    position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] in "*?[":
            return True
        position += 1
    return False


def _fits(chunk: list[str | Class], name: str, position: int) -> bool:
    if position + len(chunk) > len(name):
        return False
    for offset, item in enumerate(chunk):
        character = name[position + offset]
        if isinstance(item, str):
            if character != item:
                return False
        elif any(first <= character <= last for first, last in item[1]) == item[0]:
            return False
    return True


def _item(text: str, position: int) -> tuple[str | Class, int]:
    character = text[position]
    if character == "?":
        return _ANY, position + 1
    if character == "\\":
        if position + 1 == len(text):
            raise _malformed()
        return text[position + 1], position + 2
    if character != "[":
        return character, position + 1
    position += 1
    negated = text[position : position + 1] == "^"
    position += negated
    ranges: list[tuple[str, str]] = []
    while not ranges or text[position : position + 1] != "]":
        first, position = _bound(text, position)
        last = first
        if text[position : position + 1] == "-":
            last, position = _bound(text, position + 1)
        ranges.append((first, last))
    return (negated, tuple(ranges)), position + 1


def _bound(text: str, position: int) -> tuple[str, int]:
    """Read a character of a class, after which something must follow: its end at least."""
    if text[position : position + 1] in {"", "-", "]"}:
        raise _malformed()
    position += text[position] == "\\"
    if position + 1 >= len(text):
        raise _malformed()
    return text[position], position + 1


def _malformed() -> InvalidArgumentError:
    return InvalidArgumentError("syntax error in pattern", "a backslash before [ makes it itself")
