"""How a registry is shown who asks: one class a method, each of which knows what follows a refusal.

A request begins with whatever the last one to the same registry ended with, at first with
``Anonymous``. When the registry answers 401, ``escalate`` reads its challenges and returns the
method to try next, or says that there is none:

    Anonymous ──▶ Basic ──▶ refused
        └───────▶ Bearer ──▶ Bearer with a wider or newer token ──▶ refused

Source: RFC 9110, 11; distribution's "Token Authentication Specification" and "OAuth2".
"""

import base64
import json
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from ketch.errors import RegistryError, UnauthenticatedError
from ketch.images.registry import answers
from ketch.spec.told import quote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeGuard

    from ketch.images.registry.credentials import Credentials
    from ketch.images.registry.headers import Challenge
    from ketch.images.registry.transport import Transport

CLIENT_ID = "ketch"
_TOKEN_ANSWER_MAX = 1 << 20
_LIFETIME_SECONDS = 60  # where an authority does not say, and the least that is believed
_SPARE_SECONDS = 10


_USER_BY_HAND = '-u "$REGISTRY_USER"'
_TOKEN_BY_HAND = r"""sed -n 's/.*"\(access_\)*token" *: *"\([^"]*\)".*/\2/p'"""
_SHOWN = ("user", "identity_token", "registry_token")


class Method(ABC):
    """One way to show who asks."""

    __slots__ = ()

    @abstractmethod
    def header(self, scopes: "Sequence[str]") -> str:
        """Returns the ``Authorization`` field of a request that needs some scopes, or nothing."""

    def by_hand(self, scopes: "Sequence[str]") -> str:  # noqa: ARG002
        """Returns the words with which curl(1) shows the same, as a shell reads them.

        No password is said: it is looked for in ``$REGISTRY_USER``, as ``NAME:PASSWORD``.
        """
        return ""

    @abstractmethod
    def escalate(self, challenges: "Sequence[Challenge]", scopes: "Sequence[str]") -> "Method":
        """Returns what to try after a 401.

        Args:
            challenges: what the registry offers.
            scopes: what the request needs, as ``repository:NAME:pull``.

        Raises:
            UnauthenticatedError: there is nothing else to try.
        """


class Anonymous(Method):
    """Nobody yet; credentials are shown only to a registry that asks for them.

    Args:
        transport: how an authority is asked for tokens.
        home: the registry's scheme and host, which says how well tokens must be kept.
        credentials: what there will be to show.
    """

    __slots__ = ("_credentials", "_home", "_transport")

    def __init__(self, transport: "Transport", home: str, credentials: "Credentials") -> None:
        self._transport = transport
        self._home = home
        self._credentials = credentials

    def header(self, scopes: "Sequence[str]") -> str:  # noqa: ARG002
        """See ``Method.header``."""
        return ""

    def escalate(self, challenges: "Sequence[Challenge]", scopes: "Sequence[str]") -> Method:
        """See ``Method.escalate``: a token where one is offered, else the password."""
        for challenge in challenges:
            if challenge.scheme == "bearer":
                bearer = Bearer(self._transport, self._home, self._credentials, challenge)
                bearer.fetch(_wanted(challenge, scopes))
                return bearer
        for challenge in challenges:
            if challenge.scheme == "basic":
                if not self._credentials.user:
                    raise UnauthenticatedError(
                        "no basic auth credentials",
                        f"log in with: ketch login {urlsplit(self._home).netloc}",
                    )
                return Basic(self._credentials)
        offered = ", ".join(challenge.scheme for challenge in challenges) or "nothing"
        raise UnauthenticatedError(
            f"unauthorized: the registry asks for a way to log in that ketch does not know:"
            f" {offered[:100]}"
        )


class Basic(Method):
    """A user's name and password with each request.

    Args:
        credentials: they.
    """

    __slots__ = ("_credentials",)

    def __init__(self, credentials: "Credentials") -> None:
        self._credentials = credentials

    def header(self, scopes: "Sequence[str]") -> str:  # noqa: ARG002
        """See ``Method.header``."""
        return basic(self._credentials)

    def by_hand(self, scopes: "Sequence[str]") -> str:  # noqa: ARG002
        """See ``Method.by_hand``."""
        return _USER_BY_HAND

    def escalate(
        self,
        challenges: "Sequence[Challenge]",  # noqa: ARG002
        scopes: "Sequence[str]",  # noqa: ARG002
    ) -> Method:
        """See ``Method.escalate``: nothing follows."""
        raise UnauthenticatedError(
            "unauthorized: the registry refused this user's name or password",
            "log in again with: ketch login",
        )


