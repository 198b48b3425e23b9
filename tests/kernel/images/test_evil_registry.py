"""Pulls and pushes with a registry that lies: an image and its bytes, or an error and nothing."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.images.pulling import Puller
from ketch.engine.images.pushing import Pusher
from ketch.images import tar
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.registries import Registries
from ketch.spec import image as documents
from tests.support.archives import archive, member
from tests.support.evil import (
    VALUES,
    Evil,
    Lie,
    Victim,
    conversation,
    evil,
    examples,
    nodes,
    replaced,
)
from tests.support.registry import OCI_MANIFEST, sha256

pytestmark = pytest.mark.root

BASE = archive(member(b"bin", tar.DIRECTORY, mode=0o755), member(b"bin/sh", data=b"#!" * 400))
TOP = archive(member(b"etc/passwd", data=b"root:x:0:0::/:\n"), member(b"bin/.wh.sh"))


class Attacked(Victim):
    """An engine, and a registry that it should not have trusted."""

    def __init__(self, directory: pathlib.Path, liar: Evil) -> None:
        super().__init__(directory)
        self.liar = liar
        self.name = f"{liar.registry.host}/app"

    @contextlib.contextmanager
    def lies(self, lies: list[Lie]) -> Iterator[Registries]:
        """Have the registry lie for a block, which ends in success or a named error in time."""
        self.liar.begin(lies)
        settings = Configuration({"timeout-seconds": 1, "max-download-attempts": 2})
        who = Credentials("alice", "s3cret")
        with (
            self.named_errors(),
            Registries({}, credentials=who, settings=settings) as registries,
        ):
            registries.transport.sleep = lambda _: None
            yield registries
        assert self.liar.strangers_saw() == []


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with evil() as liar:
        liar.registry.add_image("app", "1", BASE, TOP)
        image = liar.registry.add_image("app", "2", BASE, compress=bytes, suffix="")
        index = {"schemaVersion": 2, "manifests": [
            {**image, "platform": documents.host_platform()}]}  # fmt: skip
        liar.registry.add_manifest("app", "all", index, documents.OCI_INDEX)
        yield Attacked(tmp_path_factory.mktemp("evil"), liar)


@examples(100)
@given(
    lies=conversation("ping", "token", "manifest", "manifest", "blob", "blob"),
    tag=st.sampled_from(["1", "all"]),
)
def test_pulling(attacked: Attacked, lies: list[Lie], tag: str) -> None:
    with attacked.lies(lies) as registries:
        Puller(attacked.engine.images, registries, attacked.told).pull(f"{attacked.name}:{tag}")
    attacked.check()


@examples(20)
@given(lies=conversation("tags", "manifest", "blob"))
def test_pulling_every_tag(attacked: Attacked, lies: list[Lie]) -> None:
    with attacked.lies(lies) as registries:
        Puller(attacked.engine.images, registries, attacked.told).pull_all(attacked.name)
    attacked.check()


CONFIG: dict[str, Any] = {
    "architecture": documents.host_platform()["architecture"], "os": "linux",
    "created": "2024-01-01T00:00:00Z", "author": "me", "variant": "", "comment": "x",
    "docker_version": "1", "os.version": "",
    "config": {"Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": ["a"], "User": "1:1",
               "WorkingDir": "/", "Labels": {"a": "b"}, "Volumes": {"/v": {}},
               "ExposedPorts": {"80/tcp": {}}, "StopSignal": "9", "OnBuild": ["RUN x"],
               "Shell": ["sh"], "ArgsEscaped": False,
               "Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**9, "Timeout": 10**9,
                               "StartPeriod": 0, "StartInterval": 0, "Retries": 3}},
    "rootfs": {"type": "layers", "diff_ids": [sha256(BASE)]},
    "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "x", "author": "me",
                 "comment": "x", "empty_layer": False}],
}  # fmt: skip
CONFIG_KEYS = [*CONFIG, "Healthcheck", "x"]


@examples(60)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, nodes(CONFIG) + 2), st.sampled_from(VALUES)), max_size=2
    ),
    manifest_changes=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(VALUES)), max_size=1),
    extra=st.dictionaries(st.sampled_from(CONFIG_KEYS), st.sampled_from(VALUES), max_size=2),
)
def test_images_whose_digests_are_right_and_nothing_else(
    attacked: Attacked, changes: list[Any], manifest_changes: list[Any], extra: dict[str, Any]
) -> None:
    registry = attacked.liar.registry
    attacked.liar.begin([])
    config: Any = {**CONFIG, **extra}
    for change in changes:
        config = replaced(config, *change)
    layer = registry.add_blob(BASE, documents.OCI_LAYER)
    described = registry.add_blob(json.dumps(config).encode(), documents.OCI_CONFIG)
    manifest: Any = {"schemaVersion": 2, "config": described, "layers": [layer]}
    for change in manifest_changes:
        manifest = replaced(manifest, *change)
    content = json.dumps(manifest).encode()
    registry.manifests["app", "odd"] = (OCI_MANIFEST, content)
    attacked.liar._kept = registry.manifests.copy(), registry.blobs.copy()
    with attacked.lies([]) as registries:
        Puller(attacked.engine.images, registries, attacked.told).pull(f"{attacked.name}:odd")
    attacked.check()


@examples(60)
@given(lies=conversation("ping", "token", "blob", "upload", "upload", "manifest"))
def test_pushing(attacked: Attacked, lies: list[Lie]) -> None:
    images = attacked.engine.images
    if not images.list():
        with attacked.lies([]) as registries:
            Puller(images, registries).pull(f"{attacked.name}:2")
        images.tag(f"{attacked.name}:2", f"{attacked.name}:new")
    before = sorted(attacked.left())
    try:
        with attacked.lies(lies) as registries:
            attacked.liar.registry.blobs.clear()
            pusher = Pusher(images, attacked.engine.store, registries, attacked.told)
            pusher.push(f"{attacked.name}:new")
        assert sorted(attacked.left()) == before
    finally:
        attacked.check()
