"""A registry that answers rightly, but for what it was told to get wrong, byte by byte.

``answers`` is what hypothesis draws: a few lies, each about one answer of a conversation. A lying
answer ends its connection, so that a length that promises too much is an end and not a wait.
"""

import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st

from ketch.cli.main import main
from ketch.engine.containers import creation
from ketch.engine.engine import Engine
from ketch.engine.settings import Settings
from ketch.engine.views import sizes
from ketch.errors import KetchError
from ketch.images.registry.progress import Progress
from ketch.images.snapshots import BASE
from ketch.spec import digest as digests
from ketch.spec import image as documents
from tests.support.registry import FakeRegistry, Handler, fake, require_token, sha256

WIDE = int(os.environ.get("KETCH_TEST_WIDE", "1"))
"""How many times as many examples are tried as in an ordinary run."""


def examples(count: int) -> hypothesis.settings:
    """Return the settings of a property that tries so many examples, each with real files."""
    return hypothesis.settings(
        max_examples=count * WIDE, deadline=None, suppress_health_check=list(HealthCheck)
    )


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e"
VALUES: list[Any] = [
    None, True, 0, -1, 5, 1 << 63, 10**400, 1.5, float("nan"), float("inf"), "", "x", ESCAPES,
    "a\ud800", "a\0b", "../../etc/passwd", "sha256:" + "0" * 64, "sha256:" + "A" * 64, "sha512:x",
    "x" * 70_000, [], {}, [None], [[]], {"": None}, {"x": ESCAPES},
    json.loads("[" * 150 + "]" * 150),
]  # fmt: skip
_TEXTS = [
    "", " ", "x", "-1", "0", "1", "7", "007", "9" * 18, "9" * 400, "1, 2", "1,1", "nan", "\x1b[2J",
    "\x9b31m", "\xff\xfe", "x" * 9000, "*/*", "application/json", "sha256:" + "0" * 64, "gzip",
    "chunked", "identity", "deflate", "text/html; charset=\x1b[2J",
]  # fmt: skip
_LOCATIONS = [
    "", "/", "//", "//[", "http://[x", "file:///etc/passwd", "ftp://HOST/x", "http://OTHER/v2/",
    "http://OTHER/", "http://u:p@OTHER/", "https://OTHER/", "http://HOST:0/", "http://HOST:99999/",
    "http://HOST/v2/app/manifests/1#x", "#", "?", "/v2/app/manifests/1", "/a b", "/\x1b[2J",
    "http://OTHER\\@HOST/", "http://HOST%2f@OTHER/", "javascript:1", "http://xn--/", "http://\xe9/",
    "http://" + "a" * 300 + "/", "/" + "x" * 17_000, "http:OTHER", "/%00", "http://OTHER /",
]  # fmt: skip
_CHALLENGES = [
    "", "Basic", "Bearer", 'Basic realm="x"', "Negotiate abc==", 'Bearer realm=""',
    'Bearer realm="file:///etc/passwd"', 'Bearer realm="http://OTHER/token"',
    'Bearer realm="http://u:p@OTHER/"', 'Bearer realm="https://127.0.0.1:1/"',
    'Bearer realm="http://[x"', 'Bearer realm="http://HOST/token", scope="a\\"b c"',
    'Bearer realm="http://HOST/token",service="\x1b[2J"', 'Bearer realm="http://HOST/\x01"',
    "Bearer " + "a=b," * 3000, "Bearer, " * 2000, 'Bearer realm="' + "x" * 15_000,
    'Digest realm="x", Basic realm="y", Bearer realm="http://HOST/token"', '"' * 5000,
]  # fmt: skip
_BODIES = [
    b"", b"null", b"[]", b"{}", b"{", b"[" * 100_000, b"\xff\xfe", b'"x"', b"NaN", b"1" * 5000,
    b'{"errors":[{"code":"\\u001b[2J","message":"\\u009b31m"}]}', b'{"errors":{}}',
    b'{"errors":[5,null,{"code":5,"message":[]}]}', b'{"tags":["\\u001b[2J"]}', b'{"tags":{}}',
    b'{"tags":["1","1","../x","\\ud800"]}', b'{"token":"\\u001b"}', b'{"token":"a b\\r\\nX: y"}',
    b'{"token":"t","expires_in":-1e999}', b'{"access_token":"t","expires_in":"x"}', b'{"token":[]}',
    b'{"token":"t","refresh_token":"\\ud800"}', b'{"a":1,"a":2}', b"x" * 100_000,
    b'{"repositories":["app\\u001b"]}', b'{"repositories":5}', b'{"results":[{"name":[]}]}',
    b'{"results":[{"name":"\\u001b]0;x\\u0007","description":"\\u009b2J","star_count":1e999}]}',
]  # fmt: skip
_FIELDS = [
    "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Transfer-Encoding",
    "Docker-Content-Digest", "Range", "Retry-After", "OCI-Chunk-Min-Length", "Connection", "Link",
    "X", "Set-Cookie",
]  # fmt: skip
_HEADS = [
    b"", b"\r\n", b"garbage", b"HTTP/1.1", b"HTTP/1.1 \r\n\r\n", b"HTTP/1.1 99999 x\r\n\r\n",
    b"HTTP/9.9 200 x\r\n\r\n", b"HTTP/1.1 -20 x\r\n\r\n", b"HTTP/1.1 200\r\n" + b"a: b\r\n" * 200,
    b"HTTP/1.1 200 x\r\n" + b"a" * 70_000, b"HTTP/1.1 200 x\r\n: \r\n\x00\r\n\r\n",
    b"HTTP/1.1 100 c\r\n\r\n" * 100_000, b"HTTP/1.1 200 x\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"e" * 70_000,
    b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"t: x\r\n" * 500_000,
    b"\x15\x03\x01\x00\x02\x02\x16", b"\x1b[2J" * 50, b"HTTP/1.1 200 \x1b[2J\r\n\r\n",
]  # fmt: skip

