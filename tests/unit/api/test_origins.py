"""What a page in somebody's browser sends is refused; what programs send is not."""

import json
import pathlib
import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.api import bodies, origins
from ketch.api.http import Exchange
from ketch.errors import KetchError, PermissionDeniedError
from ketch.spec import certificates
from tests.unit.api import client
from tests.unit.api.client import get
from tests.unit.api.test_framing import serve

NAMES = ("build.example.com", "*.hosts.example.com")


def request(target: str = "/info", **headers: str) -> Exchange:
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    head = h11.Request(method="POST", target=target, headers=[("Host", "x"), *fields][-len(fields):]
                       if "Host" in headers else [("Host", "127.0.0.1"), *fields])  # fmt: skip
    return Exchange(None, head, {})  # type: ignore[arg-type] # nothing is sent


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:2376", "10.1.2.3", "[::1]:2376", "[fe80::1]", "localhost:2376", "a.localhost",
     "build.example.com", "BUILD.example.com:2376", "build.example.com.", "one.hosts.example.com"],
)  # fmt: skip
def test_names_of_this_server(host: str) -> None:
    origins.check(request(Host=host), NAMES)
    origins.check(request(Host=host, Origin=f"https://{host}"), NAMES)
    origins.check(request(f"https://{host}/info", Host="evil.example"), NAMES)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:2376", "hosts.example.com", "a.b.hosts.example.com",
     "build.example.com.evil.example", "127.0.0.1.evil.example", "localhost.evil.example",
     "[evil.example]", "1.2.3.4.5", "evil-localhost", ".hosts.example.com"],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    with pytest.raises(PermissionDeniedError, match="Host header"):
        origins.check(request(Host=host), NAMES)
    with pytest.raises(PermissionDeniedError, match="Host header"):
        origins.check(request(f"https://{host}/info", Host="127.0.0.1"), NAMES)
    origins.check(request(Host=host), None)  # a Unix socket has no name


@pytest.mark.parametrize(
    ("origin", "of_network", "of_unix"),
    [
        ("https://127.0.0.1:2376", True, True),
        ("http://127.0.0.1:2376", False, True),
        ("https://127.0.0.1", False, True),
        ("http://localhost", False, True),
        ("https://evil.example", False, False),
        ("https://127.0.0.1:2376.evil.example", False, False),
        ("null", False, False),
        ("", False, False),
        ("file://", False, False),
        ("https://127.0.0.1:2376 https://evil.example", False, False),
    ],
)
def test_pages(origin: str, of_network: bool, of_unix: bool) -> None:
    for names, fits in ((NAMES, of_network), (None, of_unix)):
        asked = request(Host="127.0.0.1:2376", Origin=origin)
        if fits:
            origins.check(asked, names)
        else:
            with pytest.raises(PermissionDeniedError, match="pages in a browser"):
                origins.check(asked, names)


def test_what_browsers_say_of_a_request() -> None:
    origins.check(request(Sec_Fetch_Site="none"), NAMES)
    for site in ("cross-site", "same-site"):
        with pytest.raises(PermissionDeniedError):
            origins.check(request(Sec_Fetch_Site=site), NAMES)


def test_pages_get_nowhere(tmp_path: pathlib.Path) -> None:
    async def check(path: str) -> None:
        for headers in ("Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"):
            for asked in (
                get("/containers/json", headers=headers),
                get("/containers/prune", method="POST", headers=headers),
                get("/containers/x/attach/ws", headers=headers + "Upgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            ):  # fmt: skip
                found, _ = await client.ask(path, asked)
                assert (found.status, "browser" in found.document["message"]) == (403, True)
        twice = "Origin: http://localhost\r\nOrigin: https://evil.example\r\n"
        assert (await client.ask(path, get("/info", headers=twice)))[0].status == 403

    serve(tmp_path, check)


# Method, path, and what is answered to a body that is what it should be.
BODIES = [
    ("/containers/create", 404),
    ("/containers/nobody/update", 404),
    ("/containers/nobody/exec", 404),
    ("/exec/nobody/start", 404),
    ("/commit?container=nobody", 404),
    ("/containers/nobody/checkpoints", 404),
    ("/networks/create", 400),
    ("/networks/nothing/connect", 404),
    ("/networks/nothing/disconnect", 404),
    ("/volumes/create", 404),
]
BODY = json.dumps({"Image": "nothing", "Container": "nobody", "Name": "", "Driver": "none",
                   "Cmd": ["x"]}).encode()  # fmt: skip


@pytest.mark.parametrize(("target", "status"), BODIES)
def test_bodies_that_a_page_can_send_are_not_read(
    tmp_path: pathlib.Path, target: str, status: int
) -> None:
    async def check(path: str) -> None:
        for kind in (
            "text/plain", "text/plain; application/json", "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a", "application/jsonp", "text/plain;a=application/json",
        ):  # fmt: skip
            asked = get(target, method="POST", headers=f"Content-Type: {kind}\r\n", body=BODY)
            found, _ = await client.ask(path, asked)
            words = "unsupported Content-Type header|malformed Content-Type header"
            assert found.status == 400, (kind, found.body)
            assert re.search(words, found.document["message"]), found.document
        # As of a form with `enctype`, and without any: a type must be given for what is sent.
        bare = f"POST {target} HTTP/1.1\r\nHost: x\r\n".encode()
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        for asked in (bare + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, bare + chunked):
            found, _ = await client.ask(path, asked)
            assert found.status == 400
            assert "malformed Content-Type header ()" in found.document["message"]
        for kind in ("application/json", "Application/JSON;charset=utf-8",
                     ' application/json ; charset="utf-8" ; x=y;'):  # fmt: skip
            asked = get(target, method="POST", headers=f"Content-Type: {kind}\r\n", body=BODY)
            found, _ = await client.ask(path, asked)
            assert found.status == status, (kind, found.body)
            assert "Content-Type" not in found.document["message"]

    serve(tmp_path, check)


@pytest.mark.parametrize("kind", ["application/json; charset", "application/json, text/plain",
                                  "application/", "json", ";", "application/json x"])  # fmt: skip
def test_types_that_are_none(kind: str) -> None:
    with pytest.raises(KetchError, match="malformed"):
        bodies.check_type(request(Content_Type=kind, Content_Length="5"))


def test_without_a_body_nothing_need_be_said_of_it() -> None:
    bodies.check_type(request())
    bodies.check_type(request(Content_Length="0"))
    with pytest.raises(KetchError, match="must be 'application/json'"):
        bodies.check_type(request(Content_Type="text/plain"))


@given(st.binary(max_size=200))
def test_a_certificate_may_be_anything(content: bytes) -> None:
    assert isinstance(certificates.names(content), list)
