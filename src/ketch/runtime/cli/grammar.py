"""The grammar of runc's command line: Go's package ``flag``, with names that may have two dashes.

It differs from Docker's (``ketch.cli.flags``): ``-detach`` is ``--detach``, shorthands do not
group, and a flag that is given twice counts twice only where it is a list.
"""

from ketch.errors import InvalidArgumentError
from ketch.spec.flag import Flag
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.spec.flag import Value

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class UsageError(InvalidArgumentError):
    """The command line is wrong.

    Args:
        message: what is wrong with it, in Go's words.
        help: the command's help, which goes to standard output beside the message.
    """

    def __init__(self, message: str, help: str = "") -> None:  # noqa: A002 - the field's word
        super().__init__(message)
        self.help = help


class Command:
    """What one command accepts.

    Args:
        name: as it is typed.
        summary: what it does, in a phrase.
        usage: what follows the name in the usage line.
        flags: its flags, in the order of ``--help``.
        minimum: how many arguments it needs.
        maximum: how many it takes, or None for any number.
        interspersed: whether flags may follow arguments.
        description: more on what it does, for ``--help``.
    """

    __slots__ = (
        "description", "flags", "interspersed", "maximum", "minimum", "name", "summary", "usage",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        summary: str,
        usage: str,
        flags: "Sequence[Flag]" = (),
        minimum: int = 1,
        maximum: int | None = 1,
        *,
        interspersed: bool = True,
        description: str = "",
    ) -> None:
        self.name = name
        self.summary = summary
        self.usage = usage
        self.flags = flags
        self.minimum = minimum
        self.maximum = maximum
        self.interspersed = interspersed
        self.description = description


class Parsed:
    """A command line that was understood: flags by long name, and the arguments in order."""

    __slots__ = ("arguments", "given", "help", "values")

    def __init__(self, flags: "Sequence[Flag]") -> None:
        self.values: dict[str, Value] = {flag.name: flag.initial() for flag in flags}
        self.arguments: list[str] = []
        self.given: set[str] = set()
        self.help = False

    # A flag that the command does not have is as one that was not given.

    def enabled(self, name: str) -> bool:
        """The value of a ``bool`` flag."""
        return bool(self.values.get(name))

    def text(self, name: str) -> str:
        """The value of a ``string`` flag."""
        return str(self.values.get(name, ""))

    def number(self, name: str) -> int:
        """The value of an ``int`` flag."""
        value = self.values.get(name, 0)
        assert isinstance(value, int), name
        return value

    def items(self, name: str) -> list[str]:
        """The values of a ``list`` flag."""
        value = self.values.get(name, [])
        assert isinstance(value, list), name
        return value


def parse(flags: "Sequence[Flag]", words: "Sequence[str]", *, interspersed: bool) -> Parsed:
    """Tell flags from arguments.

    Args:
        flags: what may be given; ``--help`` and ``-h`` are known as well.
        words: the words to read.
        interspersed: whether flags may follow arguments; else the first argument ends them.

    Raises:
        InvalidArgumentError: an unknown flag, a missing or malformed value.
    """
    parsed = Parsed(flags)
    names = {name: flag for flag in flags for name in (flag.name, flag.shorthand) if name}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            parsed.arguments += rest
            break
        if len(word) < 2 or word[0] != "-":
            parsed.arguments.append(word)
            if not interspersed:
                parsed.arguments += rest
                break
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name[0] == "-":
            raise InvalidArgumentError(f"bad flag syntax: {word}")
        flag = names.get(name)
        if flag is None and name in {"help", "h"}:
            parsed.help = True
            continue
        if flag is None:
            raise InvalidArgumentError(f"flag provided but not defined: -{name}")
        if not equals and flag.kind != "bool":
            if not rest:
                raise InvalidArgumentError(f"flag needs an argument: -{name}")
            value = rest.pop(0)
        _assign(parsed, flag, name, value if equals or flag.kind != "bool" else "true")
    return parsed


def _assign(parsed: Parsed, flag: Flag, name: str, value: str) -> None:
    parsed.given.add(flag.name)
    if flag.kind == "bool":
        if value not in _TRUE | _FALSE:
            raise InvalidArgumentError(
                f"invalid boolean value {quoted(value)} for -{name}: parse error"
            )
        parsed.values[flag.name] = value in _TRUE
    elif flag.kind == "int":
        try:
            parsed.values[flag.name] = int(value, 0)
        except ValueError:
            raise InvalidArgumentError(
                f"invalid value {quoted(value)} for flag -{name}: parse error"
            ) from None
    elif flag.kind == "list":
        parsed.items(flag.name).append(value)
    else:
        parsed.values[flag.name] = value


def check_count(program: str, command: Command, count: int) -> None:
    """Refuse a wrong number of arguments.

    Raises:
        UsageError: in runc's words.
    """
    minimum, maximum = command.minimum, command.maximum
    if minimum <= count and (maximum is None or count <= maximum):
        return
    if minimum == maximum:
        wants = f"exactly {minimum}"
    elif count < minimum:
        wants = f"a minimum of {minimum}"
    else:
        wants = f"a maximum of {maximum}"
    raise UsageError(
        f'{program}: "{command.name}" requires {wants} argument(s)', help_text(program, command)
    )


def help_text(program: str, command: Command) -> str:
    """A command's help, laid out as runc's."""
    options = " [command options]" if command.flags else ""
    parts = [
        f"NAME:\n   {program} {command.name} - {command.summary}",
        f"USAGE:\n   {program} {command.name}{options} {command.usage}".rstrip(),
    ]
    if command.description:
        parts.append(f"DESCRIPTION:\n   {command.description}")
    if command.flags:
        parts.append("OPTIONS:\n" + option_lines(command.flags) + "\n   ")
    return "\n\n".join(parts) + "\n"


def option_lines(flags: "Sequence[Flag]") -> str:
    """The table of flags of a help text."""
    heads = []
    for flag in flags:
        value = "" if flag.kind == "bool" else " value"
        short = f", -{flag.shorthand}{value}" if flag.shorthand else ""
        heads.append(f"--{flag.name}{value}{short}")
    width = max(map(len, heads)) + 2
    return "\n".join(
        f"   {head.ljust(width)}{flag.help}{_default(flag)}"
        for head, flag in zip(heads, flags, strict=True)
    )


def _default(flag: Flag) -> str:
    if flag.kind == "int":
        return f" (default: {flag.default})"
    if flag.kind == "string" and flag.default:
        return f" (default: {quoted(str(flag.default))})"
    return ""
