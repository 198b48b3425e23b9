"""What URLs answer: sizes, digests, names, times; whom credentials go to; what is kept."""

import gzip
import hashlib
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ketch.build.contexts import downloads
from ketch.build.graph import ContextSource, HttpSource
from ketch.build.request import Http, LocalDirectory
from ketch.engine.processes import Patience
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.support.archives import archive, member
from tests.support.contexts import Opened, content, listed
from tests.support.registry import FakeRegistry, Handler, fake, sha256

TEXT = b"downloaded\n"
Answer = Callable[[Handler], object]


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    """Return a server whose answers a test gives."""
    with fake() as one:
        yield one


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """Return another server."""
    with fake() as one:
        yield one


def answers(server: FakeRegistry, answer: Answer) -> None:
    def hook(request: Handler) -> bool:
        answer(request)
        return True

    server.hooks[:] = [hook]


def source(server: FakeRegistry, path: str = "/file", **options: Any) -> HttpSource:
    return HttpSource(name="", url=f"http://{server.host}{path}", **options)


class Secrets(dict[str, bytes]):
    """Secrets by name."""


def test_a_download_is_one_file_with_the_servers_time(opened: Opened, server: FakeRegistry) -> None:
    modified = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    answers(server, lambda request: request.answer(200, TEXT, modified))
    told: list[tuple[str, int, int]] = []
    contexts = opened()
    tree = contexts.http(source(server), lambda *how: told.append(how))
    assert listed(tree.directory) == ["file"]
    assert content(tree.directory, "file") == TEXT
    status = os.stat("file", dir_fd=tree.directory)
    assert (oct(status.st_mode), status.st_mtime) == ("0o100600", 1445412480)
    assert tree.identity == f"http:{sha256(TEXT)}:file"
    assert told[-1] == (f"fetching http://{server.host}/file", len(TEXT), len(TEXT))
    # Once a build; and one without a time is as old as can be.
    assert contexts.http(source(server)) == tree
    assert len(server.requests) == 1
    answers(server, lambda request: request.answer(200, TEXT))
    there = opened().http(source(server, "/timeless"))
    assert os.stat("timeless", dir_fd=there.directory).st_mtime == 0


@pytest.mark.parametrize(
    ("path", "wanted", "disposition", "name"),
    [
        ("/a/b.txt?x=/y", "", "", "b.txt"),
        ("/a/%41%2Eb", "", "", "A.b"),
        ("/", "", "", "download"),
        ("/%2e%2e", "", "", "download"),
        ("/a%0Ab", "", "", "download"),
        ("/a", "given", 'attachment; filename="ignored"', "given"),
        ("/a", "", 'attachment; filename="x\\"y.tar"', 'x"y.tar'),
        ("/a", "", "attachment; filename=../../etc/passwd", "passwd"),
        ("/a", "", 'attachment; filename="dir/"', "a"),
        ("/a", "", "attachment; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        ("/a", "", 'attachment; filename=".."', "download"),
        ("/a", "", "attachment; filename=" + "x" * 300, "download"),
        ("/a", "", 'attachment; filename="unclosed', "a"),
        ("/a", "", 'attachment; filename="a\\\\b"', "a\\b"),
        ("/ü b", "", "", "ü b"),
    ],
)
def test_a_download_is_called_what_request_server_or_url_say(
    opened: Opened, server: FakeRegistry, path: str, wanted: str, disposition: str, name: str
) -> None:
    fields = {"Content-Disposition": disposition} if disposition else {}
    answers(server, lambda request: request.answer(200, TEXT, fields))
    tree = opened().http(source(server, path, filename=wanted))
    assert listed(tree.directory) == [name]


# What it must be


def test_a_checksum_decides(opened: Opened, server: FakeRegistry) -> None:
    answers(server, lambda request: request.answer(200, TEXT))
    contexts = opened()
    assert contexts.http(source(server, checksum=sha256(TEXT))).identity.endswith(":file")
    stronger = f"sha512:{hashlib.sha512(TEXT).hexdigest()}"
    assert contexts.http(source(server, checksum=stronger)).identity.endswith(":file")
    wrong = sha256(b"else")
    with pytest.raises(DigestMismatchError) as caught:
        contexts.http(source(server, checksum=wrong))
    assert caught.value.message == f"digest mismatch {sha256(TEXT)}: {wrong}"
    for malformed in ("sha256:xyz", "md5:" + "0" * 32, "x"):
        with pytest.raises(InvalidArgumentError):
            contexts.http(source(server, checksum=malformed))


def test_a_checksum_identifies_before_anything_is_fetched(
    opened: Opened, server: FakeRegistry
) -> None:
    answers(server, lambda request: request.answer(200, TEXT))
    known = source(server, checksum=sha256(TEXT), filename="name")
    assert opened().identity(known) == f"http:{sha256(TEXT)}:name"
    assert server.requests == []
    assert opened().identity(source(server)) == f"http:{sha256(TEXT)}:file"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidArgumentError),
        (401, UnauthenticatedError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (500, UnavailableError),
        (304, InvalidArgumentError),
        (101, InvalidArgumentError),
    ],
)
def test_a_server_that_refuses_is_said_to(
    opened: Opened, server: FakeRegistry, status: int, error: type[KetchError]
) -> None:
    answers(server, lambda request: request.answer(status))
    with pytest.raises(error, match=rf"failed to fetch http://{server.host}/file"):
        opened().http(source(server, "/file?secret"))


