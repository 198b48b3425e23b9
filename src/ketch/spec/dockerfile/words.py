"""How an instruction's line falls into keyword, flags and arguments.

Source: github.com/moby/buildkit, frontend/dockerfile/parser: split_command.go, line_parsers.go.
"""

import functools
import json
import re

from ketch.dataclass import dataclass
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.values import quoted

BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's ``unicode.IsSpace`` is true of. ``str.isspace`` takes four control characters too."""

_GAP = re.compile(r"[\t\v\f\r ]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Pair:
    """A name and its value, of ENV and LABEL.

    Attributes:
        name: as it is written, not expanded.
        value: likewise.
        legacy: whether a blank stands between them, not ``=``.
    """

    name: str
    value: str
    legacy: bool = False

    def __str__(self) -> str:
        """As an image's history shows it."""
        return f"{self.name}={self.value}"


@dataclass(frozen=True)
class Line:
    """An instruction's line.

    Attributes:
        keyword: as it is written.
        flags: ``--name`` and ``--name=value``, without quotes and escapes.
        rest: what follows, without blanks around it.
    """

    keyword: str
    flags: tuple[str, ...]
    rest: str


def line(text: str, escape: str) -> Line:
    """Splits an instruction's line; ``escape`` is the Dockerfile's escape character."""
    keyword, *rest = _GAP.split(text.strip(BLANKS), maxsplit=1)
    if not rest:
        return Line(keyword, (), "")
    flags, remainder = _flags(rest[0], escape)
    return Line(keyword, tuple(flags), remainder.strip(BLANKS))


def _flags(text: str, escape: str) -> tuple[list[str], str]:
    """Takes the words that begin with ``--`` from a text, up to the first other or ``--`` alone."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position] in BLANKS:
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:]
        word, position = _flag(text, position, escape)
        if word == "--":
            return flags, text[position:]
        flags.append(word)


def _flag(text: str, position: int, escape: str) -> tuple[str, int]:
    """Returns a word without its quotes and escapes, and where it ends."""
    word: list[str] = []
    quote = ""
    while position < len(text):
        character = text[position]
        if not quote and character in BLANKS:
            break
        position += 1
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character != escape:
            word.append(character)
        elif position < len(text):
            word.append(text[position])
            position += 1
    return "".join(word), position


def split(text: str, escape: str) -> list[str]:
    """Splits text at blanks outside quotes; quotes and escape characters stay in the words."""
    words: list[str] = []
    word: list[str] = []
    for match in _pieces(escape).finditer(text):
        if match[1] is not None:
            word.append(match[1])
        elif word:
            words.append("".join(word))
            word.clear()
    if word:
        words.append("".join(word))
    return words


@functools.cache
def _pieces(escape: str) -> "re.Pattern[str]":
    """Returns what matches a piece of a word, as its group, or blanks.

    What it does not match is an escape character at the very end, which is left out.
    """
    e = re.escape(escape)
    quoted = f"'[^']*'?|\"(?:[^\"{e}]+|{e}.)*\"?"
    return re.compile(f"({quoted}|{e}.|[^{BLANKS}'\"{e}]+)|[{BLANKS}]+", re.DOTALL)


def gaps(text: str) -> tuple[str, ...]:
    """Splits text at blanks; quotes mean nothing."""
    return tuple(_GAP.split(text)) if text else ()


def pairs(text: str, keyword: str, escape: str) -> tuple[Pair, ...]:
    """Reads ``name=value ...``, or the old form ``name value``.

    Raises:
        DockerfileError: a value is missing.
    """
    words = split(text, escape)
    if not words:
        return ()
    if "=" not in words[0]:
        name, *value = _GAP.split(text, maxsplit=1)
        if not value:
            raise DockerfileError(f"{keyword} must have two arguments")
        return (Pair(name, value[0], legacy=True),)
    found = []
    for word in words:
        name, equals, value_text = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"Syntax error - can't find = in {quoted(word)}. Must be of the form: name=value"
            )
        found.append(Pair(name, value_text))
    return tuple(found)


def json_words(text: str) -> tuple[str, ...] | None:
    """Returns the words of the JSON form; None where the text is in the other form.

    Raises:
        DockerfileError: it is an array of other things than text.
    """
    text = text.lstrip(BLANKS)
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in words):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    return tuple(_SURROGATE.sub("\ufffd", word) for word in words)


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
