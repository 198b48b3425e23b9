"""Pulls into a whole engine, from registries that break every promise they make."""

import bz2
import gzip
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zstandard

from ketch.engine.images.images import Images
from ketch.engine.images.pulling import Puller
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)
from ketch.images import tar
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.progress import Progress
from ketch.images.registry.registries import Registries
from tests.support.archives import archive, member
from tests.support.registry import FakeRegistry, Handler, fake, sha256

pytestmark = pytest.mark.root

NOISE = os.urandom(3 << 20)  # does not compress, so that there is something to break off
BASE = archive(member(b"bin", tar.DIRECTORY, mode=0o755), member(b"bin/sh", data=NOISE))
MIDDLE = archive(member(b"etc/passwd", data=b"root:x:0:0::/:\n"))
TOP = archive(member(b"bin/.wh.sh"), member(b"bin/ash", data=b"#!"))


class Told(Progress):
    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, identifier: str, status: str) -> None:
        self.lines.append(f"{identifier}: {status}" if identifier else status)


class Engine:
    """An engine in a directory of its own."""

    def __init__(self, directory: pathlib.Path, registry: FakeRegistry) -> None:
        self.root = directory / "root"
        settings = Settings(str(self.root), str(directory / "state"))
        self.images = Images(settings, Store(settings.root))
        self.registry = registry
        self.told = Told()

    def pull(self, name: str = "app:1", platform: str = "", **settings: object) -> str:
        document = {"timeout-seconds": 2, "max-download-attempts": 2}
        document |= {key.replace("_", "-"): value for key, value in settings.items()}  # type: ignore[misc]
        configuration = Configuration(document, "test")
        with Registries({}, credentials=Credentials(), settings=configuration) as registries:
            registries.transport.sleep = lambda _: None
            puller = Puller(self.images, registries, self.told, platform=platform)
            return str(puller.pull(f"{self.registry.host}/{name}"))

    def left(self) -> list[str]:
        """Return what is in the store, by path."""
        kept = ("blobs/*/*", "ingest/*", "snapshots/*/*")
        return [str(path.relative_to(self.root)) for glob in kept for path in self.root.glob(glob)]


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake() as running:
        yield running


@pytest.fixture
def engine(tmp_path: pathlib.Path, registry: FakeRegistry) -> Engine:
    return Engine(tmp_path, registry)


def plain_zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


# What works


def test_a_hole_is_unpacked_while_it_arrives(engine: Engine, registry: FakeRegistry) -> None:
    data = bytes(4 << 20) + b"end"
    content = archive(member(b"disk", data=data))
    registry.add_image("app", "1", content, compress=bytes, suffix="")

    def in_two_parts(request: Handler) -> bool:
        if request.command != "GET" or not request.path.endswith(sha256(content)):
            return False
        request.answer(200, content[: 2 << 20], length=len(content))
        request.wfile.flush()
        time.sleep(0.3)  # the unpacking has come to where the file ends, in the middle of a hole
        request.wfile.write(content[2 << 20 :])
        return True

    registry.hooks.append(in_two_parts)
    engine.pull()
    [disk] = engine.root.glob("snapshots/sha256/*/diff/disk")
    assert disk.read_bytes() == data
    assert disk.stat().st_blocks * 512 < 1 << 19


