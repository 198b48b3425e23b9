"""Images of OCI image layouts as contexts: which one is meant, and that it is what it was said."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.build.request import LayoutInput, LocalDirectory
from ketch.engine.engine import Engine
from ketch.engine.settings import Settings
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnsupportedError,
)
from ketch.spec import image as documents
from tests.support.archives import archive, member
from tests.support.contexts import Opened, opener
from tests.support.registry import sha256

pytestmark = pytest.mark.root

LAYER = archive(member(b"file", data=b"content"))
HOST = documents.host_platform()
PLATFORM = f"{HOST['os']}/{HOST['architecture']}"


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[Opened]:
    """Return a function that opens a build's contexts until the test ends."""
    with opener(tmp_path) as function:
        yield function


class Layout:
    """A layout that is being made.

    Args:
        path: of its directory.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.write()

    def blob(self, content: bytes, media_type: str = "", **more: Any) -> dict[str, Any]:
        """Add a blob; return its descriptor."""
        digest = sha256(content)
        (self.path / "blobs/sha256" / digest.partition(":")[2]).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def image(
        self, tag: str = "", *, architecture: str = HOST["architecture"], **config: Any
    ) -> dict[str, Any]:
        """Add an image, under a tag if there is one; return its descriptor."""
        document = {
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha256(LAYER)]},
        }  # fmt: skip
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(document).encode(), documents.OCI_CONFIG),
            "layers": [self.blob(LAYER, documents.OCI_LAYER)],
        }
        made = self.blob(json.dumps(manifest).encode(), documents.OCI_MANIFEST)
        if tag:
            self.add(made, tag)
        return made

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        """Add an index; return its descriptor."""
        content = {"schemaVersion": 2, "manifests": entries}
        return self.blob(json.dumps(content).encode(), documents.OCI_INDEX)

    def add(self, entry: dict[str, Any], tag: str) -> None:
        """Give something a tag."""
        annotations = {"org.opencontainers.image.ref.name": tag}
        self.entries.append({**entry, "annotations": annotations})
        self.write()

    def write(self) -> None:
        """Write its index."""
        content = {"schemaVersion": 2, "manifests": self.entries}
        (self.path / "index.json").write_text(json.dumps(content))


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    """Return a layout without images."""
    return Layout(tmp_path / "layout")


def found(opened: Opened, layout: Layout, reference: str = "", platform: str = PLATFORM) -> Any:
    given = LayoutInput(str(layout.path), reference)
    return opened(contexts={"base": given}).layout("base", platform)


def test_an_image_is_found_by_tag_and_by_digest_and_alone(opened: Opened, layout: Layout) -> None:
    one = layout.image("one", Env=["A=1"])
    assert found(opened, layout).digest == one["digest"]
    assert found(opened, layout, "other").digest == one["digest"]  # the only one: as buildx has it
    two = layout.image("registry.example/name:two", Env=["A=2"])
    assert found(opened, layout, "one").digest == one["digest"]
    assert found(opened, layout, "two").digest == two["digest"]
    assert found(opened, layout, two["digest"]).document["config"]["Env"] == ["A=2"]
    with pytest.raises(NotFoundError, match=r"layout:other' could not be resolved") as missing:
        found(opened, layout, "other")
    assert "one, " in missing.value.hint
    with pytest.raises(InvalidArgumentError, match="several images"):
        found(opened, layout)
    latest = layout.image("latest")
    assert found(opened, layout).digest == latest["digest"]


def test_of_an_index_the_platform_s_image_is_taken(opened: Opened, layout: Layout) -> None:
    images = {one: layout.image(architecture=one) for one in ("amd64", "s390x")}
    entries = [
        {**image, "platform": {"os": "linux", "architecture": one}} for one, image in images.items()
    ]
    layout.add(layout.index(layout.index(*entries)), "many")
    for one, image in images.items():
        assert found(opened, layout, "many", f"linux/{one}").digest == image["digest"]
    for reference in ("many", images["amd64"]["digest"]):
        with pytest.raises(NotFoundError, match="has no image for linux/riscv64"):
            found(opened, layout, reference, "linux/riscv64")


def test_its_layers_are_stored_once(opened: Opened, layout: Layout, tmp_path: pathlib.Path) -> None:
    layout.image("one")
    engine = Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))
    with contextlib.closing(engine.store), engine.images.adding():
        told: list[tuple[str, int, int]] = []
        image = found(opened, layout)
        (layer,) = image.add_layers(engine.images, lambda *how: told.append(how))
        assert told[-1][1:] == (len(LAYER), len(LAYER))
        assert (layer.diff_id, layer.size_bytes) == (sha256(LAYER), 7)
        assert layer.descriptor["digest"] in engine.images.content
        told.clear()
        again = found(opened, layout).add_layers(engine.images, lambda *how: told.append(how))
        assert [one.chain_id for one in again] == [layer.chain_id]
        assert engine.images.list() == []


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
@pytest.mark.parametrize(
    ("change", "error"),
    [("other", DigestMismatchError), ("missing", NotFoundError), ("away", NotFoundError)],
)
def test_what_is_not_what_its_digest_promised_is_refused(
    opened: Opened, layout: Layout, tmp_path: pathlib.Path, part: str, change: str,
    error: type[KetchError],
) -> None:  # fmt: skip
    made = layout.image("one")
    path = layout.path / "blobs/sha256"
    manifest = json.loads((path / made["digest"].partition(":")[2]).read_bytes())
    digest = {
        "manifest": made, "config": manifest["config"], "layer": manifest["layers"][0],
    }[part]["digest"]  # fmt: skip
    blob = path / digest.partition(":")[2]
    content = blob.read_bytes()
    blob.unlink()
    if change == "other":
        blob.write_bytes(content.replace(b"content", b"CONTENT").replace(b"linux", b"LINUX"))
        if part == "manifest":
            blob.write_bytes(content + b" ")
    elif change == "away":
        # The very bytes, but outside: a layout's symlinks lead nowhere else.
        (tmp_path / "outside").write_bytes(content)
        blob.symlink_to(tmp_path / "outside")
    engine = Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))
    with contextlib.closing(engine.store), engine.images.adding(), pytest.raises(error):
        found(opened, layout).add_layers(engine.images, lambda *_: None)


def test_what_is_no_layout_is_said(opened: Opened, layout: Layout, tmp_path: pathlib.Path) -> None:
    layout.image("one")
    with pytest.raises(InvalidArgumentError, match="'base' is no OCI image layout"):
        opened(contexts={"base": LocalDirectory("/")}).layout("base", PLATFORM)
    (tmp_path / "empty").mkdir()
    for path, error in ((tmp_path / "none", NotFoundError), (tmp_path / "empty", KetchError)):
        with pytest.raises(error, match="could not be resolved"):
            opened(contexts={"base": LayoutInput(str(path))}).layout("base", PLATFORM)
    shutil.rmtree(tmp_path / "empty")
    os.unlink(layout.path / "index.json")
    os.mkfifo(layout.path / "index.json")  # which nobody waits for
    with pytest.raises(InvalidArgumentError, match="not an OCI image layout"):
        found(opened, layout)


def test_what_is_no_image_is_said(opened: Opened, layout: Layout) -> None:
    chart = layout.blob(b"{}", "application/vnd.cncf.helm.config.v1+json")
    manifest = {
        "schemaVersion": 2, "config": chart,
        "layers": [layout.blob(b"x", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
    }  # fmt: skip
    layout.add(layout.blob(json.dumps(manifest).encode(), documents.OCI_MANIFEST), "chart")
    with pytest.raises(UnsupportedError):
        found(opened, layout, "chart")
