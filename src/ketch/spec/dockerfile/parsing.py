"""A Dockerfile's text becomes nodes: an instruction each, with its arguments and its place.

What instructions mean is not known here: ``instructions.py``. Source: github.com/moby/buildkit,
frontend/dockerfile/parser.
"""

import re
from typing import TYPE_CHECKING

from ketch.dataclass import dataclass, field, replace
from ketch.spec.dockerfile import heredocs, words
from ketch.spec.dockerfile.errors import DockerfileError, Place, Source
from ketch.spec.dockerfile.words import BLANKS, Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.spec.dockerfile.heredocs import Heredoc

FILE_SIZE_MAX = 16 << 20
"""How large a Dockerfile may be, in bytes: as large as BuildKit reads one."""

LINE_SIZE_MAX = 65_535
"""How many bytes a line may have: BuildKit's limit."""

LINES_MAX = 1_000_000
"""How many lines there may be."""

INSTRUCTIONS_MAX = 10_000
"""How many instructions there may be."""

DIRECTIVES = ("syntax", "escape", "check")

_BOM = b"\xef\xbb\xbf"
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*")
_WORD = re.compile(f"[^{BLANKS}]*")


@dataclass(frozen=True)
class Directive:
    """``# name=value`` before all else in a file."""

    name: str
    value: str
    place: Place


@dataclass(frozen=True)
class Node:
    """An instruction as it is written.

    Attributes:
        keyword: its first word, in the case that it is written in.
        text: its line, without continuations.
        flags: ``--name`` and ``--name=value``.
        arguments: what follows, split as the instruction wants it; of a JSON form its words.
        json: whether it is in the JSON form.
        pairs: names and values, of ENV and LABEL.
        trigger: what ONBUILD is about.
        heredocs: the texts that follow its line.
        comments: the lines of comment right before it, without ``#``.
        place: its lines, heredocs included.
    """

    keyword: str
    text: str
    place: Place
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    json: bool = False
    pairs: tuple[Pair, ...] = ()
    trigger: "Node | None" = None
    heredocs: "tuple[Heredoc, ...]" = ()
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile, read.

    Attributes:
        source: its text, for errors to show.
        directives: those at its head.
        escape: the escape character, and that of line continuations.
        nodes: its instructions.
        empty_continuations: where instructions end that have empty lines in them.
    """

    source: Source
    directives: tuple[Directive, ...]
    escape: str
    nodes: tuple[Node, ...]
    empty_continuations: tuple[Place, ...]


def parse(content: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Reads a Dockerfile.

    Args:
        content: its bytes.
        name: what it is called in errors.

    Raises:
        DockerfileError: it is malformed, empty, or larger than ``FILE_SIZE_MAX``,
            ``LINE_SIZE_MAX``, ``LINES_MAX`` and ``INSTRUCTIONS_MAX`` allow.
    """
    source = Source(name, content)
    if len(content) > FILE_SIZE_MAX:
        raise DockerfileError(f"{name} exceeds maximum allowed size of {FILE_SIZE_MAX} bytes")
    reader = _Reader(content)
    try:
        return reader.read(source)
    except DockerfileError as error:
        error.at(Place(reader.number, reader.number), source=source)
        raise


def directive(content: bytes, name: str) -> str:
    """Returns the first word of a directive's value, empty where a file has no such.

    A first line that begins with ``#!`` does not count. Malformed directives are none.
    """
    content = content.removeprefix(_BOM)
    if content.startswith(b"#!"):
        content = content.partition(b"\n")[2]
    seen = set()
    for line in content.split(b"\n", len(DIRECTIVES) + 1)[: len(DIRECTIVES) + 1]:
        found = directive_in(_decoded(line))
        if found is None or found[0] in seen:
            return ""
        if found[0] == name:
            return found[1].partition(" ")[0]
        seen.add(found[0])
    return ""


def directive_in(line: str) -> tuple[str, str] | None:
    """Returns name and value of the directive in a line of comment, None where there is none."""
    match = _DIRECTIVE.fullmatch(line[1:].lstrip(BLANKS)) if line.startswith("#") else None
    if match is None or match[1].lower() not in DIRECTIVES:
        return None
    return match[1].lower(), match[2]


def _decoded(line: bytes) -> str:
    """Bytes that are no UTF-8 stay what they are (PEP 383)."""
    return line.decode(errors="surrogateescape")


