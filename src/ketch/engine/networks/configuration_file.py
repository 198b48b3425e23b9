"""What an engine's configuration file says of networks; see docs/networking.md."""

import json

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings

# What the configuration file may say, under the names that Docker's daemon has for it.
_KEYS = frozenset(
    {"bip", "default-address-pools", "fixed-cidr", "fixed-cidr-v6", "icc", "ip", "ip-masq",
     "ipv6", "mtu"}
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
