"""Go templates, as ``--format`` takes them: text/template's language without nested templates.

Source: https://pkg.go.dev/text/template, Go 1.24.
"""

import re

from ketch.spec.template_functions import FUNCTIONS
from ketch.spec.template_nodes import (
    Branch,
    Break,
    Command,
    Continue,
    Jump,
    Operand,
    Pipeline,
    Print,
    Range,
    Sequence,
    State,
    TemplateError,
    Text,
    Token,
    UnknownFieldError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<raw>`[^`]*`)
  | (?P<char>'(?:[^'\\\n]|\\.[^']*)')
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
        |(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_]))
  | (?P<field>\.[^\W\d]\w*)
  | (?P<dot>\.)
  | (?P<variable>\$\w*)
  | (?P<word>[^\W\d]\w*)
  | (?P<mark>:=|[=|(),])
    """,
    re.VERBOSE,
)
_ACTION = re.compile(r"\{\{(-[ \t\r\n])?")
_COMMENT = re.compile(r"\s*/\*.*?\*/\s*(-?)\}\}", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))"
)
_SIMPLE_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class ParseError(TemplateError):
    """A template that cannot be parsed."""


class Template:
    """A parsed template.

    Args:
        source: its text.

    Raises:
        ParseError: it is malformed; the message has Go's words.
    """

    def __init__(self, source: str) -> None:
        self._body = _Parser(source).template()

    def execute(self, data: object) -> str:
        """Apply it to a value; returns the text.

        Raises:
            TemplateError: a field does not exist, or a function refuses its arguments.
        """
        state = State(data)
        self._body.run(state, data)
        return "".join(state.output)

    def check(self, data: object) -> None:
        """Look for fields that there never are, before there is a value.

        Args:
            data: a value with all fields, empty; what a function says of that counts for nothing.

        Raises:
            UnknownFieldError: there is no such field.
        """
        try:
            self.execute(data)
        except UnknownFieldError:
            raise
        except TemplateError:
            pass


class _Parser:
    """Reads a template's text into nodes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.items = list(self._scan())  # text, or the tokens of an action
        self.next_item = 0
        self.tokens: list[Token] = []
        self.at = 0
        self.variables = ["$"]
        self.loops = 0

    def template(self) -> Sequence:
        body, ender = self._list()
        if ender:
            raise self._failure(f"unexpected {{{{{ender}}}}}", self.tokens[0].start)
        return body

    def _failure(self, message: str, position: int) -> ParseError:
        line = self.source.count("\n", 0, position) + 1
        return ParseError(f"template: :{line}: {message}")

    # Text and actions

    def _scan(self) -> "Iterator[str | list[Token]]":
        position, trim = 0, False
        while match := _ACTION.search(self.source, position):
            content = self.source[position : match.start()]
            content = content.lstrip(_SPACE) if trim else content
            yield content.rstrip(_SPACE) if match[1] else content
            inside = match.start() + (3 if match[1] else 2)
            if comment := _COMMENT.match(self.source, inside):
                position, trim = comment.end(), bool(comment[1])
                continue
            tokens, position, trim = self._scan_action(inside)
            yield tokens
        rest = self.source[position:]
        yield rest.lstrip(_SPACE) if trim else rest

    def _scan_action(self, position: int) -> tuple[list[Token], int, bool]:
        start = position
        tokens: list[Token] = []
        while True:
            if self.source.startswith("}}", position):
                end = Token("end", "", position, position)
                return [*tokens, end], position + 2, False
            match = _TOKEN.match(self.source, position)
            if match is None:
                raise self._failure(self._complaint(position), start)
            assert match.lastgroup is not None
            if match.lastgroup == "space" and self.source.startswith("-}}", match.end()):
                end = Token("end", "", position, position)
                return [*tokens, end], match.end() + 3, True
            tokens.append(Token(match.lastgroup, match[0], position, match.end()))
            position = match.end()

    def _complaint(self, position: int) -> str:
        character = self.source[position : position + 1]
        if not character:
            return "unclosed action"
        if character in _UNTERMINATED:
            return _UNTERMINATED[character]
        if character.isdigit():
            word = re.match(r"[\w.+-]*", self.source[position:])
            return f'bad number syntax: "{word[0] if word else character}"'
        if character == "/" and self.source.startswith("/*", position):
            return "unclosed comment"
        if character.isascii() and character.isprintable():
            return f'unexpected "{character}" in command'
        return f"unrecognized character in action: U+{ord(character):04X} '{character}'"

    def _list(self) -> tuple[Sequence, str]:
        """Read up to the end, or to the ``end`` or ``else`` that closes a block.

        Returns:
            What was read, and the word that ended it; its action's tokens are at hand.
        """
        parts: list[Any] = []
        while self.next_item < len(self.items):
            item = self.items[self.next_item]
            self.next_item += 1
            if isinstance(item, str):
                if item:
                    parts.append(Text(item))
                continue
            self.tokens, self.at = item, 0
            word = self._peek().text if self._peek().kind == "word" else ""
            if word in {"end", "else"}:
                self._take()
                return Sequence(parts), word
            parts.append(self._action(word))
        return Sequence(parts), ""

    def _action(self, word: str) -> "Any":
        start = self.tokens[0].start
        if word in {"if", "with", "range"}:
            self._take()
            return self._block(word, start)
        if word in {"break", "continue"}:
            if not self.loops:
                raise self._failure(f"{{{{{word}}}}} outside {{{{range}}}}", start)
            return Jump(Break if word == "break" else Continue)
        if word in {"define", "template", "block"}:
            raise self._failure(f"{{{{{word}}}}} is not supported", start)
        return Print(self._whole_pipeline("command"))

    def _block(self, word: str, start: int) -> "Branch | Range":
        scope = len(self.variables)
        pipeline = self._whole_pipeline(word)
        self.loops += word == "range"
        body, ender = self._list()
        self.loops -= word == "range"
        other = Sequence([])
        if ender == "else":
            nested = self._peek().text if self._peek().kind == "word" else ""
            if nested and nested == word and word != "range":
                self._take()
                # {{else if}} shares the {{end}} of the block that it stands in.
                other = Sequence([self._block(nested, start)])
                ender = "end"
            else:
                self._expect_end("else")
                other, ender = self._list()
                if ender == "else":
                    raise self._failure("expected end; found {{else}}", self.tokens[0].start)
        if not ender:
            raise self._failure("unexpected EOF", len(self.source))
        self.variables = self.variables[:scope]
        if word == "range":
            return Range(pipeline, body, other)
        return Branch(pipeline, body, other, moves=word == "with")

    # Pipelines

    def _peek(self) -> Token:
        """Returns the next token that is no space."""
        while self.tokens[self.at].kind == "space":
            self.at += 1
        return self.tokens[self.at]

    def _take(self) -> Token:
        token = self._peek()
        self.at += 1
        return token

    def _expect_end(self, context: str) -> None:
        token = self._peek()
        if token.kind != "end":
            if token.text == ")":
                raise self._failure("unexpected right paren", token.start)
            raise self._failure(f'unexpected "{token.text}" in {context}', token.start)

    def _whole_pipeline(self, context: str) -> Pipeline:
        pipeline = self._pipeline(context)
        self._expect_end(context)
        return pipeline

    def _pipeline(self, context: str) -> Pipeline:
        start = self._peek().start
        names, declares = self._declarations(context)
        commands: list[Command] = []
        while True:
            token = self._peek()
            if token.kind == "end" or token.text in {")", "|"}:
                raise self._failure(f"missing value for {context}", token.start)
            commands.append(self._command(stage=len(commands) + 1))
            if self._peek().text != "|":
                break
            self._take()
            context = "command"
        return Pipeline(self.source, start, names, commands, declares=declares)

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        """Read ``$x :=``, ``$x =`` or, for range, ``$i, $x :=``."""
        before = self.at
        names: list[str] = []
        while self._peek().kind == "variable":
            names.append(self._take().text)
            mark = self._peek()
            if mark.text in {":=", "="} and mark.kind == "mark":
                self._take()
                declares = mark.text == ":="
                for name in names:
                    if declares:
                        self.variables.append(name)
                    elif name not in self.variables:
                        raise self._failure(f'undefined variable "{name}"', mark.start)
                return names, declares
            if mark.text != "," or context != "range" or len(names) > 1:
                break
            self._take()
        self.at = before
        return [], False

    def _command(self, stage: int) -> Command:
        first = self._peek()
        function = ""
        if first.kind == "word" and first.text not in _CONSTANTS:
            function = self._function(self._take())
        elif stage > 1 and first.kind not in {"field", "variable"} and first.text != "(":
            raise self._failure(f"non executable command in pipeline stage {stage}", first.start)
        elif first.text == "nil":
            raise self._failure("nil is not a command", first.start)
        operands: list[Operand] = []
        while self._peek().kind != "end" and self._peek().text not in {"|", ")"}:
            operands.append(self._operand())
            follower = self.tokens[self.at]
            if follower.kind not in {"space", "end"} and follower.text not in {"|", ")"}:
                raise self._failure(f'unexpected "{follower.text}" in operand', follower.start)
        end = operands[-1].end if operands else first.end
        return Command(self.source, first.start, end, function, operands)

    def _function(self, token: Token) -> str:
        if token.text not in FUNCTIONS:
            raise self._failure(f'function "{token.text}" not defined', token.start)
        return token.text

    def _operand(self) -> Operand:
        token = self._take()
        taken = [token]
        fields: list[str] = []
        if token.kind == "field":
            base: Callable[[State, object], object] = _dot
            fields.append(token.text[1:])
        elif token.kind == "dot":
            base = _dot
        elif token.kind == "variable":
            name = token.text
            if name not in self.variables:
                raise self._failure(f'undefined variable "{name}"', token.start)
            base = lambda state, _: state.look_up(name)  # noqa: E731
        elif token.text == "(":
            base = self._pipeline("parenthesized pipeline").evaluate
            closing = self._take()
            if closing.text != ")":
                raise self._failure("unclosed left paren", token.start)
            taken.append(closing)
        elif token.kind == "word" and token.text not in _CONSTANTS:
            function = self._function(token)
            call = Command(self.source, token.start, token.end, function, [])
            base = lambda state, dot: call.evaluate(state, dot, [])  # noqa: E731
        elif token.kind in {"string", "raw", "char", "number", "word"}:
            value = self._literal(token)
            base = lambda _, __: value  # noqa: E731
        else:
            raise self._failure(f'unexpected "{token.text}" in operand', token.start)
        while self.tokens[self.at].kind == "field" and self.tokens[self.at].start == taken[-1].end:
            taken.append(self.tokens[self.at])
            fields.append(taken[-1].text[1:])
            self.at += 1
        return Operand(self.source, taken, base, fields)

    def _literal(self, token: Token) -> object:
        if token.kind == "word":
            return _CONSTANTS[token.text]
        if token.kind == "raw":
            return token.text[1:-1]
        if token.kind == "number":
            digits = token.text.replace("_", "")
            octal = digits.lstrip("+-").isdigit() and digits.lstrip("+-")[:1] == "0"
            try:
                return int(digits, 8 if octal else 0)
            except ValueError:
                pass
            try:
                return float(digits)
            except ValueError:
                raise self._failure(f'bad number syntax: "{token.text}"', token.start) from None
        content = _ESCAPE.sub(_unescaped, token.text[1:-1])
        if token.kind == "char":
            if len(content) != 1:
                raise self._failure(f"malformed character constant: {token.text}", token.start)
            return ord(content)
        return content


_SPACE = " \t\r\n"
_CONSTANTS = {"true": True, "false": False, "nil": None}
_UNTERMINATED = {
    '"': "unterminated quoted string",
    "'": "unterminated character constant",
    "`": "unterminated raw quoted string",
}


def _dot(_state: State, dot: object) -> object:
    return dot


def _unescaped(match: re.Match[str]) -> str:
    simple, *codes, octal = match.groups()
    if simple:
        return _SIMPLE_ESCAPES.get(simple, simple)
    return chr(int(octal, 8) if octal else int(next(code for code in codes if code), 16))