@pytest.mark.parametrize(
    ("compress", "suffix"), [(gzip.compress, "+gzip"), (plain_zstd, "+zstd"), (bytes, "")]
)
def test_an_image_of_three_layers(
    engine: Engine, registry: FakeRegistry, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    described = registry.add_image("app", "1", BASE, MIDDLE, TOP, compress=compress, suffix=suffix)
    assert engine.pull() == f"{registry.host}/app:1"
    image = engine.images.resolve(f"{registry.host}/app:1")
    assert image.manifest_digest == described["digest"]
    assert image.names == [
        f"{registry.host}/app:1", f"{registry.host}/app@{described['digest']}"
    ]  # fmt: skip
    assert image.size_bytes == len(NOISE) + 15 + 2
    assert all(map(engine.images.snapshotter.exists, image.chain_ids))
    assert engine.told.lines[0] == "1: Pulling from app"
    assert sum("Pull complete" in line for line in engine.told.lines) == 3
    assert engine.told.lines[-2:] == [
        f"Digest: {described['digest']}",
        f"Status: Downloaded newer image for {registry.host}/app:1",
    ]
    requests = len(registry.requests)
    engine.pull()
    assert engine.told.lines[-1] == f"Status: Image is up to date for {registry.host}/app:1"
    assert [method for method, _, _ in registry.requests[requests:]] in (["GET", "HEAD"], ["HEAD"])


def test_an_image_that_is_deleted_while_the_registry_is_asked_is_pulled_anew(
    engine: Engine, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found unchanged, it was recorded again without what had been deleted of it."""
    registry.add_image("app", "1", BASE, MIDDLE)
    name = engine.pull()
    unchanged = Puller._unchanged

    def slowly(self: Puller, *arguments: Any) -> str:
        digest = unchanged(self, *arguments)
        if digest:
            engine.images.remove(name)
            assert engine.left() == []
        return digest

    monkeypatch.setattr(Puller, "_unchanged", slowly)
    assert engine.pull() == name
    image = engine.images.resolve(name)
    manifest = json.loads(engine.images.content.read(image.manifest_digest))
    assert all(layer["digest"] in engine.images.content for layer in manifest["layers"])
    assert all(map(engine.images.snapshotter.exists, image.chain_ids))
    assert engine.told.lines[-1] == f"Status: Downloaded newer image for {name}"


def test_layers_that_are_here_are_not_fetched(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", BASE, MIDDLE)
    registry.add_image("app", "2", BASE, TOP)
    engine.pull("app:1")
    registry.requests.clear()
    engine.pull("app:2")
    fetched = [path for method, path, _ in registry.requests if "/blobs/" in path]
    assert len(fetched) == 2  # a layer and a configuration
    assert sum("Already exists" in line for line in engine.told.lines) == 1


def test_the_same_layer_twice_and_none(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", MIDDLE, MIDDLE)
    registry.add_image("app", "2")
    engine.pull("app:1")
    engine.pull("app:2")
    assert engine.images.resolve(f"{registry.host}/app:2").size_bytes == 0


def test_by_digest(engine: Engine, registry: FakeRegistry) -> None:
    described = registry.add_image("app", "1", MIDDLE)
    engine.pull(f"app@{described['digest']}")
    image = engine.images.resolve(f"{registry.host}/app@{described['digest']}")
    assert image.names == [f"{registry.host}/app@{described['digest']}"]


def test_a_tag_that_moved(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", MIDDLE)
    engine.pull()
    described = registry.add_image("app", "1", TOP)
    engine.pull()
    image = engine.images.resolve(f"{registry.host}/app:1")
    assert image.manifest_digest == described["digest"]
    assert len(engine.images.list()) == 2


def test_events_tell_of_it(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", MIDDLE)
    engine.pull()
    with Store(str(engine.root)).reading() as connection:
        rows = connection.execute("SELECT type, action, actor_id FROM event").fetchall()
    assert ("image", "pull", f"{registry.host}/app:1") in [tuple(row) for row in rows]


# Broken off, and gone on


def breaking(registry: FakeRegistry, digest: str, times: int, after: int = 1_000_000) -> None:
    """Have the registry close the connection in the middle of a blob, some times."""
    left = [times]

    def hook(request: Handler) -> bool:
        if digest not in request.path or not left[0]:
            return False
        left[0] -= 1
        content = registry.blobs[digest]
        first = int(request.headers.get("Range", "bytes=0-")[6:-1])
        span = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        request.answer(206 if first else 200, content[first : first + after], span if first else {},
                       length=len(content) - first)  # fmt: skip
        return True

    registry.hooks.append(hook)


def layer(registry: FakeRegistry, number: int = 0) -> str:
    document = json.loads(registry.manifests["app", "1"][1])
    return str(document["layers"][number]["digest"])


def test_a_broken_download_goes_on_by_range(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", BASE)
    breaking(registry, layer(registry), 2)
    engine.pull()
    asked = [
        headers.get("Range") for _, path, headers in registry.requests if layer(registry) in path
    ]
    assert asked == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_registry_without_ranges_sends_it_all_again(
    engine: Engine, registry: FakeRegistry
) -> None:
    registry.add_image("app", "1", BASE)
    digest = layer(registry)
    first = [True]

    def hook(request: Handler) -> bool:
        if digest not in request.path:
            return False
        content = registry.blobs[digest]
        cut = 1_000_000 if first else len(content)
        first.clear()
        request.answer(200, content[:cut], length=len(content))
        return True

    registry.hooks.append(hook)
    engine.pull()
    assert engine.images.resolve(f"{registry.host}/app:1")


def test_a_download_that_never_ends_well_is_given_up(
    engine: Engine, registry: FakeRegistry
) -> None:
    registry.add_image("app", "1", BASE, MIDDLE)
    breaking(registry, layer(registry), 1_000_000, after=0)
    with pytest.raises(UnavailableError, match="after 0 of"):
        engine.pull()
    assert engine.left() == []


# Lies; each is told by its name, and leaves nothing


def hook_blob(registry: FakeRegistry, digest: str, answer: Callable[[Handler], None]) -> None:
    def hook(request: Handler) -> bool:
        if digest not in request.path or request.command != "GET":
            return False
        answer(request)
        return True

    registry.hooks.append(hook)


def stall(request: Handler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "5000000")
    request.end_headers()
    request.wfile.write(b"\x1f\x8b\x08")
    request.wfile.flush()
    time.sleep(3)
    request.close_connection = True


LIES: dict[
    str, tuple[Callable[[FakeRegistry, str], Callable[[Handler], None]], type[KetchError], str]
]
LIES = {
    "another blob": (
        lambda registry, digest: lambda request: request.answer(
            200, gzip.compress(MIDDLE + bytes(9))[: len(registry.blobs[digest])].ljust(
                len(registry.blobs[digest]), b"x")),
        KetchError, "blob|layer|digest|damaged",
    ),
    "cut short": (
        lambda registry, digest: lambda request: request.answer(200, registry.blobs[digest][:-9]),
        UnavailableError, "where the descriptor says",
    ),
    "too long": (
        lambda registry, digest: lambda request: request.answer(200, registry.blobs[digest] + b"x"),
        RegistryError, "has more than",
    ),
    "not there": (
        lambda registry, digest: lambda request: registry.refuse(request, 404, "BLOB_UNKNOWN", "n"),
        NotFoundError, "not found: blob unknown: n",
    ),
    "another part": (
        lambda registry, digest: lambda request: request.answer(
            206, registry.blobs[digest][5:], {"Content-Range": "bytes 5-9/10"}),
        RegistryError, "another part",
    ),
    "elsewhere": (
        lambda registry, digest: lambda request: request.answer(
            307, b"", {"Location": "file:///etc/shadow"}),
        RegistryError, "cannot have the address",
    ),
    "stalls": (lambda registry, digest: stall, UnavailableError, "stalls"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_layer_that_is_not_what_it_should_be(
    engine: Engine, registry: FakeRegistry, lie: str
) -> None:
    make, kind, message = LIES[lie]
    registry.add_image("app", "1", BASE, MIDDLE, TOP)
    digest = layer(registry, 1)
    hook_blob(registry, digest, make(registry, digest))
    with pytest.raises(kind, match=message):
        engine.pull(timeout_seconds=1)
    assert engine.left() == []
    assert engine.images.list() == []


@pytest.mark.parametrize("lie", LIES)
def test_a_mirror_s_lies_are_forgiven(engine: Engine, registry: FakeRegistry, lie: str) -> None:
    """What a mirror does not have rightly comes from the registry itself."""
    make, _, _ = LIES[lie]
    registry.add_image("app", "1", BASE, MIDDLE, TOP)
    digest = layer(registry, 1)
    with fake() as mirror:
        mirror.manifests, mirror.blobs = registry.manifests, registry.blobs
        hook_blob(mirror, digest, make(registry, digest))
        engine.pull(timeout_seconds=1, mirrors={registry.host: [f"http://{mirror.host}"]})
        assert any(digest in path for _, path, _ in mirror.requests)
    assert any(digest in path for _, path, _ in registry.requests)
    assert len(engine.images.resolve(f"{registry.host}/app:1").chain_ids) == 3


def test_the_registry_s_own_failure_is_told_after_a_mirror_s(
    engine: Engine, registry: FakeRegistry
) -> None:
    with fake() as mirror, pytest.raises(NotFoundError, match="manifest unknown"):
        engine.pull(mirrors={registry.host: [f"http://{mirror.host}"]})
    assert engine.left() == []


def test_a_blob_and_a_layer_that_are_here_and_are_not_the_same(
    engine: Engine, registry: FakeRegistry
) -> None:
    """Each is known, and the manifest says of one what holds of the other."""
    registry.add_image("app", "1", MIDDLE)
    registry.add_image("app", "2", TOP)
    engine.pull("app:1")
    engine.pull("app:2")
    before = sorted(engine.left())
    registry.add_image("app", "3", TOP, author="another")
    document = json.loads(registry.manifests["app", "3"][1])
    document["layers"] = json.loads(registry.manifests["app", "1"][1])["layers"]
    registry.add_manifest("app", "3", document)
    with pytest.raises(DigestMismatchError, match="promises"):
        engine.pull("app:3")
    document["layers"] = json.loads(registry.manifests["app", "2"][1])["layers"]
    document["layers"][0]["size"] += 1
    registry.add_manifest("app", "3", document)
    with pytest.raises(DigestMismatchError, match="as its descriptor says"):
        engine.pull("app:3")
    document["layers"][0]["size"] -= 1
    assert sorted(engine.left()) == before
    registry.add_manifest("app", "3", document)
    engine.pull("app:3")
    assert engine.told.lines.count(f"{document['layers'][0]['digest'][7:19]}: Already exists") == 1


def test_a_flipped_bit(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", BASE, compress=bytes, suffix="")
    digest = layer(registry)
    content = bytearray(registry.blobs[digest])
    content[2000] ^= 1
    registry.blobs[digest] = bytes(content)
    with pytest.raises(DigestMismatchError):
        engine.pull()
    assert engine.left() == []


@pytest.mark.parametrize(
    ("compress", "suffix"),
    [(plain_zstd, "+gzip"), (bytes, "+gzip"), (gzip.compress, ""), (bz2.compress, ""),
     (gzip.compress, "+zstd")],
)  # fmt: skip
def test_a_mislabelled_layer(
    engine: Engine, registry: FakeRegistry, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    registry.add_image("app", "1", MIDDLE, compress=compress, suffix=suffix)
    with pytest.raises(InvalidArgumentError, match="is said to be"):
        engine.pull()
    assert engine.left() == []


def test_a_configuration_that_promises_other_content(
    engine: Engine, registry: FakeRegistry
) -> None:
    rootfs = {"type": "layers", "diff_ids": [sha256(TOP)]}
    registry.add_image("app", "1", MIDDLE, rootfs=rootfs)
    with pytest.raises(DigestMismatchError, match="promises"):
        engine.pull()
    assert engine.left() == []


def test_a_manifest_that_lies_about_a_size(engine: Engine, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", MIDDLE)
    kind, content = registry.manifests["app", "1"]
    size = len(registry.blobs[layer(registry)])
    for wrong in (size - 1, size + 1, 0):
        registry.manifests["app", "1"] = (
            kind, content.replace(b'"size": %d' % size, b'"size": %d' % wrong)
        )  # fmt: skip
        with pytest.raises(KetchError):
            engine.pull()
        assert engine.left() == []


@pytest.mark.parametrize(
    "content", [b"", b"no archive" * 100, BASE[:-1024][:2_000_000], archive(member(b"../x"))]
)
def test_a_layer_that_is_no_archive(engine: Engine, registry: FakeRegistry, content: bytes) -> None:
    registry.add_image("app", "1", content)
    if not content:
        engine.pull()  # an empty archive is one
        return
    with pytest.raises(InvalidArgumentError):
        engine.pull()
    assert engine.left() == []


def test_a_bomb_is_stopped_by_the_room_there_is(
    engine: Engine, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ketch.images import unpacking

    monkeypatch.setattr(unpacking, "room", lambda _: 1 << 20)
    registry.add_image("app", "1", archive(member(b"zeros", data=bytes(8 << 20))))
    with pytest.raises(InvalidArgumentError, match="for which there is no room"):
        engine.pull()
    assert engine.left() == []


def test_a_registry_that_changes_its_answer(engine: Engine, registry: FakeRegistry) -> None:
    """First one blob, then, when asked for the rest of it, another one's."""
    registry.add_image("app", "1", BASE)
    digest = layer(registry)
    other = os.urandom(len(registry.blobs[digest]))
    breaking(registry, digest, 1)
    hook_blob(registry, digest, lambda request: request.answer(
        206, other[1_000_000:], {"Content-Range": f"bytes 1000000-{len(other) - 1}/{len(other)}"}
    ))  # fmt: skip
    with pytest.raises(KetchError):
        engine.pull()
    assert engine.left() == []


# Sudden death, and a change of mind


def test_ctrl_c_does_not_wait_for_a_registry_that_stalls(
    engine: Engine, registry: FakeRegistry
) -> None:
    registry.add_image("app", "1", BASE)
    stalls = threading.Event()

    def hang(request: Handler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "5000000")
        request.end_headers()
        request.wfile.flush()
        stalls.set()
        time.sleep(20)

    hook_blob(registry, layer(registry), hang)
    process = subprocess.Popen(
        [sys.executable, "-c", _PULL, str(engine.root), f"{registry.host}/app:1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert stalls.wait(20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, b"")
    assert engine.left() == []


_PULL = """
import sys
from ketch.cli.main import main
sys.exit(main(["--root", sys.argv[1], "--state", sys.argv[1] + "-state", "pull", sys.argv[2]]))
"""


def test_kill_9_loses_nothing_whole_and_leaves_nothing_half(
    engine: Engine, registry: FakeRegistry
) -> None:
    registry.add_image("app", "0", MIDDLE)
    registry.add_image("app", "1", BASE, MIDDLE, TOP)
    engine.pull("app:0")
    before = sorted(engine.left())
    for delay in (0.3, 0.4, 0.5, 0.6, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-c", _PULL, str(engine.root), f"{registry.host}/app:1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        engine.images.collect_garbage()
        if len(engine.images.list()) == 1:
            assert sorted(engine.left()) == before
        else:
            image = engine.images.resolve(f"{registry.host}/app:1")
            assert all(map(engine.images.snapshotter.exists, image.chain_ids))
            engine.images.remove(f"{registry.host}/app:1")
    assert engine.images.resolve(f"{registry.host}/app:0").document
    engine.pull("app:1")
    assert io.BytesIO(engine.images.content.read(layer(registry, 1)))