def test_a_server_that_fails_for_a_moment_is_asked_again(
    opened: Opened, server: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int | None] = []

    class Quick(Patience):
        def wait(self, milliseconds: int | None, *_: int | None) -> bool:
            waited.append(milliseconds)
            return False

    def answer(request: Handler) -> None:
        if len(server.requests) == 1:
            request.answer(503, b"", {"Retry-After": "7"})
        else:  # the second one is cut short
            request.answer(200, TEXT, length=len(TEXT) + 5 * (len(server.requests) == 2))

    answers(server, answer)
    tree = opened(patience=Quick()).http(source(server))
    assert content(tree.directory, "file") == TEXT
    assert waited == [7000, 2000]
    answers(server, lambda request: request.answer(429))
    with pytest.raises(UnavailableError, match="invalid response status 429"):
        opened(patience=Quick()).http(source(server))


@pytest.mark.parametrize("length", [None, 1 << 60])
def test_more_than_there_is_room_for_is_not_taken(
    opened: Opened, server: FakeRegistry, monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    facts = os.statvfs("/")
    limited = os.statvfs_result((*facts[:3], 2, 2, *facts[5:]))
    answers(server, lambda request: request.answer(200, bytes(1 << 16), length=length))
    contexts = opened()
    monkeypatch.setattr(os, "statvfs", lambda _: limited)
    with pytest.raises(UnavailableError, match="for which there is no room"):
        contexts.http(source(server))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x", "http://", "http:///x", "file:///etc/passwd", "http://a:0/", "http://a b/",
        "http://a/\n", "http://[::1/", "http://user:se@cret@h:x/", "http://" + "x" * 20000,
    ],
)  # fmt: skip
def test_what_is_no_url_is_not_asked(opened: Opened, url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid URL") as caught:
        opened().http(HttpSource(name="", url=url))
    assert "cret" not in caught.value.message


def test_who_is_not_there_is_not_reached(opened: Opened) -> None:
    with pytest.raises(UnavailableError, match=r"dial tcp 127.0.0.1:1: connect: connection ref"):
        opened().http(HttpSource(name="", url="http://127.0.0.1:1/x"))


# Redirects, and whom credentials go to


def test_redirects_are_followed_ten_times(opened: Opened, server: FakeRegistry) -> None:
    def answer(request: Handler) -> None:
        left = int(request.path.rpartition("/")[2])
        if left:
            request.answer(302, headers={"Location": f"{left - 1}"})
        else:
            request.answer(200, TEXT)

    answers(server, answer)
    # The name is that of what was asked for.
    assert listed(opened().http(source(server, "/x/9")).directory) == ["9"]
    with pytest.raises(InvalidArgumentError, match="stopped after 10 redirects"):
        opened().http(source(server, "/x/10"))


@pytest.mark.parametrize("target", ["", "file:///etc/passwd", "ftp://x/y", "http://[/"])
def test_redirects_to_nowhere_are_refused(
    opened: Opened, server: FakeRegistry, target: str
) -> None:
    answers(server, lambda request: request.answer(302, headers={"Location": target}))
    with pytest.raises(InvalidArgumentError, match="the server redirects to "):
        opened().http(source(server))


def test_credentials_are_shown_to_their_server_alone(
    opened: Opened, server: FakeRegistry, other: FakeRegistry
) -> None:
    answers(
        server,
        lambda request: request.answer(302, headers={"Location": f"http://u:p@{other.host}/x"}),
    )
    answers(other, lambda request: request.answer(200, TEXT))
    url = f"http://alice:s3%40cret@{server.host}/file"
    tree = opened().http(HttpSource(name="", url=url))
    assert server.requests[0][2]["Authorization"] == "Basic YWxpY2U6czNAY3JldA=="
    assert "Authorization" not in other.requests[0][2]
    assert "cret" not in tree.identity
    answers(server, lambda request: request.answer(403))
    with pytest.raises(PermissionDeniedError) as caught:
        opened().http(HttpSource(name="", url=url))
    assert "cret" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "shown"), [("HTTP_AUTH_TOKEN_", "Bearer word"), ("HTTP_AUTH_HEADER_", "word")]
)
def test_secrets_show_servers_who_asks(
    opened: Opened, server: FakeRegistry, name: str, shown: str
) -> None:
    answers(server, lambda request: request.answer(200, TEXT))
    opened(secrets=Secrets({f"{name}127.0.0.1": b"word\n"})).http(source(server))
    assert server.requests[0][2]["Authorization"] == shown
    with pytest.raises(InvalidArgumentError, match="no header's value") as caught:
        opened(secrets=Secrets({f"{name}127.0.0.1": b"wo\nrd"})).http(source(server))
    assert "rd" not in caught.value.message.replace("header", "")


