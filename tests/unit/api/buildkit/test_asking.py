"""What BuildKit's clients ask for, as requests to the builder."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ketch.api.buildkit import asking, llb
from ketch.api.buildkit.asking import Asked
from ketch.build.request import (
    CachePlace,
    Git,
    Http,
    ImageInput,
    Input,
    LayoutInput,
    LocalDirectory,
    Output,
    Request,
)
from ketch.errors import InvalidArgumentError, KetchError, UnsupportedError


class Places:
    """Names of what is the client's, in place of the client."""

    def directory(self, name: str, session: str) -> Input:
        return LocalDirectory(f"{session}/{name}")

    def upload(self, path: str) -> Input:
        return LocalDirectory(f"upload:{path}")

    def layout(self, store: str, digest: str, platforms: Sequence[str]) -> Input:
        return LayoutInput(store, digest)

    def result(self, name: str) -> Input:
        return LocalDirectory(f"result:{name}")

    def output(self, number: int, type_: str, attributes: Mapping[str, str]) -> Output:
        return Output(type_, attributes, directory=str(number))

    def cache_from(self, type_: str, attributes: Mapping[str, str]) -> CachePlace:
        return CachePlace(type_, attributes)

    def cache_to(self, type_: str, attributes: Mapping[str, str]) -> CachePlace:
        return CachePlace(type_, attributes)


def request(attributes: Mapping[str, str] | None = None, **more: Any) -> Request:
    return asking.request(Asked(attributes or {}, **more), Places())


def test_what_docker_build_asks_for() -> None:
    found = request(
        {
            "filename": "sub/My.Dockerfile", "target": "last",
            "platform": "linux/amd64,linux/arm64",
            "build-arg:A": "1", "build-arg:B": "", "label:l": "v", "no-cache": "one,two",
            "add-hosts": "a=10.0.0.1,b=::1", "cgroup-parent": "/x", "force-network-mode": "host",
            "shm-size": "67108864", "ulimit": "nofile=1:2,core=0:0", "image-resolve-mode": "pull",
            "multi-platform": "true", "hostname": "h", "local-sessionid:context": "other",
        },
        outputs=[
            ("moby", {"name": "x,y", "annotation.k": "v", "annotation-index[linux/arm64].i": "j"}),
            ("local", {"dest": "o"}),
        ],
        cache_to=[("inline", {})],
        entitlements=["network.host"],
    )  # fmt: skip
    assert found.contexts == {"context": LocalDirectory("other/context")}
    assert (found.dockerfile, found.dockerfile_input) == (
        "sub/My.Dockerfile", LocalDirectory("/dockerfile"),
    )  # fmt: skip
    assert found.platforms == ["linux/amd64", "linux/arm64"]
    assert found.build_args == {
        "A": "1", "B": "", "BUILDKIT_MULTI_PLATFORM": "true", "BUILDKIT_SANDBOX_HOSTNAME": "h",
    }  # fmt: skip
    assert (found.labels, found.target, found.pull) == ({"l": "v"}, "last", True)
    assert (found.no_cache, found.no_cache_filter) == (False, ["one", "two"])
    assert found.add_hosts == ["a:10.0.0.1", "b:::1"]
    assert (found.network, found.cgroup_parent, found.shm_size_bytes) == ("host", "/x", 1 << 26)
    assert found.ulimits == ["nofile=1:2", "core=0:0"]
    assert found.outputs == [
        Output("image", {"name": "x,y"}), Output("local", {"dest": "o"}, directory="1"),
    ]  # fmt: skip
    assert found.annotations == {"manifest:k": "v", "index[linux/arm64]:i": "j"}
    assert found.cache_to == [CachePlace("inline", {})]
    assert found.entitlements == ["network.host"]


def test_what_buildx_pushes_itself_is_not_pushed_twice() -> None:
    found = request({}, outputs=[("moby", {"name": "x", "push": "true"}), ("image", {"push": "1"})])
    assert found.outputs == [Output("image", {"name": "x"}), Output("image", {"push": "1"})]


def test_without_an_output_nothing_goes_anywhere_and_no_cache_can_mean_all() -> None:
    found = request({"no-cache": ""})
    assert found.outputs == [Output("cacheonly")]
    assert (found.no_cache, found.no_cache_filter) == (True, [])


@pytest.mark.parametrize(
    ("attributes", "context", "dockerfile"),
    [
        ({}, LocalDirectory("/context"), LocalDirectory("/dockerfile")),
        ({"context": "https://x.example/r.git#b:d"}, Git("https://x.example/r.git#b:d"), None),
        ({"context": "git@x.example:r.git"}, Git("git@x.example:r.git"), None),
        ({"context": "https://x.example/a.tar"}, Http("https://x.example/a.tar"), None),
        ({"context": "http://buildkit-session/abc"}, LocalDirectory("upload:/abc"), None),
        (
            {"context": "https://x.example/a.tar", "dockerfilekey": "dockerfile"},
            Http("https://x.example/a.tar"), LocalDirectory("/dockerfile"),
        ),
        ({"contextkey": "o", "o": "https://x.example/a"}, Http("https://x.example/a"), None),
    ],
)  # fmt: skip
def test_where_the_context_and_the_dockerfile_come_from(
    attributes: dict[str, str], context: Input, dockerfile: Input | None
) -> None:
    found = request(attributes)
    assert found.contexts == {"context": context}
    assert found.dockerfile_input == dockerfile


