"""Changes to an image's configuration, written as Dockerfile instructions.

``ketch import --change`` and ``commit --change`` take them. Which instructions are allowed, how
words are split, quoted and expanded, and the messages follow Docker's Dockerfile frontend
(github.com/moby/buildkit, frontend/dockerfile: parser, shell, instructions).
"""

import json
import posixpath
import re

from ketch.errors import InvalidArgumentError
from ketch.spec import signals, timestamps
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ketch.spec.image import ContainerConfig, Healthcheck

SHELL = ("/bin/sh", "-c")

_VARIABLE = re.compile(
    r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^}]*))?\})"
)
_PORT_MAX = 65535


def apply(config: "ContainerConfig", changes: "Iterable[str]") -> None:
    """Apply changes to a configuration, in place.

    Args:
        config: what containers of the image run with.
        changes: Dockerfile instructions, one or more lines each.

    Raises:
        InvalidArgumentError: one is malformed, or no instruction that changes a configuration.
    """
    command_given = False
    for change in changes:
        instructions = [line.strip() for line in change.replace("\\\n", "").splitlines()]
        instructions = [line for line in instructions if line and not line.startswith("#")]
        if not instructions:
            raise InvalidArgumentError("file with no instructions")
        for line in instructions:
            name, _, rest = line.partition(" ")
            change_one = _INSTRUCTIONS.get(name.upper())
            if change_one is None:
                raise InvalidArgumentError(
                    f"{name.lower()} is not a valid change command",
                    f"these are: {', '.join(_INSTRUCTIONS)}",
                )
            command_given = command_given or name.upper() == "CMD"
            if name.upper() == "ENTRYPOINT" and not command_given:
                config.pop("Cmd", None)  # the arguments were meant for another program
            change_one(config, rest.strip())


def split_words(text: str) -> list[str]:
    """Split text at blanks outside quotes; quotes and backslashes stay in the words."""
    words: list[str] = []
    word = quote = ""
    escaped = False
    for character in text:
        if not quote and not escaped and character.isspace():
            if word:
                words.append(word)
            word = ""
            continue
        word += character
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
    return [*words, word] if word else words


def expand(word: str, environment: "Mapping[str, str]") -> str:
    """Take away a word's quotes and backslashes and put variables' values in.

    Args:
        word: as ``split_words`` returns it.
        environment: the variables; others are empty.

    Raises:
        InvalidArgumentError: a quote or a brace is not closed.
    """
    result = quote = ""
    position = 0
    while position < len(word):
        character = word[position]
        position += 1
        if quote == "'":
            quote, result = ("", result) if character == "'" else (quote, result + character)
        elif character == "\\":
            following = word[position : position + 1]
            # Between double quotes a backslash escapes only what would be special there.
            result += following if not quote or following in '"$\\' else character + following
            position += 1
        elif character == "$":
            match = _VARIABLE.match(word, position - 1)
            if match is not None:
                result += _value(match, environment)
                position = match.end()
            elif word[position : position + 1] == "{":
                raise InvalidArgumentError(f"failed to process {word!r}: syntax error in variable")
            else:
                result += character
        elif character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        else:
            result += character
    if quote:
        raise InvalidArgumentError(f"failed to process {word!r}: unexpected end of statement")
    return result


def _value(match: "re.Match[str]", environment: "Mapping[str, str]") -> str:
    bare, braced, operator, word = match.groups()
    value = environment.get(bare or braced, "")
    if operator == "-":
        return value or expand(word, environment)
    if operator == "+":
        return expand(word, environment) if value else ""
    return value


def _environment(config: "ContainerConfig") -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or ())


def _pairs(config: "ContainerConfig", instruction: str, text: str) -> list[tuple[str, str]]:
    """Read ``name=value ...``, or the old form ``name value``, of ENV and LABEL."""
    words = split_words(text)
    if not words:
        raise InvalidArgumentError(f"{instruction} requires at least one argument")
    environment = _environment(config)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidArgumentError(f"{instruction} must have two arguments")
        pairs = [(name, value.strip())]
    else:
        pairs = []
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise InvalidArgumentError(
                    f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
                )
            pairs.append((name, value))
    expanded = [(expand(name, environment), expand(value, environment)) for name, value in pairs]
    if not all(name for name, _ in expanded):
        raise InvalidArgumentError(f"{instruction} names can not be blank")
    return expanded