ROUTES = ["ping", "token", "manifest", "blob", "tags", "upload", "search", "catalog"]


@dataclasses.dataclass
class Lie:
    """What is wrong with one answer.

    Attributes:
        route: about what.
        number: of the answers on that route, which from.
        times: how many of them.
        kind: what is done.
        value: to what, or where.
        name: of a header field.
    """

    route: str
    number: int
    times: int
    kind: str
    value: Any
    name: str = ""


def _lies(routes: list[str]) -> st.SearchStrategy[Lie]:
    def lie(kind: str, value: st.SearchStrategy[Any], name: Any = None) -> Any:
        return st.builds(
            Lie, st.sampled_from(routes), st.integers(0, 3), st.sampled_from([1, 1, 2, 99]),
            st.just(kind), value, st.just("") if name is None else name,
        )  # fmt: skip

    statuses = st.sampled_from([101, 199, 200, 201, 202, 204, 206, 300, 304, 400, 403, 404, 405,
                                413, 416, 418, 429, 500, 501, 503, 599, 600, 999])  # fmt: skip
    return st.one_of(
        lie("status", statuses),
        lie("head", st.sampled_from(_HEADS)),
        lie("redirect", st.sampled_from(_LOCATIONS), st.sampled_from(["301", "303", "307", "308"])),
        lie("location", st.sampled_from(_LOCATIONS)),
        lie("challenge", st.sampled_from(_CHALLENGES)),
        lie("field", st.sampled_from(_TEXTS), st.sampled_from(_FIELDS)),
        lie("added field", st.sampled_from(_TEXTS), st.sampled_from(_FIELDS)),
        lie("no field", st.none(), st.sampled_from(_FIELDS)),
        lie("link", st.sampled_from([*_LOCATIONS, "/v2/app/tags/list", "/v2/_catalog?n=1000"])),
        lie("body", st.sampled_from(_BODIES)),
        lie("json", st.tuples(st.integers(0, 40), st.sampled_from(VALUES))),
        lie("flip", st.integers(0, 400)),
        lie("cut", st.integers(0, 400)),
        lie("more", st.sampled_from([b"\0", b"x" * 600, b"x" * 300_000])),
        lie("encoded", st.sampled_from(["gzip", "gzip twice", "gzip and more", "zstd"])),
        lie("end", st.integers(0, 600)),
    )


