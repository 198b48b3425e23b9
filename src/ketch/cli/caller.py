"""Who calls a command that starts a program: directory, environment, terminal, configuration."""

import os

from ketch.cli.flags import UsageError, client_file
from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ketch.cli.client_configuration import ClientConfiguration
    from ketch.cli.flags import Parsed
    from ketch.engine.requests.wire import Value
    from ketch.engine.settings import Settings

# ctrl-p,ctrl-q: ``detach_keys.DEFAULT``, which few starts have to load.
USUAL_KEYS = b"\x10\x11"


def about_caller(settings: "Settings") -> "dict[str, Value]":
    """What a monitor must know of the process on whose behalf it works."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = "/"  # it was removed under the caller; only relative names would need it
    return {
        **settings.fields,
        "directory": directory,
        "environment": [f"{name}={value}" for name, value in os.environ.items()],
    }


def require_terminal() -> None:
    """Refuse a terminal session whose input is none.

    Raises:
        UsageError: standard input is not a terminal.
    """
    if not os.isatty(0):
        raise UsageError(
            "the input device is not a TTY",
            "leave -t away where input comes from a pipe or file",
            exit_status=1,
        )


def client_configuration() -> "ClientConfiguration | None":
    """What the caller has written down for docker's command, None where that is nothing."""
    path = client_file()
    if not path:
        return None
    from ketch.cli.client_configuration import ClientConfiguration  # noqa: PLC0415 - see there

    return ClientConfiguration(path)


def detach_keys(parsed: "Parsed", configuration: "ClientConfiguration | None") -> bytes:
    """The key sequence that ``--detach-keys`` names, or docker's configuration, or the usual one.

    Raises:
        InvalidArgumentError: that is no key sequence.
    """
    written = configuration.text("detachKeys") if configuration is not None else ""
    text = parsed.text("detach-keys") or written
    if not text:
        return USUAL_KEYS
    from ketch.spec.detach_keys import parse_detach_keys  # noqa: PLC0415 - few have others

    try:
        return parse_detach_keys(text)
    except ValueError as error:
        raise InvalidArgumentError(
            f"invalid detach keys ({text}): unknown key {error}",
            "keys are single characters, or ctrl- and one of a-z@[\\]^_, parted by commas",
        ) from error


def explainer(parsed: "Parsed") -> "Callable[[bytes], bytes] | None":
    """What writes of steps what ``--explain`` asks for, None where it does not."""
    if not parsed.values.get("explain"):
        return None
    from ketch.cli.explaining import Explainer  # noqa: PLC0415 - seldom wanted

    return Explainer(parsed.text("explain")).take


def explained(settings: "Settings", parsed: "Parsed") -> "AbstractContextManager[object]":
    """Have the steps that are taken in a block told as ``--explain`` asks for it, if it does."""
    return told(settings, parsed.text("explain"))


def told(settings: "Settings", form: str) -> "AbstractContextManager[object]":
    """Have the steps that are taken in a block told in a form, empty for not at all."""
    if not form:
        from contextlib import nullcontext  # noqa: PLC0415 - no start comes by here

        return nullcontext()
    from ketch.cli import explaining  # noqa: PLC0415 - seldom wanted

    return explaining.explained(settings, form)
