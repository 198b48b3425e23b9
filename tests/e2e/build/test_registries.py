"""Builds and registries: what stages begin with, where results go, and caches that travel."""

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from ketch.build.cache import pruning
from ketch.build.failures import BuildError
from ketch.build.progress import VertexState
from ketch.build.request import CachePlace, Output
from tests.support import builds, images
from tests.support.archives import archive, member
from tests.support.builds import Builder
from tests.support.commands import Engine
from tests.support.registry import FakeRegistry, fake

pytestmark = pytest.mark.in_process


@pytest.fixture
def build(ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Builder]:
    with builds.on(ketch, tmp_path) as builder:
        yield builder
        pruning.prune(builder.engine, all=True)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake() as registry:
        yield registry


STEPS = "RUN echo one > /one\nCOPY a /\n"
ENVIRONMENT = {"HOME": "/nonexistent", "PATH": os.environ["PATH"]}


def forget(build: Builder, *names: str) -> None:
    """Take away all that builds have made."""
    for name in names:
        build.engine.images.remove(name, force=True)
    pruning.prune(build.engine, all=True)


def paths(registry: FakeRegistry) -> list[str]:
    return [path for method, path, _ in registry.requests if method in {"GET", "HEAD"}]


def test_a_base_is_pulled_once_and_then_found_here(
    build: Builder, registry: FakeRegistry, ketch: Engine
) -> None:
    registry.add_image("base", "1", images.busybox_archive().read_bytes(), archive(member(b"new")))
    name = f"{registry.host}/base:1"
    build.write(
        f"FROM {name} AS first\nRUN ls /new > /seen\nFROM {name}\nCOPY --from=first /seen /\n"
    )
    built = build.build(tags=["pulled"], environment=ENVIRONMENT)
    assert ketch.ok("run", "--rm", "pulled", "cat", "/seen") == "/new"
    assert f"[internal] load metadata for {name}" in built.names(cached=False)
    assert name in ketch.ok("images", "--format", "{{.Repository}}:{{.Tag}}")
    registry.requests.clear()
    assert build.build(tags=["pulled"], environment=ENVIRONMENT).executed() == []
    assert paths(registry) == []
    # Asked to, it looks again, and takes no layer a second time.
    assert build.build(tags=["pulled"], pull=True, environment=ENVIRONMENT).executed() == []
    assert paths(registry)
    assert not [path for path in paths(registry) if registry.blobs.keys() & {path.split("/")[-1]}
                and len(registry.blobs[path.split("/")[-1]]) > 100_000]  # fmt: skip
    build.write("FROM {}@sha256:{}\n".format(f"{registry.host}/base", "0" * 64))
    with pytest.raises(BuildError, match="failed to solve"):
        build.build(environment=ENVIRONMENT)


def test_another_platforms_base_takes_no_name_away(build: Builder, registry: FakeRegistry) -> None:
    here = registry.add_image("base", "here", archive(member(b"f", data=b"here")))
    there = registry.add_image(
        "base", "there", archive(member(b"f", data=b"there")), architecture="s390x"
    )
    for described, architecture in ((here, "amd64"), (there, "s390x")):
        described["platform"] = {"os": "linux", "architecture": architecture}
    registry.add_manifest(
        "base", "1", {"schemaVersion": 2, "manifests": [here, there]},
        "application/vnd.oci.image.index.v1+json",
    )  # fmt: skip
    name = f"{registry.host}/base:1"
    build.write(f"FROM {name}\nCOPY a /\n", a="a")
    for platform in ("linux/amd64", "linux/s390x"):
        files = build.context / platform.replace("/", "-")
        build.build(
            platforms=[platform], outputs=[Output("local", directory=str(files))],
            environment=ENVIRONMENT,
        )  # fmt: skip
        assert (files / "f").read_text() == ("there" if "s390x" in platform else "here")
    assert build.engine.images.resolve(name).document["architecture"] == "amd64"


def test_results_are_pushed(build: Builder, registry: FakeRegistry) -> None:
    build.write("FROM scratch\nCOPY a /\n", a="a")
    name = f"{registry.host}/pushed:1"
    built = build.build(
        outputs=[Output("image", {"name": name, "push": "true"})], environment=ENVIRONMENT
    )
    media_type, content = registry.manifests["pushed", "1"]
    assert media_type == "application/vnd.oci.image.manifest.v1+json"
    manifest = json.loads(content)
    assert manifest["config"]["digest"] == built.id
    assert manifest["layers"][0]["mediaType"].endswith("+gzip")
    assert built.result.metadata["image.name"] == name


