"""What an engine's configuration file says; see docs/configuration.md."""

import json

from ketch.errors import InvalidArgumentError
from ketch.spec import endpoints, user_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings

# What it may say, under the names that Docker's daemon has for it, but for the last.
_KEYS = frozenset(
    {"bip", "default-address-pools", "default-runtime", "fixed-cidr", "fixed-cidr-v6", "icc", "ip",
     "ip-forward-no-drop", "ip-masq", "ipv6", "mtu", "runtimes", "userns"}
)  # fmt: skip


def read(settings: "Settings") -> "dict[str, Any]":
    """What the file says; nothing where there is none.

    Raises:
        InvalidArgumentError: it is not a JSON object, or has a key that nobody knows.
    """
    path = settings.configuration_path
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidArgumentError(f"{path}: {error}", "mend it; it is JSON") from error
    unknown = sorted(set(found) - _KEYS) if isinstance(found, dict) else ["?"]
    if unknown:
        raise InvalidArgumentError(
            f"{path}: unknown key {unknown[0]}",
            f"known are {', '.join(sorted(_KEYS))}",
        )
    configuration: dict[str, Any] = found
    return configuration


def user_namespace(settings: "Settings") -> str:
    """Returns the ``--userns`` of containers for which nothing is said of it.

    Raises:
        InvalidArgumentError: the file is malformed, or there is no such mode.
    """
    mode = read(settings).get("userns", "")
    where = f"{settings.configuration_path}: userns"
    if not isinstance(mode, str) or endpoints.names_container(mode):
        raise InvalidArgumentError(f"{where}: not a mode: {mode}", "one of host, auto, auto:size=N")
    try:
        user_namespaces.check(mode)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error.message}", error.hint) from error
    return mode
