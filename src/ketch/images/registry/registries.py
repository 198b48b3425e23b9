"""All registries, as one user of this machine reaches them: where everything begins."""

from typing import TYPE_CHECKING

from ketch.images.registry import configuration
from ketch.images.registry.configuration import Endpoint
from ketch.images.registry.credentials import CredentialFile, Credentials
from ketch.images.registry.repository import Repository
from ketch.images.registry.session import Session
from ketch.images.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.spec.reference import Reference


class Registries:
    """The registries, for one command; a ``with`` block closes its connections.

    Args:
        environment: of whoever asks: proxies, and where configuration and credentials are.
        credentials: who asks, whatever ``config.json`` says: the same for every registry but
            mirrors, or a function that says it for a host. None reads the file.
        settings: the configuration, read from its file when None.

    Attributes:
        configuration: how registries are reached.
        transport: the connections.

    Raises:
        InvalidArgumentError: a configuration file is malformed.
    """

    __slots__ = ("_credentials", "_environment", "_file", "_sessions", "configuration", "transport")

    def __init__(
        self,
        environment: "Mapping[str, str]",
        *,
        credentials: "Credentials | Callable[[str], Credentials] | None" = None,
        settings: "configuration.Configuration | None" = None,
    ) -> None:
        self.configuration = settings or configuration.read(environment)
        self.transport = Transport(self.configuration, environment)
        self._environment = environment
        self._credentials = credentials
        self._file: CredentialFile | None = None
        self._sessions: dict[tuple[str, str], Session] = {}

    def __enter__(self) -> "Registries":
        """Nothing more than these."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self.transport.close()

    def repository(
        self, name: "Reference", *, push: bool = False, insecure: bool = False
    ) -> Repository:
        """Returns the repository of an image's name.

        Args:
            name: the image.
            push: whether something is to be written there; mirrors are for reading alone.
            insecure: whether the registry need not be secure.
        """
        endpoints = self.configuration.endpoints(name.domain, for_pull=not push, insecure=insecure)
        return Repository(
            [self.session(endpoint) for endpoint in endpoints],
            name.path,
            name.familiar_name,
            "pull,push" if push else "pull",
        )

    def session(self, endpoint: Endpoint) -> Session:
        """Returns the session of an endpoint: one, so that who asks is asked once."""
        key = (endpoint.host, endpoint.prefix)
        if key not in self._sessions:
            self._sessions[key] = Session(self.transport, endpoint, self._shown(endpoint))
        return self._sessions[key]

    def credential_file(self) -> CredentialFile:
        """Returns the user's ``config.json``."""
        if self._file is None:
            self._file = CredentialFile(self._environment)
        return self._file

    def _shown(self, endpoint: Endpoint) -> "Callable[[str], Credentials]":
        def credentials(host: str) -> Credentials:
            shown = self._credentials
            if shown is None:
                return self.credential_file().get(host)
            if callable(shown):
                return shown(host)
            return Credentials() if endpoint.is_mirror else shown

        return credentials
