"""How a registry is asked: logging in, waiting, being sent on, and what is never sent along."""

import base64
import contextlib
import json
import pathlib
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.errors import (
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnauthenticatedError,
    UnavailableError,
)
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.login import log_in, registry_host
from ketch.images.registry.registries import Registries
from ketch.images.registry.repository import Repository
from ketch.spec import reference as references
from tests.support import registry as support
from tests.support.registry import FakeRegistry, Handler, fake, require_token

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

Open = Callable[..., Repository]
BASIC = "Basic " + base64.b64encode(b"alice:s3cret").decode()


@pytest.fixture(autouse=True)
def _with_an_image(registry: FakeRegistry) -> None:
    registry.add_image("app", "1", b"")


def require_basic(registry: FakeRegistry) -> None:
    def hook(request: Handler) -> bool:
        if request.headers.get("Authorization") == BASIC:
            return False
        registry.refuse(request, 401, "UNAUTHORIZED", "authentication required",
                        **{"WWW-Authenticate": 'Basic realm="r"'})  # fmt: skip
        return True

    registry.hooks.append(hook)


def always(registry: FakeRegistry, status: int, code: str, message: str, **headers: str) -> None:
    def hook(request: Handler) -> bool:
        registry.refuse(request, status, code, message, **headers)
        return True

    registry.hooks.append(hook)


# Logging in


def test_credentials_are_shown_only_to_a_registry_that_asks(
    registry: FakeRegistry, repository: Open
) -> None:
    assert repository(user="alice").manifest("1")
    assert all("Authorization" not in headers for _, _, headers in registry.requests)


def test_basic(registry: FakeRegistry, repository: Open) -> None:
    require_basic(registry)
    opened = repository(user="alice")
    assert opened.manifest("1")
    assert opened.tags() == ["1"]
    assert sum("Authorization" not in headers for _, _, headers in registry.requests[1:]) <= 1


