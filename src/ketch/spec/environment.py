"""Environment variables and labels: from options and files, and what a container starts with."""

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def variable(text: str) -> str:
    """Checks ``NAME=value``, or ``NAME`` for the caller's own value."""
    if not text.partition("=")[0]:
        raise InvalidArgumentError(f"invalid environment variable: {text}")
    return text


def label(text: str) -> str:
    """Checks ``name=value``, or ``name`` for an empty value."""
    name = text.partition("=")[0].lstrip(" \t")
    if not name:
        raise InvalidArgumentError(f"invalid label '{text}': empty name")
    if " " in name or "\t" in name:
        raise InvalidArgumentError(f"label '{name}' contains whitespaces")
    return text


def resolve(variables: "Iterable[str]", caller: "Mapping[str, str]") -> list[str]:
    """Gives variables without ``=`` the caller's value.

    One that the caller does not have stays as it is, and unsets a default (see ``of_container``).
    """
    return [
        f"{entry}={caller[entry]}" if "=" not in entry and entry in caller else entry
        for entry in variables
    ]


def read_file(name: str, content: bytes, caller: "Mapping[str, str] | None" = None) -> list[str]:
    """Reads an ``--env-file`` or ``--label-file``.

    A line is ``NAME=value``, the value verbatim, or ``NAME`` alone, which takes the caller's value
    and is left out where the caller has none. Empty lines and lines that begin with # do not count.

    Args:
        name: the file's name, for messages.
        content: its bytes.
        caller: the caller's environment, or None where names stand alone by right.

    Raises:
        InvalidArgumentError: a line is not UTF-8, or its name is empty or has blanks.
    """
    entries = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            line = raw.decode().lstrip()
        except UnicodeDecodeError as error:
            octets = " ".join(map(str, raw))
            reason = f"invalid utf8 bytes at line {number}: [{octets}]"
            raise _file_error(name, reason) from error
        if not line or line[0] == "#":
            continue
        key, equals, _ = line.partition("=")
        if not key:
            raise _file_error(name, f"no variable name on line '{line}'")
        if " " in key or "\t" in key:
            raise _file_error(name, f"variable '{key}' contains whitespaces")
        if equals:
            entries.append(line)
        elif caller is None:
            entries.append(key)
        elif key in caller:
            entries.append(f"{key}={caller[key]}")
    return entries


def _file_error(name: str, reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"invalid env file ({name}): {reason}")


def mapping(entries: "Iterable[str]") -> dict[str, str]:
    """Turns ``name=value`` entries into a dictionary; the last of a name counts."""
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def of_container(
    variables: "Iterable[str]", *, hostname: str, home: str, terminal: bool
) -> list[str]:
    """Returns the environment that a container's program starts with.

    PATH, HOSTNAME and, with a terminal, TERM come first; the container's own variables, its
    image's among them, replace or follow these; HOME comes last unless it is set already. A
    variable without ``=`` takes a default away.

    Args:
        variables: the container's own, of which the last of a name counts.
        hostname: the container's host name.
        home: the user's home directory.
        terminal: whether the container has a pseudo-terminal.
    """
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if terminal:
        values["TERM"] = "xterm"
    for entry in variables:
        name, equals, value = entry.partition("=")
        if equals:
            values[name] = value
        else:
            values.pop(name, None)
    if not values.get("HOME"):
        values["HOME"] = home
    return [f"{name}={value}" for name, value in values.items()]
