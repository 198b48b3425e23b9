"""One command-line flag: its names, the kind of its value, and how the value is checked."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Value = str | bool | int | list[str]


class Flag:
    """A flag of one command.

    Args:
        name: the long name, which is also the key of its value.
        shorthand: the one-letter name, or empty.
        kind: ``bool`` (its value follows ``=``, and is "true" where none does), ``int``,
            ``string`` (the last one given counts) or ``list`` (all count).
        help: one line for ``--help``, without a full stop.
        default: the value when the flag is not given; None stands for the kind's zero value.
        metavar: the word that stands for the value in ``--help``; the kind where empty.
        aliases: further long names with the same meaning, not shown in ``--help``.
        convert: turns one given value into the one to keep; raises InvalidArgumentError with the
            reason alone, since the parser says which flag and which value.
    """

    __slots__ = ("aliases", "convert", "default", "help", "kind", "metavar", "name", "shorthand")

    def __init__(
        self,
        name: str,
        shorthand: str = "",
        kind: str = "string",
        help: str = "",  # noqa: A002 - the field's own word
        *,
        default: "Value | None" = None,
        metavar: str = "",
        aliases: tuple[str, ...] = (),
        convert: "Callable[[str], str | int] | None" = None,
    ) -> None:
        self.name = name
        self.shorthand = shorthand
        self.kind = kind
        self.help = help
        self.default = _ZERO[kind] if default is None else default
        self.metavar = metavar or ("" if kind == "bool" else kind)
        self.aliases = aliases
        self.convert = convert

    @property
    def spelling(self) -> str:
        """The flag as messages name it: ``-m, --memory``."""
        return f"-{self.shorthand}, --{self.name}" if self.shorthand else f"--{self.name}"

    def initial(self) -> "Value":
        """Returns the default, a list of its own for each parse."""
        return list(self.default) if isinstance(self.default, list) else self.default


_ZERO: "dict[str, Value]" = {"bool": False, "int": 0, "string": "", "list": []}


class Values:
    """What flags' values are.

    Attributes:
        values: every flag's value by its long name, the default where it was not given.
    """

    __slots__ = ("values",)

    def __init__(self, values: "dict[str, Value]") -> None:
        self.values = values

    def enabled(self, name: str) -> bool:
        """Returns the value of a ``bool`` flag."""
        value = self.values[name]
        assert isinstance(value, bool), name
        return value

    def text(self, name: str) -> str:
        """Returns the value of a ``string`` flag."""
        value = self.values[name]
        assert isinstance(value, str), name
        return value

    def number(self, name: str) -> int:
        """Returns the value of an ``int`` flag, or of a ``string`` flag that converts to one."""
        value = self.values[name]
        assert isinstance(value, int), name
        return value

    def items(self, name: str) -> list[str]:
        """Returns the values of a ``list`` flag."""
        value = self.values[name]
        assert isinstance(value, list), name
        return value


def later(module: str, name: str) -> "Callable[..., Any]":
    """A function of a module of this package that is loaded when it is first called.

    A command line seldom has the options in question, and each module costs every start.
    """

    def call(*values: object) -> object:
        return getattr(__import__(f"ketch.spec.{module}", fromlist=[name]), name)(*values)

    return call


EXPLAIN = Flag(
    "explain", "", "bool",
    "Say on standard error what is done, step by step, and with which values"
    " (text|json|commands: for people, for programs, for a shell)",
    default="", metavar='form[="text"]', convert=later("told", "form"),
)  # fmt: skip
"""What every command has that does something to the kernel or to what is kept."""