def conversation(*routes: str) -> st.SearchStrategy[list[Lie]]:
    """Draw what is wrong with a conversation."""
    return st.lists(_lies(list(routes or ROUTES)), min_size=1, max_size=3)


def replaced(document: Any, number: int, value: Any) -> Any:
    """Return a document with one of its values replaced, the n-th in order."""
    left = number

    def walk(node: Any) -> Any:
        nonlocal left
        left -= 1
        if left == -1:
            return value
        if isinstance(node, dict):
            return {key: walk(inner) for key, inner in node.items()}
        return [walk(inner) for inner in node] if isinstance(node, list) else node

    return walk(document)


def nodes(document: Any) -> int:
    """Return how many values ``replaced`` can replace in a document."""
    inner = document.values() if isinstance(document, dict) else document
    return 1 + (sum(map(nodes, inner)) if isinstance(document, dict | list) else 0)


def _route(path: str) -> str:
    for name, part in (("token", "/token"), ("manifest", "/manifests/"), ("upload", "/uploads/"),
                       ("blob", "/blobs/"), ("tags", "/tags/"), ("search", "/v1/search"),
                       ("catalog", "/_catalog")):  # fmt: skip
        if part in path:
            return name
    return "ping"


class Evil:
    """A registry that lies, and another one to which it may lead.

    Attributes:
        registry: the one.
        other: the other.
        lies: what is wrong with the next conversation.
    """

    def __init__(self, registry: FakeRegistry, other: FakeRegistry) -> None:
        self.registry = registry
        self.other = other
        self.lies: list[Lie] = []
        self._counts: dict[str, int] = {}
        self._kept: Any = None
        registry.hooks.append(self._hook)
        registry.hooks.append(self._search)
        require_token(registry, user="alice", refresh="r3fresh")

    def begin(self, lies: list[Lie]) -> None:
        """Begin a conversation, with what the registry had before the first."""
        if not self._kept:
            self._kept = self.registry.manifests.copy(), self.registry.blobs.copy()
        self.registry.manifests, self.registry.blobs = (kept.copy() for kept in self._kept)
        self.lies = lies
        self._counts.clear()
        self.registry.requests.clear()
        self.other.requests.clear()
        self.registry.uploads.clear()

    def strangers_saw(self) -> list[str]:
        """Return what another host was shown that it should not: more than a token's authority."""
        told = any("//OTHER/token" in str(lie.value) for lie in self.lies)
        return [
            headers["Authorization"] for _, path, headers in self.other.requests
            if "Authorization" in headers and not (told and path.startswith("/token"))
        ]  # fmt: skip

    def _hook(self, request: Handler) -> bool:
        route = _route(request.path)
        number = self._counts[route] = self._counts.get(route, -1) + 1
        lies = [
            lie for lie in self.lies
            if lie.route == route and lie.number <= number < lie.number + lie.times
        ]  # fmt: skip
        if lies:
            request.answer = functools.partial(self._answer, request, lies)  # type: ignore[method-assign]
        return False

    def _search(self, request: Handler) -> bool:
        found = {"search": {"results": [{"name": "app", "description": "d", "star_count": 3}]},
                 "catalog": {"repositories": ["app", "apps"]}}  # fmt: skip
        document = found.get(_route(request.path))
        if document is None:
            return False
        request.answer(200, json.dumps(document).encode())
        return True

    def _answer(
        self,
        request: Handler,
        lies: list[Lie],
        status: int,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        request.close_connection = True
        fields = [*(headers or {}).items()]
        raw, end = None, None
        for lie in lies:
            if lie.kind == "status":
                status = lie.value
            elif lie.kind == "head":
                raw = lie.value
            elif lie.kind == "end":
                end = lie.value
            elif lie.kind == "redirect":
                status = int(lie.name)
                fields.append(("Location", self._named(lie.value)))
            elif lie.kind == "challenge":
                status = 401
                fields = [(n, v) for n, v in fields if n != "WWW-Authenticate"]
                fields.append(("WWW-Authenticate", self._named(lie.value)))
            elif lie.kind in {"location", "link"}:
                name = lie.kind.capitalize()
                value = self._named(lie.value)
                fields = [(n, v) for n, v in fields if n != name]
                fields.append((name, f"<{value}>; rel=next" if name == "Link" else value))
            elif lie.kind in {"field", "no field"}:
                fields = [(n, v) for n, v in fields if n != lie.name]
                fields += [(lie.name, lie.value)] if lie.kind == "field" else []
            elif lie.kind == "added field":
                fields.append((lie.name, lie.value))
            else:
                content, fields = _lied(lie, content, fields)
        if not any(lie.name == "Content-Length" for lie in lies):
            fields.append(("Content-Length", str(len(content) if length is None else length)))
        if raw is None:
            head = "".join(f"{name}: {value}\r\n" for name, value in fields)
            raw = f"HTTP/1.1 {status} x\r\n{head}\r\n".encode("latin-1", errors="replace")
            raw += content if request.command != "HEAD" else b""
        with contextlib.suppress(OSError):
            request.wfile.write(raw[:end])
            request.wfile.flush()

    def _named(self, text: str) -> str:
        return text.replace("HOST", self.registry.host).replace("OTHER", self.other.host)


def _lied(
    lie: Lie, content: bytes, fields: list[tuple[str, str]]
) -> tuple[bytes, list[tuple[str, str]]]:
    """Return an answer's content, and its fields where they tell of it."""
    if lie.kind == "body":
        content = lie.value
    elif lie.kind == "json":
        with contextlib.suppress(ValueError):
            content = json.dumps(replaced(json.loads(content), *lie.value)).encode()
        # So that it is read, and not refused for its digest.
        fields = [(n, sha256(content) if n == "Docker-Content-Digest" else v) for n, v in fields]
    elif lie.kind == "flip" and content:
        where = lie.value % len(content)
        content = content[:where] + bytes([content[where] ^ 0x20]) + content[where + 1 :]
    elif lie.kind == "cut":
        content = content[: lie.value]
    elif lie.kind == "more":
        content += lie.value
    elif lie.kind == "encoded":
        fields = [*fields, ("Content-Encoding", lie.value.split()[0])]
        content = gzip.compress(content)
        content = {"gzip twice": content * 2, "gzip and more": content + b"more"}.get(
            lie.value, content
        )
    return content, fields


class Told(Progress):
    """What was said of a transfer."""

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text = ""

    def say(self, identifier: str, status: str) -> None:
        """See ``Progress.say``."""
        self.text += f"{identifier}: {status}\n"


class Victim:
    """An engine in a directory of its own, to which something is done that it should survive.

    Attributes:
        engine: it.
        told: what it says.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.engine = Engine(Settings(str(directory / "root"), str(directory / "state")))
        self.root = directory / "root"
        self.told = Told()

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Let a block end well, or with one named error, soon, saying nothing to the terminal."""
        self.told.text = ""
        begun = time.monotonic()
        try:
            yield
        except KetchError as error:
            self.told.text += f"{error.message}\n{error.hint}\n"
        assert controls(self.told.text) == []
        assert time.monotonic() - begun < 30

    def left(self) -> list[str]:
        """Return what is in the store, by path; what is below all layers is the engine's."""
        globs = ("blobs/*/*", "ingest/*", "snapshots/*/*")
        found = [path for glob in globs for path in self.root.glob(glob)]
        return [str(path.relative_to(self.root)) for path in found if path.parent.name != BASE]

    def check(self, *, keep: bool = False) -> None:
        """Check that each image is whole and can be used, and that there is nothing else.

        Args:
            keep: whether the images stay, and need not be shown; else nothing may be left.
        """
        images, content = self.engine.images, self.engine.images.content
        needed: set[str] = set()
        for image in images.list():
            manifest = documents.parse_manifest(content.read(image.manifest_digest))
            for blob in (manifest["config"], *manifest["layers"]):
                found = pathlib.Path(content.path(blob["digest"])).read_bytes()
                assert digests.matches(found, blob["digest"])
                assert len(found) == blob["size"]
                needed.add(content.path(blob["digest"]))
            assert all(map(images.snapshotter.exists, image.chain_ids))
            needed |= set(map(images.snapshotter.path, image.chain_ids))
            needed.add(content.path(image.manifest_digest))
            if not keep:
                self._show(image.id)
        index = self.root / "index.json"
        listed = json.loads(index.read_bytes())["manifests"] if index.exists() else []
        assert {entry["digest"] for entry in listed} == {
            image.manifest_digest for image in images.list()
        }
        if not keep:
            every = images.list()
            with images.removing() as removal:
                for image in every:
                    removal.remove(image.id, force=True, prune=False)
            needed = set()
        for container in os.listdir(self.root / "containers") if (
            self.root / "containers").exists() else ():  # fmt: skip
            prepared = images.snapshotter.prepared_on(f"{self.root}/containers/{container}")
            needed |= set(map(images.snapshotter.path, prepared))
        assert {str(self.root / path) for path in self.left()} == needed
        assert sizes.store(images) == self._taken()

    def _taken(self) -> int:
        """Return what du(1) counts of blobs and layers, in bytes, without their own directories."""
        places = [
            str(path)
            for part in ("blobs", "snapshots")
            for path in self.root.glob(f"{part}/*")
            if path.name != BASE
        ]
        if not places:
            return 0
        counted = subprocess.run(["du", "-B1", "-cs", *places], check=True, capture_output=True,
                                 text=True).stdout  # fmt: skip
        return int(counted.split()[-2]) - sum(os.stat(place).st_blocks * 512 for place in places)

    def _show(self, image_id: str) -> None:
        """Show an image in every way, and make a container of it: both work, or name an error."""
        places = ["--root", self.engine.settings.root, "--state", self.engine.settings.state]

        def said(*words: str) -> tuple[int, str]:
            written = io.BytesIO()
            screen = io.TextIOWrapper(written, "utf-8", write_through=True)
            with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
                status = main([*places, *words])
            text = written.getvalue().decode()
            assert controls(text) == []
            assert "internal error" not in text
            return status, text

        for words in (["inspect", image_id], ["history", "--no-trunc", image_id],
                      ["image", "ls", "--digests"], ["image", "ls", "--format", "json"],
                      ["image", "inspect", "--format", "{{json .}}", image_id]):  # fmt: skip
            status, text = said(*words)
            assert status == 0, text
        request: Any = {"Config": {"Image": image_id}, "HostConfig": {}}
        try:
            container = creation.create(self.engine, request)
        except KetchError as error:
            assert error.message  # noqa: PT017 - its configuration may ask for what cannot be
            return
        try:
            status, text = said("export", "-o", str(self.root / "exported.tar"), container.id)
            assert status == 0, text
            with tarfile.open(self.root / "exported.tar") as exported:
                assert exported.getmembers() is not None
        finally:
            self.engine.containers.remove(container.id)


@contextlib.contextmanager
def evil() -> Iterator[Evil]:
    """Run a registry that lies."""
    with fake() as registry, fake() as other:
        yield Evil(registry, other)


def controls(text: str) -> list[str]:
    """Return what a text holds that a terminal would obey."""
    return re.findall("[\0-\x08\x0b-\x1f\x7f-\x9f]", text)