# What is kept


def test_what_still_holds_is_not_sent_again(
    opened: Opened, server: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    def answer(request: Handler) -> None:
        if request.headers.get("If-None-Match") == '"one"':
            request.answer(304)
        else:
            request.answer(200, TEXT, {"ETag": '"one"', "Content-Disposition": "x; filename=n"})

    answers(server, answer)
    first = opened().http(source(server))
    second = opened().http(source(server))
    assert first.identity == second.identity == f"http:{sha256(TEXT)}:n"
    assert content(second.directory, "n") == TEXT
    assert len(server.requests) == 2
    with pytest.raises(DigestMismatchError):
        opened().http(source(server, checksum=sha256(b"else")))
    # Where it is known to be what is wanted nobody is asked.
    server.requests.clear()
    assert opened().http(source(server, checksum=sha256(TEXT))).identity == first.identity
    assert server.requests == []
    for folder in ("cache", "cache/http"):
        assert oct((tmp_path / folder).stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"ETag": 'W/"one"'}, ("If-None-Match", 'W/"one"')),
        ({"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
         ("If-Modified-Since", "Wed, 21 Oct 2015 07:28:00 GMT")),
    ],
)  # fmt: skip
def test_what_changed_replaces_what_is_kept(
    opened: Opened, server: FakeRegistry, fields: dict[str, str], asked: tuple[str, str]
) -> None:
    answers(server, lambda request: request.answer(200, TEXT, fields))
    opened().http(source(server))
    answers(server, lambda request: request.answer(200, b"new", {"ETag": '"two"'}))
    assert content(opened().http(source(server)).directory, "file") == b"new"
    assert server.requests[1][2][asked[0]] == asked[1]
    # Sent all the same, but under the name that was asked about.
    answers(server, lambda request: request.answer(200, b"new", {"ETag": 'W/"two"'}))
    assert content(opened().http(source(server)).directory, "file") == b"new"
    assert server.requests[2][2]["If-None-Match"] == '"two"'


