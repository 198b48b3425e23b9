"""The grammar of the command line: pflag's, since that is what Docker's users type.

Why not argparse: it cannot stop at the first argument (``run IMAGE -x`` gives ``-x`` to the
program), takes ``-i=false`` or ``--rm=false`` for errors, accepts any unique prefix of a long name,
writes other messages, and its import alone costs as much as the whole parse may.

One thing is added to pflag: a long name after a single dash (``-name web``, ``-net=host``), as
early container command lines had it. What pflag accepts keeps its meaning: only where the text is
not a valid group of shorthands, values included, is it looked up as a long name.
"""

import os

from ketch.errors import InvalidArgumentError
from ketch.spec.flag import Flag, Values
from ketch.spec.values import boolean, integer, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.spec.flag import Value

__all__ = [
    "Command", "Flag", "HelpRequested", "Parsed", "UsageError", "client_file", "help_text",
    "option_lines", "parse", "screen_columns",
]  # fmt: skip


class UsageError(InvalidArgumentError):
    """The command line is wrong.

    Args:
        message: what is wrong with it.
        hint: the command's usage and where to read more.
        exit_status: 125 for a wrong flag and 1 for a wrong number of arguments, whatever the
            command (Docker's convention).
    """

    def __init__(self, message: str, hint: str, *, exit_status: int) -> None:
        super().__init__(message, hint)
        self.exit_status = exit_status

    def called(self, path: str, name: str) -> "UsageError":
        """Returns the same of a command that was called by another name than its path."""
        message, hint = (text.replace(path, name) for text in (self.message, self.hint))
        return UsageError(message, hint, exit_status=self.exit_status)


class _UnknownFlagError(InvalidArgumentError):
    """A command has no such flag.

    Args:
        message: as for its base.
        hint: likewise.
        name: what was typed, without dashes.
    """

    def __init__(self, message: str, hint: str = "", *, name: str) -> None:
        super().__init__(message, hint)
        self.name = name


class HelpRequested(Exception):  # noqa: N818 - the user asked; nothing is wrong
    """The user asked for help: print ``text()`` on standard output and exit with 0.

    Args:
        command: what is to be explained.
        name: by which it was called, its path where empty.
    """

    def __init__(self, command: "Command", name: str = "") -> None:
        super().__init__(command.path)
        self.command = command
        self.name = name or command.path

    def called(self, path: str, name: str) -> "HelpRequested":  # noqa: ARG002 - as UsageError's
        """Returns the same of a command that was called by another name than its path."""
        return HelpRequested(self.command, name)

    def text(self, aliases: "Sequence[str]" = ()) -> str:
        """Returns the help for the caller's screen; ``aliases`` are all names of the command."""
        whole = help_text(self.command, screen_columns(), aliases)
        return whole.replace(self.command.path, self.name, 1)


class Command:
    """What one command accepts.

    Args:
        usage: the usage line from the program's name on, such as
            ``ketch run [OPTIONS] IMAGE [COMMAND] [ARG...]``.
        summary: one sentence on what the command does.
        flags: its flags, in any order; ``--help`` need not be among them.
        minimum_arguments: how many arguments it needs.
        maximum_arguments: how many it takes, None for any number.
        interspersed: whether flags may follow arguments; False where the arguments are a program's.
    """

    __slots__ = (
        "flags", "interspersed", "longs", "maximum_arguments", "minimum_arguments",
        "path", "shorthands", "summary", "usage",
    )  # fmt: skip

    def __init__(
        self,
        usage: str,
        summary: str,
        flags: "Sequence[Flag]" = (),
        minimum_arguments: int = 0,
        maximum_arguments: int | None = None,
        interspersed: bool = True,
    ) -> None:
        self.usage = usage
        self.summary = summary
        self.flags = tuple(flags)
        self.minimum_arguments = minimum_arguments
        self.maximum_arguments = maximum_arguments
        self.interspersed = interspersed
        words = usage.split(" ")
        end = next((n for n, word in enumerate(words) if not word.islower()), len(words))
        self.path = " ".join(words[:end])
        self.shorthands = {flag.shorthand: flag for flag in self.flags if flag.shorthand}
        self.longs = {name: flag for flag in self.flags for name in (flag.name, *flag.aliases)}