def _json_words(text: str) -> list[str] | None:
    """Returns the words of the JSON form, None where the text is in the other form."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return words if all(isinstance(word, str) for word in words) else None


def _command(text: str, instruction: str) -> list[str]:
    words = _json_words(text)
    if words is not None:
        return words
    if not text:
        raise InvalidArgumentError(f"{instruction} requires at least one argument")
    return [*SHELL, text]


def _single(
    config: "ContainerConfig", instruction: str, text: str, *, may_be_empty: bool = False
) -> str:
    if not text:
        raise InvalidArgumentError(f"{instruction} requires exactly one argument")
    value = expand(text, _environment(config))
    if not value and not may_be_empty:
        raise InvalidArgumentError(f"{instruction}: {text!r} is empty")
    return value


def _cmd(config: "ContainerConfig", text: str) -> None:
    config["Cmd"] = _command(text, "CMD")


def _entrypoint(config: "ContainerConfig", text: str) -> None:
    config["Entrypoint"] = _command(text, "ENTRYPOINT")


def _env(config: "ContainerConfig", text: str) -> None:
    environment = _environment(config) | dict(_pairs(config, "ENV", text))
    config["Env"] = [f"{name}={value}" for name, value in environment.items()]


def _label(config: "ContainerConfig", text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(config, "LABEL", text))}


def _expose(config: "ContainerConfig", text: str) -> None:
    words = split_words(text)
    if not words:
        raise InvalidArgumentError("EXPOSE requires at least one argument")
    ports = dict(config.get("ExposedPorts") or {})
    for word in words:
        value = expand(word, _environment(config))
        if not value:  # a variable that is not set
            continue
        numbers, _, protocol = value.partition("/")
        first, _, last = numbers.partition("-")
        protocol = protocol.lower() or "tcp"
        if protocol not in {"tcp", "udp", "sctp"}:
            raise InvalidArgumentError(f"Invalid proto: {protocol}")
        low, high = _port(first, value), _port(last or first, value)
        if high < low:
            raise InvalidArgumentError(f"Invalid containerPort: {value}")
        ports.update({f"{port}/{protocol}": {} for port in range(low, high + 1)})
    config["ExposedPorts"] = ports


def _port(digits: str, shown: str) -> int:
    port = decimal(digits, 5)
    if port is None or port > _PORT_MAX:
        raise InvalidArgumentError(f"Invalid containerPort: {shown}")
    return port


def _volume(config: "ContainerConfig", text: str) -> None:
    words = _json_words(text)
    if words is None:
        words = split_words(text)
    if not words:
        raise InvalidArgumentError("VOLUME requires at least one argument")
    paths = [expand(word, _environment(config)).strip() for word in words]
    if not all(paths):
        raise InvalidArgumentError("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _user(config: "ContainerConfig", text: str) -> None:
    # An empty one takes the user of the image below away.
    config["User"] = _single(config, "USER", text, may_be_empty=True)


def _workdir(config: "ContainerConfig", text: str) -> None:
    path = _single(config, "WORKDIR", text)
    joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path))
    config["WorkingDir"] = "/" + joined.lstrip("/")


def _stop_signal(config: "ContainerConfig", text: str) -> None:
    name = _single(config, "STOPSIGNAL", text)
    signals.number(name)
    config["StopSignal"] = name


def _on_build(config: "ContainerConfig", text: str) -> None:
    trigger = text.partition(" ")[0].upper()
    if not trigger:
        raise InvalidArgumentError("ONBUILD requires at least one argument")
    if trigger == "ONBUILD":
        raise InvalidArgumentError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in {"MAINTAINER", "FROM"}:
        raise InvalidArgumentError(f"{trigger} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: "ContainerConfig", text: str) -> None:
    check: Healthcheck = {}
    kind, _, rest = text.partition(" ")
    while kind.startswith("--"):
        _healthcheck_option(check, kind[2:])
        kind, _, rest = rest.strip().partition(" ")
    if kind.upper() == "NONE":
        if rest.strip() or check:
            raise InvalidArgumentError("HEALTHCHECK NONE takes no arguments")
        check["Test"] = ["NONE"]
    elif kind.upper() == "CMD":
        words = _json_words(rest.strip())
        if words is None:
            words = ["CMD-SHELL", rest.strip()] if rest.strip() else []
        else:
            words = ["CMD", *words]
        if len(words) < 2:
            raise InvalidArgumentError("Missing command after HEALTHCHECK CMD")
        check["Test"] = words
    elif kind:
        raise InvalidArgumentError(
            f"Unknown type {kind.upper()!r} in HEALTHCHECK (try CMD or NONE)"
        )
    else:
        raise InvalidArgumentError("HEALTHCHECK requires at least one argument")
    config["Healthcheck"] = check


def _healthcheck_option(check: "Healthcheck", text: str) -> None:
    name, _, value = text.partition("=")
    if name == "retries":
        retries = decimal(value, 9)
        if retries is None:
            raise InvalidArgumentError(f"--retries must be a number, not {value!r}")
        check["Retries"] = retries
        return
    duration_ns = timestamps.duration(value)
    if 0 < duration_ns < 1_000_000 or duration_ns < 0:
        raise InvalidArgumentError(f"Interval {name!r} cannot be less than 1ms")
    if name == "interval":
        check["Interval"] = duration_ns
    elif name == "timeout":
        check["Timeout"] = duration_ns
    elif name == "start-period":
        check["StartPeriod"] = duration_ns
    elif name == "start-interval":
        check["StartInterval"] = duration_ns
    else:
        raise InvalidArgumentError(f"unknown flag: --{name}")


_INSTRUCTIONS: "dict[str, Callable[[ContainerConfig, str], None]]" = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
