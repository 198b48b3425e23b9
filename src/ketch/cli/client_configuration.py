"""What the caller has written down for docker's command, where ketch's has the same.

``$DOCKER_CONFIG/config.json``, or ``~/.docker/config.json``: the key sequence that detaches, the
form of lists (``psFormat`` and its like), and the proxies that containers are told of. What it says
of registries' credentials is read by ``images.registry.credentials``. What of it makes no sense is
passed over with a warning, as by docker.

Source: docker/cli, cli/config/configfile/file.go.
"""

import os
import sys

from ketch.cli.flags import client_file
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_BYTES_MAX = 1 << 20

_TEXTS = (
    "detachKeys", "psFormat", "imagesFormat", "networksFormat", "volumesFormat", "statsFormat",
    "credsStore",
)  # fmt: skip
_TABLES = ("auths", "HttpHeaders", "credHelpers", "proxies")
# A variable by each of these names, in capitals and in small letters.
_PROXIES = {
    "HTTP_PROXY": "httpproxy", "HTTPS_PROXY": "httpsproxy", "NO_PROXY": "noproxy",
    "FTP_PROXY": "ftpproxy", "ALL_PROXY": "allproxy",
}  # fmt: skip


class ClientConfiguration:
    """The file, read once; whoever made it is told what is wrong with it.

    Args:
        path: where it is; empty for one that says nothing.
    """

    __slots__ = ("_settings",)

    def __init__(self, path: str) -> None:
        self._settings: dict[str, Any] = {}
        reason = ""
        try:
            self._settings = _small(_document(path)) if path else {}
        except OSError as error:
            reason = f"Error loading config file: open {path}: {(error.strerror or '').lower()}"
        except (ValueError, RecursionError) as error:
            reason = f"Error parsing config file ({path}): {error}"
        for misfit in _misfits(self._settings):
            reason = reason or f"Error parsing config file ({path}): {misfit}"
        if reason:
            print(f"WARNING: {reason}", file=sys.stderr)

    def text(self, name: str) -> str:
        """Returns a setting, empty where there is none."""
        value = self._settings.get(name.lower())
        return value if isinstance(value, str) else ""

    def proxies(self, given: "Iterable[str]") -> list[str]:
        """Returns variables that tell a container of proxies, but for those that are given.

        Args:
            given: what ``--env`` says.
        """
        # Docker has them by its daemon's address as well; there is none here.
        found = _small(_small(self._settings.get("proxies")).get("default"))
        named = {variable.partition("=")[0] for variable in given}
        return [
            f"{name}={value}"
            for capital, key in _PROXIES.items()
            if isinstance(value := found.get(key), str) and value
            for name in (capital, capital.lower())
            if name not in named
        ]


def list_format(name: str, given: str, *, quiet: bool = False) -> str:
    """Returns the form of a list: as given, else as the setting says.

    Args:
        name: of the setting.
        given: what ``--format`` says.
        quiet: whether only identifiers are shown, which needs no form.
    """
    written = ClientConfiguration(client_file()).text(name)
    return given or ("" if quiet else written)


def _document(path: str) -> object:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be a fifo
    try:
        content = os.read(descriptor, _BYTES_MAX)
    finally:
        os.close(descriptor)
    document: object = json_text.loads(content) if content.strip() else None
    if document is not None and not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def _misfits(settings: "dict[str, Any]") -> "Iterator[str]":
    """Yield what of the settings is of another type than it should be."""
    for name in _TEXTS:
        if not isinstance(settings.get(name.lower()) or "", str):
            yield f"{name} is not text"
    for name in _TABLES:
        if not isinstance(settings.get(name.lower()) or {}, dict):
            yield f"{name} is not an object"
    default = _small(settings.get("proxies")).get("default") or {}
    if not isinstance(default, dict):
        yield "proxies.default is not an object"
    for name, value in _small(default).items():
        if value is not None and not isinstance(value, str):
            yield f"proxies.default.{name} is not text"


def _small(value: object) -> "dict[str, Any]":
    """A document with its names in small letters: Go's decoder takes them in any."""
    if not isinstance(value, dict):
        return {}
    return {name.lower(): inner for name, inner in value.items()}
