"""A container's options as Python's keywords: the command line's, with ``_`` for ``-``.

The table of options (``spec.options``) says what there is, checks the values and makes the
request, so that ``memory="64m"`` here and ``--memory 64m`` there are one thing.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ketch.engine.requests import wire
from ketch.errors import InvalidArgumentError
from ketch.library import docker_names
from ketch.spec.options import OPTIONS, Caller, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ketch.spec.container import Request
    from ketch.spec.flag import Flag, Value

    T = TypeVar("T")

# These concern a command line alone; the library has parameters and methods in their place.
OF_THE_COMMAND = {"attach", "cidfile", "detach", "detach-keys", "explain", "quiet", "sig-proxy",
                  "timeout"}  # fmt: skip

KNOWN = tuple(option for option in OPTIONS if option.name not in OF_THE_COMMAND)
"""What ``run`` and ``create`` have as keywords."""

# What may be given as a mapping, and by what a name and its value are parted then.
_PARTED = {
    **dict.fromkeys(("annotation", "build-arg", "build-context", "env", "label", "log-opt",
                     "storage-opt", "sysctl", "ulimit"), "="),
    **dict.fromkeys(("add-host", "blkio-weight-device", "device", "link", "publish", "tmpfs",
                     "volume", "volumes-from"), ":"),
    **{f"device-{word}-{unit}": ":" for word in ("read", "write") for unit in ("bps", "iops")},
}  # fmt: skip


def make_request(
    image: str, command: "str | Iterable[str] | None", options: "Mapping[str, object]",
    *, detach: bool = False, timeout: float | None = None,
) -> "tuple[Request, str]":  # fmt: skip
    """Returns the request for a container, and the name that it is to have.

    Args:
        image: its image.
        command: the program and its arguments; one text is split at its blanks, as by a shell.
        options: keywords.
        detach: whether nobody is to be attached from the start.
        timeout: how many seconds the container may run; None for ever.

    Raises:
        InvalidArgumentError: a keyword is unknown, or its value is wrong.
    """
    values: dict[str, Value] = {option.name: option.initial() for option in OPTIONS}
    fields: list[dict[str, Any]] = []
    named: dict[str, object] = {}
    for keyword, value in options.items():
        read_fields = docker_names.FIELDS.get(keyword)
        if read_fields is None:
            named[keyword] = value
        elif value is not None:
            fields.append(_read(read_fields, keyword, value))
    found, given = read(KNOWN, named)
    values |= {**found, "detach": detach}
    if timeout is not None:
        values["timeout"] = math.ceil(timeout)
        given.add("timeout")
    caller = Caller(os.getcwd(), dict(os.environ), _content)
    made = request(values, given, [image, *docker_names.words(command)], caller)
    for field in fields:
        _add(made, field)
    wire.joined([*_all_text(made)])
    return made, str(values["name"])


def _all_text(value: object) -> Iterator[str]:
    """Yield all text of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _all_text(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _all_text(inner)


def _add(made: "Request", fields: "dict[str, Any]") -> None:
    """Add fields to a request: to what is there already where they hold several things."""
    sections: dict[str, dict[str, Any]] = made  # type: ignore[assignment]
    for name, value in fields.items():
        section, _, key = name.partition(".")
        place = sections.setdefault(section, {})
        if isinstance(value, list):
            place[key] = [*(place.get(key) or ()), *value]
        elif isinstance(value, dict):
            place[key] = {**(place.get(key) or {}), **value}
        else:
            place[key] = value


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
    given: dict[str, str] = {}
    for keyword, value in keywords.items():
        name = docker_names.ALIASES.get(keyword, keyword.replace("_", "-"))
        if name not in flags:
            raise InvalidArgumentError(f"there is no option {keyword}")
        if value is None:
            continue
        found = _value(flags[name], keyword, value)
        if name in given and found != values[name]:
            raise InvalidArgumentError(f"{given[name]} and {keyword} are the same option")
        given[name] = keyword
        values[name] = found
    return values, set(given)


def _value(option: "Flag", keyword: str, value: object) -> "Value":
    form = docker_names.FORMS.get(keyword)
    return _read(
        lambda given: _converted(option, form(given) if form is not None else given),
        keyword, value,
    )  # fmt: skip


def _read(read: "Callable[[object], T]", keyword: str, value: object) -> "T":
    try:
        return read(value)
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
    separator = _PARTED.get(name)
    return docker_names.paired(value, separator) if separator else docker_names.texts(value)


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
