"""Who the user is at each registry: Docker's ``config.json`` and its credential helpers.

The file is shared with every other tool that knows it, so what ketch does not know stays in it, and
it is replaced as a whole. Which store holds a registry's credentials, and in what form, follows
github.com/docker/cli, cli/config; helpers speak the protocol of docker-credential-helpers.
"""

import base64
import binascii
import contextlib
import json
import os
import pwd
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError, UnavailableError, in_words
from ketch.linux.scopes import owned
from ketch.spec.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HUB_KEY = "https://index.docker.io/v1/"
"""Under which name Docker Hub's credentials are kept."""

_HUB_HOSTS = {DEFAULT_DOMAIN, "index.docker.io", "registry-1.docker.io"}
_FILE_SIZE_MAX = 4 << 20
_HELPER_TIMEOUT_SECONDS = 60
_TOKEN_USER = "<token>"  # the helpers' word for: the secret is an identity token
_NOT_FOUND = "credentials not found in native keychain"


@dataclass
class Credentials:
    """What a user can show to a registry; all empty for somebody unknown.

    Attributes:
        user: the name.
        password: the password, or what stands for one.
        identity_token: a refresh token, which the registry's authority gave for a password.
        registry_token: a token to be shown as it is.
    """

    user: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.user or self.identity_token or self.registry_token)

    def __repr__(self) -> str:
        """The user's name and no secret."""
        return f"Credentials({self.user!r})"


def docker_directory(environment: "Mapping[str, str]") -> str:
    """Returns where the docker command, and all who share its files, keep a user's settings.

    Args:
        environment: ``DOCKER_CONFIG`` is the directory, else ``$HOME/.docker``. Where there is no
            ``HOME``, as in a system's service, it is the one that passwd(5) has.
    """
    if directory := environment.get("DOCKER_CONFIG"):
        return directory
    home = environment.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # a user without a name
            home = ""
    return f"{home}/.docker"