def test_who_is_refused_while_another_logs_in_tries_again_by_that(
    registry: FakeRegistry, repository: Open
) -> None:
    """As of layers that are pushed at once: both ask as nobody first."""
    together = threading.Barrier(2, timeout=10)

    def hook(request: Handler) -> bool:
        if "/manifests/" in request.path and request.headers.get("Authorization") is None:
            together.wait()  # so that nobody is refused before both have asked
        return False

    registry.hooks.append(hook)
    require_basic(registry)
    app = repository(user="alice")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(app.manifest("1"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2


def test_basic_without_credentials_and_with_wrong_ones(
    registry: FakeRegistry, repository: Open
) -> None:
    require_basic(registry)
    with pytest.raises(UnauthenticatedError, match="no basic auth credentials"):
        repository().manifest("1")
    with pytest.raises(UnauthenticatedError, match="refused"):
        repository(credentials=Credentials("alice", "wrong")).manifest("1")


@pytest.mark.parametrize("user", ["", "alice"])
def test_a_token_for_anybody_and_for_somebody(
    registry: FakeRegistry, repository: Open, user: str
) -> None:
    require_token(registry, user=user)
    assert repository(user=user).manifest("1")
    (asked,) = [(path, headers) for _, path, headers in registry.requests if "/token?" in path]
    assert "service=fake" in asked[0]
    assert "scope=repository%3Aapp%3Apull" in asked[0]
    assert asked[1].get("Authorization", "") == (BASIC if user else "")


def test_a_refused_token(registry: FakeRegistry, repository: Open) -> None:
    require_token(registry, user="alice")
    with pytest.raises(UnauthenticatedError, match="incorrect username or password"):
        repository(credentials=Credentials("alice", "wrong")).manifest("1")


@pytest.mark.parametrize("lifetime", [float("nan"), -1e9, 10**400, "soon", None, True])
@pytest.mark.parametrize("refresh", ["a\ud800", "a\r\nX: y", 5, "\x1b[2J"])
def test_an_authority_s_odd_answers(
    registry: FakeRegistry, repository: Open, lifetime: object, refresh: object
) -> None:
    """A token that can be shown is taken; another identity token than can be sent is not."""

    def hook(request: Handler) -> bool:
        if not request.path.startswith("/token"):
            return False
        answer = {"token": "for app:pull", "expires_in": lifetime, "refresh_token": refresh}
        request.answer(200, json.dumps(answer).encode())
        return True

    require_token(registry)
    registry.hooks.insert(0, hook)
    who = Credentials(identity_token="mine")
    opened = repository(credentials=who)
    for _ in range(2):
        with contextlib.suppress(KetchError):  # the token is not for this scope
            opened.manifest("1")
    assert who.identity_token == "mine"


def test_an_identity_token_is_exchanged(registry: FakeRegistry, repository: Open) -> None:
    require_token(registry, user="alice", refresh="r3fresh")
    assert repository(credentials=Credentials(identity_token="r3fresh")).manifest("1")
    with pytest.raises(UnauthenticatedError):
        repository(credentials=Credentials(identity_token="other")).manifest("1")


def test_a_registry_token_is_shown_as_it_is(registry: FakeRegistry, repository: Open) -> None:
    def hook(request: Handler) -> bool:
        if request.headers.get("Authorization") == "Bearer ready":
            return False
        registry.refuse(request, 401, "UNAUTHORIZED", "authentication required",
                        **{"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/"'})  # fmt: skip
        return True

    registry.hooks.append(hook)
    assert repository(credentials=Credentials(registry_token="ready")).manifest("1")


def test_an_expired_token_is_replaced(registry: FakeRegistry, repository: Open) -> None:
    require_token(registry)
    opened = repository()
    opened.manifest("1")
    expired = [True]

    def hook(request: Handler) -> bool:
        if not expired or "/token" in request.path:
            return False
        expired.clear()
        registry.refuse(request, 401, "UNAUTHORIZED", "token expired", **{
            "WWW-Authenticate": f'Bearer realm="http://{registry.host}/token",service="fake"'
        })  # fmt: skip
        return True

    registry.hooks.insert(0, hook)
    assert opened.manifest("1")


@pytest.mark.parametrize(
    "realm", ["ftp://x/", "file:///etc/passwd", "nonsense", "http://a@b/", "http://:1/", ""]
)
def test_a_realm_that_no_authority_has(
    registry: FakeRegistry, repository: Open, realm: str
) -> None:
    def hook(request: Handler) -> bool:
        registry.refuse(request, 401, "UNAUTHORIZED", "no",
                        **{"WWW-Authenticate": f'Bearer realm="{realm}"'})  # fmt: skip
        return True

    registry.hooks.append(hook)
    with pytest.raises(RegistryError, match="sends for tokens to"):
        repository(user="alice").manifest("1")


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"token":5}', b'{"token":"a\\nb"}', b"[" * 9999])
def test_an_authority_that_talks_nonsense(
    registry: FakeRegistry, repository: Open, answer: bytes
) -> None:
    def hook(request: Handler) -> bool:
        if request.path.startswith("/token"):
            request.answer(200, answer)
            return True
        return False

    require_token(registry)
    registry.hooks.insert(0, hook)
    with pytest.raises(RegistryError):
        repository().manifest("1")


def test_a_registry_that_never_believes_is_not_asked_for_ever(
    registry: FakeRegistry, repository: Open
) -> None:
    def hook(request: Handler) -> bool:
        if request.path.startswith("/token"):
            request.answer(200, b'{"token":"x"}')
        else:
            registry.refuse(request, 401, "DENIED", "never", **{
                "WWW-Authenticate": f'Bearer realm="http://{registry.host}/token"'
            })  # fmt: skip
        return True

    registry.hooks.append(hook)
    with pytest.raises(UnauthenticatedError, match="never"):
        repository().manifest("1")
    assert len(registry.requests) < 10


def test_an_unknown_way_to_log_in_is_named(registry: FakeRegistry, repository: Open) -> None:
    always(registry, 401, "X", "x", **{"WWW-Authenticate": "Negotiate"})
    with pytest.raises(UnauthenticatedError, match="negotiate"):
        repository(user="alice").manifest("1")


def test_login_keeps_an_identity_token_where_there_is_one(registry: FakeRegistry) -> None:
    require_token(registry, user="alice", refresh="r3fresh")
    with Registries({}, settings=Configuration()) as registries:
        kept = log_in(registries, registry.host, Credentials("alice", "s3cret"))
        assert (kept.user, kept.password, kept.identity_token) == ("alice", "", "r3fresh")
        with pytest.raises(UnauthenticatedError, match="login attempt to http://127"):
            log_in(registries, registry.host, Credentials("alice", "wrong"))


@pytest.mark.parametrize(
    ("text", "host"),
    [("", "docker.io"), ("https://index.docker.io/v1/", "docker.io"), ("r:5000", "r:5000"),
     ("https://r.example/v2/", "r.example"), ("localhost", "localhost"), ("myhost", "myhost")],
)  # fmt: skip
def test_the_registry_that_a_user_means(text: str, host: str) -> None:
    assert registry_host(text) == host


@pytest.mark.parametrize("text", ["a b", "r:port", "-x", "ftp://x"])
def test_what_is_no_registry(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        registry_host(text)


# Being sent on


def redirect(registry: FakeRegistry, location: str, status: int = 307) -> None:
    def hook(request: Handler) -> bool:
        if "/manifests/" not in request.path:
            return False
        request.answer(status, b"", {"Location": location})
        return True

    registry.hooks.append(hook)


def test_another_host_gets_no_credentials(registry: FakeRegistry, repository: Open) -> None:
    with fake() as other:
        other.manifests = registry.manifests
        require_basic(registry)
        redirect(registry, f"http://{other.host}/v2/app/manifests/1")
        assert repository(user="alice").manifest("1")
        assert registry.requests[-1][2]["Authorization"] == BASIC
        assert other.requests
        assert all("Authorization" not in headers for _, _, headers in other.requests)


def test_another_host_that_asks_for_credentials_gets_none(
    registry: FakeRegistry, repository: Open
) -> None:
    with fake() as other:
        require_basic(other)
        redirect(registry, f"http://{other.host}/v2/app/manifests/1")
        with pytest.raises(UnauthenticatedError):
            repository(user="alice").manifest("1")
        assert all("Authorization" not in headers for _, _, headers in other.requests)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "cannot have the address"),
        ("ftp://127.0.0.1/x", "cannot have the address"),
        ("gopher://127.0.0.1/x", "cannot have the address"),
        ("http://user:password@127.0.0.1/x", "cannot have the address"),
        ("http://[::1/x", "malformed address"),
        ("", "redirects to nowhere"),
        ("x" * 20_000, "redirects to nowhere"),
        ("/v2/app/manifests/1", "without end"),
    ],
)
def test_where_nobody_goes(
    registry: FakeRegistry, repository: Open, location: str, message: str
) -> None:
    redirect(registry, location)
    with pytest.raises(RegistryError, match=message):
        repository().manifest("1")
    assert len(registry.requests) < 15


# Waiting


def failing(registry: FakeRegistry, status: int, times: int, **headers: str) -> None:
    left = [times]

    def hook(request: Handler) -> bool:
        if "/manifests/" not in request.path or not left[0]:
            return False
        left[0] -= 1
        registry.refuse(request, status, "TOOMANYREQUESTS", "slow down", **headers)
        return True

    registry.hooks.append(hook)


def test_retry_after_is_obeyed(
    registry: FakeRegistry, repository: Open, slept: list[float]
) -> None:
    failing(registry, 429, 2, **{"Retry-After": "7"})
    assert repository().manifest("1")
    assert slept == [7.0, 7.0]


def test_a_limit_without_an_end_is_told(
    registry: FakeRegistry, repository: Open, slept: list[float]
) -> None:
    failing(registry, 429, 99)
    with pytest.raises(UnavailableError, match="toomanyrequests: slow down"):
        repository().manifest("1")
    assert len(slept) == 1


def test_a_gateway_in_trouble_is_asked_again(
    registry: FakeRegistry, repository: Open, slept: list[float]
) -> None:
    failing(registry, 503, 3)
    assert repository().manifest("1")
    assert slept == [1.0, 2.0, 4.0]


def test_one_in_lasting_trouble_is_given_up(registry: FakeRegistry, repository: Open) -> None:
    failing(registry, 502, 99)
    with pytest.raises(UnavailableError, match="502 Bad Gateway"):
        repository().manifest("1")


def test_a_registry_that_stalls(registry: FakeRegistry, repository: Open) -> None:
    def hook(request: Handler) -> bool:
        if "/manifests/" in request.path:
            time.sleep(1.5)
        return False

    registry.hooks.append(hook)
    with pytest.raises(UnavailableError, match="stalls"):
        repository(timeout_seconds=1).manifest("1")


# What statuses mean


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (403, PermissionDeniedError, "denied: not you"),
        (404, NotFoundError, "manifest for .*app:1 not found: denied: not you"),
        (418, RegistryError, "418"),
        (500, UnavailableError, "500 Internal Server Error: denied: not you"),
    ],
)
def test_refusals(
    registry: FakeRegistry,
    repository: Open,
    status: int,
    kind: type[KetchError],
    message: str,
) -> None:
    always(registry, status, "DENIED", "not you")
    with pytest.raises(kind, match=message):
        repository().manifest("1")


