"""Archives from URLs, whose servers may be anybody."""

import socket
import threading
from collections.abc import Iterator

import pytest

from ketch.engine.views.sources import Source
from ketch.errors import InvalidArgumentError, KetchError, UnavailableError
from tests.support.registry import FakeRegistry, Handler, fake


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake() as running:
        yield running


def answered(content: bytes) -> str:
    """Have somebody answer one request with some bytes; return the URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        connection.recv(1 << 16)
        connection.sendall(content)
        connection.close()
        listening.close()

    threading.Thread(target=answer, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/root.tar"


def read(url: str) -> bytes:
    with Source(url) as source:
        return b"".join(iter(lambda: source.read(1000), b""))


@pytest.mark.parametrize(
    "content", [b"", b"\x1b[2J\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"x" * 70_000,
                b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 200 + b"\r\n"],
)  # fmt: skip
def test_what_is_no_answer_is_named(content: bytes) -> None:
    with pytest.raises(KetchError, match="open http"):
        read(answered(content))


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(512),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200\r\n" + bytes(512) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_archive_that_broke_off_is_not_taken_for_whole(content: bytes) -> None:
    with pytest.raises(UnavailableError, match="read http"):
        read(answered(content))


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1:1/x", "gopher://x/", "http://[x", "//["]
)
def test_where_nobody_follows(server: FakeRegistry, location: str) -> None:
    def hook(request: Handler) -> bool:
        request.answer(302, b"", {"Location": location})
        return True

    server.hooks.append(hook)
    with pytest.raises(InvalidArgumentError, match="open http"):
        read(f"http://{server.host}/x")


def test_a_redirect_within_http_is_followed(server: FakeRegistry) -> None:
    def hook(request: Handler) -> bool:
        if request.path == "/x":
            request.answer(302, b"", {"Location": "/y"})
        else:
            request.answer(200, b"content")
        return True

    server.hooks.append(hook)
    assert read(f"http://{server.host}/x") == b"content"
