"""A repository's documents, tags and uploads, from registries good and bad."""

import os
import pathlib
from collections.abc import Callable

import pytest

from ketch.errors import (
    DigestMismatchError,
    KetchError,
    NotFoundError,
    RegistryError,
    UnavailableError,
    UnsupportedError,
)
from ketch.images.registry import push, resolve
from ketch.images.registry.repository import Repository
from ketch.spec import image as documents
from tests.support.registry import OCI_INDEX, FakeRegistry, Handler, sha256

Open = Callable[..., Repository]
AMD64: "documents.Platform" = {"architecture": "amd64", "os": "linux"}
CONTENT = bytes(range(256)) * 4096


def instead(registry: FakeRegistry, part: str, status: int, content: bytes, **headers: str) -> None:
    """Have the registry answer otherwise where a path has a part."""

    def hook(request: Handler) -> bool:
        if part not in request.path:
            return False
        request.answer(status, content, {k.replace("_", "-"): v for k, v in headers.items()})
        return True

    registry.hooks.append(hook)


# Documents


def test_a_manifest_of_a_tag_and_of_a_digest(registry: FakeRegistry, repository: Open) -> None:
    described = registry.add_image("app", "1", b"")
    for reference in ("1", described["digest"]):
        found = repository().manifest(reference)
        assert (found.digest, found.media_type) == (described["digest"], described["mediaType"])
    assert repository().manifest_digest("1") == described["digest"]


@pytest.mark.parametrize("by_digest", [True, False])
def test_another_manifest_than_was_promised(
    registry: FakeRegistry, repository: Open, by_digest: bool
) -> None:
    described = registry.add_image("app", "1", b"")
    instead(registry, "/manifests/", 200, b'{"schemaVersion":2}',
            Docker_Content_Digest=described["digest"])  # fmt: skip
    with pytest.raises(DigestMismatchError):
        repository().manifest(described["digest"] if by_digest else "1")


def test_a_huge_manifest(registry: FakeRegistry, repository: Open) -> None:
    instead(registry, "/manifests/", 200, b" " * (documents.DOCUMENT_SIZE_MAX + 1))
    with pytest.raises(RegistryError, match="longer than"):
        repository().manifest("1")


@pytest.mark.parametrize(
    "media_type",
    ["application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"],
)
def test_schema_1_is_refused_clearly(
    registry: FakeRegistry, repository: Open, media_type: str
) -> None:
    instead(registry, "/manifests/", 200, b'{"schemaVersion":1,"fsLayers":[]}',
            Content_Type=media_type)  # fmt: skip
    with pytest.raises(UnsupportedError, match="schema 1"):
        repository().manifest("1")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"schemaVersion":2}', b'{"schemaVersion":3}',
     b'{"schemaVersion":2,"config":5}', b'{"schemaVersion":2,"layers":5}',
     b'{"schemaVersion":2,"manifests":[],"layers":[]}',
     b'{"schemaVersion":2,"mediaType":"application/x","config":{}}'],
)  # fmt: skip
@pytest.mark.parametrize("media_type", [documents.OCI_MANIFEST, documents.OCI_INDEX, "text/plain"])
def test_a_malformed_manifest(
    registry: FakeRegistry, repository: Open, content: bytes, media_type: str
) -> None:
    instead(registry, "/manifests/", 200, content, Content_Type=media_type)
    with pytest.raises(KetchError):
        resolve.resolve(repository(), "1", AMD64)


def test_the_image_for_a_platform(registry: FakeRegistry, repository: Open) -> None:
    entries = []
    for architecture, variant in (("arm", "v6"), ("amd64", ""), ("arm", "v7"), ("arm64", "v8")):
        image = registry.add_image("app", f"{architecture}{variant}", variant.encode())
        platform = {"architecture": architecture, "os": "linux"}
        entries.append(
            {**image, "platform": {**platform, **({"variant": variant} if variant else {})}}
        )
    top = registry.add_manifest("app", "1", {"schemaVersion": 2, "manifests": entries}, OCI_INDEX)
    chosen = {"linux/amd64": 1, "linux/arm64": 3, "linux/arm/v7": 2, "linux/arm/v6": 0,
              "linux/arm": 2, "linux/amd64/v3": 1}  # fmt: skip
    for wanted, number in chosen.items():
        target = resolve.resolve(repository(), "1", documents.parse_platform(wanted))
        assert target.digest == top["digest"]
        assert target.manifest_digest == entries[number]["digest"], wanted
    with pytest.raises(NotFoundError, match="no matching manifest for linux/s390x"):
        resolve.resolve(repository(), "1", documents.parse_platform("linux/s390x"))