@dataclass
class _Reader:
    """Reads lines, and knows where it is."""

    content: bytes
    number: int = 0
    escape: str = "\\"
    directives: dict[str, Directive] = field(default_factory=dict)
    directives_done: bool = False
    comments: list[str] = field(default_factory=list)

    def lines(self) -> "Iterator[str]":
        """Returns the lines with their ends, and counts them."""
        position = len(_BOM) if self.content.startswith(_BOM) else 0
        while position < len(self.content):
            end = self.content.find(b"\n", position) + 1 or len(self.content)
            line = self.content[position:end]
            self.number += 1
            if self.number > LINES_MAX:
                raise DockerfileError(f"more than {LINES_MAX} lines")
            if len(line.removesuffix(b"\n")) > LINE_SIZE_MAX:
                raise DockerfileError(
                    f"dockerfile line greater than max allowed size of {LINE_SIZE_MAX}"
                )
            yield _decoded(line)
            position = end

    def read(self, source: Source) -> Dockerfile:
        lines = self.lines()
        nodes: list[Node] = []
        gaps: list[Place] = []
        for raw in lines:
            first = self.number
            head = self._head(raw)
            if not head:
                continue
            text, gap = self._continued(head, lines)
            if gap:
                gaps.append(Place(self.number, self.number))
            if len(nodes) == INSTRUCTIONS_MAX:
                raise DockerfileError(f"more than {INSTRUCTIONS_MAX} instructions")
            try:
                nodes.append(self._node(text, first, lines))
            except DockerfileError as error:
                error.at(Place(first, self.number))
                raise
            self.comments = []
        if not nodes:
            raise DockerfileError("file with no instructions")
        return Dockerfile(
            source, tuple(self.directives.values()), self.escape, tuple(nodes), tuple(gaps)
        )

    def _head(self, raw: str) -> str:
        """Returns the first line of an instruction; nothing where there is none in a line."""
        line = raw.rstrip("\r\n").lstrip(BLANKS)
        self._directive(line)
        if not line.startswith("#"):
            self.comments = self.comments if line else []
            return line
        comment = line[1:].strip(BLANKS)
        if not comment:
            self.comments = []  # as an empty line, it parts what is before it from what follows
        elif self.directives_done:
            self.comments.append(comment)
        return ""

    def _directive(self, line: str) -> None:
        if self.directives_done:
            return
        found = directive_in(line)
        if found is None:
            self.directives_done = True
            return
        name, value = found
        if name in self.directives:
            raise DockerfileError(f"only one {name} parser directive can be used")
        if name == "escape":
            if value not in {"\\", "`"}:
                raise DockerfileError(
                    f"invalid escape token '{value}' does not match ` or \\",
                    r"write # escape=\ or # escape=`",
                )
            self.escape = value
        self.directives[name] = Directive(name, value, Place(self.number, self.number))

    def _continued(self, head: str, lines: "Iterator[str]") -> tuple[str, bool]:
        """Returns an instruction's line, and whether there was an empty one within it."""
        piece, more = self._without_continuation(head)
        pieces, gap = [piece], False
        while more:
            raw = next(lines, None)
            if raw is None:
                break
            line = raw.rstrip("\r\n")
            bare = line.lstrip(BLANKS)
            if not bare:
                gap = True
            elif not bare.startswith("#"):
                piece, more = self._without_continuation(line)
                pieces.append(piece)
        return "".join(pieces), gap

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        bare = line.rstrip(" \t")
        # Two of them are an escaped one, which continues nothing. (Three are, too: as in BuildKit.)
        if bare.endswith(self.escape) and not bare.endswith(self.escape * 2):
            return bare[:-1], True
        return line, False

    def _node(self, text: str, first: int, lines: "Iterator[str]") -> Node:
        node = _node(text, self.escape, Place(first, self.number), tuple(self.comments))
        found: list[Heredoc] = []
        if "<<" in text and _may_have_heredocs(node):
            for each in heredocs.announced(text):
                heredoc = heredocs.read(each, lines)
                if heredoc is None:
                    raise DockerfileError(
                        "unterminated heredoc", f"end it with a line that is {each.name} alone"
                    )
                found.append(heredoc)
        place = Place(first, self.number)
        return replace(node, heredocs=tuple(found), place=place) if found else node


def _may_have_heredocs(node: Node) -> bool:
    inner = node.trigger or node
    return inner.keyword.lower() in {"add", "copy", "run"} and not inner.json


def _node(text: str, escape: str, place: Place, comments: tuple[str, ...] = ()) -> Node:
    line = words.line(text, escape)
    kind = line.keyword.lower()
    if kind == "onbuild":
        trigger = _trigger(line.rest, escape, place) if line.rest else None
        return Node(line.keyword, text, place, line.flags, trigger=trigger, comments=comments)
    if kind in {"env", "label"}:
        found = words.pairs(line.rest, kind.upper(), escape)
        return Node(line.keyword, text, place, line.flags, pairs=found, comments=comments)
    if kind == "arg":
        arguments, json = tuple(words.split(line.rest, escape)), False
    else:
        arguments, json = _ARGUMENTS.get(kind, _none)(line.rest)
    return Node(line.keyword, text, place, line.flags, arguments, json, comments=comments)


def _trigger(text: str, escape: str, place: Place) -> Node:
    # ONBUILD ONBUILD is refused later, and one level is all that the refusal needs.
    line = words.line(text, escape)
    if line.keyword.lower() == "onbuild":
        return Node(line.keyword, text, place, line.flags)
    return _node(text, escape, place)


def _none(_: str) -> tuple[tuple[str, ...], bool]:
    return (), False


def _whole(rest: str) -> tuple[tuple[str, ...], bool]:
    return ((rest,) if rest else ()), False


def _gapped(rest: str) -> tuple[tuple[str, ...], bool]:
    return words.gaps(rest), False


def _json_or_whole(rest: str) -> tuple[tuple[str, ...], bool]:
    found = words.json_words(rest)
    return _whole(rest) if found is None else (found, True)


def _json_or_gapped(rest: str) -> tuple[tuple[str, ...], bool]:
    found = words.json_words(rest)
    return _gapped(rest) if found is None else (found, True)


def _healthcheck(rest: str) -> tuple[tuple[str, ...], bool]:
    kind = _WORD.match(rest)[0]  # type: ignore[index]  # it matches nothing as well
    if not kind:
        return (), False
    command, json = _json_or_whole(rest[len(kind) :].lstrip(BLANKS))
    return (kind, *command), json


_ARGUMENTS: "dict[str, Callable[[str], tuple[tuple[str, ...], bool]]]" = {
    "add": _json_or_gapped,
    "cmd": _json_or_whole,
    "copy": _json_or_gapped,
    "entrypoint": _json_or_whole,
    "expose": _gapped,
    "from": _gapped,
    "healthcheck": _healthcheck,
    "maintainer": _whole,
    "run": _json_or_whole,
    "shell": _json_or_whole,
    "stopsignal": _whole,
    "user": _whole,
    "volume": _json_or_gapped,
    "workdir": _whole,
}
