"""Loading what is hostile, and sudden death amid load and commit, in a whole engine."""

import gzip
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ketch.engine.engine import Engine
from ketch.engine.files import committing
from ketch.engine.images import archive as image_archive
from ketch.engine.images import ingest, saving
from ketch.engine.settings import Settings
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnsupportedError,
)
from ketch.images import tar
from ketch.images.archive import TarSink
from ketch.spec import digest
from ketch.spec import image as documents
from tests.kernel.images.test_engine_images import killed_at_line
from tests.support.archives import archive, member

pytestmark = pytest.mark.root

LAYER = archive(member(b"bin", tar.DIRECTORY, mode=0o755), member(b"bin/sh", data=b"#!"))
UPPER = archive(member(b".wh.bin"), member(b"f", data=b"x"))
CONFIG = documents.encode({
    "architecture": documents.host_platform()["architecture"], "os": "linux",
    "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": [digest.of(LAYER)]},
})  # fmt: skip


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> Engine:
    return Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))


def docker(
    config: bytes = CONFIG,
    layers: Sequence[bytes] = (LAYER,),
    tags: Sequence[str] = ("app:1",),
    manifest: bytes = b"",
) -> bytes:
    """Return an archive in Docker's layout."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    listed = [{"Config": "config.json", "RepoTags": list(tags), "Layers": names}]
    members = {"config.json": config, **dict(zip(names, layers, strict=True)),
               "manifest.json": manifest or json.dumps(listed).encode()}  # fmt: skip
    return archive(*[member(name.encode(), data=data) for name, data in members.items()])


def layout(
    config: bytes = CONFIG, layer: bytes = LAYER, *, blobs: Mapping[str, bytes] | None = None,
    index: object = None, **changes: object,
) -> bytes:  # fmt: skip
    """Return an archive in OCI's layout, some of which may be other than it should."""
    descriptor = documents.descriptor(documents.OCI_LAYER, digest.of(layer), len(layer))
    manifest = documents.encode({
        **documents.manifest(
            documents.descriptor(documents.OCI_CONFIG, digest.of(config), len(config)),
            [{**descriptor, **changes}],  # type: ignore[typeddict-item]
        )
    })  # fmt: skip
    content = {digest.of(blob): blob for blob in (config, layer, manifest)}
    content.update(blobs or {})
    entry = {
        **documents.descriptor(documents.OCI_MANIFEST, digest.of(manifest), len(manifest)),
        "annotations": {"org.opencontainers.image.ref.name": "app:1"},
    }
    listed = {"schemaVersion": 2, "manifests": [entry]} if index is None else index
    return archive(
        member(b"oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}'),
        member(b"index.json", data=json.dumps(listed).encode()),
        *[member(f"blobs/{name.replace(':', '/')}".encode(), data=blob)
          for name, blob in content.items() if blob],
    )  # fmt: skip


def load(engine: Engine, content: bytes, platform: str = "") -> list[str]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        with engine.images.opened_archive(file.fileno()) as source:
            loaded = image_archive.load(engine.images, source, platform=platform)
    return [name for image in loaded for name in image.names]


def assert_nothing(engine: Engine) -> None:
    root = pathlib.Path(engine.settings.root)
    assert engine.images.list() == []
    assert list(engine.images.content.digests()) == []
    assert list(engine.images.snapshotter.chain_ids()) == []
    for place in ("ingest", "snapshots/ingest"):
        assert not (root / place).exists() or os.listdir(root / place) == []


@pytest.mark.parametrize(
    "content",
    [docker(), layout(), gzip.compress(docker()), docker(layers=[gzip.compress(LAYER)])],
    ids=["docker", "oci", "compressed", "compressed layer"],
)
def test_both_layouts_are_loaded(engine: Engine, content: bytes) -> None:
    assert load(engine, content) == ["app:1"]
    image = engine.images.resolve("app:1")
    assert (image.id, image.config) == (digest.of(CONFIG), {"Cmd": ["sh"]})
    assert load(engine, content) == ["app:1"]
    assert len(engine.images.list()) == 1
    engine.images.remove("app:1")
    assert_nothing(engine)


LOOP: dict[str, Any] = {"schemaVersion": 2, "manifests": [
    documents.descriptor(documents.OCI_INDEX, "sha256:" + "0" * 64, 10)]}  # fmt: skip


def wide() -> bytes:
    """Return a layout in whose indexes each of many entries leads to the next level's only one."""
    blobs, below = {}, documents.encode({"schemaVersion": 2, "manifests": []})
    for _ in range(4):
        blobs[digest.of(below)] = below
        entry = documents.descriptor(documents.OCI_INDEX, digest.of(below), len(below))
        below = documents.encode({"schemaVersion": 2, "manifests": [entry] * 200})
    return layout(blobs=blobs, index=json.loads(below))


def nested() -> bytes:
    """Return a layout whose indexes lead to indexes, more deeply than anybody needs."""
    blobs, below = {}, documents.encode({"schemaVersion": 2, "manifests": []})
    for _ in range(7):
        blobs[digest.of(below)] = below
        entry = documents.descriptor(documents.OCI_INDEX, digest.of(below), len(below))
        below = documents.encode({"schemaVersion": 2, "manifests": [entry]})
    return layout(blobs=blobs, index=json.loads(below))


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (archive(member(b"x")), InvalidArgumentError, "neither a manifest.json nor an OCI"),
        (docker()[:2000], InvalidArgumentError, "cut short"),
        (docker(layers=[UPPER]), DigestMismatchError, "content has the digest"),
        (docker(layers=[LAYER, LAYER]), InvalidArgumentError, "layers length mismatch"),
        (docker(layers=[LAYER[:600]]), KetchError, "cut short|digest"),
        (docker(tags=["UPPER:1"]), InvalidArgumentError, "must be lowercase"),
        (docker(tags=["x@sha256:" + "0" * 64]), InvalidArgumentError, "invalid tag"),
        (docker(config=b"{}"), InvalidArgumentError, "image configuration"),
        (docker(config=b"x" * (5 << 20)), InvalidArgumentError, "larger than"),
        (docker(manifest=b"[{}]"), InvalidArgumentError, "Config is not"),
        (docker(manifest=b'[{"Config":"/etc/passwd"}]'), NotFoundError, "lacks"),
        (docker(manifest=b'[{"Config":"../../etc/passwd"}]'),
         InvalidArgumentError, "leads out"),
        (layout(blobs={digest.of(LAYER): UPPER}), DigestMismatchError, "size|digest|long"),
        (layout(blobs={digest.of(LAYER): LAYER + b"x" * 512}), DigestMismatchError, "longer"),
        (layout(blobs={digest.of(LAYER): b""}), NotFoundError, "lacks"),
        (layout(blobs={digest.of(CONFIG): CONFIG.replace(b"sh", b"su")}), DigestMismatchError,
         "another digest"),
        (layout(size=len(LAYER) + 1), DigestMismatchError, "bytes long"),
        (layout(size=-1), InvalidArgumentError, "size is not"),
        (layout(digest="sha256:../../../etc/passwd"), InvalidArgumentError, "digest"),
        (layout(urls=["http://example.org/layer"]), UnsupportedError, "foreign"),
        (layout(index=LOOP), NotFoundError, "lacks blob"),
        (layout(index={"schemaVersion": 1}), InvalidArgumentError, "schemaVersion"),
        (nested(), InvalidArgumentError, "nested more than"),
        (wide(), NotFoundError, "no image for"),
        (layout(index={"schemaVersion": 2, "manifests": [{**LOOP["manifests"][0],
                "annotations": []}]}), InvalidArgumentError, "annotations"),
        (layout(index={"schemaVersion": 2, "manifests": [{**LOOP["manifests"][0],
                "platform": {"os": "linux", "architecture": "s390x", "variant": None}},
                LOOP["manifests"][0]]}), NotFoundError, "lacks blob"),
        (layout(layer=archive(member(b"../x")), config=CONFIG.replace(
            digest.of(LAYER).encode(), digest.of(archive(member(b"../x"))).encode())),
         InvalidArgumentError, "leads out of the layer"),
    ],
)  # fmt: skip
def test_what_is_hostile_ends_in_a_named_error_and_nothing_stays(
    engine: Engine, content: bytes, kind: type[KetchError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        load(engine, content)
    assert_nothing(engine)


def test_a_blob_and_a_layer_that_are_here_and_are_not_the_same(engine: Engine) -> None:
    packed = {content: gzip.compress(content, mtime=0) for content in (LAYER, UPPER)}

    def one(content: bytes, blob: bytes) -> bytes:
        config = CONFIG.replace(digest.of(LAYER).encode(), digest.of(content).encode())
        return layout(config, packed[blob], mediaType=f"{documents.OCI_LAYER}+gzip")

    load(engine, one(LAYER, LAYER))
    config = CONFIG.replace(b'"sh"', b'"x"').replace(
        digest.of(LAYER).encode(), digest.of(UPPER).encode()
    )
    load(engine, layout(config, packed[UPPER], mediaType=f"{documents.OCI_LAYER}+gzip"))
    with pytest.raises(DigestMismatchError, match="promises"):
        load(engine, one(UPPER, LAYER))


def test_sizes_that_no_database_can_hold() -> None:
    place = pathlib.Path("/dev/shm")
    if not place.is_dir():
        pytest.skip("there is no file system that allows files of any size")
    with tempfile.TemporaryDirectory(dir=place) as directory:
        engine = Engine(Settings(f"{directory}/root", f"{directory}/state"))
        sparse = {b"GNU.sparse.map": b"0,1", b"GNU.sparse.size": b"%d" % ((1 << 62) - 1)}
        members = [member(b"f%d" % number, data=b"x", pax=sparse) for number in range(3)]
        with pytest.raises(InvalidArgumentError, match="have more than"):
            ingest.import_image(engine.images, io.BytesIO(archive(*members)))
        assert_nothing(engine)


def test_documents_do_not_fill_the_memory(engine: Engine) -> None:
    members = []
    listed = []
    for number in range(40):
        padded = CONFIG[:-1] + b',"n":%d,"x":"%s"}' % (number, b"x" * (2 << 20))
        members.append(member(b"c%d" % number, data=padded))
        listed.append({"Config": f"c{number}", "Layers": ["l"]})
    members.append(member(b"manifest.json", data=json.dumps(listed).encode()))
    with pytest.raises(InvalidArgumentError, match=r"documents .* take more than 64 MiB"):
        load(engine, archive(*members))
    assert_nothing(engine)


def test_a_layer_that_becomes_too_large_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ketch.images.unpacking.room", lambda _: 1 << 20)
    bomb = gzip.compress(archive(member(b"f", data=bytes(4 << 20))))
    with pytest.raises(InvalidArgumentError, match="for which there is no room"):
        load(engine, docker(layers=[bomb]))
    assert_nothing(engine)


def test_of_several_platforms_the_one_that_fits_is_taken(engine: Engine) -> None:
    def platform(architecture: str) -> tuple[bytes, dict[str, object], dict[str, bytes]]:
        config = CONFIG.replace(
            documents.host_platform()["architecture"].encode(), architecture.encode(), 1
        )
        manifest = documents.encode(documents.manifest(
            documents.descriptor(documents.OCI_CONFIG, digest.of(config), len(config)),
            [documents.descriptor(documents.OCI_LAYER, digest.of(LAYER), len(LAYER))],
        ))  # fmt: skip
        entry: dict[str, object] = {
            **documents.descriptor(documents.OCI_MANIFEST, digest.of(manifest), len(manifest)),
            "platform": {"os": "linux", "architecture": architecture},
        }
        return config, entry, {digest.of(blob): blob for blob in (config, manifest)}

    here = documents.host_platform()["architecture"]
    own, other = platform(here), platform("s390x")
    index = documents.encode({"schemaVersion": 2, "manifests": [other[1], own[1]]})
    entry = {
        **documents.descriptor(documents.OCI_INDEX, digest.of(index), len(index)),
        "annotations": {"io.containerd.image.name": "docker.io/library/app:1"},
    }
    content = layout(
        blobs={**own[2], **other[2], digest.of(index): index},
        index={"schemaVersion": 2, "manifests": [entry]},
    )
    assert load(engine, content) == ["app:1"]
    assert engine.images.resolve("app:1").id == digest.of(own[0])
    assert load(engine, content, platform="linux/s390x") == ["app:1"]
    assert engine.images.resolve("app:1").id == digest.of(other[0])
    with pytest.raises(NotFoundError):
        load(engine, content, platform="linux/riscv64")


def consistent(engine: Engine) -> None:
    """Check that what is recorded is whole and that all else goes."""
    images = engine.images.list()
    for image in images:
        manifest = documents.parse_manifest(engine.images.content.read(image.manifest_digest))
        assert all(layer["digest"] in engine.images.content for layer in manifest["layers"])
        assert all(map(engine.images.snapshotter.exists, image.chain_ids))
    engine.images.collect_garbage()
    path = pathlib.Path(engine.settings.root, "index.json")
    listed = json.loads(path.read_bytes())["manifests"] if path.exists() else []
    assert {entry["digest"] for entry in listed} == {image.manifest_digest for image in images}
    layers = {chain for image in images for chain in image.chain_ids}
    assert set(engine.images.snapshotter.chain_ids()) == layers
    assert len(list(engine.images.content.digests())) == 2 * len(images) + len(layers)


def test_a_load_killed_at_any_line_can_be_repeated(tmp_path: pathlib.Path) -> None:
    settings = Settings(str(tmp_path / "root"), str(tmp_path / "state"))
    number, kills = 1, 0
    while killed_at_line(number, lambda: load(Engine(settings), docker())):
        kills += 1
        consistent(Engine(settings))
        number += 1 + number // 8
    consistent(Engine(settings))
    # However it went: other tools' list is as ketch's own.
    index = json.loads(pathlib.Path(settings.root, "index.json").read_bytes())
    assert len(index["manifests"]) == 1
    assert kills > 30
    assert Engine(settings).images.resolve("app:1").id == digest.of(CONFIG)


def test_a_commit_killed_at_any_line_leaves_an_image_or_none(tmp_path: pathlib.Path) -> None:
    settings = Settings(str(tmp_path / "root"), str(tmp_path / "state"))
    load(Engine(settings), docker())
    engine = Engine(settings)
    image = engine.images.resolve("app:1")
    container = engine.containers.create_record(
        "c" * 64, name="box", image_id=image.id, image_reference="app:1", record={"Config": {}}
    )
    directory = engine.settings.container_directory(container.id)
    engine.images.snapshotter.prepare(directory, image.chain_ids)
    pathlib.Path(directory, "upper", "new").write_bytes(b"x" * 70_000)
    engine.containers.mark_created(container.id)
    engine.store.close()

    def work() -> None:
        committing.commit(Engine(settings), "box", "made", changes=["CMD new"])

    number, kills = 1, 0
    while killed_at_line(number, work):
        kills += 1
        consistent(Engine(settings))
        number += 1 + number // 6
    consistent(Engine(settings))
    assert kills > 20
    made = Engine(settings).images.resolve("made")
    assert (made.parent_id, len(made.chain_ids)) == (image.id, 2)


def test_what_is_saved_is_the_same_each_time_and_loads_elsewhere(
    engine: Engine, tmp_path: pathlib.Path
) -> None:
    load(engine, docker(tags=["app:1", "app:2"]))
    saved = []
    for texts in (["app:1", "app:2"], ["app"]):
        buffer = io.BytesIO()
        saving.save(engine.images, texts, TarSink(buffer.write))
        saved.append(buffer.getvalue())
    assert saved[0] == saved[1]
    other = Engine(Settings(str(tmp_path / "other"), str(tmp_path / "state")))
    assert load(other, saved[0]) == ["app:1", "app:2"]
    assert other.images.resolve("app:2").manifest_digest == (
        engine.images.resolve("app:1").manifest_digest
    )
    with pytest.raises(NotFoundError):
        saving.save(engine.images, ["app:1"], TarSink(len), platform="linux/s390x")