def test_indexes_that_lead_to_themselves_or_too_deep(
    registry: FakeRegistry, repository: Open
) -> None:
    entry = {**registry.add_image("app", "x", b""), "platform": AMD64}
    for _ in range(6):
        index = registry.add_manifest("app", "deep", {"schemaVersion": 2, "manifests": [entry]},
                                      OCI_INDEX)  # fmt: skip
        entry = {**index, "platform": AMD64}
    with pytest.raises(RegistryError, match="deep"):
        resolve.resolve(repository(), "deep", AMD64)
    assert len(registry.requests) < 12


def test_an_index_that_lies_about_a_size(registry: FakeRegistry, repository: Open) -> None:
    entry = {**registry.add_image("app", "x", b""), "platform": AMD64, "size": 7}
    registry.add_manifest("app", "1", {"schemaVersion": 2, "manifests": [entry]}, OCI_INDEX)
    with pytest.raises(DigestMismatchError, match="bytes"):
        resolve.resolve(repository(), "1", AMD64)


def test_what_is_said_and_what_is_in_it(registry: FakeRegistry, repository: Open) -> None:
    registry.add_image("app", "1", b"")
    content = registry.manifests["app", "1"][1]
    registry.manifests["app", "1"] = (documents.DOCKER_MANIFEST, content)
    with pytest.raises(RegistryError, match="is said to be"):
        resolve.resolve(repository(), "1", AMD64)


def test_what_is_no_container_image(registry: FakeRegistry, repository: Open) -> None:
    config = registry.add_blob(b"{}", "application/vnd.cncf.helm.config.v1+json")
    registry.add_manifest("app", "1", {"schemaVersion": 2, "config": config, "layers": []})
    with pytest.raises(UnsupportedError, match="not of a container image"):
        resolve.resolve(repository(), "1", AMD64)


@pytest.mark.parametrize(
    ("media_type", "message"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "unsupported media type"),
        ("text/html", "unsupported media type"),
    ],
)
def test_layers_that_are_refused(
    registry: FakeRegistry, repository: Open, media_type: str, message: str
) -> None:
    registry.add_image("app", "1", b"x", compress=bytes, suffix="")
    _, content = registry.manifests["app", "1"]
    registry.manifests["app", "1"] = (
        documents.OCI_MANIFEST, content.replace(b'layer.v1.tar"', b'X"').replace(
            b"application/vnd.oci.image.X", media_type.encode()))  # fmt: skip
    with pytest.raises(UnsupportedError, match=message):
        resolve.resolve(repository(), "1", AMD64)


def test_a_configuration_for_other_layers(registry: FakeRegistry, repository: Open) -> None:
    registry.add_image("app", "1", b"x", rootfs={"type": "layers", "diff_ids": []})
    with pytest.raises(KetchError, match="don't match"):
        resolve.resolve(repository(), "1", AMD64)


@pytest.mark.parametrize("size", [0, 3, 1 << 40])
def test_a_configuration_of_another_size(
    registry: FakeRegistry, repository: Open, size: int
) -> None:
    content = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}'
    config = {**registry.add_blob(content, documents.OCI_CONFIG), "size": size}
    registry.add_manifest("app", "1", {"schemaVersion": 2, "config": config, "layers": []})
    with pytest.raises((DigestMismatchError, RegistryError), match="bytes"):
        resolve.resolve(repository(), "1", AMD64)


# Tags


def test_tags_by_pages(registry: FakeRegistry, repository: Open) -> None:
    def hook(request: Handler) -> bool:
        number = int(request.path.rpartition("=")[2]) if "=" in request.path else 0
        if "/tags/list" not in request.path:
            return False
        link = {"Link": f'</v2/app/tags/list?n={number + 1}>; rel="next"'} if number < 3 else {}
        request.answer(200, b'{"tags":["t%d"]}' % number, link)
        return True

    registry.hooks.append(hook)
    assert repository().tags() == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize(
    ("content", "link", "message"),
    [
        (b'{"tags":["x"]}', "</v2/app/tags/list>; rel=next", "no end"),
        (b'{"tags":["x"]}', "<http://elsewhere.example/>; rel=next", "another registry"),
        (b'{"tags":[5]}', "", "malformed"),
        (b'{"tags":5}', "", "malformed"),
        (b"[]", "", "malformed"),
        (b"[" * 9999, "", "malformed"),
    ],
)
def test_tags_of_a_bad_registry(
    registry: FakeRegistry, repository: Open, content: bytes, link: str, message: str
) -> None:
    instead(registry, "/tags/", 200, content, Link=link)
    with pytest.raises(RegistryError, match=message):
        repository().tags()


