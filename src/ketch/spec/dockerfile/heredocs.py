"""Heredocs: ``<<NAME``, and the lines that follow up to the name.

Source: github.com/moby/buildkit, frontend/dockerfile/parser/parser_heredoc.go.
"""

import re
from typing import TYPE_CHECKING

from ketch.dataclass import dataclass, replace
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.expansion import Lexer

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = re.compile(r"(\d*)<<(-?)\s*([^<]*)", re.ASCII)
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)

# A heredoc's own escape character is the shell's, whatever the Dockerfile's is.
_PLAIN = Lexer(keep_missing=True)
_QUOTED = Lexer(keep_missing=True, keep_quotes=True)
_RAW = Lexer(keep_missing=True, keep_quotes=True, keep_escapes=True)


@dataclass(frozen=True)
class Heredoc:
    """A text of several lines within an instruction.

    Attributes:
        name: the word that ends it; of COPY and ADD also the name of the file.
        expand: whether variables in it have a meaning: the name is not quoted.
        chomp: whether tabs at the beginning of lines go (``<<-``).
        descriptor: the number before ``<<``, for the shell; 0 where there is none.
        content: the lines as they are written, with their ends.
    """

    name: str
    expand: bool
    chomp: bool
    descriptor: int
    content: str = ""

    @property
    def text(self) -> str:
        """The lines, without tabs at their beginnings where those go."""
        return _LEADING_TABS.sub("", self.content) if self.chomp else self.content


def parse(word: str) -> Heredoc | None:
    """Reads a word such as ``<<EOF``, ``<<-'EOF'``, ``3<<EOF``; None where it is no such.

    Raises:
        DockerfileError: its quotes are not closed.
    """
    match = _MARK.fullmatch(word)
    if match is None or not match[3]:
        return None
    words = _PLAIN.process(match[3], {}).words
    if len(words) != 1:
        return None
    with_quotes = _QUOTED.process(match[3], {}).words
    if len(with_quotes) != 1:
        raise DockerfileError(
            f"internal lexing of heredoc produced inconsistent results: {match[3]}"
        )
    expand = _quotes(words[0]) == _quotes(with_quotes[0])
    descriptor = int(match[1]) if 0 < len(match[1]) < 10 else 0
    return Heredoc(words[0], expand, bool(match[2]), descriptor)


def parse_or_none(word: str) -> Heredoc | None:
    """The same, where a malformed one is no heredoc."""
    try:
        return parse(word)
    except DockerfileError:
        return None


def announced(line: str) -> "list[Heredoc]":
    """Returns the heredocs that an instruction's line announces, without their content.

    Raises:
        DockerfileError: one is malformed.
    """
    try:
        words = _RAW.process(line, {}).words
    except DockerfileError:
        return []  # quotes that are not closed: the shell's business
    return [found for found in map(parse, words) if found is not None]


def read(heredoc: Heredoc, lines: "Iterator[str]") -> Heredoc | None:
    """Takes a heredoc's lines; None where they end before it does.

    Args:
        heredoc: as announced.
        lines: the following lines, with their ends.
    """
    content: list[str] = []
    for line in lines:
        bare = line.rstrip("\r\n")
        if (bare.lstrip("\t") if heredoc.chomp else bare) == heredoc.name:
            return replace(heredoc, content="".join(content))
        content.append(line)
    return None


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
