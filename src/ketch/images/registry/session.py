"""One endpoint of a registry: requests that log in, wait, follow redirects and say what failed."""

import threading
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from ketch.errors import RegistryError
from ketch.images.registry import answers
from ketch.images.registry.auth import Anonymous
from ketch.images.registry.headers import challenges, retry_after_seconds
from ketch.images.registry.transport import BrokenOffError, UnreachableError, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.images.registry.auth import Method
    from ketch.images.registry.configuration import Endpoint
    from ketch.images.registry.credentials import Credentials
    from ketch.images.registry.transport import Answer, Readable, Transport

    Body = bytes | Callable[[], Readable]

ERROR_DOCUMENT_MAX = 1 << 20
_REDIRECTS_MAX = 10
_REDIRECTS = {301, 302, 303, 307, 308}
# What passes by itself: too many requests, and a gateway whose back end is away.
_TRY_AGAIN = {429, 502, 503, 504}
_WAIT_SECONDS_MAX = 60.0
_ATTEMPTS = 5


class Session:
    """What is known of one endpoint: which scheme it speaks, how it is shown who asks.

    Args:
        transport: the connections.
        endpoint: where it is.
        credentials: called with the endpoint's host when the first request is made.
    """

    __slots__ = ("_credentials", "_lock", "_method", "_scheme", "_transport", "endpoint")

    def __init__(
        self,
        transport: "Transport",
        endpoint: "Endpoint",
        credentials: "Callable[[str], Credentials]",
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._credentials = credentials
        self._scheme = endpoint.schemes[0] if len(endpoint.schemes) == 1 else ""
        self._method: Method | None = None
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        """Returns the address of a path below the endpoint's root, such as ``/v2/``."""
        return f"{self._base()}{self.endpoint.prefix}{path}"

    def pause(self, seconds: float) -> None:
        """Wait before asking again."""
        self._transport.sleep(seconds)

    @property
    def method(self) -> "Method | None":
        """How the endpoint was last shown who asks; None before the first request."""
        return self._method

    def request(
        self,
        method: str,
        target: str,
        scopes: "Sequence[str]" = (),
        headers: "Mapping[str, str] | None" = None,
        body: "Body | None" = None,
    ) -> "Answer":
        """Ask, until there is an answer that means something.

        Args:
            method: of HTTP.
            target: a path below the endpoint, or the absolute address that an answer named.
            scopes: what a token must allow.
            headers: further fields.
            body: what to send, or what opens it, since it may be sent more than once.

        Returns:
            The answer, whatever its status, but for those that were waited, logged in or
            redirected away. The caller closes it.

        Raises:
            UnauthenticatedError: the endpoint refuses what there is to show.
            UnreachableError: there is no connection.
            BrokenOffError: an exchange broke off.
            RegistryError: it redirects to where nobody may go, or without end.
        """
        refusals = waits = 0
        while True:
            with self._lock:
                used = self._current_method()
            answer = self._ask(method, target, scopes, headers or {}, body)
            if answer.status == 401 and self._is_home(answer.url) and refusals < 2:
                refusals += 1
                with answer:
                    offered = challenges(answer.fields("WWW-Authenticate"))
                    answer.read_all(ERROR_DOCUMENT_MAX)
                with self._lock:
                    # Else another thread has logged in meanwhile, and this is tried again by that.
                    if used is self._current_method():
                        self._method = used.escalate(offered, scopes)
            elif answer.status in _TRY_AGAIN and waits < _ATTEMPTS - 1:
                waits += 1
                asked = retry_after_seconds(answer.field("Retry-After"), _WAIT_SECONDS_MAX)
                if asked is None and answer.status == 429 and waits > 1:
                    return answer  # a limit by the hour, and nobody says when it ends
                answer.close()
                self._transport.sleep(min(2.0 ** (waits - 1), 8.0) if asked is None else asked)
            else:
                return answer

    def checked(
        self,
        method: str,
        target: str,
        what: str,
        accepted: "Sequence[int]",
        scopes: "Sequence[str]" = (),
        headers: "Mapping[str, str] | None" = None,
        body: "Body | None" = None,
    ) -> "Answer":
        """As ``request``, for callers who can use some statuses only.

        Args:
            method: as for ``request``, and so for ``target``, ``scopes``, ``headers``, ``body``.
            target: see there.
            what: what is asked for, for messages.
            accepted: the statuses.
            scopes: see there.
            headers: see there.
            body: see there.

        Raises:
            KetchError: the status is another one; which class says what to do.
        """
        answer = self.request(method, target, scopes, headers, body)
        if answer.status in accepted:
            return answer
        with answer:
            content = b"" if method == "HEAD" else answer.read_all(ERROR_DOCUMENT_MAX)
        raise answers.error(answer.status, content, what)

    def _ask(
        self,
        method: str,
        target: str,
        scopes: "Sequence[str]",
        headers: "Mapping[str, str]",
        body: "Body | None",
    ) -> "Answer":
        """Send a request, and follow where it is sent on to."""
        url = target if "://" in target else self.url(target)
        for _ in range(_REDIRECTS_MAX):
            fields = dict(headers)
            if self._is_home(url):
                with self._lock:
                    shown = self._current_method().header(scopes)
                if shown:
                    fields["Authorization"] = shown
            answer = self._send(method, url, fields, body)
            if answer.status not in _REDIRECTS or method not in {"GET", "HEAD"}:
                return answer
            location = answer.field("Location")
            answer.close()
            url = redirected(url, location)
        raise RegistryError(f"{url.partition('?')[0]}: the registry redirects without end")

    def _send(
        self, method: str, url: str, fields: "Mapping[str, str]", body: "Body | None"
    ) -> "Answer":
        if not callable(body):
            return self._transport.request(method, url, fields, body)
        with body() as file:
            return self._transport.request(method, url, fields, file)

    def _current_method(self) -> "Method":
        if self._method is None:
            host = self.endpoint.host
            self._method = Anonymous(self._transport, self._base(), self._credentials(host))
        return self._method

    def _is_home(self, url: str) -> bool:
        """Whether an address is the endpoint's own: elsewhere nobody is shown any credentials."""
        return origin(url) == origin(self._base())

    def _base(self) -> str:
        return f"{self._find_scheme()}://{self.endpoint.host}"

    def _find_scheme(self) -> str:
        """Returns the scheme that the endpoint speaks: it is asked once where there is a choice."""
        if self._scheme:
            return self._scheme
        if not self.endpoint.verifies:
            self._transport.allow_insecure(self.endpoint.host)
        first: UnreachableError | None = None
        for scheme in self.endpoint.schemes:
            try:
                self._transport.request("GET", f"{scheme}://{self.endpoint.host}/v2/", {}).close()
            except (UnreachableError, BrokenOffError) as error:
                if first is None and isinstance(error, UnreachableError) and not error.is_plain:
                    first = error
                continue
            self._scheme = scheme
            return scheme
        raise first or UnreachableError(f"{self.endpoint.host}: neither https nor http is spoken")


def redirected(url: str, location: str) -> str:
    """Returns where an answer sends on to.

    Raises:
        RegistryError: that is nowhere, or a connection less safe than this one.
    """
    if not location or len(location) > 1 << 14:
        raise RegistryError(f"{url.partition('?')[0]}: the registry redirects to nowhere")
    try:
        target = urljoin(url, location).partition("#")[0]
    except ValueError as error:
        raise RegistryError(f"malformed address {location.partition('?')[0][:300]!r}") from error
    scheme = origin(target)[0]
    if scheme != "https" and scheme != origin(url)[0]:
        raise RegistryError(
            f"{url.partition('?')[0]}: the registry redirects from https to {scheme}",
            "what came from there could not be trusted to be private",
        )
    return target
