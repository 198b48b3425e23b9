"""Which stages are planned, what they are called, and what they cannot be."""

import pytest

from tests.support.planning import DIGEST, Images, names, planned, refused, runs

_TWO = """
    FROM a AS one
    RUN 1
    FROM b AS two
    COPY --from=one /x /
    FROM c AS three
    RUN 3
"""


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("", ["c"]),
        ("two", ["a", "b"]),
        ("TWO", ["a", "b"]),
        ("0", ["a"]),
    ],
)
def test_only_what_the_target_needs_is_asked_for(target: str, asked: list[str]) -> None:
    images = Images()
    planned(_TWO, images, target=target)
    assert [name for name, _, _ in images.asked] == [
        f"docker.io/library/{name}:latest" for name in asked
    ]


def test_names_count_what_each_stage_does() -> None:
    found = planned(
        """
        FROM a AS build
        ARG X=y
        WORKDIR /w
        WORKDIR /
        run  make $X "$X" $UNSET $(id)
        COPY "$X" --link.txt ./
        FROM scratch
        COPY --from=build --link /out /
        ADD --chmod=644 x y
        """
    )
    assert names(found) == [
        "",
        f"[build 1/5] FROM docker.io/library/a:latest@{DIGEST}",
        "[build 2/5] WORKDIR /w",
        '[build 3/5] RUN  make y "y" $UNSET $(id)',
        "[internal] load build context",
        "[build 4/5] COPY y --link.txt ./",
        "[stage-1 1/2] COPY --from=build --link /out /",
        "[stage-1 2/2] ADD --chmod=644 x y",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN x", "[2/2] RUN x"),
        ("RUN --mount=type=tmpfs,target=/t x", "[stage-0 2/2] RUN --mount=type=tmpfs,target=/t x"),
        ("COPY --from=b / /", "[stage-0 2/2] COPY --from=b / /"),
    ],
)
def test_the_only_stage_has_no_name(text: str, expected: str) -> None:
    assert names(planned(f"FROM a\n{text}\n"))[-1] == expected


def test_long_stages_align_their_numbers() -> None:
    found = planned("FROM scratch AS s\n" + "".join(f"RUN {number}\n" for number in range(10)))
    assert names(found)[1] == "[ 1/10] RUN 0"
    assert names(found)[-1] == "[10/10] RUN 9"


def test_triggers_go_before_what_follows() -> None:
    images = Images({"a": {"OnBuild": ["ARG V=1", "COPY --from=tools /t /", "RUN $V"]}})
    found = planned("FROM t AS tools\nFROM a AS one\nRUN own\nFROM one\n", images, target="one")
    assert names(found) == [
        f"[one 1/2] FROM docker.io/library/a:latest@{DIGEST}",
        f"[tools 1/1] FROM docker.io/library/t:latest@{DIGEST}",
        "[one 2/5] ONBUILD COPY --from=tools /t /",
        "[one 3/5] ONBUILD RUN 1",
        "[one 4/5] RUN own",
    ]


def test_triggers_of_a_stage_are_those_of_whoever_goes_on_from_it() -> None:
    found = planned(
        "FROM a AS one\nONBUILD RUN t\nRUN 1\nFROM one AS two\nRUN 2\nFROM two\nRUN 3\n"
    )
    assert [step.arguments[-1] for step in runs(found)] == ["1", "t", "2", "3"]
    assert "OnBuild" not in found.targets[0].config["config"]


def test_what_is_the_same_is_one() -> None:
    found = planned(
        """
        FROM a AS one
        RUN x
        FROM a AS two
        RUN x
        FROM scratch
        COPY --from=one 1 /
        COPY --from=two 2 /
        """
    )
    assert len(runs(found)) == 1


def test_stages_of_which_nothing_is_taken_from_the_cache() -> None:
    text = "FROM a AS one\nRUN x\nFROM one\nCOPY y /\n"
    for wanted, ignored in (
        ({"no_cache": True}, [True, True]),
        ({"no_cache_filter": ["ONE"]}, [True, False]),
        ({}, [False, False]),
    ):
        vertices = [step.vertex for step in planned(text, **wanted).targets[0].steps]
        assert [vertex.ignore_cache for vertex in vertices if vertex] == ignored


@pytest.mark.parametrize(
    ("text", "message", "lines"),
    [
        ("FROM a\nCOPY --from=0 x /\n", "circular dependency detected on stage: stage-0", [2]),
        (
            "FROM a AS one\nCOPY --from=two / /\nFROM b AS two\nRUN --mount=from=one x\n",
            "circular dependency detected on stage: one", [2, 4],
        ),
        (
            "FROM a AS one\nCOPY --from=two / /\nFROM one AS two\n",
            'cannot copy from stage "two", it needs to be defined before current stage "one"', [2],
        ),
        (
            "FROM a AS one\nRUN --mount=from=two,target=/t x\nFROM b AS two\nFROM one\n",
            'cannot mount from stage "two" to "/t", stage needs to be defined before current '
            "command", [2],
        ),
        ("FROM a\nCOPY --from=7 x /\n", "invalid stage index 7", [2]),
        ("ARG X\nFROM $X\n", "base name ($X) should not be blank", [2]),
        ("FROM Upper\n", 'failed to parse stage name "Upper": invalid reference format: repository '
         "name (library/Upper) must be lowercase", [1]),
        ("FROM --platform=$X a\n", "empty platform value from expression $X", [1]),
        ("FROM --platform=$TARGETPLATFORMS a\n", "empty platform value from expression "
         "$TARGETPLATFORMS (did you mean TARGETPLATFORM?)", [1]),
        ("FROM --platform=a/b/c/d a\n", 'failed to parse platform a/b/c/d: "a/b/c/d": cannot parse '
         "platform specifier", [1]),
        ("FROM missing\n", "missing: docker.io/library/missing:latest: not found", [1]),
        ("FROM a AS missing-it\nFROM missing-its\n",
         "missing-its: docker.io/library/missing-its:latest: not found (did you mean missing-it?)",
         [2]),
        ("FROM a\nCOPY --from=missing x /\n",
         "missing: docker.io/library/missing:latest: not found", [2]),
    ],
)  # fmt: skip
def test_stages_that_cannot_be(text: str, message: str, lines: list[int]) -> None:
    error = refused(text)
    assert error.message == message
    assert [place.first for place in error.places] == lines


def test_a_target_that_is_not_there() -> None:
    error = refused("FROM a AS build\n", target="builds")
    assert error.message == 'target stage "builds" could not be found (did you mean build?)'


def test_a_trigger_that_is_malformed_is_the_base_s() -> None:
    for trigger, message in (
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("RUN 1\nRUN 2", "onbuild trigger should be a single expression"),
        ("BUILD x", "unknown instruction: BUILD"),
    ):
        error = refused("\nFROM a\n", Images({"a": {"OnBuild": [trigger]}}))
        assert error.message.startswith(message)
        assert [place.first for place in error.places] == [2]
