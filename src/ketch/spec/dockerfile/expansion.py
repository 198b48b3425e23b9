"""Words of a Dockerfile: their quotes are taken away and variables' values put in.

The grammar is a part of the shell's: ``'as is'``, ``"with $variables"``, an escape character,
``$name``, ``${name}`` and ``${name...}`` with a modifier:

=======================  ===========================================================
``:-word``, ``-word``    the word where the variable is not set (with the colon: or empty)
``:+word``, ``+word``    the word where it is set (and not empty), else nothing
``:?word``, ``?word``    the word as an error where it is not set (or empty)
``#pattern``, ``##``     without the shortest, longest beginning that matches
``%pattern``, ``%%``     without the shortest, longest end that matches
``/pattern/text``        the first match replaced
``//pattern/text``       all matches replaced
=======================  ===========================================================

Words of modifiers may hold variables themselves. Source: github.com/moby/buildkit,
frontend/dockerfile/shell/lex.go.
"""

import functools
import re
from typing import TYPE_CHECKING

from ketch.dataclass import dataclass, field
from ketch.spec.dockerfile import substitution
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.substitution import EXPANDED_MAX
from ketch.spec.dockerfile.words import BLANKS
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLANKS = re.compile(f"[{BLANKS}]+")
_DEPTH_MAX = 100
_SHOWN_MAX = 1000

PUT_IN_MAX = 4 * EXPANDED_MAX
"""How many characters variables may add to an instruction."""

_SPECIAL = frozenset("@*#?-$!0")
_MODIFIERS = frozenset("-+?#%")


@dataclass(frozen=True)
class Expanded:
    """What a text came to.

    Attributes:
        text: with its blanks as they were.
        words: the same as words, split at blanks outside quotes, those of values included.
        used: names of the variables that were set.
        missing: names of those that were not.
    """

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True)
class Lexer:
    """How texts are read.

    Attributes:
        escape: the character that takes the meaning from the next one.
        keep_quotes: whether quotes stay in the result.
        keep_escapes: whether escape characters do.
        quotes: whether quotes have a meaning at all; without, they are characters like others.
        keep_missing: whether variables that are not set stay as they are written.
    """

    escape: str = "\\"
    keep_quotes: bool = False
    keep_escapes: bool = False
    quotes: bool = True
    keep_missing: bool = False

    def process(self, text: str, environment: "Mapping[str, str]") -> Expanded:
        """Expands a text.

        Raises:
            DockerfileError: it is malformed, ``?`` refuses a variable, or variables make more
                than ``EXPANDED_MAX`` characters of it.
        """
        reader = _Reader(self, text, environment)
        try:
            result, words = reader.until("", keep_escapes=self.keep_escapes)
        except DockerfileError as error:
            shown = quoted(text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}...")
            raise DockerfileError(f"failed to process {shown}: {error.message}") from error
        return Expanded(result, tuple(words), frozenset(reader.used), frozenset(reader.missing))


def process_word(text: str, environment: "Mapping[str, str]", escape: str = "\\") -> str:
    """Expands a text that stays one word. Raises as ``Lexer.process``."""
    return Lexer(escape).process(text, environment).text


@dataclass
class Expander:
    """Expands the words of instructions in an environment, and notes which variables they name.

    Attributes:
        environment: the variables as they are before the instruction.
        escape: the Dockerfile's escape character.
        used: names of variables that were set, and so had a part in the result.
        missing: names that were not set, where that is to be warned of.

    All that one puts in comes to ``PUT_IN_MAX`` characters at most: each instruction has its own.
    """

    environment: "Mapping[str, str]"
    escape: str = "\\"
    used: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    _put_in: int = 0

    def word(self, text: str) -> str:
        """Returns a text with variables and without quotes. Raises as ``Lexer.process``."""
        return self._noted(Lexer(self.escape), text).text

    def raw(self, text: str) -> str:
        """Returns a heredoc's text with variables; quotes are no quotes there. Raises as above."""
        return self._noted(Lexer(quotes=False), text).text

    def words(self, text: str) -> tuple[str, ...]:
        """Returns the words that a text comes to. Nobody is warned of these. Raises as above."""
        return self._expanded(Lexer(self.escape), text).words

    def _noted(self, lexer: Lexer, text: str) -> Expanded:
        expanded = self._expanded(lexer, text)
        self.missing |= expanded.missing
        return expanded

    def _expanded(self, lexer: Lexer, text: str) -> Expanded:
        expanded = lexer.process(text, self.environment)
        self._put_in += max(0, len(expanded.text) - len(text))
        if self._put_in > PUT_IN_MAX:
            raise DockerfileError(f"variables come to more than {PUT_IN_MAX} characters")
        self.used |= expanded.used
        return expanded


