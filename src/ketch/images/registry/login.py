"""Finding out whether a registry believes somebody, before that is kept."""

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError, UnauthenticatedError
from ketch.images.registry import answers
from ketch.images.registry.auth import Bearer
from ketch.images.registry.credentials import HUB_KEY, Credentials, bare_host, key_of
from ketch.images.registry.session import ERROR_DOCUMENT_MAX, Session
from ketch.spec import reference as references
from ketch.spec.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from ketch.images.registry.registries import Registries


def registry_host(text: str) -> str:
    """Returns the registry that a user means: a host, a URL of it, or nothing for Docker Hub.

    Raises:
        InvalidArgumentError: that is no registry.
    """
    host = bare_host(text)
    if not host or key_of(host) == HUB_KEY:
        return DEFAULT_DOMAIN
    try:
        found = references.parse(f"{host}/x").domain
    except InvalidArgumentError:
        found = ""
    if found != host and "." not in host and ":" not in host:
        # A bare name without a dot is a host here, though not in a reference.
        found = references.parse(f"{host}:443/x").domain.removesuffix(":443")
    if found != host:
        raise InvalidArgumentError(f"{text!r} is not the name of a registry")
    return host


def log_in(registries: "Registries", host: str, credentials: Credentials) -> Credentials:
    """Show credentials to a registry.

    Args:
        registries: how it is reached.
        host: which.
        credentials: what to show.

    Returns:
        What to keep: where the registry's authority gave an identity token, that and no password.

    Raises:
        UnauthenticatedError: the registry does not believe them.
        UnavailableError: it cannot be reached.
    """
    (endpoint,) = registries.configuration.endpoints(host, for_pull=False)
    session = Session(registries.transport, endpoint, lambda _: credentials)
    address = session.url("/v2/")
    try:
        with session.request("GET", "/v2/") as answer:
            content, status = answer.read_all(ERROR_DOCUMENT_MAX), answer.status
    except UnauthenticatedError as error:
        raise UnauthenticatedError(
            f"login attempt to {address} failed with status: 401 Unauthorized", error.message
        ) from error
    if status not in {200, 401}:
        raise answers.error(status, content, f"login at {address}")
    if status == 401:
        raise UnauthenticatedError(
            f"login attempt to {address} failed with status: 401 Unauthorized"
        )
    method = session.method
    if isinstance(method, Bearer) and credentials.password:
        token = method.identity_token()
        if token:
            return Credentials(credentials.user, identity_token=token)
    return credentials
