"""``ketch login`` and ``ketch logout``."""

import os
import sys

from ketch.cli.flags import Command, Flag, Parsed, parse
from ketch.errors import InvalidArgumentError, KetchError, UnauthenticatedError
from ketch.images.registry import login as registry_login
from ketch.images.registry.credentials import Credentials, key_of
from ketch.images.registry.registries import Registries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

_LOGIN = Command(
    "ketch login [OPTIONS] [SERVER]",
    "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    [
        Flag("password", "p", "string", "Password or Personal Access Token (PAT)"),
        Flag("password-stdin", "", "bool", "Take the Password or Personal Access Token (PAT) from"
             " stdin"),
        Flag("username", "u", "string", "Username"),
    ],
    maximum_arguments=1,
)  # fmt: skip
_LOGOUT = Command(
    "ketch logout [SERVER]",
    "Log out from a registry.\nIf no server is specified, Docker Hub is the default.",
    maximum_arguments=1,
)
_SECRET_LENGTH_MAX = 1 << 20


def login(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Show a user's credentials to a registry, and keep them if it believes them."""
    parsed = parse(_LOGIN, arguments)
    _check(parsed)
    host = registry_login.registry_host(parsed.arguments[0] if parsed.arguments else "")
    with Registries(os.environ) as registries:
        file = registries.credential_file()
        known = file.get(host)
        kept = _existing(parsed, registries, host, known)
        if kept is None:
            kept = registry_login.log_in(registries, host, _asked(parsed, known.user))
        if kept != known and not file.set(host, kept):
            sys.stderr.write(
                f"\nWARNING! Your credentials are stored unencrypted in '{file.path}'.\n"
                "Configure a credential helper to remove this warning. See\n"
                "https://docs.docker.com/go/credential-store/\n\n"
            )
    print("Login Succeeded")
    return 0


def logout(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Forget the credentials for a registry."""
    parsed = parse(_LOGOUT, arguments)
    host = registry_login.registry_host(parsed.arguments[0] if parsed.arguments else "")
    print(f"Removing login credentials for {key_of(host)}")
    with Registries(os.environ) as registries:
        registries.credential_file().erase(host)
    return 0


def _check(parsed: Parsed) -> None:
    if parsed.text("password"):
        if parsed.enabled("password-stdin"):
            raise InvalidArgumentError(
                "conflicting options: cannot specify both --password and --password-stdin"
            )
        sys.stderr.write(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
        )
    if parsed.enabled("password-stdin") and not parsed.text("username"):
        raise InvalidArgumentError("the --password-stdin option requires --username to be set")


def _existing(
    parsed: Parsed, registries: Registries, host: str, kept: Credentials
) -> Credentials | None:
    """Log in with what is kept already, where nothing else was given.

    Returns:
        What to keep; None where there is nothing, or the registry does not believe it.
    """
    if parsed.text("username") or parsed.text("password") or not kept:
        return None
    if not (kept.password or kept.identity_token):
        return None
    shown = f" [Username: {kept.user}]" if kept.user else ""
    sys.stderr.write(
        f"Authenticating with existing credentials...{shown}\n\n"
        "To login with a different account, run 'ketch logout' followed by 'ketch login'\n\n"
    )
    try:
        return registry_login.log_in(registries, host, kept)
    except UnauthenticatedError:
        sys.stderr.write("Stored credentials invalid or expired\n")
    except KetchError as error:
        sys.stderr.write(f"Login did not succeed, error: {error.message}\n")
    return None


def _asked(parsed: Parsed, usual_user: str) -> Credentials:
    """Returns the credentials that the user gave, or gives now at the terminal."""
    user, password = parsed.text("username"), parsed.text("password")
    if parsed.enabled("password-stdin"):
        text = sys.stdin.read(_SECRET_LENGTH_MAX)
        password = text.removesuffix("\n").removesuffix("\r")
        if not password:
            raise InvalidArgumentError("password is empty")
    if (not user or not password) and not sys.stdin.isatty():
        raise InvalidArgumentError("Cannot perform an interactive login from a non TTY device")
    if not user:
        shown = f" ({usual_user})" if usual_user else ""
        user = input(f"Username{shown}: ").strip() or usual_user
        if not user:
            raise InvalidArgumentError("username is empty")
    if not password:
        import getpass  # noqa: PLC0415 - for terminals alone

        password = getpass.getpass("Password: ")
        if not password:
            raise InvalidArgumentError("password is empty")
    return Credentials(user, password)