# Uploads


@pytest.fixture
def blob(tmp_path: pathlib.Path) -> int:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return os.open(path, os.O_RDONLY)


def send(opened: Repository, descriptor: int, sent: Callable[[int], object] = id) -> None:
    push.send(opened, sha256(CONTENT), descriptor, len(CONTENT), attempts=3, sent=sent)


def test_a_whole_upload(registry: FakeRegistry, repository: Open, blob: int) -> None:
    progress: list[int] = []
    send(repository(push=True), blob, progress.append)
    assert registry.blobs[sha256(CONTENT)] == CONTENT
    assert [method for method, path, _ in registry.requests if "uploads" in path] == ["POST", "PUT"]
    assert progress[-1] == len(CONTENT)


def test_chunks_where_the_registry_wants_them(
    registry: FakeRegistry, repository: Open, blob: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "CHUNK_BYTES", 300_000)

    def hook(request: Handler) -> bool:
        if request.command != "POST":
            return False
        registry.uploads["u"] = b""
        request.answer(202, b"", {"Location": "/v2/app/blobs/uploads/u",
                                  "OCI-Chunk-Min-Length": "100"})  # fmt: skip
        return True

    registry.hooks.append(hook)
    send(repository(push=True), blob)
    assert registry.blobs[sha256(CONTENT)] == CONTENT
    chunks = [headers for method, _, headers in registry.requests if method == "PATCH"]
    assert [chunk["Content-Range"] for chunk in chunks][:2] == ["0-299999", "300000-599999"]


def test_an_upload_that_broke_off_goes_on_where_it_was(
    registry: FakeRegistry, repository: Open, blob: int
) -> None:
    broken: list[int] = []

    def hook(request: Handler) -> bool:
        if request.command != "PUT" or broken:
            return False
        broken.append(1)
        registry.uploads["u0"] += request.rfile.read(500_000)
        request.connection.close()
        request.close_connection = True
        return True

    registry.hooks.append(hook)
    send(repository(push=True), blob)
    assert registry.blobs[sha256(CONTENT)] == CONTENT
    first = next(headers for method, _, headers in registry.requests if method == "PATCH")
    assert first["Content-Range"].startswith("500000-")


def test_too_large_in_one_piece(
    registry: FakeRegistry, repository: Open, blob: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "CHUNK_BYTES", 100_000)

    def hook(request: Handler) -> bool:
        if int(request.headers.get("Content-Length") or 0) <= 100_000:
            return False
        request.body()
        request.answer(413)
        return True

    registry.hooks.append(hook)
    send(repository(push=True), blob)
    assert registry.blobs[sha256(CONTENT)] == CONTENT


def test_an_upload_that_never_gets_any_further(
    registry: FakeRegistry, repository: Open, blob: int, slept: list[float]
) -> None:
    def hook(request: Handler) -> bool:
        if request.command not in {"PUT", "PATCH"}:
            return False
        request.connection.close()
        request.close_connection = True
        return True

    registry.hooks.append(hook)
    with pytest.raises(UnavailableError, match="upload of sha256"):
        send(repository(push=True), blob)
    assert len(slept) < 5


def test_a_registry_that_loses_what_it_had_time_after_time(
    registry: FakeRegistry, repository: Open, blob: int
) -> None:
    def hook(request: Handler) -> bool:
        if request.command != "PUT":
            return False
        registry.uploads["u0"] = b""
        request.connection.close()
        request.close_connection = True
        return True

    registry.hooks.append(hook)
    with pytest.raises(UnavailableError, match="upload of sha256"):
        send(repository(push=True), blob)
    assert len(registry.requests) < 30


def test_a_registry_that_understood_another_manifest(
    registry: FakeRegistry, repository: Open
) -> None:
    instead(registry, "/manifests/", 201, b"", Docker_Content_Digest=sha256(b"other"))
    with pytest.raises(DigestMismatchError):
        repository(push=True).put_manifest("1", documents.OCI_MANIFEST, b"{}")


def test_a_blob_is_taken_over_from_a_neighbour(registry: FakeRegistry, repository: Open) -> None:
    registry.add_blob(CONTENT, "x")
    opened = repository(push=True)
    assert push.mount(opened, sha256(CONTENT), ["other"]) == "other"
    assert not push.mount(opened, sha256(b"what it has not"), ["other"])