class CredentialFile:
    """One ``config.json``.

    Args:
        environment: as ``docker_directory`` takes it.

    Attributes:
        path: where it is, or would be.

    Raises:
        InvalidArgumentError: it is there and cannot be understood.
    """

    __slots__ = ("_document", "_environment", "path")

    def __init__(self, environment: "Mapping[str, str]") -> None:
        self.path = f"{docker_directory(environment)}/config.json"
        self._environment = environment
        self._document = self._read()

    def get(self, host: str) -> Credentials:
        """Returns a registry's credentials.

        Args:
            host: the registry, as references have it.

        Raises:
            UnavailableError: the helper that keeps them fails.
            InvalidArgumentError: what is kept is malformed.
        """
        key = key_of(host)
        if helper := self._helper(key):
            return self._from_helper(helper, key)
        auths = self._table("auths")
        entry = auths.get(key)
        if entry is None:
            entry = next((value for name, value in auths.items() if bare_host(name) == key), None)
        return _decode(entry, f"{self.path}: auths: {key}") if entry else Credentials()

    def set(self, host: str, credentials: Credentials) -> bool:
        """Keep a registry's credentials from now on.

        Returns:
            Whether a helper keeps them; else they stand in the file as plain text.

        Raises:
            UnavailableError: the helper fails, or the file cannot be written.
        """
        key = key_of(host)
        helper = self._helper(key)
        if not helper and not any(map(self._table, ("auths", "credHelpers"))):
            helper = self._default_helper()
            if helper:
                self._document["credsStore"] = helper
        auths = dict(self._table("auths"))
        if helper:
            secret = credentials.identity_token or credentials.password
            user = _TOKEN_USER if credentials.identity_token else credentials.user
            request = {"ServerURL": key, "Username": user, "Secret": secret}
            self._call(helper, "store", json.dumps(request))
            auths[key] = {}
        else:
            auths[key] = _encode(credentials)
        self._document["auths"] = auths
        self._write()
        return bool(helper)

    def erase(self, host: str) -> bool:
        """Forget a registry's credentials.

        Returns:
            Whether there were any.

        Raises:
            UnavailableError: the helper fails, or the file cannot be written.
        """
        key = key_of(host)
        auths = dict(self._table("auths"))
        names = [name for name in auths if name == key or bare_host(name) == key]
        helper = self._helper(key)
        known = bool(names)
        if helper:
            known = known or bool(self._from_helper(helper, key))
            if known:
                self._call(helper, "erase", key)
        if names:
            for name in names:
                del auths[name]
            self._document["auths"] = auths
            self._write()
        return known

    def _helper(self, key: str) -> str:
        named = self._table("credHelpers").get(key) or self._document.get("credsStore") or ""
        if not isinstance(named, str) or "/" in named or "\0" in named:
            raise InvalidArgumentError(f"{self.path}: {named!r} is not a credential helper's name")
        return named

    def _default_helper(self) -> str:
        """Returns the helper that Docker would choose on Linux, where it is installed."""
        path = self._environment.get("PATH")
        name = "pass" if shutil.which("pass", path=path) else "secretservice"
        return name if shutil.which(f"docker-credential-{name}", path=path) else ""

    def _from_helper(self, helper: str, key: str) -> Credentials:
        try:
            answer = self._call(helper, "get", key)
        except UnavailableError as error:
            if _NOT_FOUND in error.message:
                return Credentials()
            raise
        try:
            document = json.loads(answer)
            user, secret = document["Username"], document["Secret"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"docker-credential-{helper} get: the answer is no credentials"
            ) from error
        if not isinstance(user, str) or not isinstance(secret, str):
            raise UnavailableError(f"docker-credential-{helper} get: the answer is no credentials")
        if not is_encodable(user, secret):
            raise UnavailableError(f"docker-credential-{helper} get: the answer is no credentials")
        if user == _TOKEN_USER:
            return Credentials(identity_token=secret)
        return Credentials(user, secret)

    def _call(self, helper: str, action: str, text: str) -> str:
        program = f"docker-credential-{helper}"
        found = shutil.which(program, path=self._environment.get("PATH"))
        if found is None:
            raise UnavailableError(
                f"error getting credentials - err: exec: {program!r}: executable file not found in"
                " $PATH",
                f"{self.path} says that it keeps the credentials",
            )
        try:
            done = subprocess.run(
                [found, action], input=text.encode(), capture_output=True, check=False,
                timeout=_HELPER_TIMEOUT_SECONDS, env=dict(self._environment),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{program} {action}: {in_words(error)}") from error
        output = done.stdout.decode(errors="replace").strip()
        if done.returncode:
            reason = output or done.stderr.decode(errors="replace").strip()
            raise UnavailableError(f"{program} {action}: {reason[:1000]}")
        return output

    def _table(self, key: str) -> "dict[str, Any]":
        value = self._document.get(key) or {}
        if not isinstance(value, dict):
            raise InvalidArgumentError(f"{self.path}: {key} is not an object")
        return value

    def _read(self) -> "dict[str, Any]":
        try:
            with open(self.path, "rb") as file:
                content = file.read(_FILE_SIZE_MAX + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise InvalidArgumentError(f"{self.path}: {reason}") from error
        try:
            document = json.loads(content or b"{}") if len(content) <= _FILE_SIZE_MAX else None
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"{self.path}: not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidArgumentError(f"{self.path}: not a JSON object")
        return document

    def _write(self) -> None:
        """Replace the file, for its owner's eyes alone; a symlink to it stays one."""
        path = os.path.realpath(self.path)
        temporary = f"{path}.{os.urandom(6).hex()}"
        content = json.dumps(self._document, indent="\t", ensure_ascii=False).encode()
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            mode = 0o600
            with contextlib.suppress(FileNotFoundError):
                mode = stat.S_IMODE(os.stat(path).st_mode) & 0o700
            with owned(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            ) as descriptor:
                try:
                    os.fchmod(descriptor, mode | 0o600)
                    with open(descriptor, "wb", closefd=False) as file:
                        file.write(content)
                    os.fsync(descriptor)
                    os.rename(temporary, path)
                except BaseException:
                    os.unlink(temporary)
                    raise
        except OSError as error:
            raise UnavailableError(f"cannot write {path}: {error.strerror}") from error


def key_of(host: str) -> str:
    """Returns the name under which a registry's credentials are kept."""
    return HUB_KEY if host in _HUB_HOSTS else host


def bare_host(text: str) -> str:
    """Returns the host, and port, of what older tools wrote as a URL."""
    return text.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _decode(entry: object, where: str) -> Credentials:
    """Read one entry of ``auths``."""
    if not isinstance(entry, dict):
        raise InvalidArgumentError(f"{where}: not an object")
    texts = {}
    for key in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(key) or ""
        if not isinstance(value, str):
            raise InvalidArgumentError(f"{where}: {key} is not text")
        if not is_encodable(value):
            raise InvalidArgumentError(f"{where}: {key} is no Unicode text")
        texts[key] = value
    user, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            plain = base64.b64decode(texts["auth"], validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidArgumentError(f"{where}: auth is not base64 of user:password") from error
        user, colon, password = plain.partition(":")
        if not colon or not user:
            raise InvalidArgumentError(f"{where}: auth is not base64 of user:password")
        password = password.strip("\0")
    return Credentials(user, password, texts["identitytoken"], texts["registrytoken"])


def is_encodable(*texts: str) -> bool:
    """Whether texts are Unicode: JSON can name half of a character as well."""
    return not any("\ud800" <= character <= "\udfff" for character in "".join(texts))


def _encode(credentials: Credentials) -> dict[str, str]:
    entry = {}
    if credentials.user:
        # With an identity token the password is not kept: that is what the token is for.
        password = "" if credentials.identity_token else credentials.password
        entry["auth"] = base64.b64encode(f"{credentials.user}:{password}".encode()).decode()
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    if credentials.registry_token:
        entry["registrytoken"] = credentials.registry_token
    return entry