class Parsed(Values):
    """A command line that was understood.

    Attributes:
        arguments: what is not a flag, in order.
        given: the long names of the flags that were given.
    """

    __slots__ = ("arguments", "given")

    def __init__(self, values: "dict[str, Value]") -> None:
        super().__init__(values)
        self.arguments: list[str] = []
        self.given: set[str] = set()


def parse(command: Command, arguments: "Sequence[str]") -> Parsed:
    """Reads a command's arguments.

    Args:
        command: what is accepted.
        arguments: the words after the command's name.

    Raises:
        UsageError: an unknown flag, a missing or malformed value, too many or too few arguments.
        HelpRequested: ``--help`` was given, or ``-h`` where that is no flag of the command.
    """
    parsed = Parsed({flag.name: flag.initial() for flag in command.flags})
    rest = list(arguments)
    helping = False
    try:
        while rest:
            word = rest.pop(0)
            if word == "--":
                parsed.arguments += rest
                break
            if len(word) < 2 or word[0] != "-":
                parsed.arguments.append(word)
                if not command.interspersed:
                    parsed.arguments += rest
                    break
            elif word == "--help" or (word == "-h" and "h" not in command.shorthands):
                helping = True
            else:
                assignments = _long(command, word, rest) if word[1] == "-" else _dash(
                    command, word, rest
                )  # fmt: skip
                for flag, value in assignments:
                    _assign(parsed, flag, value)
    except InvalidArgumentError as error:
        hint = f"Usage:  {command.usage}\n\nRun '{command.path} --help' for more information"
        meant = error.hint
        if isinstance(error, _UnknownFlagError):
            meant = _correction(command, error.name)
        if meant:
            hint = f"{meant}\n\n{hint}"
        raise UsageError(error.message, hint, exit_status=125) from error
    if helping:
        raise HelpRequested(command)
    _check_count(command, len(parsed.arguments))
    return parsed


def _long(command: Command, word: str, rest: list[str]) -> "list[tuple[Flag, Value]]":
    """Reads ``--name``, ``--name=value`` or ``--name value``, the value from ``rest``."""
    name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
    if not name or name[0] == "-":
        raise InvalidArgumentError(f"bad flag syntax: {word}")
    flag = command.longs.get(name)
    if flag is None:
        raise _UnknownFlagError(f"unknown flag: --{name}", name=name)
    if not equals:
        if flag.kind == "bool":
            value = "true"
        elif rest:
            value = rest.pop(0)
        else:
            raise InvalidArgumentError(f"flag needs an argument: {word}")
    return [(flag, _converted(flag, value))]


def _dash(command: Command, word: str, rest: list[str]) -> "list[tuple[Flag, Value]]":
    """Reads a word with a single dash: a group of shorthands, else a long name."""
    try:
        return _shorthands(command, word[1:], rest)
    except InvalidArgumentError:
        name = word[1:].partition("=")[0]
        if len(name) > 1 and name in command.longs:
            return _long(command, word, rest)
        raise


def _shorthands(command: Command, group: str, rest: list[str]) -> "list[tuple[Flag, Value]]":
    """Reads ``it``, ``m 1g``, ``m1g``, ``m=1g`` or ``itm=1g`` after the dash."""
    assignments: list[tuple[Flag, Value]] = []
    while group:
        letter = group[0]
        flag = command.shorthands.get(letter)
        if flag is None:
            raise _UnknownFlagError(f"unknown shorthand flag: '{letter}' in -{group}", name=group)
        if len(group) > 2 and group[1] == "=":
            value, remaining = group[2:], ""
        elif flag.kind == "bool":
            value, remaining = "true", group[1:]
        elif len(group) > 1:
            value, remaining = group[1:], ""
        elif rest:
            value, remaining = rest[0], ""
            assignments.append((flag, _converted(flag, value)))
            del rest[0]  # only now: a value that was refused belongs to nobody yet
            break
        else:
            raise InvalidArgumentError(f"flag needs an argument: '{letter}' in -{group}")
        assignments.append((flag, _converted(flag, value)))
        group = remaining
    return assignments


def _correction(command: Command, name: str) -> str:
    from ketch.cli import corrections  # noqa: PLC0415 - only for who mistyped

    return corrections.of_flag(command.path, name, command.longs)