@functools.cache
def _plain(special: str) -> "re.Pattern[str]":
    """Returns what matches characters that mean nothing but themselves."""
    return re.compile(f"[^{re.escape(special)}]+")


class _Words:
    """Collects characters into words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._word: list[str] = []

    def split(self, text: str) -> None:
        """Adds text in which blanks part words."""
        first, *others = _BLANKS.split(text)
        self.keep(first)
        for other in others:
            self.end()
            self.keep(other)

    def keep(self, text: str) -> None:
        """Adds text that is part of a word whatever it is."""
        if text:
            self._word.append(text)

    def end(self) -> None:
        if self._word:
            self.words.append("".join(self._word))
            self._word.clear()


class _Reader:
    """Reads one text from its beginning to its end."""

    def __init__(self, lexer: Lexer, text: str, environment: "Mapping[str, str]") -> None:
        self.lexer = lexer
        self.text = text
        self.environment = environment
        self.position = 0
        self.depth = 0
        self.keep_escapes = lexer.keep_escapes
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def peek(self) -> str:
        """Returns the next character, nothing at the end."""
        return self.text[self.position : self.position + 1]

    def next(self) -> str:
        """Returns the next character, nothing at the end, and goes on behind it."""
        character = self.peek()
        self.position += 1
        return character

    def plain(self, special: str) -> str:
        """Returns the characters up to the next special one, and goes on there."""
        match = _plain(special).match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match[0]

    def until(self, stop: str, *, keep_escapes: bool) -> tuple[str, list[str]]:
        """Reads up to a character, or to the end where there is none to stop at."""
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            raise DockerfileError(f"variables nested more than {_DEPTH_MAX} deep")
        before, self.keep_escapes = self.keep_escapes, keep_escapes
        try:
            return self._until(stop)
        finally:
            self.keep_escapes = before
            self.depth -= 1

    def _until(self, stop: str) -> tuple[str, list[str]]:
        result: list[str] = []
        size = 0
        words = _Words()
        quotes = "'\"" if self.lexer.quotes else ""
        special = f"${stop}{quotes}{self.lexer.escape}"
        while character := self.peek():
            if plain := self.plain(special):
                words.split(plain)
                result.append(plain)
                continue
            if character == stop:
                break
            if character == "$":
                piece = self._dollar()
                words.split(piece)
            elif character in quotes:
                piece = self._single() if character == "'" else self._double()
                words.keep(piece)
            else:
                escape, escaped = self.next(), self.next()
                piece = escape + escaped if self.keep_escapes else escaped
                words.keep(piece)
            size += len(piece)
            self._check(size)
            result.append(piece)
        if stop and not self.next():
            raise DockerfileError(f"unexpected end of statement while looking for matching {stop}")
        words.end()
        return "".join(result), words.words

    def _single(self) -> str:
        start = self.position + 1
        end = self.text.find("'", start)
        if end < 0:
            self.position = len(self.text)
            raise DockerfileError(
                "unexpected end of statement while looking for matching single-quote"
            )
        self.position = end + 1
        inner = self.text[start:end]
        return f"'{inner}'" if self.lexer.keep_quotes else inner

    def _double(self) -> str:
        quote = self.next() if self.lexer.keep_quotes else self.next()[:0]
        result: list[str] = [quote]
        size = 0
        special = f'"${self.lexer.escape}'
        while (character := self.peek()) != '"':
            if not character:
                raise DockerfileError(
                    "unexpected end of statement while looking for matching double-quote"
                )
            if plain := self.plain(special):
                result.append(plain)
                continue
            piece = self._dollar() if character == "$" else self._escaped()
            size += len(piece)
            self._check(size)
            result.append(piece)
        self.next()
        return "".join([*result, quote])

    def _check(self, size: int) -> None:
        """Refuses what comes to more than the text itself and what it may grow by."""
        if size > len(self.text) + EXPANDED_MAX:
            raise substitution.too_large()

    def _escaped(self) -> str:
        """Reads an escape character between double quotes, where few can be escaped."""
        character = self.next()
        kept = character if self.keep_escapes else ""
        following = self.peek()
        if not following:
            return kept
        return kept + (self.next() if following in f'"${self.lexer.escape}' else character)

    def _dollar(self) -> str:
        self.next()
        if self.peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name)
            if value is None:
                return f"${name}" if self.lexer.keep_missing else ""
            return value
        self.next()
        if not self.peek():
            raise DockerfileError("syntax error: missing '}'")
        if self.peek() in "{}:":
            raise DockerfileError("syntax error: bad substitution")
        return self._braced(self._name())

    def _braced(self, name: str) -> str:
        modifier = shown = self.next()
        if not modifier:
            raise DockerfileError("syntax error: missing '}'")
        if modifier == "}":
            value = self._value(name)
            if value is None:
                return f"${{{name}}}" if self.lexer.keep_missing else ""
            return value
        if modifier == "/":
            return self._replaced(name)
        colon = modifier == ":"
        if colon:
            modifier = self.next()
            shown += modifier
        elif modifier not in _MODIFIERS:
            raise DockerfileError(f"unsupported modifier ({shown}) in substitution")
        word = self._inner("}", "syntax error: missing '}'", keep_escapes=modifier in {"#", "%"})
        value = self._value(name)
        if value is None and self.lexer.keep_missing:
            return f"${{{name}{shown}{word}}}"
        if modifier == "-":
            return word if value is None or (colon and not value) else value
        if modifier == "+":
            return "" if value is None or (colon and not value) else word
        if modifier == "?":
            if value is None:
                raise DockerfileError(f"{name}: {word or 'is not allowed to be unset'}")
            if colon and not value:
                raise DockerfileError(f"{name}: {word or 'is not allowed to be empty'}")
            return value
        if modifier and modifier in "#%":
            return substitution.trimmed(value or "", modifier, word)
        raise DockerfileError(f"unsupported modifier ({shown}) in substitution")

    def _replaced(self, name: str) -> str:
        everywhere = self.peek() == "/"
        if everywhere:
            self.next()
        pattern = self._inner("/", "syntax error: missing '/' in ${}", keep_escapes=True)
        replacement = self._inner("}", "syntax error: missing '}'", keep_escapes=True)
        value = self._value(name)
        if value is None and self.lexer.keep_missing:
            return f"${{{name}/{pattern}/{replacement}}}"
        return substitution.replaced(value or "", pattern, replacement, everywhere=everywhere)

    def _inner(self, stop: str, unfinished: str, *, keep_escapes: bool) -> str:
        """Reads a modifier's word; what is wrong at the text's end is that it is unfinished."""
        try:
            return self.until(stop, keep_escapes=keep_escapes)[0]
        except DockerfileError as error:
            if not self.peek():
                raise DockerfileError(unfinished) from error
            raise

    def _name(self) -> str:
        """Reads a name: letters, digits and ``_``; or digits alone; or one of the specials."""
        start = self.position
        if self.peek().isdecimal():
            while self.peek().isdecimal():
                self.position += 1
        elif self.peek() in _SPECIAL:
            self.position += 1
        else:
            while (character := self.peek()) and (
                character.isalpha() or character.isdecimal() or character == "_"
            ):
                self.position += 1
        return self.text[start : self.position]

    def _value(self, name: str) -> str | None:
        value = self.environment.get(name)
        (self.missing if value is None else self.used).add(name)
        return value