def test_named_contexts_and_inputs() -> None:
    inputs = {
        "earlier": llb.source_of(llb.definition("ketch-result://abc"), "x"),
        "git": llb.Source("git", "x.example/r.git#b", {"git.fullurl": "https://x.example/r.git"}),
    }
    found = request(
        {
            "context:image": "docker-image://alpine:3", "context:local": "local:dir",
            "context:layout": "oci-layout://store:tag@sha256:1", "context:in": "input:earlier",
            "context:g": "input:git", "context:url": "https://x.example/f",
        },
        inputs=inputs,
    )  # fmt: skip
    assert found.contexts == {
        "context": LocalDirectory("/context"), "image": ImageInput("alpine:3"),
        "local": LocalDirectory("/dir"), "layout": LayoutInput("store", "sha256:1"),
        "in": LocalDirectory("result:abc"), "g": Git("https://x.example/r.git#b"),
        "url": Http("https://x.example/f"),
    }  # fmt: skip
    both = {"context": inputs["git"], "dockerfile": inputs["git"]}
    found = request({}, inputs=both)
    assert (found.contexts["context"], found.dockerfile_input) == (
        Git("https://x.example/r.git#b"), None,
    )  # fmt: skip


def test_caches_among_the_attributes() -> None:
    found = request({
        "cache-from": "a,b", "cache-imports": '[{"Type":"registry","Attrs":{"ref":"c"}}]',
    }, cache_from=[("registry", {"ref": "d"})])  # fmt: skip
    assert [one.attributes["ref"] for one in found.cache_from] == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    ("attributes", "outputs", "expected"),
    [
        ({"attest:provenance": "mode=max"}, [("moby", {})], ("max", "")),
        ({"attest:provenance": ""}, [], ("min", "")),
        ({"attest:provenance": "disabled=true"}, [], ("", "")),
        ({"attest:provenance": "mode=min,inline-only=true"}, [("moby", {})], ("", "")),
        ({"attest:provenance": "mode=min,inline-only=true"}, [("oci", {})], ("min", "")),
        ({"attest:provenance": "mode=min,inline-only=true"}, [("image", {"push": "true"})],
         ("min", "")),
        ({"attest:provenance": "mode=min,inline-only=true"}, [("moby", {"push": "true"})],
         ("", "")),
        ({"attest:sbom": "generator=scan:1"}, [], ("", "scan:1")),
    ],
)  # fmt: skip
def test_attestations(
    attributes: dict[str, str], outputs: list[Any], expected: tuple[str, str]
) -> None:
    found = request(attributes, outputs=outputs)
    assert (found.provenance, found.sbom) == expected


@pytest.mark.parametrize(
    ("kind", "attributes", "more", "text"),
    [
        (UnsupportedError, {}, {"frontend": "gateway.v0"}, 'front end "gateway.v0"'),
        (UnsupportedError, {"source": "evil/image"}, {"frontend": "gateway.v0"}, "evil/image"),
        (UnsupportedError, {}, {"outputs": [("s3", {})]}, 'exporter "s3"'),
        (UnsupportedError, {}, {"cache_to": [("gha", {})]}, 'cache type "gha"'),
        (UnsupportedError, {}, {"cache_from": [("inline", {})]}, 'cache type "inline"'),
        (InvalidArgumentError, {}, {"cache_to": [("registry", {})]}, "needs a name (ref)"),
        (UnsupportedError, {"attest:sbom": ""}, {}, "SBOM without a scanner"),
        (InvalidArgumentError, {"attest:other": ""}, {}, 'attestation type "other"'),
        (InvalidArgumentError, {"attest:provenance": "mode=x"}, {}, 'invalid mode "x"'),
        (InvalidArgumentError, {"add-hosts": "a"}, {}, "invalid key-value pair a"),
        (InvalidArgumentError, {"shm-size": "x"}, {}, "failed to parse shm-size"),
        (InvalidArgumentError, {"force-network-mode": "x"}, {}, "invalid netmode x"),
        (InvalidArgumentError, {"image-resolve-mode": "x"}, {}, "invalid image-resolve-mode"),
        (InvalidArgumentError, {"context:a": "x"}, {}, "invalid context specifier"),
        (InvalidArgumentError, {"context:a": "input:b"}, {}, "invalid input b for a"),
        (InvalidArgumentError, {"context:a": "oci-layout://s"}, {}, "has no digest"),
        (InvalidArgumentError, {"context": "/etc"}, {}, 'invalid context "/etc"'),
        (InvalidArgumentError, {"cache-imports": "{"}, {}, "invalid cache-imports"),
        (InvalidArgumentError, {"cache-imports": '["a"]'}, {}, "invalid cache-imports"),
        (InvalidArgumentError, {}, {"entitlements": ["all"]}, 'unknown entitlement "all"'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(
    kind: type[KetchError], attributes: dict[str, str], more: dict[str, Any], text: str
) -> None:
    with pytest.raises(kind) as raised:
        request(attributes, **more)
    assert text in raised.value.message


def test_a_syntax_image_of_docker_is_the_front_end_that_there_is() -> None:
    request({"source": "docker/dockerfile:1"}, frontend="gateway.v0")