@pytest.mark.parametrize("content", [b"<html>", b"[" * 9999, b"{}", b'{"errors":5}', b"\xff"])
def test_any_error_document(registry: FakeRegistry, repository: Open, content: bytes) -> None:
    def hook(request: Handler) -> bool:
        request.answer(404, content)
        return True

    registry.hooks.append(hook)
    with pytest.raises(NotFoundError):
        repository().manifest("1")


# Connections


def test_nobody_there(repository: Open) -> None:
    with pytest.raises(UnavailableError, match="connection refused"):
        repository(host="127.0.0.1:1").manifest("1")


def certified(registry: FakeRegistry, directory: pathlib.Path) -> None:
    support.make_certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    registry.wrap(context)


class Strict(Configuration):
    """A configuration to which this machine is one like others."""

    __slots__ = ()

    def is_insecure(self, host: str) -> bool:
        return False


def test_certificates_of_a_registrys_own(registry: FakeRegistry, tmp_path: pathlib.Path) -> None:
    certified(registry, tmp_path)
    name = references.parse(f"{registry.host}/app")
    document = {"certificate-directories": [str(tmp_path / "certs.d")], "timeout-seconds": 5}
    with (
        Registries({}, settings=Strict(document), credentials=Credentials()) as registries,
        pytest.raises(UnavailableError, match="certificate does not hold") as caught,
    ):
        registries.repository(name).manifest("1")
    assert registry.host in caught.value.hint
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes((tmp_path / "cert.pem").read_bytes())
    with Registries({}, settings=Strict(document), credentials=Credentials()) as registries:
        assert registries.repository(name).manifest("1")
    (directory / "client.cert").write_bytes((tmp_path / "cert.pem").read_bytes())
    with (
        Registries({}, settings=Strict(document), credentials=Credentials()) as registries,
        pytest.raises(InvalidArgumentError, match=r"missing key client\.key"),
    ):
        registries.repository(name).manifest("1")


