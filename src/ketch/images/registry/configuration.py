"""How this machine reaches registries: mirrors, insecure ones, certificates, limits.

One JSON file, ``/etc/ketch/registries.json``; an unprivileged user's is
``$XDG_CONFIG_HOME/ketch/registries.json`` where it exists. What dockerd's ``daemon.json`` has as
well is called the same:

    {
      "registry-mirrors": ["https://mirror.example"],           of docker.io
      "mirrors": {"quay.io": ["https://mirror.example"]},       of any registry
      "insecure-registries": ["registry.local:5000", "10.0.0.0/8"],
      "certificate-directories": ["/etc/ketch/certs.d", "/etc/docker/certs.d"],
      "max-concurrent-downloads": 3,
      "max-concurrent-uploads": 5,
      "max-download-attempts": 5,
      "timeout-seconds": 60
    }

A certificate directory holds a directory for each registry, ``HOST:PORT/``, with ``*.crt``
(authorities to trust) and pairs of ``*.cert`` and ``*.key`` (what to present).
"""

import ipaddress
import json
import os
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ketch.errors import InvalidArgumentError
from ketch.spec.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SYSTEM_FILE = "/etc/ketch/registries.json"
CERTIFICATE_DIRECTORIES = ("/etc/ketch/certs.d", "/etc/docker/certs.d")
_FILE_SIZE_MAX = 1 << 20

# Docker Hub's registry is not at the name that its images have.
_HUB = "registry-1.docker.io"


class Endpoint(NamedTuple):
    """Where a registry, or a mirror of one, is reached.

    Attributes:
        host: host, and port where it has one: the key of credentials and certificates.
        schemes: ``https``, and ``http`` where that may be tried after it.
        prefix: path before ``/v2/``; mirrors may have one.
        verifies: whether the certificate must hold.
        is_mirror: whether it stands for another registry.
    """

    host: str
    schemes: tuple[str, ...] = ("https",)
    prefix: str = ""
    verifies: bool = True
    is_mirror: bool = False


class Configuration:
    """What the file says; each attribute has a default.

    Args:
        document: the file's content.
        where: its name, for messages.

    Raises:
        InvalidArgumentError: it holds an unknown key or a wrong value.
    """

    __slots__ = (
        "attempts", "certificate_directories", "concurrent_downloads", "concurrent_uploads",
        "insecure", "mirrors", "timeout_seconds",
    )  # fmt: skip

    def __init__(self, document: "Mapping[str, Any] | None" = None, where: str = "") -> None:
        document = document or {}
        known = {
            "registry-mirrors", "mirrors", "insecure-registries", "certificate-directories",
            "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts",
            "timeout-seconds",
        }  # fmt: skip
        if unknown := sorted(set(document) - known):
            raise InvalidArgumentError(
                f"{where}: unknown key {unknown[0]!r}", f"it may hold {', '.join(sorted(known))}"
            )
        mirrors = document.get("mirrors", {})
        if not isinstance(mirrors, dict):
            raise InvalidArgumentError(f"{where}: mirrors is not an object")
        self.mirrors = {
            host: [_mirror(url, where) for url in _texts(mirrors, host, where)] for host in mirrors
        }
        hub = [_mirror(url, where) for url in _texts(document, "registry-mirrors", where)]
        self.mirrors[DEFAULT_DOMAIN] = hub + self.mirrors.get(DEFAULT_DOMAIN, [])
        self.insecure = tuple(_texts(document, "insecure-registries", where))
        directories = _texts(document, "certificate-directories", where)
        self.certificate_directories = tuple(directories) or CERTIFICATE_DIRECTORIES
        self.concurrent_downloads = _count(document, "max-concurrent-downloads", 3, where)
        self.concurrent_uploads = _count(document, "max-concurrent-uploads", 5, where)
        self.attempts = _count(document, "max-download-attempts", 5, where)
        self.timeout_seconds = _count(document, "timeout-seconds", 60, where)

    def endpoints(self, domain: str, *, for_pull: bool, insecure: bool = False) -> list[Endpoint]:
        """Returns where a registry's images are, in the order to try.

        Args:
            domain: as references have it.
            for_pull: whether mirrors will do.
            insecure: whether the caller said that this registry need not be secure.
        """
        host = _HUB if domain == DEFAULT_DOMAIN else domain
        lax = insecure or self.is_insecure(host)
        home = Endpoint(host, ("https", "http") if lax else ("https",), verifies=not lax)
        if not for_pull:
            return [home]
        return [*map(self._mirror_endpoint, self.mirrors.get(domain, ())), home]

    def is_insecure(self, host: str) -> bool:
        """Whether a registry may have any certificate or none: this machine, and what is listed."""
        name = _host_name(host)
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return any(entry in {host, name} for entry in self.insecure)
        return address.is_loopback or any(
            entry in {host, name} or _contains(entry, address) for entry in self.insecure
        )

    def _mirror_endpoint(self, url: str) -> Endpoint:
        parts = urlsplit(url)
        lax = self.is_insecure(parts.netloc)
        return Endpoint(
            parts.netloc,
            (parts.scheme,),
            prefix=parts.path.rstrip("/"),
            verifies=not lax,
            is_mirror=True,
        )


def read(environment: "Mapping[str, str]") -> Configuration:
    """Read this machine's configuration; a missing file has all defaults.

    Args:
        environment: ``KETCH_REGISTRIES`` names another file; ``XDG_CONFIG_HOME`` and ``HOME`` say
            where a user's own is.

    Raises:
        InvalidArgumentError: the file cannot be read or holds something wrong.
    """
    path = environment.get("KETCH_REGISTRIES", "") or _usual_file(environment)
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_SIZE_MAX + 1)
    except FileNotFoundError:
        return Configuration()
    except OSError as error:
        raise InvalidArgumentError(f"{path}: {(error.strerror or '').lower()}") from error
    return parse(content, path)


def parse(content: bytes, where: str) -> Configuration:
    """Read a configuration file's content.

    Raises:
        InvalidArgumentError: it holds something wrong.
    """
    try:
        document = json.loads(content) if len(content) <= _FILE_SIZE_MAX else None
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"{where}: not a JSON object")
    return Configuration(document, where)


def _usual_file(environment: "Mapping[str, str]") -> str:
    if os.geteuid() != 0:
        home = environment.get("HOME", "/")
        own = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
        if os.path.exists(f"{own}/ketch/registries.json"):
            return f"{own}/ketch/registries.json"
    return SYSTEM_FILE


def _texts(document: "Mapping[str, Any]", key: str, where: str) -> list[str]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InvalidArgumentError(f"{where}: {key} is not a list of texts")
    return value


def _count(document: "Mapping[str, Any]", key: str, default: int, where: str) -> int:
    value = document.get(key, default)
    if type(value) is not int or not 0 < value <= 3600:
        raise InvalidArgumentError(f"{where}: {key} is not a number from 1 to 3600")
    return value


def _mirror(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidArgumentError(
            f"{where}: invalid mirror {url!r}", "a mirror is http[s]://host[:port][/path]"
        )
    return url


def _host_name(host: str) -> str:
    """Returns a host without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _contains(entry: str, address: "ipaddress.IPv4Address | ipaddress.IPv6Address") -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
