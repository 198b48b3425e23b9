"""A container's options as Python's keywords: the command line's, with ``_`` for ``-``.

The table of options (``spec.options``) says what there is, checks the values and makes the
request, so that ``memory="64m"`` here and ``--memory 64m`` there are one thing.
"""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError
from ketch.spec.options import OPTIONS, Caller, request

if TYPE_CHECKING:
    from typing import Any

    from ketch.spec.container import Request
    from ketch.spec.flag import Flag, Value

# What docker-py calls some of them.
ALIASES = {
    "auto_remove": "rm", "devices": "device",
    "environment": "env", "extra_hosts": "add-host",
    "ipc_mode": "ipc", "labels": "label", "mem_limit": "memory", "mounts": "mount",
    "network_mode": "network", "pid_mode": "pid", "ports": "publish", "remove": "rm",
    "stdin_open": "interactive", "sysctls": "sysctl", "volumes": "volume", "working_dir": "workdir",
}  # fmt: skip

# These concern a command line alone; the library has parameters and methods in their place.
OF_THE_COMMAND = {"attach", "cidfile", "detach", "detach-keys", "explain", "quiet", "sig-proxy"}

KNOWN = tuple(option for option in OPTIONS if option.name not in OF_THE_COMMAND)
"""What ``run`` and ``create`` have as keywords."""

# With these, a mapping's name and value are parted by another character than "=".
_PARTED = {"add-host": ":", "publish": ":", "volume": ":"}


def make_request(
    image: str, command: "str | Iterable[str] | None", options: "Mapping[str, object]",
    *, detach: bool = False,
) -> "tuple[Request, str]":  # fmt: skip
    """Returns the request for a container, and the name that it is to have.

    Args:
        image: its image.
        command: the program and its arguments; one text is one program.
        options: keywords.
        detach: whether nobody is to be attached from the start.

    Raises:
        InvalidArgumentError: a keyword is unknown, or its value is wrong.
    """
    values: dict[str, Value] = {option.name: option.initial() for option in OPTIONS}
    found, given = read(KNOWN, options)
    values |= {**found, "detach": detach}
    arguments = [command] if isinstance(command, str) else list(command or ())
    caller = Caller(os.getcwd(), dict(os.environ), _content)
    made = request(values, given, [image, *arguments], caller)
    return made, str(values["name"])


def read(
    known: "Iterable[Flag]", keywords: "Mapping[str, object]"
) -> "tuple[dict[str, Value], set[str]]":
    """Read keywords as the options that they stand for.

    Args:
        known: the options that there are.
        keywords: what was given; None is as good as nothing.

    Returns:
        The value of each option by name, and the names of those that were given.

    Raises:
        InvalidArgumentError: a keyword is unknown, or its value is wrong.
    """
    flags = {flag.name: flag for flag in known}
    values = {name: flag.initial() for name, flag in flags.items()}
    given: set[str] = set()
    for keyword, value in keywords.items():
        name = ALIASES.get(keyword, keyword.replace("_", "-"))
        if name not in flags:
            raise InvalidArgumentError(f"there is no option {keyword}")
        if value is None:
            continue
        given.add(name)
        values[name] = _value(flags[name], keyword, value)
    return values, given


def _value(option: "Flag", keyword: str, value: object) -> "Value":
    try:
        return _converted(option, value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{keyword}={value!r}: {error.message}", error.hint) from error


def _converted(option: "Flag", value: object) -> "Value":
    if option.kind == "bool":
        if not isinstance(value, bool):
            raise InvalidArgumentError("True or False is wanted")
        return value
    if option.kind == "list":
        convert = option.convert or str
        return [str(convert(text)) for text in _texts(option.name, value)]
    if option.kind == "int":
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidArgumentError("an integer is wanted")
        return value
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise InvalidArgumentError("a text is wanted")
    text = str(value)
    return option.convert(text) if option.convert is not None else text


def _texts(name: str, value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        separator = _PARTED.get(name, "=")
        return [
            f"{key}{separator}{item}" if item is not None else str(key)
            for key, item in value.items()
        ]
    if not isinstance(value, Iterable):
        raise InvalidArgumentError("an iterable of texts is wanted")
    return [str(item) for item in value]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def as_filters(filters: "Mapping[str, Any] | None") -> list[str]:
    """Returns filters as ``name=value`` texts; a value may be a list of several."""
    pairs = []
    for name, value in (filters or {}).items():
        values = value if isinstance(value, (list, tuple, set)) else [value]
        pairs += [f"{name}={str(one).lower() if isinstance(one, bool) else one}" for one in values]
    return pairs
