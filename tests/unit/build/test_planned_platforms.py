"""Platforms and named contexts: what stages begin with, and on which machine they are made."""

import pytest

from ketch.build.graph import ContextSource, ImageSource, Scratch
from ketch.build.planning import platforms
from ketch.build.planning.description import vertices
from ketch.build.request import Git, Http, ImageInput, Input, LayoutInput, LocalDirectory
from tests.support.planning import Images, config, copies, names, planned, refused, runs

_CROSS = """
    FROM --platform=$BUILDPLATFORM golang AS tools
    RUN fetch
    FROM tools AS build
    ARG TARGETARCH
    RUN make $TARGETARCH
    FROM alpine
    RUN setup
    COPY --from=build /out /
"""


def test_what_runs_on_the_machine_itself_is_shared() -> None:
    host = platforms.shown(platforms.host())
    found = planned(_CROSS, platforms=["linux/riscv64", "linux/s390x"])
    assert [target.platform for target in found.targets] == ["linux/riscv64", "linux/s390x"]
    assert [(step.arguments[-1], step.platform) for step in runs(found)] == [
        ("setup", "linux/riscv64"),
        ("fetch", host),
        ("make $TARGETARCH", host),
        ("setup", "linux/s390x"),
        ("make $TARGETARCH", host),
    ]
    shown = names(found)
    assert f"[{host} tools 2/2] RUN fetch" in shown
    assert f"[{host}->riscv64 build 1/1] RUN make riscv64" in shown
    assert f"[{host}->s390x build 1/1] RUN make s390x" in shown
    assert "[linux/s390x stage-2 2/3] RUN setup" in shown
    assert found.index


def test_files_are_the_same_on_every_platform() -> None:
    found = planned("FROM scratch\nCOPY . /\n", platforms=["linux/amd64", "linux/arm64"])
    first, second = found.targets
    assert first.root is second.root
    assert (first.config["architecture"], second.config["architecture"]) == ("amd64", "arm64")


def test_the_same_platform_twice_is_one() -> None:
    found = planned("FROM scratch\n", platforms=["linux/arm64", "linux/arm64/v8"])
    assert [target.platform for target in found.targets] == ["linux/arm64"]
    assert not found.index
    assert planned("FROM scratch\n", build_args={"BUILDKIT_MULTI_PLATFORM": "1"}).index


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux/arm64/v8", ["linux/arm64", "linux", "arm64", ""]),
        ("linux/arm", ["linux/arm/v7", "linux", "arm", "v7"]),
        ("linux/arm/6", ["linux/arm/v6", "linux", "arm", "v6"]),
        ("aarch64", ["linux/arm64", "linux", "arm64", ""]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux", "amd64", "v3"]),
    ],
)
def test_arguments_that_tell_the_platform(platform: str, expected: list[str]) -> None:
    found = planned(
        "FROM scratch\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT TARGETSTAGE\nRUN x\n",
        platforms=[platform],
    )
    (step,) = runs(found)
    values = [variable.partition("=")[2] for variable in step.environment[1:]]
    assert values == [*expected, "default"]


def test_an_argument_can_stand_for_a_platform() -> None:
    images = Images()
    text = "FROM --platform=$TARGETPLATFORM a\n"
    planned(text, images, build_args={"TARGETPLATFORM": "linux/s390x"})
    assert [platform for _, platform, _ in images.asked] == ["linux/s390x"]


@pytest.mark.parametrize(
    ("asked", "image", "expected"),
    [
        ([], "linux/s390x", ("linux/s390x", "s390x")),
        (["linux/arm64"], "linux/s390x", ("linux/arm64", "arm64")),
        (["linux/arm/v7"], "linux/arm/v5", ("linux/arm/v7", "arm")),
    ],
)
def test_which_platform_an_image_is_for(
    asked: list[str], image: str, expected: tuple[str, str]
) -> None:
    target = planned("FROM a\nUSER u\n", Images(platform=image), platforms=asked).targets[0]
    assert (target.platform, target.config["architecture"]) == expected


@pytest.mark.parametrize(
    ("arguments", "wanted", "message"),
    [
        ({"BUILDKIT_MULTI_PLATFORM": "x"}, ["linux/amd64"],
         "invalid boolean value for multi-platform: x"),
        ({"BUILDKIT_MULTI_PLATFORM": "0"}, ["linux/amd64", "linux/arm64"],
         "conflicting config: returning multiple target platforms is not allowed"),
        ({}, ["a/b/c/d"], "failed to parse target platform a/b/c/d: "
         '"a/b/c/d": cannot parse platform specifier'),
    ],
)  # fmt: skip
def test_platforms_that_cannot_be(
    arguments: dict[str, str], wanted: list[str], message: str
) -> None:
    error = refused("FROM scratch\n", build_args=arguments, platforms=wanted)
    assert error.message == message


