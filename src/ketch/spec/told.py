"""How a step that ketch takes is told: what it is, what it sets, how a person does it by hand.

Who takes a step describes it, and nobody else. On its way to who asked it crosses sockets, as text:
a line with the moment when it began and what it is about, one with its words, then one for each
value that it sets, and for each command that does the same::

    81234567890 limits
    limit the control group · cgroups(7)
    =/sys/fs/cgroup/memory/ketch/4e5a/memory.limit_in_bytes 67108864
    $echo 67108864 > /sys/fs/cgroup/memory/ketch/4e5a/memory.limit_in_bytes

A command that begins with ``$`` is for the host, one with ``>`` for a shell within the namespaces
that are made on the way there, as long as its root is still the host's. A line's end within a
command, which an argument may hold, is NUL on the way, since no argument holds that.
"""

import time

from ketch.errors import InvalidArgumentError
from ketch.spec.values import boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Value = tuple[str, object]
    Say = Callable[["Told"], None]

TOPICS = (
    "namespaces", "network", "files", "limits", "privileges", "program", "image", "plan", "record",
)  # fmt: skip
"""What steps are about."""

FORMS = ("text", "json", "commands")
"""In what forms steps are told: to people, to programs, to who wants to do it by hand."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")
_LINES_APART = {10: "\\n", 13: "\\r"}


class Told:
    """A step.

    Args:
        topic: what it is about, one of TOPICS.
        words: what it is, with the system calls behind it after a middle dot.
        values: what it sets: names, without blanks, and values.
        outside: commands that do it on the host.
        inside: commands that do it in the container's namespaces, in its root's directory.
        began_ns: when it began, where it is described once it is done; now where None.

    Attributes:
        began_ns: when it began, by the clock since the machine's start (CLOCK_MONOTONIC).
    """

    __slots__ = ("began_ns", "inside", "outside", "topic", "values", "words")

    def __init__(
        self,
        topic: str,
        words: str,
        values: "Sequence[Value]" = (),
        *,
        outside: "Sequence[str]" = (),
        inside: "Sequence[str]" = (),
        began_ns: int | None = None,
    ) -> None:
        self.began_ns = time.monotonic_ns() if began_ns is None else began_ns
        self.topic = topic
        self.words = words
        self.values = values
        self.outside = outside
        self.inside = inside

    def encode(self) -> str:
        """The step as text, see above."""
        lines = (
            f"{self.began_ns} {self.topic}",
            self.words,
            *(f"={name} {value}" for name, value in self.values),
        )
        commands = (
            *(f"${command}" for command in self.outside),
            *(f">{command}" for command in self.inside),
        )
        return "\n".join([
            *(line.translate(_LINES_APART) for line in lines),
            *(command.replace("\n", "\0") for command in commands),
        ])  # fmt: skip

    @classmethod
    def decode(cls, text: str) -> "Told":
        """The step that text tells of."""
        head, words, *rest = text.split("\n")
        began, _, topic = head.partition(" ")
        lines: dict[str, list[str]] = {"=": [], "$": [], ">": []}
        for line in rest:
            kind = line[0]
            lines[kind].append(line[1:] if kind == "=" else line[1:].replace("\0", "\n"))
        values = [(name, value) for name, _, value in (line.partition(" ") for line in lines["="])]
        step = cls(topic, words, values, outside=lines["$"], inside=lines[">"])
        step.began_ns = int(began)
        return step

    def __str__(self) -> str:
        """The step in words, and a line for each value."""
        return "\n".join([self.words, *(f"  {name} = {value}" for name, value in self.values)])


def quote(text: str) -> str:
    """Text as one word of a shell's: shlex.quote, whose module loads ``re``."""
    if text and _SAFE.issuperset(text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def form(text: str) -> str:
    """The form that ``--explain`` names: empty for none, ``text`` where it names none.

    Raises:
        InvalidArgumentError: there is no such form.
    """
    if text in FORMS:
        return text
    try:
        return FORMS[0] if boolean(text) else ""
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"must be one of {', '.join(FORMS)}") from error