def _converted(flag: Flag, text: str) -> "Value":
    try:
        if flag.convert is not None:
            return flag.convert(text)
        if flag.kind == "bool":
            return boolean(text)
        return integer(text) if flag.kind == "int" else text
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"invalid argument {quoted(text)} for {quoted(flag.spelling)} flag: {error.message}",
            error.hint,
        ) from error


def _assign(parsed: Parsed, flag: Flag, value: "Value") -> None:
    parsed.given.add(flag.name)
    if flag.kind == "list":
        parsed.items(flag.name).append(str(value))
    else:
        parsed.values[flag.name] = value


def _check_count(command: Command, count: int) -> None:
    minimum, maximum = command.minimum_arguments, command.maximum_arguments
    if count >= minimum and (maximum is None or count <= maximum):
        return
    if maximum == 0:
        wants = "accepts no arguments"
    else:
        if maximum == minimum:
            limits = f"{minimum}"
        elif maximum is None:
            limits = f"at least {minimum}"
        elif minimum == 0:
            limits = f"at most {maximum}"
        else:
            limits = f"at least {minimum} and at most {maximum}"
        last = minimum if maximum is None else maximum
        wants = f"requires {limits} argument{'' if last == 1 else 's'}"
    see = "See" if maximum is None else "Run"  # as docker has it
    raise UsageError(
        f"'{command.path}' {wants}",
        f"Usage:  {command.usage}\n\n{see} '{command.path} --help' for more information",
        exit_status=1,
    )


def help_text(command: Command, columns: int = 80, aliases: "Sequence[str]" = ()) -> str:
    """Returns a command's help, laid out as Docker's.

    Args:
        command: what is to be explained.
        columns: the screen's.
        aliases: all names by which it can be called, where there are several.
    """
    parts = [f"Usage:  {command.usage}", command.summary]
    if aliases:
        parts.append("Aliases:\n  " + ", ".join(aliases))
    if command.flags:
        parts.append("Options:\n" + "\n".join(option_lines(command.flags, columns - 1)))
    return "\n\n".join(parts) + "\n"


def option_lines(flags: "Sequence[Flag]", columns: int) -> list[str]:
    """Returns a help's lines on flags, by name, for a screen of that many columns."""
    heads = {
        flag.name: (f"  -{flag.shorthand}, " if flag.shorthand else "      ")
        + f"--{flag.name} {flag.metavar}".rstrip()
        for flag in flags
    }
    indent = max(map(len, heads.values())) + 3
    return [
        heads[flag.name].ljust(indent) + _wrapped(flag.help + _default_note(flag), indent, columns)
        for flag in sorted(flags, key=lambda flag: flag.name)
    ]


def _default_note(flag: Flag) -> str:
    if not flag.default or flag.default == []:
        return ""
    if isinstance(flag.default, bool):
        return f" (default {str(flag.default).lower()})"
    return f" (default {quoted(flag.default) if isinstance(flag.default, str) else flag.default})"


def _wrapped(text: str, indent: int, columns: int) -> str:
    """Breaks text as pflag does: at blanks, with five columns of slack before a lone last word."""
    slack = 5
    start = ""
    if columns - indent < 24:  # too narrow for two columns: the text goes below the flag
        indent = 16
        start = "\n" + " " * indent
    width = columns - indent - slack
    if width + slack < 24:
        return start + text.replace("\n", "\n" + " " * indent)
    lines = []
    while len(text) >= width + slack:
        space = max(text.rfind(blank, 0, width) for blank in " \t\n")
        if space <= 0:
            break
        newline = text.rfind("\n", 0, width)
        cut = newline if 0 < newline < space else space
        lines.append(text[:cut])
        text = text[cut + 1 :]
    lines.append(text)
    return start + "\n".join(lines).replace("\n", "\n" + " " * indent)


def client_file() -> str:
    """Returns the path of docker's client configuration, empty where there is none.

    See ``client_configuration``, whose import takes too long to be done for nothing.
    """
    place = os.environ.get("DOCKER_CONFIG") or f"{os.environ.get('HOME', '')}/.docker"
    path = f"{place}/config.json"
    return path if os.path.exists(path) else ""


def screen_columns() -> int:
    """Returns how many columns the terminal has, 80 where standard input is none."""
    try:
        return os.get_terminal_size(0).columns or 80
    except OSError:
        return 80
