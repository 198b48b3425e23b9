"""HTTP to registries: connections, certificates, proxies; one request at a time, no redirects.

urllib3 keeps the connections. What it may not decide is taken from it: redirects and retries are
``session``'s, since they say where credentials may go.
"""

import contextlib
import os
import socket
import ssl
import time
import warnings
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected, UnknownProtocol
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    InvalidHeader,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from ketch.errors import InvalidArgumentError, RegistryError, UnavailableError, in_words
from ketch.images.registry.pace import Response
from ketch.images.registry.proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol, Self

    from ketch.images.registry.configuration import Configuration

    class Readable(Protocol):
        """A body that is read when it is sent."""

        def __enter__(self) -> Self:
            """Open it."""
            ...

        def __exit__(self, *_: object) -> None:
            """Close it."""
            ...

        def read(self, size: int = -1, /) -> bytes:
            """Return up to ``size`` bytes, none at the end."""
            ...


USER_AGENT = "ketch"
PORTS = {"http": 80, "https": 443}
CONNECT_TIMEOUT_SECONDS = 30
_REGISTRY = "the registry"  # whom messages speak of
_ELSEWHERE = (
    "Without a registry, ketch load and ketch import make images of archives; a mirror is listed "
    "in /etc/ketch/registries.json."
)
_CONNECTIONS_EACH = 8

# Whoever lists a registry as insecure knows, and is not told with each request.
warnings.simplefilter("ignore", InsecureRequestWarning)


class UnreachableError(UnavailableError):
    """No connection, or not of the kind that was asked for: another address may do better.

    Args:
        message: as for its base.
        hint: likewise.
        is_plain: whether the other end answered plain HTTP where TLS was spoken.
    """

    def __init__(self, message: str, hint: str = "", *, is_plain: bool = False) -> None:
        super().__init__(message, hint)
        self.is_plain = is_plain


class BrokenOffError(UnavailableError):
    """An exchange ended in its middle: asking again, for the rest, may help."""