def test_a_certificate_of_anybodys_where_that_is_allowed(
    registry: FakeRegistry, repository: Open, tmp_path: pathlib.Path
) -> None:
    certified(registry, tmp_path)
    assert repository().manifest("1")


def test_plain_http_is_not_spoken_with_a_registry_that_must_be_secure(
    registry: FakeRegistry,
) -> None:
    with (
        Registries({}, settings=Strict(), credentials=Credentials()) as registries,
        pytest.raises(UnavailableError, match="HTTP response to HTTPS client") as caught,
    ):
        registries.repository(references.parse(f"{registry.host}/app")).manifest("1")
    assert "insecure-registries" in caught.value.hint
    assert not registry.requests


def test_from_https_to_http_nobody_is_sent(
    registry: FakeRegistry, repository: Open, tmp_path: pathlib.Path
) -> None:
    certified(registry, tmp_path)
    with fake() as other:
        other.manifests = registry.manifests
        redirect(registry, f"http://{other.host}/v2/app/manifests/1")
        with pytest.raises(RegistryError, match="from https to http"):
            repository().manifest("1")
        assert not other.requests


# Mirrors and proxies


def test_a_mirror_is_asked_first_and_forgiven(registry: FakeRegistry, repository: Open) -> None:
    with fake() as mirror:
        mirrors = {registry.host: [f"http://{mirror.host}"]}
        assert repository(mirrors=mirrors).manifest("1")
        assert mirror.requests
        registry.requests.clear()
        mirror.manifests = registry.manifests
        assert repository(mirrors=mirrors).manifest("1")
        assert not [path for _, path, _ in registry.requests if "manifests" in path]