class Bearer(Method):
    """A token for each scope, from the authority that the registry names.

    Args:
        transport: how the authority is asked.
        home: the registry's scheme and host.
        credentials: what the authority is shown: an identity token, a password, or nothing.
        challenge: the registry's words.
    """

    __slots__ = ("_credentials", "_home", "_realm", "_service", "_tokens", "_transport")

    def __init__(
        self,
        transport: "Transport",
        home: str,
        credentials: "Credentials",
        challenge: "Challenge",
    ) -> None:
        self._transport = transport
        self._home = home
        self._credentials = credentials
        self._service = challenge.parameters.get("service", "")
        self._realm = _checked_realm(challenge.parameters.get("realm", ""), home)
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    def header(self, scopes: "Sequence[str]") -> str:
        """See ``Method.header``: with an expired token's successor."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        key = tuple(sorted(scopes))
        token, expires = self._tokens.get(key, ("", 0.0))
        if token and time.monotonic() >= expires:
            token = self.fetch(key)
        return f"Bearer {token}" if token else ""

    def escalate(self, challenges: "Sequence[Challenge]", scopes: "Sequence[str]") -> Method:
        """See ``Method.escalate``: a token for what the registry now asks for."""
        for challenge in challenges:
            if challenge.scheme == "bearer" and not self._credentials.registry_token:
                self.fetch(_wanted(challenge, scopes))
                return self
        raise UnauthenticatedError("unauthorized: authentication required")

    def fetch(self, scopes: "Sequence[str]") -> str:
        """Get a token for some scopes from the authority, and keep it.

        Raises:
            UnauthenticatedError: the authority refuses.
            RegistryError: it answers nonsense.
        """
        if self._credentials.registry_token:
            return self._credentials.registry_token
        if self._credentials.identity_token:
            answer = self._post("refresh_token", refresh_token=self._credentials.identity_token,
                                scopes=scopes)  # fmt: skip
        else:
            answer = self._get(scopes)
        token, lifetime_seconds, refresh_token = _token(answer, self._realm)
        if refresh_token and self._credentials.identity_token:
            self._credentials.identity_token = refresh_token
        expires = time.monotonic() + lifetime_seconds - _SPARE_SECONDS
        self._tokens[tuple(sorted(scopes))] = (token, expires)
        return token

    def identity_token(self) -> str:
        """Returns a refresh token for the password, where the authority gives any; else nothing."""
        answer = self._get((), ("offline_token", "true"), ("client_id", CLIENT_ID))
        return _token(answer, self._realm)[2]

    def by_hand(self, scopes: "Sequence[str]") -> str:
        """See ``Method.by_hand``: a token is asked for first."""
        service = [("service", self._service)] if self._service else []
        query = urlencode([*service, *(("scope", scope) for scope in scopes)])
        mark = "&" if "?" in self._realm else "?"
        known = any(getattr(self._credentials, name) for name in _SHOWN)
        asking = f"curl -fsSL{f' {_USER_BY_HAND}' if known else ''}"
        return (
            f'-H "Authorization: Bearer $({asking} {quote(f"{self._realm}{mark}{query}")}'
            f' | {_TOKEN_BY_HAND})"'
        )

    def _get(self, scopes: "Sequence[str]", *options: tuple[str, str]) -> "dict[str, Any]":
        fields = [("service", self._service)] if self._service else []
        fields += options
        headers = {}
        if self._credentials.user:
            fields.append(("account", self._credentials.user))
            headers["Authorization"] = basic(self._credentials)
        query = urlencode([*fields, *(("scope", scope) for scope in scopes)])
        mark = "&" if "?" in self._realm else "?"
        return self._ask("GET", f"{self._realm}{mark}{query}", headers)

    def _post(self, grant: str, *, scopes: "Sequence[str]", **fields: str) -> "dict[str, Any]":
        form = {
            "grant_type": grant,
            "service": self._service,
            "client_id": CLIENT_ID,
            "scope": " ".join(scopes),
            **fields,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", self._realm, headers, urlencode(form).encode())

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> "dict[str, Any]":
        with self._transport.request(method, url, headers, body) as answer:
            content = answer.read_all(_TOKEN_ANSWER_MAX)
            status = answer.status
        if status in {400, 401, 403}:
            raise UnauthenticatedError(
                answers.unauthorized(answers.reason(content) or "incorrect username or password"),
                "log in with: ketch login",
            )
        if status != 200:
            raise RegistryError(f"{_shown(self._realm)} answered {status} to a request for a token")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{_shown(self._realm)}: the answer is not JSON") from error
        if not isinstance(document, dict):
            raise RegistryError(f"{_shown(self._realm)}: the answer is not a JSON object")
        return document


def basic(credentials: "Credentials") -> str:
    """Returns the ``Authorization`` field of a name and a password: RFC 7617."""
    plain = f"{credentials.user}:{credentials.password}"
    return f"Basic {base64.b64encode(plain.encode()).decode()}"


def _checked_realm(realm: str, home: str) -> str:
    """Returns where tokens come from: a URL as safe as the registry's own, or https."""
    try:
        parts = urlsplit(realm)
        good = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good or parts.scheme not in {"https", urlsplit(home).scheme}:
        raise RegistryError(
            f"{home}: the registry sends for tokens to {_shown(realm)!r}",
            "that is no address of the kind that its own has, and gets no credentials",
        )
    return realm


def _wanted(challenge: "Challenge", scopes: "Sequence[str]") -> list[str]:
    """Returns the scopes to ask for: what the request needs, and what the registry says."""
    said = challenge.parameters.get("scope", "").split()
    return list(scopes) or said


def _token(answer: "dict[str, Any]", realm: str) -> tuple[str, float, str]:
    """Returns token, lifetime in seconds, and a new refresh token or nothing."""
    token = answer.get("token") or answer.get("access_token")
    if not token or not _is_token(token):
        raise RegistryError(f"{_shown(realm)}: the answer holds no token")
    lifetime = answer.get("expires_in")
    if not isinstance(lifetime, (int, float)) or not lifetime >= _LIFETIME_SECONDS:  # or NaN
        lifetime = _LIFETIME_SECONDS
    refresh_token = answer.get("refresh_token")
    return token, min(lifetime, 1e6), refresh_token if _is_token(refresh_token) else ""


def _is_token(value: object) -> "TypeGuard[str]":
    """Whether something can stand in a header field."""
    return isinstance(value, str) and value.isprintable() and value.isascii()


def _shown(url: str) -> str:
    return url.partition("?")[0][:200]