class Answer:
    """An answer, its body not read yet; a ``with`` block ends it.

    Attributes:
        status: the HTTP status.
        url: what was asked.
    """

    __slots__ = ("_is_whole", "_peer", "_response", "status", "url")

    def __init__(self, url: str, response: urllib3.BaseHTTPResponse, peer: str = _REGISTRY) -> None:
        self.url = url
        self._peer = peer
        self.status = response.status
        self._response = response
        self._is_whole = False

    def __enter__(self) -> "Answer":
        """Nothing more than this answer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the connection back, or close it where something is unread."""
        self.close()

    def close(self) -> None:
        """Give the connection back, or close it where something is unread."""
        if self._is_whole:
            self._response.release_conn()
        else:
            self._response.close()

    def field(self, name: str) -> str:
        """Returns a header field; empty where it is missing."""
        value: str = self._response.headers.get(name, "")
        return value

    def fields(self, name: str) -> list[str]:
        """Returns all header fields of a name."""
        return self._response.headers.getlist(name)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the body, none at its end; fewer where they come slowly.

        Raises:
            BrokenOffError: the connection broke, or next to nothing came for too long.
        """
        try:
            content: bytes = self._response.read(size, decode_content=False)
        except ReadTimeoutError as error:
            raise BrokenOffError(
                f"{_shown(self.url)}: {self._peer} stalls: no data came"
            ) from error
        except (HTTPError, OSError, ValueError) as error:
            raise BrokenOffError(
                f"{_shown(self.url)}: the answer broke off: {_reason(error)}"
            ) from error
        self._is_whole = not content
        return content

    def read_all(self, limit_bytes: int, *, seconds: float = 300) -> bytes:
        """Return the whole body.

        Args:
            limit_bytes: how long it may be.
            seconds: how long it may take.

        Raises:
            RegistryError: it is longer.
            BrokenOffError: it broke off, or trickles.
        """
        deadline = time.monotonic() + seconds
        pieces: list[bytes] = []
        length = 0
        while piece := self.read(1 << 16):
            pieces.append(piece)
            length += len(piece)
            if length > limit_bytes:
                raise RegistryError(
                    f"{_shown(self.url)}: the answer is longer than {limit_bytes} bytes"
                )
            if time.monotonic() > deadline:
                raise BrokenOffError(f"{_shown(self.url)}: {self._peer} stalls")
        return b"".join(pieces)


class Transport:
    """The connections of one command.

    Args:
        configuration: certificates, time limits, and which registries may be insecure.
        environment: the proxies.
        sleep: how to wait; tests do it otherwise.
        registries: whether it leads to registries, of which some may be insecure; else to any
            other server, whose certificate must hold.
    """

    __slots__ = ("_aborted", "_environment", "_lax", "_managers", "_open", "_peer", "configuration",
                 "sleep")  # fmt: skip

    def __init__(
        self,
        configuration: "Configuration",
        environment: "Mapping[str, str]",
        *,
        sleep: "Callable[[float], None]" = time.sleep,
        registries: bool = True,
    ) -> None:
        self.configuration = configuration
        self.sleep = sleep
        self._peer = _REGISTRY if registries else "the server"
        self._environment = environment
        self._managers: dict[tuple[str, str, int], urllib3.PoolManager] = {}
        self._lax: set[str] = set()
        self._open: list[socket.socket] = []  # another descriptor of each connection that was made
        self._aborted = False

    def allow_insecure(self, host: str) -> None:
        """Accept any certificate of a host, because the caller said so."""
        self._lax.add(host)

    def request(
        self,
        method: str,
        url: str,
        headers: "Mapping[str, str]",
        body: "bytes | Readable | None" = None,
    ) -> Answer:
        """Send one request.

        Args:
            method: of HTTP.
            url: absolute, ``http`` or ``https``.
            headers: its fields; ``Content-Length`` where the body is a file.
            body: what to send.

        Raises:
            UnreachableError: no connection.
            BrokenOffError: it broke before an answer came.
            InvalidArgumentError: certificates or proxies are set up wrongly.
        """
        scheme, host, port = origin(url)
        try:
            response = self._manager(scheme, host, port, url).urlopen(
                method, url, body=body, headers={"User-Agent": USER_AGENT, **headers},
                redirect=False, retries=False, preload_content=False, decode_content=False,
            )  # fmt: skip
        except (HTTPError, OSError, ValueError) as error:
            raise _translated(url, error, self._peer) from error
        return Answer(url, response, self._peer)

    def close(self) -> None:
        """Close every connection."""
        for manager in self._managers.values():
            manager.clear()
        while self._open:
            self._open.pop().close()

    def abort(self) -> None:
        """Have every exchange break off, and none begin any more; from any thread."""
        self._aborted = True
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # ended, or closed meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def _note(self, connection: socket.socket) -> socket.socket:
        """Keep a connection that has just been made in reach, whatever urllib3 does with it."""
        self._open.append(connection.dup())
        if self._aborted:
            self.abort()
        return connection

    def _manager(self, scheme: str, host: str, port: int, url: str) -> urllib3.PoolManager:
        key = (scheme, host, port)
        manager = self._managers.get(key)
        if manager is None:
            manager = self._new_manager(scheme, host, port)
            paced = type("Paced", (Response,), {"seconds": self.configuration.timeout_seconds})
            pool: Any = manager.connection_from_url(url)
            base = pool.ConnectionCls
            pool.ConnectionCls = type(
                "Connection", (base,),
                {"response_class": paced, "_new_conn": lambda it: self._note(base._new_conn(it))},
            )  # fmt: skip
            self._managers[key] = manager
        return manager

    def _new_manager(self, scheme: str, host: str, port: int) -> urllib3.PoolManager:
        seconds = self.configuration.timeout_seconds
        options: dict[str, object] = {
            "num_pools": 2,
            "maxsize": _CONNECTIONS_EACH,
            "blocksize": 1 << 18,
            "timeout": urllib3.Timeout(connect=min(seconds, CONNECT_TIMEOUT_SECONDS), read=seconds),
        }
        if scheme == "https":
            context = self._context(host, port)
            options["ssl_context"] = context
            if context.verify_mode == ssl.CERT_NONE:
                options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        proxy = proxy_for(scheme, host, port, self._environment)
        if not proxy:
            return urllib3.PoolManager(**options)  # type: ignore[arg-type]
        parts = urlsplit(proxy)
        if parts.scheme.startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 - rarely used

            # As in Go: the proxy looks names up.
            url = proxy.replace("socks5://", "socks5h://", 1).replace("socks4://", "socks4a://", 1)
            return SOCKSProxyManager(url, **options)  # type: ignore[arg-type]
        fields = None
        if parts.username is not None:
            user = f"{parts.username}:{parts.password or ''}"
            fields = urllib3.make_headers(proxy_basic_auth=user)
        return urllib3.ProxyManager(proxy, proxy_headers=fields, **options)  # type: ignore[arg-type]

    def _context(self, host: str, port: int) -> ssl.SSLContext:
        """Returns how TLS is spoken with a host, by its certificate directories."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        shown = f"[{host}]" if ":" in host else host
        names = [f"{shown}:{port}", *([shown] if port == PORTS["https"] else [])]
        names += ["docker.io"] if shown == "registry-1.docker.io" else []
        lax = any(name in self._lax or self.configuration.is_insecure(name) for name in names)
        if lax and self._peer == _REGISTRY:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_default_certs()
        for directory in self.configuration.certificate_directories:
            for name in names:
                _load_certificates(context, f"{directory}/{name}")
        return context


