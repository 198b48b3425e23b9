"""``ketch __complete``: what could be typed next. The scripts of ``ketch completion`` ask it.

Which flags a command has is what the command says when it is asked for help, so nothing about
flags is stated here. The answer has cobra's form, which is that of docker's ``__complete``: a
candidate a line, a tab and what it means behind it where that is known, and in the end a colon and
a number, see ``candidates``.
"""

import shlex
import sys

from ketch.cli import candidates, main, overview
from ketch.cli.candidates import NO_FILES, NO_SPACE, Answer, Place
from ketch.cli.flags import HelpRequested, parse
from ketch.engine.settings import Settings
from ketch.errors import KetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.cli.flags import Command, Flag

_HELP = ("help", "Print usage")


class _Scanned:
    """The words before the cursor, as one command's parser would take them.

    Attributes:
        awaiting: the flag whose value the next word is.
        given: the flags by long name, each with its last value.
        arguments: what is not a flag.
        only_arguments: whether no more flags can come.
    """

    def __init__(self, command: "Command", words: "Iterable[str]") -> None:
        self.given: dict[str, str] = {}
        self.arguments: list[str] = []
        self.only_arguments = False
        awaiting: Flag | None = None
        for word in words:
            if awaiting is not None:
                self.given[awaiting.name] = word
                awaiting = None
            elif self.only_arguments or len(word) < 2 or word[0] != "-":
                self.arguments.append(word)
                self.only_arguments |= not command.interspersed
            elif word == "--":
                self.only_arguments = True
            else:
                awaiting = self._take(command, word)
        self.awaiting = awaiting

    def _take(self, command: "Command", word: str) -> "Flag | None":
        """Takes a word that begins with a dash; returns the flag whose value is yet to come."""
        name, equals, value = word.lstrip("-").partition("=")
        flag = command.longs.get(name)
        if word[1] != "-":
            for end, letter in enumerate(word[1:], 2):
                of_letter = command.shorthands.get(letter)
                if of_letter is None:
                    break  # a long name after a single dash
                flag, value = of_letter, word[end:].removeprefix("=")
                equals = value
                if flag.kind != "bool":
                    break
                self.given[flag.name] = "true"
        if flag is None:
            return None
        self.given[flag.name] = value
        return None if equals or flag.kind == "bool" else flag


def complete(settings: Settings, arguments: list[str]) -> int:
    """Answer ``ketch __complete WORD...``: the words after ``ketch``, up to the cursor."""
    return _answer(settings, arguments, described=True)


def complete_without_descriptions(settings: Settings, arguments: list[str]) -> int:
    """Answer ``ketch __completeNoDesc``, the same without what candidates mean."""
    return _answer(settings, arguments, described=False)


def _answer(settings: Settings, arguments: list[str], *, described: bool) -> int:
    words = [_unquoted(word) for word in arguments] or [""]
    try:
        found, directive = _complete(settings, words[:-1], words[-1])
    except (KetchError, HelpRequested):
        found, directive = [], NO_FILES  # what is typed is wrong, which is told when it is entered
    for word, about in found:
        line = about.partition("\n")[0] if described else ""
        sys.stdout.write(f"{word}\t{line}\n" if line else f"{word}\n")
    print(f":{directive}")
    return 0


def _complete(
    settings: Settings, before: list[str], word: str
) -> tuple[list[tuple[str, str]], int]:
    """Returns the candidates, each with what it means, and the directive."""
    command, words = main.program(), before
    scanned = _Scanned(command, words)
    if scanned.arguments and scanned.awaiting is None:
        if scanned.arguments[0] == "help":
            return _starting(word, _commands(scanned.arguments[1:])), NO_FILES
        if scanned.arguments[0] in main.GROUPS and len(scanned.arguments) == 1:
            return _starting(word, _commands(scanned.arguments)), NO_FILES
        found, words = accepted(scanned.arguments)
        settings = main.engine_settings(parse(command, before))
        command, scanned = found, _Scanned(found, words)
    elif scanned.awaiting is None and not word.startswith("-"):
        return _starting(word, _commands([])), NO_FILES

    flag, prefix = scanned.awaiting, ""
    if flag is None and not scanned.only_arguments and word.startswith("-"):
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals or not word.startswith("--"):
            return _starting(word, _flags(command, scanned)), NO_FILES
        flag, prefix, word = command.longs.get(name), f"--{name}=", value
        if flag is None:
            return [], NO_FILES
    place = Place(settings, command, scanned.given, scanned.arguments, word)
    if flag is None:
        answer = candidates.of_argument(place)
    elif flag.kind == "bool":
        answer = Answer(("true", "false"))
    else:
        answer = candidates.of_flag(place, flag)
    found_words = [(prefix + one, "") for one in answer.words if one.startswith(word)]
    directive = answer.directive
    if directive & NO_SPACE and not any(one[-1] in "=:-" for one, _ in found_words):
        directive &= ~NO_SPACE
    return found_words, directive


def accepted(words: list[str]) -> "tuple[Command, list[str]]":
    """Returns what a command accepts, which it is asked by asking for help, and its words.

    Args:
        words: the command with what follows it, as after ``ketch``.

    Raises:
        KetchError: there is no such command.
    """
    if words[1:2] in (["-h"], ["--help"]):
        raise KetchError("that is all that is to be typed")
    _, function, rest = main.find(words)
    try:
        function(Settings(), ["--help"])
    except HelpRequested as request:
        return request.command, rest
    raise AssertionError(f"{words[0]} did not tell what it accepts")


def _commands(before: list[str]) -> list[tuple[str, str]]:
    """The commands that there are, or those of the group that is named."""
    if not before:
        about = {name: what for name, (_, _, what) in main.COMMANDS.items()}
        return sorted({**about, **overview.GROUPS, "help": "Help about the command"}.items())
    if len(before) == 1 and before[0] in main.GROUPS:
        return overview.listed(before[0], main.GROUPS[before[0]], main.COMMANDS)
    return []


def _flags(command: "Command", scanned: _Scanned) -> list[tuple[str, str]]:
    """A command's flags but for those that are given and count once only."""
    found = []
    for flag in sorted(command.flags, key=lambda flag: flag.name):
        if flag.kind == "list" or flag.name not in scanned.given:
            found.append((f"--{flag.name}", flag.help))
            if flag.shorthand:
                found.append((f"-{flag.shorthand}", flag.help))
    return [*found, (f"--{_HELP[0]}", _HELP[1])]


def _starting(word: str, found: "Iterable[tuple[str, str]]") -> list[tuple[str, str]]:
    return [(name, about) for name, about in found if name.startswith(word)]


def _unquoted(word: str) -> str:
    """What a shell would make of a word, whose quotes may be still open."""
    for end in ("", '"', "'"):
        try:
            parts = shlex.split(word + end)
        except ValueError:
            continue
        return parts[0] if parts else ""
    return word
