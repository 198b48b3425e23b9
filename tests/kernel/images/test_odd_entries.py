"""An index with one odd entry: the right image of it is pulled and loaded all the same."""

import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.engine.engine import Engine
from ketch.engine.images import archive as image_archive
from ketch.engine.images import candidates
from ketch.engine.images.pulling import Puller
from ketch.engine.settings import Settings
from ketch.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ketch.images.registry import manifest_lists
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.registries import Registries
from ketch.spec import digest, platforms
from ketch.spec import image as documents
from ketch.spec import reference as references
from tests.support.odd_images import ARTIFACTS, HERE, ODD, Content
from tests.support.registry import FakeRegistry, fake

pytestmark = pytest.mark.root


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> Engine:
    return Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake() as running:
        yield running


def pull(engine: Engine, registry: FakeRegistry, content: Content, entries: list[Any]) -> bytes:
    """Pull an image by an index with these entries; return the digest that tells it apart."""
    registry.blobs |= content.blobs
    for name, (kind, data) in content.manifests.items():
        registry.manifests["app", name] = (kind, data)
    registry.add_manifest("app", "1", {"schemaVersion": 2, "manifests": entries},
                          documents.OCI_INDEX)  # fmt: skip
    with _registries() as registries:
        Puller(engine.images, registries).pull(f"{registry.host}/app:1")
    return _file(engine, f"{registry.host}/app:1")


def _registries() -> Registries:
    found = Registries({}, credentials=Credentials(), settings=Configuration({}, "test"))
    found.transport.sleep = lambda _: None
    return found


def load(engine: Engine, content: bytes) -> tuple[list[str], list[str]]:
    """Load an archive; return the names of what came, and what was said of the rest."""
    names: list[str] = []
    passed: list[str] = []

    def tell(told: "candidates.Loaded | image_archive.PassedOver") -> None:
        if isinstance(told, image_archive.PassedOver):
            passed.extend(told.lines())
        else:
            names.extend(told.names or [told.id])

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        with engine.images.opened_archive(file.fileno()) as source:
            image_archive.load(engine.images, source, done=tell)
    return names, passed


def _file(engine: Engine, name: str) -> bytes:
    """Return what is in an image's file."""
    image = engine.images.resolve(name)
    root = pathlib.Path(engine.settings.root)
    for path in root.glob("snapshots/*/*/**/file"):
        if image.chain_ids[-1].partition(":")[2] in str(path):
            return path.read_bytes()
    raise AssertionError("it has no file")


@pytest.mark.parametrize("odd", ODD)
def test_one_odd_entry_refuses_no_other(engine: Engine, registry: FakeRegistry, odd: str) -> None:
    content = Content()
    wrong = {**content.image(b"wrong", "s390x"), **ODD[odd]}
    right = {**content.image(b"right"), "platform": HERE}
    assert pull(engine, registry, content, [wrong, right]) == b"right"
    index = content.document(documents.OCI_INDEX, manifests=[wrong, right])
    named = {"annotations": {"org.opencontainers.image.ref.name": "loaded:1"}}
    assert load(engine, content.archive([{**index, **named}])) == (["loaded:1"], [])
    assert _file(engine, "loaded:1") == b"right"
    with _registries() as registries:
        listed = manifest_lists.fetch_all(
            registries, references.parse(f"{registry.host}/app:1").tagged()
        )
    assert digest.of(listed[-1].content) == right["digest"]


def test_an_odd_entry_alone_is_refused_for_what_is_odd(
    engine: Engine, registry: FakeRegistry
) -> None:
    content = Content()
    with pytest.raises(InvalidArgumentError, match="size"):
        pull(engine, registry, content, [{**content.image(b"x"), "size": "many"}])


@pytest.mark.parametrize(
    "said",
    [
        {"platform": {"os": "Linux", "architecture": "x86_64"}},
        {"platform": {"os": "LINUX", "architecture": "X86-64", "variant": "v1"}},
        {"platform": {"os": "linux", "architecture": "AMD64", "variant": None}},
        {"size": None, "platform": {"os": "linux", "architecture": "amd64"}},
        {"mediaType": None, "platform": {"os": "linux", "architecture": "amd64"}},
        {"platform": {}},
        {},
    ],
    ids=str,
)
@pytest.mark.skipif(HERE["architecture"] != "amd64", reason="written down for amd64")
def test_an_image_is_found_by_a_platform_in_any_words_or_none(
    engine: Engine, registry: FakeRegistry, said: dict[str, Any]
) -> None:
    content = Content()
    others = [
        {**content.signature()},
        {**content.attestation(), "platform": {"os": "unknown", "architecture": "unknown"}},
        {**content.image(b"arm", "arm64"), "platform": {"os": "linux", "architecture": "aarch64"}},
        content.image(b"foreign", "s390x"),
    ]
    entry = {**content.image(b"right"), **said}
    entry = {name: value for name, value in entry.items() if value is not None}
    assert pull(engine, registry, content, [*others, entry]) == b"right"
    index = content.document(documents.OCI_INDEX, manifests=[*others, entry])
    names, _ = load(engine, content.archive([index]))
    assert len(names) == 1
    assert _file(engine, names[0]) == b"right"