def origin(url: str) -> tuple[str, str, int]:
    """Returns scheme, host and port of an absolute URL.

    Raises:
        RegistryError: it is none that a registry may have.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RegistryError(f"malformed address {_shown(url)!r}") from error
    if parts.scheme not in PORTS or not host or port == 0 or "@" in parts.netloc:
        raise RegistryError(f"a registry cannot have the address {_shown(url)!r}")
    return parts.scheme, host, port or PORTS[parts.scheme]


def _load_certificates(context: ssl.SSLContext, directory: str) -> None:
    """Load what one registry's directory holds, as dockerd does."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InvalidArgumentError(f"{directory}: {(error.strerror or '').lower()}") from error
    for name in names:
        path = f"{directory}/{name}"
        stem, _, extension = name.rpartition(".")
        try:
            if extension == "crt":
                context.load_verify_locations(path)
            elif extension == "cert":
                if f"{stem}.key" not in names:
                    raise InvalidArgumentError(
                        f"missing key {stem}.key for client certificate {name}",
                        "certificates of authorities have the extension .crt",
                    )
                context.load_cert_chain(path, f"{directory}/{stem}.key")
            elif extension == "key" and f"{stem}.cert" not in names:
                raise InvalidArgumentError(f"missing client certificate {stem}.cert for key {name}")
        except (ssl.SSLError, OSError) as error:
            raise InvalidArgumentError(f"{path}: {in_words(error, path)}") from error


def _translated(url: str, error: Exception, peer: str) -> UnavailableError:
    """Returns what went wrong before an answer, and whether another address may do better."""
    scheme, host, port = origin(url)
    where = f"{host}:{port}"
    elsewhere = _ELSEWHERE if peer == _REGISTRY else ""
    inner = error
    if isinstance(error, ProxyError):
        with contextlib.suppress(AttributeError):
            inner = error.original_error
        return UnreachableError(f"{where}: the proxy does not lead there: {inner}")
    if isinstance(error, NameResolutionError):
        hint = f"is {peer}'s name right?"
        return UnreachableError(f"lookup {host}: no such host", f"{hint} {elsewhere}".strip())
    if isinstance(error, NewConnectionError):
        cause = error.__cause__ or error.__context__
        reason = getattr(cause, "strerror", None) or str(error)
        return UnreachableError(f"dial tcp {where}: connect: {str(reason).lower()}", elsewhere)
    if isinstance(error, ConnectTimeoutError):
        return UnreachableError(f"dial tcp {where}: i/o timeout", elsewhere)
    if isinstance(error, SSLError):
        text = str(error)
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
            return UnreachableError(
                f"{where}: server gave HTTP response to HTTPS client",
                "list the registry under insecure-registries in /etc/ketch/registries.json"
                if peer == _REGISTRY
                else "ask for http:// instead",
                is_plain=True,
            )
        return UnreachableError(
            f"{where}: the certificate does not hold: {_ssl_reason(text)}",
            f"put its authority's certificate into /etc/ketch/certs.d/{host}:{port}/ca.crt",
        )
    if isinstance(error, ReadTimeoutError):
        return BrokenOffError(f"{where}: {peer} stalls: no answer came")
    if scheme == "https" and isinstance(error, OSError):
        return UnreachableError(f"{where}: {error.strerror or error}")
    return BrokenOffError(f"{where}: the connection broke: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Returns why an exchange broke, in words: urllib3 and http.client put it as Python would."""
    inner = error
    if isinstance(error, ProtocolError) and len(error.args) > 1:
        inner = error.args[1]
    if isinstance(inner, RemoteDisconnected):
        return "it was closed before an answer came"
    if isinstance(inner, (BadStatusLine, InvalidHeader, UnknownProtocol)):
        return "the answer is not HTTP"
    if isinstance(inner, IncompleteRead):
        return "it ended too early"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    return str(inner)


def _ssl_reason(text: str) -> str:
    _, _, reason = text.partition("certificate verify failed: ")
    return reason.partition(" (_ssl")[0] or text.partition(" (_ssl")[0]


def _shown(url: str) -> str:
    """Returns an address without its query, which may hold a signature."""
    return url.partition("?")[0][:300]
