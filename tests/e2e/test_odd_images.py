"""Indexes and archives with something odd in them: the images in them come all the same."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.spec import image as documents
from tests.support.commands import Engine
from tests.support.odd_images import ARTIFACTS, HERE, ODD, Content
from tests.support.registry import FakeRegistry, fake

NAMED = "org.opencontainers.image.ref.name"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake() as running:
        yield running


def offer(registry: FakeRegistry, content: Content, entries: list[Any], tag: str) -> str:
    """Put an index into a registry; return its name."""
    registry.blobs |= content.blobs
    for name, found in content.manifests.items():
        registry.manifests["app", name] = found
    index = {"schemaVersion": 2, "manifests": entries}
    registry.add_manifest("app", tag, index, documents.OCI_INDEX)
    return f"{registry.host}/app:{tag}"


def packed(directory: pathlib.Path, content: Content, entries: list[Any], **more: bytes) -> str:
    """Write an archive; return its path."""
    path = directory / "archive.tar"
    path.write_bytes(content.archive(entries, **more))
    return str(path)


def identity(content: Content, entry: dict[str, Any]) -> str:
    """Return an image's ID."""
    config: str = json.loads(content.blobs[entry["digest"]])["config"]["digest"]
    return config


def have(ketch: Engine, name: str) -> str:
    """Return the ID of an image that is there, and remove it."""
    found = ketch.ok("image", "inspect", "--format", "{{.Id}}", name)
    ketch.ok("rmi", name)
    return found


def test_one_odd_entry_refuses_no_other(
    ketch: Engine, registry: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    for number, odd in enumerate(ODD.values()):
        content = Content()
        wrong = {**content.image(b"wrong", "s390x"), **odd}
        right = {**content.image(b"right"), "platform": HERE}
        name = offer(registry, content, [wrong, right], str(number))
        ketch.ok("pull", name)
        assert have(ketch, name) == identity(content, right), odd
        index = content.document(documents.OCI_INDEX, manifests=[wrong, right])
        ketch.ok(
            "load", "-i", packed(tmp_path, content, [{**index, "annotations": {NAMED: "odd:1"}}])
        )
        assert have(ketch, "odd:1") == identity(content, right), odd


@pytest.mark.skipif(HERE["architecture"] != "amd64", reason="written down for amd64")
def test_an_image_is_found_by_a_platform_in_any_words_or_none(
    ketch: Engine, registry: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    said: list[dict[str, Any]] = [
        {"platform": {"os": "Linux", "architecture": "x86_64"}},
        {"platform": {"os": "linux", "architecture": "AMD64", "variant": None}},
        {"platform": {}},
        {},
    ]
    for number, words in enumerate(said):
        content = Content()
        arm = {"platform": {"os": "linux", "architecture": "aarch64"}}
        others = [
            content.signature(), {**content.image(b"arm", "arm64"), **arm},
            content.image(b"foreign", "s390x"),
        ]  # fmt: skip
        right = content.image(b"right")
        name = offer(registry, content, [*others, {**right, **words}], str(number))
        ketch.ok("pull", name)
        assert have(ketch, name) == identity(content, right), words
        index = content.document(documents.OCI_INDEX, manifests=[*others, {**right, **words}])
        ketch.ok(
            "load", "-i", packed(tmp_path, content, [{**index, "annotations": {NAMED: "any:1"}}])
        )
        assert have(ketch, "any:1") == identity(content, right), words


def test_an_artifact_is_refused_by_what_it_is_and_the_image_beside_it_kept(
    ketch: Engine, registry: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    for kind, words in ARTIFACTS.items():
        content = Content()
        entry = getattr(content, kind)()
        pulled = ketch("pull", offer(registry, content, [entry], kind))
        assert (pulled.status, words in pulled.err) == (1, True), pulled
        loaded = ketch("load", "-i", packed(tmp_path, content, [entry]))
        assert (loaded.status, words in loaded.err) == (1, True), loaded
        image = content.image(b"good")
        both = [entry, {**image, "annotations": {NAMED: "good:1"}}]
        kept = ketch("load", "-i", packed(tmp_path, content, both))
        assert kept.status == 0, kept
        assert "Loaded image: good:1" in kept.out
        assert words in kept.out + kept.err
        assert have(ketch, "good:1") == identity(content, image)


def test_the_names_of_both_forms_of_an_archive_count(ketch: Engine, tmp_path: pathlib.Path) -> None:
    content = Content()
    image = content.image(b"named")
    config = identity(content, image).replace(":", "/")
    listed = [{"Config": f"blobs/{config}", "RepoTags": ["one:1", "one:2"], "Layers": []}]
    entry = {**image, "annotations": {"io.containerd.image.name": "docker.io/library/one:3"}}
    manifest = json.dumps(listed).encode()
    loaded = ketch.ok("load", "-i", packed(tmp_path, content, [entry], manifest_json=manifest))
    names = [f"one:{number}" for number in (1, 2, 3)]
    assert sorted(loaded.splitlines()) == [f"Loaded image: {name}" for name in names]
    ketch.ok("rmi", *names)