@pytest.mark.parametrize("kind", ["registry", "local", "inline"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_caches_travel(
    build: Builder, registry: FakeRegistry, ketch: Engine, kind: str, mode: str
) -> None:
    build.write(
        f"FROM busybox AS other\nRUN echo other > /other\nFROM busybox\n{STEPS}"
        "COPY --link --from=other /other /linked/\n",
        a="a",
    )
    image, cache = f"{registry.host}/image:1", f"{registry.host}/cache:1"
    directory = str(build.context / "cache")
    outputs = [Output("image", {"name": image, "push": "true"})]
    to = {
        "registry": CachePlace("registry", {"ref": cache, "mode": mode}),
        "local": CachePlace("local", {"dest": directory, "mode": mode}),
        "inline": CachePlace("inline"),
    }[kind]
    origin = {
        "registry": CachePlace("registry", {"ref": cache}),
        "local": CachePlace("local", {"src": directory}),
        "inline": CachePlace("registry", {"ref": image}),
    }[kind]
    (build.context / ".dockerignore").write_text("cache\n")
    first = build.build(outputs=outputs, cache_to=[to], environment=ENVIRONMENT)
    forget(build, image)
    built = build.build(tags=["travelled"], cache_from=[origin], environment=ENVIRONMENT)
    if mode == "max" and kind != "inline":
        assert built.executed() == []
    else:
        assert built.executed() == ["RUN echo other > /other"]
    assert ketch.ok("run", "--rm", "travelled", "cat", "/one", "/a", "/linked/other") == (
        "one\naother"
    )
    assert (built.id == first.id) is (kind != "inline")
    # What was not made of these files is made anew.
    forget(build, "travelled")
    (build.context / "a").write_text("changed")
    again = build.build(cache_from=[origin], environment=ENVIRONMENT)
    assert "COPY a /" in again.executed()
    assert "RUN echo one > /one" not in again.executed()


def test_a_cache_that_cannot_be_had_is_told_of_and_does_no_harm(
    build: Builder, registry: FakeRegistry
) -> None:
    build.write(f"FROM busybox\n{STEPS}", a="a")
    registry.add_image("plain", "1", archive(member(b"f")))
    described = registry.add_blob(b'{"layers": [], "steps": 5}',
                                  "application/vnd.ketch.build-cache.v1+json")  # fmt: skip
    registry.add_manifest("broken", "1", {"schemaVersion": 2, "config": described, "layers": []})
    places = [
        CachePlace("registry", {"ref": f"{registry.host}/{name}:1"})
        for name in ("missing", "plain", "broken")
    ] + [CachePlace("local", {"src": str(build.context / "nowhere")})]
    built = build.build(cache_from=places, environment=ENVIRONMENT)
    assert len(built.executed()) == 2
    errors = {
        one.name.rpartition("/")[2]: one.error
        for one in built.events
        if isinstance(one, VertexState) and one.completed_ns and "importing" in one.name
    }
    assert errors["plain:1"] == ""
    assert errors["missing:1"]
    assert "steps are no list" in errors["broken:1"]
    assert "index.json" in errors["nowhere"]


def test_a_cached_layer_that_is_another_is_not_taken(
    build: Builder, registry: FakeRegistry, ketch: Engine
) -> None:
    build.write(f"FROM busybox\n{STEPS}", a="a")
    cache = f"{registry.host}/cache:1"
    place = CachePlace("registry", {"ref": cache})
    build.build(cache_to=[place], tags=["honest"], environment=ENVIRONMENT)
    forget(build, "honest")
    manifest = json.loads(registry.manifests["cache", "1"][1])
    for layer in manifest["layers"]:
        content = bytearray(registry.blobs[layer["digest"]])
        content[-20] ^= 1
        registry.blobs[layer["digest"]] = bytes(content)
    built = build.build(cache_from=[place], tags=["honest"], environment=ENVIRONMENT)
    assert len(built.executed()) == 2
    assert ketch.ok("run", "--rm", "honest", "cat", "/one") == "one"


SCANNER = """
FROM busybox
COPY <<'EOT' /scan
echo '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",'
echo "\\"predicate\\": {\\"files\\": \\"$(ls $BUILDKIT_SCAN_SOURCE)\\"}}"
EOT
ENTRYPOINT ["sh", "-c", "sh /scan > ${BUILDKIT_SCAN_DESTINATION}sbom.spdx.json"]
"""


def test_what_a_scanner_says_is_attested(build: Builder, registry: FakeRegistry) -> None:
    build.write(SCANNER)
    build.build(tags=["scanner"])
    build.write("FROM scratch\nCOPY a /seen\n", a="a")
    outputs = [Output("registry", {"name": f"{registry.host}/scanned:1"})]
    build.build(outputs=outputs, sbom="scanner", provenance="min", environment=ENVIRONMENT)
    index = json.loads(registry.manifests["scanned", "1"][1])
    image, attestation = index["manifests"]
    assert attestation["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    inner = json.loads(registry.manifests["scanned", attestation["digest"]][1])
    said = [json.loads(registry.blobs[layer["digest"]]) for layer in inner["layers"]]
    assert [one["predicateType"] for one in said] == [
        "https://spdx.dev/Document", "https://slsa.dev/provenance/v0.2",
    ]  # fmt: skip
    assert said[0]["predicate"] == {"files": "seen"}
    assert said[0]["subject"][0]["digest"] == {"sha256": image["digest"].partition(":")[2]}
    build.write('FROM busybox\nENTRYPOINT ["true"]\n')
    build.build(tags=["silent"])
    build.write("FROM scratch\nCOPY a /seen\n", a="a")
    with pytest.raises(BuildError, match="written no SBOM"):
        build.build(outputs=outputs, sbom="silent", environment=ENVIRONMENT)
