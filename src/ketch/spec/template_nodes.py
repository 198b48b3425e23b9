"""What a parsed Go template is made of, and how it is executed.

Each node knows the text that it came from, since Go's errors quote it.
"""

from ketch.dataclass import dataclass, field
from ketch.errors import InvalidArgumentError
from ketch.spec.template_functions import (
    FUNCTIONS,
    NO_VALUE,
    CallError,
    Struct,
    WrongTypeError,
    text,
    truth,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# Docker's templates name fields as its structures have them, documents as JSON does. Where the two
# differ: what a structure calls a field, and the document.
_ON_THE_WIRE = {
    "APIVersion": "ApiVersion", "CPUCfsPeriod": "CpuCfsPeriod", "CPUCfsQuota": "CpuCfsQuota",
    "CPUCount": "CpuCount", "CPUPercent": "CpuPercent", "CPUPeriod": "CpuPeriod",
    "CPUQuota": "CpuQuota", "CPURealtimePeriod": "CpuRealtimePeriod",
    "CPURealtimeRuntime": "CpuRealtimeRuntime", "CPUShares": "CpuShares", "DNS": "Dns",
    "DNSOptions": "DnsOptions", "DNSSearch": "DnsSearch", "HTTPProxy": "HttpProxy",
    "HTTPSProxy": "HttpsProxy", "ID": "Id", "NanoCPUs": "NanoCpus",
}  # fmt: skip


class TemplateError(InvalidArgumentError):
    """A template that cannot be parsed, or cannot be executed on its data."""


class UnknownFieldError(TemplateError):
    """A template names a field that its data cannot have, whatever their values are."""


class State:
    """What an execution has: the text so far, and its variables, the innermost last."""

    def __init__(self, data: object) -> None:
        self.output: list[str] = []
        self.variables: list[tuple[str, object]] = [("$", data)]

    def look_up(self, name: str) -> object:
        """Returns the value of the innermost variable of this name."""
        return next(value for known, value in reversed(self.variables) if known == name)

    def assign(self, name: str, value: object) -> None:
        """Give the innermost variable of this name another value."""
        for position in range(len(self.variables) - 1, -1, -1):
            if self.variables[position][0] == name:
                self.variables[position] = (name, value)
                return


class Break(Exception):  # noqa: N818 - control flow
    """``{{break}}``."""


class Continue(Exception):  # noqa: N818 - control flow
    """``{{continue}}``."""


class Token:
    """A word of an action.

    Args:
        kind: the group of the parser's token pattern.
        content: its text.
        start: where it begins in the template.
        end: where it ends.
    """

    __slots__ = ("end", "kind", "start", "text")

    def __init__(self, kind: str, content: str, start: int, end: int) -> None:
        self.kind = kind
        self.text = content
        self.start = start
        self.end = end


class Node:
    """A part of a template.

    Args:
        source: the whole template.
        start: where the part begins.
        end: where it ends.
        at: the place that errors name.
    """

    def __init__(self, source: str, start: int, end: int, at: int = -1) -> None:
        self.source = source
        self.start = start
        self.end = end
        self.at = start if at < 0 else at

    def failure(self, message: str, kind: type[TemplateError] = TemplateError) -> TemplateError:
        """Returns the error that this part meets, in Go's words."""
        before = self.source[: self.at]
        line = before.count("\n") + 1
        column = len(before[before.rfind("\n") + 1 :].encode())
        context = " ".join(self.source[self.start : self.end].split())
        return kind(f'template: :{line}:{column}: executing "" at <{context}>: {message}')


class Operand(Node):
    """A literal, the dot, a variable or a pipeline in parentheses, and the fields after it."""

    def __init__(
        self,
        source: str,
        tokens: "list[Token]",
        base: "Callable[[State, object], object]",
        fields: list[str],
    ) -> None:
        # Go names the place of the first field that follows another operand.
        at = tokens[1].start if len(tokens) > 1 and tokens[0].text != "(" else tokens[0].start
        super().__init__(source, tokens[0].start, tokens[-1].end, at)
        self.base = base
        self.fields = fields

    def evaluate(
        self, state: State, dot: object, arguments: "list[object] | None" = None
    ) -> object:
        """Evaluate; a method at the end gets the arguments."""
        value = self.base(state, dot)
        given = arguments or []
        for name in self.fields:
            value = self._field(value, name)
            if callable(value):
                value = self._call(value, name, given)
                given = []
        if given:
            what = self.source[self.start : self.end]
            if self.fields:
                raise self.failure(f"{self.fields[-1]} is not a method but has arguments")
            raise self.failure(f"can't give argument to non-function {what}")
        return value

    def _field(self, value: object, name: str) -> object:
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if not isinstance(value, Struct):
                return NO_VALUE
            if name in value.optional and (value.type_name or name == self.fields[-1]):
                return value.optional[name]
            if _ON_THE_WIRE.get(name) in value:
                return value[_ON_THE_WIRE[name]]
            if value.type_name:
                words = f"can't evaluate field {name} in type {value.type_name}"
                raise self.failure(words, UnknownFieldError)
            raise self.failure(f'map has no entry for key "{name}"')
        if value is NO_VALUE:
            raise self.failure(f"nil data; no entry for key {name!r}".replace("'", '"'))
        if value is None:
            raise self.failure(f"nil pointer evaluating interface {{}}.{name}")
        words = f"can't evaluate field {name} in type interface {{}}"
        raise self.failure(words, UnknownFieldError)

    def _call(self, method: "Callable[..., object]", name: str, arguments: list[object]) -> object:
        try:
            return method(*arguments)
        except TypeError:
            raise self.failure(f"wrong number of args for {name}: got {len(arguments)}") from None


class Command(Node):
    """An operand or a function with its arguments: one station of a pipeline."""

    def __init__(
        self, source: str, start: int, end: int, function: str, operands: list[Operand]
    ) -> None:
        super().__init__(source, start, end)
        self.function = function
        self.operands = operands

    def evaluate(self, state: State, dot: object, final: list[object]) -> object:
        """Evaluate; ``final`` holds the value that comes down the pipeline, if any."""
        if not self.function:
            first, *rest = self.operands
            given = [operand.evaluate(state, dot) for operand in rest] + final
            return first.evaluate(state, dot, given)
        function, least, most = FUNCTIONS[self.function]
        count = len(self.operands) + len(final)
        if count < least or (most is not None and count > most):
            want = f"at least {least}" if most is None else f"{least}"
            name = Node(self.source, self.start, self.start + len(self.function))
            raise name.failure(f"wrong number of args for {self.function}: want {want} got {count}")
        if self.function in {"and", "or"}:
            return self._first_that_decides(state, dot, final)
        arguments = [operand.evaluate(state, dot) for operand in self.operands] + final
        try:
            return function(*arguments)
        except WrongTypeError as error:
            culprit = self.operands[0] if self.operands else self
            raise culprit.failure(str(error)) from error
        except (CallError, TypeError, ValueError) as error:
            raise self.failure(f"error calling {self.function}: {error}") from error

    def _first_that_decides(self, state: State, dot: object, final: list[object]) -> object:
        """Evaluate ``and`` or ``or``: what comes after a decision is not evaluated."""
        value: object = None
        for operand in self.operands:
            value = operand.evaluate(state, dot)
            if truth(value) != (self.function == "and"):
                return value
        return final[0] if final else value


class Pipeline(Node):
    """Commands, each of which gets the one before's value as its last argument."""

    def __init__(
        self, source: str, start: int, variables: list[str], commands: list[Command], *,
        declares: bool,
    ) -> None:  # fmt: skip
        super().__init__(source, start, commands[-1].end if commands else start)
        self.variables = variables
        self.commands = commands
        self.declares = declares

    def evaluate(self, state: State, dot: object) -> object:
        """Evaluate without setting variables."""
        final: list[object] = []
        for command in self.commands:
            final = [command.evaluate(state, dot, final)]
        return final[0]

    def evaluate_and_set(self, state: State, dot: object) -> object:
        """Evaluate and set the variables that it names."""
        value = self.evaluate(state, dot)
        for name in self.variables:
            self.set(state, name, value)
        return value

    def set(self, state: State, name: str, value: object) -> None:
        """Declare a variable, or give it another value."""
        if self.declares:
            state.variables.append((name, value))
        else:
            state.assign(name, value)


@dataclass
class Text:
    """What stands outside of actions."""

    content: str

    def run(self, state: State, _dot: object) -> None:
        """Execute."""
        state.output.append(self.content)


@dataclass
class Print:
    """``{{pipeline}}``."""

    pipeline: Pipeline

    def run(self, state: State, dot: object) -> None:
        """Execute."""
        value = self.pipeline.evaluate_and_set(state, dot)
        if not self.pipeline.variables:
            state.output.append(text(value))


@dataclass
class Jump:
    """``{{break}}`` and ``{{continue}}``."""

    kind: type[Exception]

    def run(self, _state: State, _dot: object) -> None:
        """Execute."""
        raise self.kind


@dataclass
class Sequence:
    """Nodes, one after the other."""

    parts: "list[Any]"

    def run(self, state: State, dot: object) -> None:
        """Execute."""
        for part in self.parts:
            part.run(state, dot)


@dataclass
class Branch:
    """``if`` and ``with``: the latter also moves the dot."""

    pipeline: Pipeline
    body: Sequence
    other: Sequence
    moves: bool = field(kw_only=True)

    def run(self, state: State, dot: object) -> None:
        """Execute."""
        depth = len(state.variables)
        value = self.pipeline.evaluate_and_set(state, dot)
        if truth(value):
            self.body.run(state, value if self.moves else dot)
        else:
            self.other.run(state, dot)
        del state.variables[depth:]


@dataclass
class Range:
    """``{{range pipeline}}``."""

    pipeline: Pipeline
    body: Sequence
    other: Sequence

    def run(self, state: State, dot: object) -> None:
        """Execute."""
        value = self.pipeline.evaluate(state, dot)
        empty = True
        depth = len(state.variables)
        for key, element in self._items(value):
            empty = False
            names = self.pipeline.variables
            for name, given in zip(names, (key, element) if len(names) > 1 else (element,),
                                   strict=False):  # fmt: skip
                self.pipeline.set(state, name, given)
            try:
                self.body.run(state, element)
            except Break:
                break
            except Continue:
                pass
            finally:
                del state.variables[depth:]
        del state.variables[depth:]
        if empty:
            self.other.run(state, dot)

    def _items(self, value: object) -> "Iterator[tuple[object, object]]":
        if isinstance(value, list):
            yield from enumerate(value)
        elif isinstance(value, dict) and not isinstance(value, Struct):
            yield from ((key, value[key]) for key in sorted(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            yield from enumerate(range(value))
        elif value is not None and value is not NO_VALUE:
            raise self.pipeline.failure(f"range can't iterate over {text(value)}")
