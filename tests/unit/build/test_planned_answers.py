"""What a Dockerfile is asked instead of being built: its targets, what it takes, what is wrong."""

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from ketch.build.planning.outline import Answer, check, outline, targets
from ketch.build.request import LocalDirectory, Request
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.ignore_patterns import IgnorePatterns
from tests.support.planning import Images, planned, refused

_TEXT = textwrap.dedent(
    """\
    # VERSION is that of Debian
    ARG VERSION=12
    ARG BASE=debian:$VERSION

    # build makes it
    FROM --platform=$BUILDPLATFORM $BASE AS build
    ARG X=1
    RUN --mount=type=secret,id=token,required --mount=type=ssh make
    FROM scratch AS unused
    ARG UNUSED
    FROM scratch
    # Y is another
    ARG VERSION Y
    COPY --from=build / /
    """
).encode()


def _request(**wanted: Any) -> Request:
    return Request(**{"contexts": {"context": LocalDirectory("/")}} | wanted)


def _lines(first: int, last: int | None = None) -> dict[str, Any]:
    lines = range(first, (last or first) + 1)
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]}


def test_targets() -> None:
    answer = targets(_TEXT, "Dockerfile")
    assert answer.document["targets"] == [
        {"name": "build", "description": "makes it", "base": "$BASE",
         "platform": "$BUILDPLATFORM", "location": _lines(6)},
        {"name": "unused", "base": "scratch", "location": _lines(9)},
        {"default": True, "base": "scratch", "location": _lines(11)},
    ]  # fmt: skip
    assert answer.text == ("TARGET    DESCRIPTION\nbuild     makes it\nunused    \n(default) \n")


def test_outline() -> None:
    answer = outline(_TEXT, "Dockerfile", _request(build_args={"X": "2"}), Images())
    assert answer.document["args"] == [
        {"name": "VERSION", "value": "12", "description": "is that of Debian",
         "location": _lines(2)},
        {"name": "BASE", "value": "debian:12", "location": _lines(3)},
        {"name": "X", "value": "2", "location": _lines(7)},
        {"name": "Y", "description": "is another", "location": _lines(13)},
    ]  # fmt: skip
    assert answer.document["secrets"] == [
        {"name": "token", "required": True, "location": _lines(8)}
    ]
    assert answer.document["ssh"] == [{"name": "default", "location": _lines(8)}]
    assert [line.rstrip() for line in answer.text.splitlines()] == [
        "BUILD ARG   VALUE       DESCRIPTION",
        "VERSION     12          is that of Debian",
        "BASE        debian:12",
        "X           2",
        "Y                       is another",
        "",
        "SECRET   REQUIRED",
        "token    true",
        "",
        "SSH       REQUIRED",
        "default",
        "",
    ]
    one = outline(_TEXT, "Dockerfile", _request(target="build"), Images()).text
    assert one.startswith("TARGET:      build\nDESCRIPTION: makes it\n\nBUILD ARG")


def test_an_outline_of_what_cannot_be() -> None:
    with pytest.raises(DockerfileError) as caught:
        outline(b"FROM a\nCOPY --from=1 / /\n", "D", _request(), Images())
    assert caught.value.source is not None


def _checked(text: str, ignored: Callable[[], IgnorePatterns] | None = None, **more: Any) -> Answer:
    return check(textwrap.dedent(text).encode(), "Dockerfile", _request(**more), Images(), ignored)


def test_rules_that_take_evaluation() -> None:
    text = """\
        ARG EMPTY
        FROM --platform=$TARGETPLATFORM a AS one
        ARG KNOWN=k
        WORKDIR rel
        RUN echo $UNSET
        COPY $KNOWN $KNWON x.o .
        ENV API_KEY=$UNSET
        LABEL a b
        EXPOSE 80/TCP 127.0.0.1:80:80
        CMD one
        CMD two
        FROM --platform=linux/riscv64 image${NONE} AS two
        FROM b$EMPTY AS three
        SHELL ["/bin/sh", "-c"]
        ENTRYPOINT x
        """
    answer = _checked(text, lambda: IgnorePatterns(["*.o"]))
    assert answer.error is None
    assert [(finding.rule.name, finding.place.first) for finding in answer.findings] == [
        ("RedundantTargetPlatform", 2),
        ("WorkdirRelativePath", 4),
        ("UndefinedVar", 6),
        ("CopyIgnoredFile", 6),
        ("UndefinedVar", 7),
        ("SecretsUsedInArgOrEnv", 7),
        ("LegacyKeyValueFormat", 8),
        ("ExposeInvalidFormat", 9),
        ("ExposeProtoCasing", 9),
        ("JSONArgsRecommended", 10),
        ("MultipleInstructionsDisallowed", 10),
        ("JSONArgsRecommended", 11),
        ("UndefinedArgInFrom", 12),
        ("FromPlatformFlagConstDisallowed", 12),
    ]
    assert answer.status == 1
    assert "Usage of undefined variable '$KNWON' (did you mean $KNOWN?)" in answer.text
    assert answer.text.startswith(
        "\nWARNING: RedundantTargetPlatform - "
        "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/\n"
    )
    assert "   4 | >>> WORKDIR rel\n" in answer.text
    assert answer.document["warnings"][1]["location"] == _lines(4)


def test_only_the_target_is_checked_where_there_is_one() -> None:
    text = "FROM a AS one\nWORKDIR x\nFROM a AS two\nWORKDIR y\n"
    for target, lines in (("", [2, 4]), ("one", [2]), ("two", [4])):
        findings = _checked(text, target=target).findings
        assert [finding.place.first for finding in findings] == lines


def test_an_error_is_a_part_of_the_answer() -> None:
    answer = _checked("FROM a\nWORKDIR x\nCOPY https://host.example/a /\n")
    assert [finding.rule.name for finding in answer.findings] == ["WorkdirRelativePath"]
    assert answer.error is not None
    assert answer.document["buildError"] == {
        "message": "source can't be a URL for COPY", "location": _lines(3),
    }  # fmt: skip
    broken = _checked("FORM a\n")
    assert broken.error is not None
    assert broken.status == 1


def test_what_says_which_rules_count() -> None:
    text = "# check=skip=WorkdirRelativePath;error=true\nFROM a\nWORKDIR x\nENV KEY=1\n"
    assert refused(text).message == "lint violation found for rules: SecretsUsedInArgOrEnv"
    override = {"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}
    assert planned(text, build_args=override).warnings == []
    (warning,) = planned("FROM a\nWORKDIR x\n", platforms=["linux/amd64", "linux/arm64"]).warnings
    assert (warning.rule, warning.place and warning.place.first) == ("WorkdirRelativePath", 2)


def test_an_image_for_another_platform() -> None:
    (warning,) = planned(
        "FROM a\n", Images(platform="linux/s390x"), platforms=["linux/arm64"]
    ).warnings
    assert warning.message == (
        'Base image a was pulled with platform "linux/s390x", expected "linux/arm64" for current '
        "build"
    )