def _contexts(named: dict[str, Input]) -> dict[str, Input]:
    return {"context": LocalDirectory("/"), **named}


def test_a_context_in_place_of_an_image() -> None:
    contexts = _contexts(
        {"docker.io/library/base": ImageInput("other:1"), "tool:1": LocalDirectory("/t")}
    )
    images = Images({"other:1": {"Env": ["A=1"]}})
    found = planned("FROM base\nCOPY --from=tool:1 /x /\n", images, contexts=contexts)
    assert [name for name, _, _ in images.asked] == ["docker.io/library/other:1"]
    assert config(found)["Env"][0] == "A=1"
    assert names(found)[:2] == [
        "[context docker.io/library/base] other:1", "[context tool:1] load from client",
    ]  # fmt: skip
    (copy,) = copies(found)
    (item,) = copy.items
    assert isinstance(item.source, ContextSource)
    assert item.source.context == "tool:1"


def test_a_context_in_place_of_a_stage() -> None:
    text = "FROM missing AS Build\nRUN x\nFROM build AS next\nCOPY --from=build a /\n"
    found = planned(text, contexts=_contexts({"build": LocalDirectory("/b")}))
    assert names(found) == ["[context build] load from client", "[next 1/1] COPY --from=build a /"]
    assert config(found)["Env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ]


def test_a_context_for_one_platform() -> None:
    contexts = _contexts({"base::linux/arm64": ImageInput("arm"), "base": ImageInput("any")})
    images = Images()
    planned("FROM base\n", images, contexts=contexts, platforms=["linux/arm64", "linux/s390x"])
    assert [(name.rpartition("/")[2], platform) for name, platform, _ in images.asked] == [
        ("arm:latest", "linux/arm64"), ("any:latest", "linux/s390x"),
    ]  # fmt: skip


def test_kinds_of_contexts() -> None:
    contexts = _contexts(
        {
            "none": ImageInput("scratch"),
            "layout": LayoutInput("/l", "v1"),
            "git": Git("https://host.example/p.git"),
            "http": Http("https://host.example/a"),
        }
    )
    copied = "".join(f"COPY --from={name} / /{name}\n" for name in contexts if name != "context")
    images = Images()
    found = planned(f"FROM scratch\n{copied}", images, contexts=contexts)
    assert images.asked == [("v1", "linux/amd64", "layout")]
    sources = [item.source for copy in copies(found) for item in copy.items]
    none, layout, git, http = sources
    assert isinstance(none, Scratch)
    assert isinstance(layout, ImageSource)
    assert layout.layout == "layout"
    assert [each.name for each in (layout, git, http)] == [
        "[context layout] OCI load from client",
        "[internal] load git source https://host.example/p.git",
        "[context http] https://host.example/a",
    ]


def test_no_context_stands_for_scratch() -> None:
    found = planned("FROM scratch\nRUN x\n", contexts=_contexts({"scratch": LocalDirectory("/")}))
    assert isinstance(vertices(found)[0], Scratch)


def test_what_an_sbom_looks_at() -> None:
    text = "ARG BUILDKIT_SBOM_SCAN_STAGE\nFROM a AS one\nFROM b AS two\nCOPY --from=one / /\n"
    arguments = {"BUILDKIT_SBOM_SCAN_STAGE": "one,three", "BUILDKIT_SBOM_SCAN_CONTEXT": "true"}
    (target,) = planned(f"ARG BUILDKIT_SBOM_SCAN_CONTEXT\n{text}", build_args=arguments).targets
    assert sorted(target.scanned) == ["context", "one"]
    (other,) = planned(text).targets
    assert other.scanned == {}


def test_images_are_expected_before_they_are_asked_for() -> None:
    images = Images({"a": {"OnBuild": ["COPY --from=late / /"]}})
    contexts = _contexts({"ctx": ImageInput("given"), "files": LocalDirectory("/")})
    text = """
        FROM a AS one
        FROM --platform=linux/s390x a AS two
        FROM unused
        FROM scratch
        COPY --from=one / /
        COPY --from=two / /
        COPY --from=ctx / /
        COPY --from=files / /
        COPY --from=b / /
    """
    planned(text, images, contexts=contexts)
    assert [f"{name.removeprefix('docker.io/library/')} {platform}"
            for name, platform in images.expected] == [
        "a:latest linux/amd64", "a:latest linux/s390x", "given:latest linux/amd64",
        "b:latest linux/amd64", "late:latest linux/amd64",
    ]  # fmt: skip
    assert {*images.expected} == {(name, platform) for name, platform, _ in images.asked}