def test_none_for_this_platform_is_not_found(engine: Engine, registry: FakeRegistry) -> None:
    content = Content()
    foreign = content.image(b"foreign", "s390x")
    for entries in ([foreign], [{**foreign, "platform": {"os": "linux", "architecture": "s390x"}}]):
        with pytest.raises(NotFoundError, match="no matching manifest for linux/"):
            pull(engine, registry, content, entries)


@pytest.mark.skipif(HERE["architecture"] != "amd64", reason="written down for amd64")
def test_of_what_runs_here_the_best_is_taken(engine: Engine, registry: FakeRegistry) -> None:
    content = Content()
    small = {**content.image(b"small", "386"), "platform": {"os": "linux", "architecture": "386"}}
    chart = {**content.chart(), "platform": HERE}
    best = {**content.image(b"best"), "platform": HERE}
    assert pull(engine, registry, content, [small, chart, best]) == b"best"
    assert pull(engine, registry, content, [chart, small]) == b"small"


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_an_artifact_is_refused_by_what_it_is_and_the_image_beside_it_kept(
    engine: Engine, registry: FakeRegistry, kind: str
) -> None:
    content = Content()
    entry = getattr(content, kind)()
    with pytest.raises(UnsupportedError, match=ARTIFACTS[kind]):
        load(engine, content.archive([entry]))
    with pytest.raises(UnsupportedError, match=ARTIFACTS[kind]):
        pull(engine, registry, content, [entry])
    registry.manifests["app", "2"] = content.manifests[entry["digest"]]
    with (
        _registries() as registries,
        pytest.raises(UnsupportedError, match=ARTIFACTS[kind]),
    ):
        Puller(engine.images, registries).pull(f"{registry.host}/app:2")
    assert engine.images.list() == []

    image = {**content.image(b"good"),
             "annotations": {"org.opencontainers.image.ref.name": "good:1"}}  # fmt: skip
    for entries in ([entry, image], [image, entry]):
        names, passed = load(engine, content.archive(entries))
        assert names == ["good:1"]
        (line,) = passed
        assert line.startswith("Passed over: manifest sha256:")
        assert ARTIFACTS[kind] in line
        engine.images.remove("good:1")


def test_the_names_of_both_forms_of_an_archive_count(engine: Engine) -> None:
    content = Content()
    first, second = content.image(b"first"), content.image(b"second")
    config = json.loads(content.blobs[first["digest"]])["config"]["digest"].replace(":", "/")
    listed = [{"Config": f"blobs/{config}", "RepoTags": ["one:1", "one:2"], "Layers": []}]
    manifest = json.dumps(listed).encode()
    names, _ = load(engine, content.archive([first, second], manifest_json=manifest))
    assert names[:2] == ["one:1", "one:2"]
    assert names[2].startswith("sha256:")
    named = {**first, "annotations": {"io.containerd.image.name": "docker.io/library/one:2"}}
    names, _ = load(engine, content.archive([named], manifest_json=manifest))
    assert names == ["one:2", "one:1"]


def test_a_search_among_entries_that_say_nothing_has_an_end(
    engine: Engine, registry: FakeRegistry
) -> None:
    content = Content()
    entries = [content.image(b"%d" % number, "s390x") for number in range(60)]
    with pytest.raises(NotFoundError):
        pull(engine, registry, content, entries)
    asked = [one for one in registry.requests if "/manifests/sha256:" in str(one)]
    assert len(asked) <= 40


@pytest.mark.parametrize(
    ("platform", "normal"),
    [
        ({"os": "Linux", "architecture": "x86_64"}, ("linux", "amd64", "v1")),
        ({"os": "macOS", "architecture": "aarch64"}, ("darwin", "arm64", "v8")),
        ({"os": "linux", "architecture": "arm64", "variant": "8"}, ("linux", "arm64", "v8")),
        ({"os": "linux", "architecture": "armhf"}, ("linux", "arm", "v7")),
        ({"os": "linux", "architecture": "armel"}, ("linux", "arm", "v6")),
        ({"os": "linux", "architecture": "arm", "variant": "7"}, ("linux", "arm", "v7")),
        ({"os": "linux", "architecture": "i386"}, ("linux", "386", "")),
        ({"os": "linux", "architecture": "²"}, ("linux", "²", "")),
    ],
)
def test_platforms_are_brought_to_gos_words(
    platform: "documents.Platform", normal: tuple[str, str, str]
) -> None:
    assert platforms.normal(platform) == normal
