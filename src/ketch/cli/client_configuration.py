"""What the caller has written down for docker's command, where ketch's has the same.

``$DOCKER_CONFIG/config.json``, or ``~/.docker/config.json``: the key sequence that detaches, the
form of lists (``psFormat`` and its like), and the proxies that containers are told of. What it says
of registries' credentials is read by ``images.registry.credentials``.

Source: docker/cli, cli/config/configfile/file.go.
"""

import json
import sys

from ketch.cli.flags import client_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# A variable by each of these names, in capitals and in small letters.
_PROXIES = {
    "HTTP_PROXY": "httpproxy", "HTTPS_PROXY": "httpsproxy", "NO_PROXY": "noproxy",
    "FTP_PROXY": "ftpproxy", "ALL_PROXY": "allproxy",
}  # fmt: skip


def text(name: str) -> str:
    """Returns a setting, empty where there is none."""
    value = _settings(name).get(name.lower())
    if value is not None and not isinstance(value, str):
        _warn(f"{name} is not text")
        return ""
    return value or ""


def list_format(name: str, given: str, *, quiet: bool = False) -> str:
    """Returns the form of a list: as given, else as the setting says.

    Args:
        name: of the setting.
        given: what ``--format`` says.
        quiet: whether only identifiers are shown, which needs no form.
    """
    return given or ("" if quiet else text(name))


def proxies(given: "Iterable[str]") -> list[str]:
    """Returns variables that tell a container of proxies, but for those that are given.

    Args:
        given: what ``--env`` says.
    """
    # Docker has them by its daemon's address as well; there is none here.
    every = _small(_settings("proxies").get("proxies"))
    found = _small(every.get("default"))
    named = {variable.partition("=")[0] for variable in given}
    return [
        f"{name}={value}"
        for capital, key in _PROXIES.items()
        if isinstance(value := found.get(key), str) and value
        for name in (capital, capital.lower())
        if name not in named
    ]


def _settings(name: str) -> "dict[str, Any]":
    """The file's settings, by their names in small letters; none where this one is not there."""
    content = client_file(name)
    if not content:
        return {}
    try:
        return _small(json.loads(content))
    except (ValueError, RecursionError) as error:
        _warn(str(error))
        return {}


def _small(value: object) -> "dict[str, Any]":
    """A document with its names in small letters: Go's decoder takes them in any."""
    if not isinstance(value, dict):
        return {}
    return {name.lower(): inner for name, inner in value.items()}


def _warn(reason: str) -> None:
    print(f"WARNING: Error loading docker's config.json: {reason}", file=sys.stderr)
