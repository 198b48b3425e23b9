"""Whatever a registry answers: a result, or one named error, in bounded time; no secrets abroad."""

import pathlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given

from ketch.errors import KetchError, UnavailableError
from ketch.images.registry import login, manifest_lists, push, resolve
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.manifest_lists import ManifestLists
from ketch.images.registry.registries import Registries
from ketch.images.registry.repository import Repository
from ketch.images.registry.search import search
from ketch.spec import image as documents
from ketch.spec import reference as references
from tests.support.archives import archive, member
from tests.support.evil import Evil, Lie, controls, conversation, evil, examples
from tests.support.registry import FakeRegistry, Handler, sha256

BLOB = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def liar() -> Iterator[Evil]:
    with evil() as running:
        image = running.registry.add_image("app", "1", archive(member(b"f", data=b"x")))
        platform = documents.host_platform()
        index = {"schemaVersion": 2, "manifests": [{**image, "platform": platform}]}
        running.registry.add_manifest("app", "all", index, documents.OCI_INDEX)
        yield running


def attacked(liar: Evil, lies: list[Lie], work: Callable[[Registries], object]) -> None:
    """Do something while a registry lies."""
    liar.begin(lies)
    settings = Configuration({"timeout-seconds": 1, "max-download-attempts": 2})
    who = Credentials("alice", "s3cret")
    begun = time.monotonic()
    with Registries({}, credentials=who, settings=settings) as registries:
        registries.transport.sleep = lambda _: None
        try:
            work(registries)
        except KetchError as error:
            said = error.message + error.hint
            assert said and not controls(said)  # noqa: PT018 - either outcome is right
    assert time.monotonic() - begun < 20
    assert len(liar.registry.requests) < 150
    assert liar.strangers_saw() == []


def name(liar: Evil, rest: str = "/app:1") -> references.Reference:
    return references.parse(liar.registry.host + rest)


@examples(120)
@given(lies=conversation("ping", "token", "manifest", "blob", "tags"))
def test_reading(liar: Evil, lies: list[Lie]) -> None:
    def read(registries: Registries) -> None:
        repository = registries.repository(name(liar))
        for reference in ("1", "all"):
            target = resolve.resolve(repository, reference, documents.host_platform())
            assert sha256(target.manifest_content) == target.manifest_digest
            assert sha256(target.config_content) == target.image_id
        assert all(isinstance(tag, str) for tag in repository.tags())
        repository.manifest_digest("1")

    attacked(liar, lies, read)


@examples(100)
@given(lies=conversation("ping", "token", "blob", "upload", "manifest"))
def test_uploading(liar: Evil, lies: list[Lie]) -> None:
    def write(registries: Registries) -> None:
        repository = registries.repository(name(liar), push=True)
        with tempfile.TemporaryFile() as file:
            file.write(BLOB)
            file.flush()
            push.mount(repository, sha256(BLOB), ["other"])
            push.send(repository, sha256(BLOB), file.fileno(), len(BLOB), attempts=2,
                      sent=lambda _: None)  # fmt: skip
        repository.put_manifest("2", documents.OCI_MANIFEST, b"{}")

    attacked(liar, lies, write)


@examples(60)
@given(lies=conversation("ping", "token"))
def test_logging_in(liar: Evil, lies: list[Lie]) -> None:
    def log_in(registries: Registries) -> None:
        found = login.log_in(registries, liar.registry.host, Credentials("alice", "s3cret"))
        found.identity_token.encode("ascii")

    attacked(liar, lies, log_in)


@examples(60)
@given(lies=conversation("ping", "search", "catalog"))
def test_searching(liar: Evil, lies: list[Lie]) -> None:
    def find(registries: Registries) -> None:
        for image in search(registries, f"{liar.registry.host}/app"):
            assert isinstance(image.name, str)
            assert type(image.stars) is int

    attacked(liar, lies, find)


@examples(60)
@given(lies=conversation("ping", "token", "manifest", "blob"))
def test_lists_of_manifests(liar: Evil, lies: list[Lie]) -> None:
    def make(registries: Registries) -> None:
        with tempfile.TemporaryDirectory() as directory:
            lists = ManifestLists({"DOCKER_CONFIG": directory})
            try:
                for entry in manifest_lists.fetch_all(registries, name(liar, "/app:all")):
                    assert entry.document()
                target = f"{liar.registry.host}/app:list"
                manifest_lists.create(lists, registries, target, [str(name(liar))])
                manifest_lists.annotate(lists, target, str(name(liar)), {"variant": "v1"})
                manifest_lists.push(lists, registries, target)
            finally:
                left = list(pathlib.Path(directory).glob("manifests/.*"))
                assert left == []

    attacked(liar, lies, make)


# Pace


def dribbling(registry: FakeRegistry, first: bytes, piece: bytes, seconds: float) -> None:
    """Have manifests come piece by piece, for ever."""

    def hook(request: Handler) -> bool:
        if "/manifests/" not in request.path:
            return False
        request.close_connection = True
        request.wfile.write(first)
        while True:
            request.wfile.write(piece)
            request.wfile.flush()
            time.sleep(seconds)

    registry.hooks.append(hook)


# By us, or by http.client where that counts them too: since Python 3.14.
WITHOUT_END = "more head or trailer than any answer needs|got more than 100"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "piece", "seconds", "message"),
    [
        (b"HTTP/1.1 200 O", b"K", 0.05, "stalls"),
        (HEAD, b" ", 0.05, "stalls"),
        (CHUNKED, b"1\r\n \r\n", 0.05, "stalls"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, 0.0, WITHOUT_END),
        (CHUNKED + b"0\r\n", b"t: x\r\n" * 5000, 0.0, WITHOUT_END),
        (CHUNKED + b"1", b";x" * 5000, 0.0, "broke"),
    ],
    ids=["head", "body", "chunks", "interim answers", "trailers", "chunk extension"],
)
def test_an_answer_without_end(
    registry: FakeRegistry, repository: Callable[..., Repository], first: bytes,
    piece: bytes, seconds: float, message: str,
) -> None:  # fmt: skip
    dribbling(registry, first, piece, seconds)
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match=message):
        repository(timeout_seconds=1).manifest("1")
    assert time.monotonic() - begun < 5


def test_a_slow_answer_that_comes_is_taken(
    registry: FakeRegistry, repository: Callable[..., Repository]
) -> None:
    """What comes at more than the least pace may take as long as it does."""
    registry.add_image("app", "1", b"")
    kind, content = registry.manifests["app", "1"]
    content = content.ljust(100_000)
    registry.manifests["app", "1"] = (kind, content)

    def hook(request: Handler) -> bool:
        if "/manifests/" not in request.path:
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for start in range(0, len(content), 5000):
            request.wfile.write(content[start : start + 5000])
            request.wfile.flush()
            time.sleep(0.08)
        return True

    registry.hooks.append(hook)
    assert repository(timeout_seconds=1).manifest("1").content == content


def test_a_connection_is_used_again(
    registry: FakeRegistry, repository: Callable[..., Repository],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    registry.add_image("app", "1", b"")
    opened: list[object] = []
    connect = socket.socket.connect

    def counted(self: socket.socket, address: object) -> None:
        opened.append(address)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", counted)
    one = repository()
    for _ in range(5):
        one.manifest("1")
    assert len(opened) < 4