@pytest.mark.parametrize("about", [b"", b"{", b"[]", b'{"digest": 1}', b"null", b"\xff"])
def test_what_is_kept_damaged_is_fetched_anew(
    opened: Opened, server: FakeRegistry, tmp_path: pathlib.Path, about: bytes
) -> None:
    answers(server, lambda request: request.answer(200, TEXT, {"ETag": '"one"'}))
    opened().http(source(server))
    (entry,) = (tmp_path / "cache" / "http").iterdir()
    (entry / "about.json").write_bytes(about)
    assert content(opened().http(source(server)).directory, "file") == TEXT
    assert "If-None-Match" not in server.requests[1][2]
    assert b"sha256" in (entry / "about.json").read_bytes()


def test_a_download_can_be_called_off(opened: Opened, server: FakeRegistry) -> None:
    class CalledOffError(BaseException):
        """As the library's."""

    class Short(Patience):
        def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> Any:
            if found := super().poll(200, *watched):
                return found
            raise CalledOffError

    hold = threading.Event()

    def answer(request: Handler) -> None:
        request.answer(200, TEXT, length=1 << 20)
        request.wfile.flush()
        hold.wait(30)

    answers(server, answer)
    begun = time.monotonic()
    try:
        with pytest.raises(CalledOffError):
            opened(patience=Short()).http(source(server))
    finally:
        hold.set()
    assert time.monotonic() - begun < 20


def test_a_server_that_trickles_is_left(
    opened: Opened, server: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(server, lambda request: request.answer(200, TEXT))
    monkeypatch.setattr(downloads, "_SECONDS_MAX", -1.0)
    with pytest.raises(UnavailableError, match="it takes too long"):
        opened().http(source(server))


# As a context

CONTEXT = archive(member(b"Dockerfile", data=b"FROM tar\n"), member(b"a", data=b"1"))


@pytest.mark.parametrize("packed", [CONTEXT, gzip.compress(CONTEXT)], ids=["plain", "gzip"])
def test_a_url_of_an_archive_is_a_context(
    opened: Opened, server: FakeRegistry, packed: bytes
) -> None:
    answers(server, lambda request: request.answer(200, packed))
    given = Http(f"http://{server.host}/context.tar")
    contexts = opened(given, contexts={"named": given})
    assert contexts.dockerfile() == (b"FROM tar\n", "Dockerfile")
    tree = contexts.tree("context")
    assert listed(tree.directory) == ["Dockerfile", "a"]
    assert tree.identity == f"http:{sha256(packed)}:context:unpacked"
    assert contexts.time_s(ContextSource(name="", context="context")) == 1_000_000_000
    # As a named context it is what it is: moby/buildkit, frontend/dockerui/namedcontext.go.
    assert listed(contexts.tree("named").directory) == ["context"]
    assert len(server.requests) == 1


def test_a_url_of_a_dockerfile_is_a_context_with_it(opened: Opened, server: FakeRegistry) -> None:
    modified = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    answers(server, lambda request: request.answer(200, b"FROM url\n", modified))
    given = Http(f"http://{server.host}/Dockerfile")
    contexts = opened(given, dockerfile="elsewhere")
    assert contexts.dockerfile() == (b"FROM url\n", "context")
    assert contexts.time_s(ContextSource(name="", context="context")) == 1_445_412_480
    assert listed(contexts.tree("context").directory) == ["context"]
    assert opened(LocalDirectory("/"), dockerfile_input=given).dockerfile().text == b"FROM url\n"


def test_an_archive_of_a_url_is_held_in_bounds(opened: Opened, server: FakeRegistry) -> None:
    evil = archive(member(b"../../outside", data=b"evil"))
    answers(server, lambda request: request.answer(200, evil))
    with pytest.raises(InvalidArgumentError, match="leads out of the context"):
        opened(Http(f"http://{server.host}/")).dockerfile()