def test_a_mirror_gets_no_credentials_of_the_registry(
    registry: FakeRegistry, repository: Open
) -> None:
    with fake() as mirror:
        require_basic(mirror)
        mirrors = {registry.host: [f"http://{mirror.host}"]}
        assert repository(user="alice", mirrors=mirrors).manifest("1")
        assert all("Authorization" not in headers for _, _, headers in mirror.requests)


def test_an_http_proxy(registry: FakeRegistry) -> None:
    settings = Configuration({"insecure-registries": ["nowhere.invalid:80"]})
    environment = {"http_proxy": f"http://u:p@{registry.host}", "https_proxy": "http://127.0.0.1:1"}
    with Registries(environment, settings=settings, credentials=Credentials()) as registries:
        name = references.parse("nowhere.invalid:80/app")
        # The fake registry is the proxy, and answers what it is asked for elsewhere.
        registry.hooks.append(lambda request: _as_proxy(registry, request))
        assert registries.repository(name).manifest("1")
    method, path, headers = registry.requests[-1]
    assert (method, path) == ("GET", "http://nowhere.invalid:80/v2/app/manifests/1")
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def _as_proxy(registry: FakeRegistry, request: Handler) -> bool:
    request.path = "/" + request.path.split("/", 3)[3]
    registry.serve(request)
    return True


def test_a_socks_proxy(registry: FakeRegistry) -> None:
    settings = Configuration({"insecure-registries": ["nowhere.invalid:80"]})
    host, port = registry.host.split(":")
    with socks_proxy(host, int(port)) as (proxy, asked):
        environment = {"http_proxy": f"socks5://{proxy}", "https_proxy": "http://127.0.0.1:1"}
        with Registries(environment, settings=settings, credentials=Credentials()) as registries:
            name = references.parse("nowhere.invalid:80/app")
            assert registries.repository(name).manifest("1")
    assert asked[0] == b"nowhere.invalid"  # the proxy looks names up


@contextlib.contextmanager
def socks_proxy(host: str, port: int) -> Iterator[tuple[str, list[bytes]]]:
    """Run a SOCKS5 proxy (RFC 1928) that leads everybody to one place; give what was asked for."""
    asked: list[bytes] = []

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            stream = self.request.makefile("rb", buffering=0)
            stream.read(stream.read(2)[1])
            self.request.sendall(b"\5\0")
            stream.read(4)
            asked.append(stream.read(stream.read(1)[0]))
            stream.read(2)
            self.request.sendall(b"\5\0\0\1" + bytes(6))
            with socket.create_connection((host, port)) as target:
                back = threading.Thread(target=pass_on, args=(target, self.request), daemon=True)
                back.start()
                pass_on(self.request, target)

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()
