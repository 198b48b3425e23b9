"""Stages of a Dockerfile, and which one is meant."""

import pytest

from ketch.spec.dockerfile import parsing, stages
from ketch.spec.dockerfile.errors import DockerfileError, Place, report
from ketch.spec.dockerfile.instructions import Copy, Run
from ketch.spec.dockerfile.stages import Stages

TEXT = """\
ARG VERSION=1
ARG OTHER
# base is below all others
FROM a:$VERSION AS base
RUN one
FROM base
ARG VERSION
FROM scratch AS Last
COPY --from=base x y
COPY --from=1 x y
from base as base
"""


def read(text: str = TEXT) -> Stages:
    return stages.read(parsing.parse(text.encode()))


def refused(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        read(text)
    return caught.value


def test_instructions_fall_into_global_args_and_stages() -> None:
    found = read()
    assert [arg.variables[0].name for arg in found.global_args] == ["VERSION", "OTHER"]
    assert [(stage.index, stage.name, stage.label, stage.begin.base) for stage in found.stages] == [
        (0, "base", "base", "a:$VERSION"),
        (1, "", "stage-1", "base"),
        (2, "last", "last", "scratch"),
        (3, "base", "base", "base"),
    ]
    assert [len(stage.instructions) for stage in found.stages] == [1, 1, 2, 0]
    assert found.stages[0].description == "is below all others"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN a", "no build stage in current context"),
        ("ARG a", "dockerfile contains no stages to build"),
        ("FROM a\nFROB b",
         "dockerfile parse error on line 2: unknown instruction: FROB (did you mean FROM?)"),
        ("FROM a\nCOPY --from=$x a b",
         "variable expansion is not supported for --from, define a new stage with FROM using ARG "
         "from global scope as a workaround"),
    ],
)  # fmt: skip
def test_what_makes_no_stage_is_refused(text: str, message: str) -> None:
    assert refused(text).message == message


def test_a_refusal_shows_the_lines() -> None:
    assert report(refused("FROM a\nRUN b\nCOPY \\\n  c\n"), "ERROR: failed to solve: ") == (
        "Dockerfile:3\n"
        "--------------------\n"
        "   2 |     RUN b\n"
        "   3 | >>> COPY \\\n"
        "   4 | >>>   c\n"
        "   5 |     \n"
        "--------------------\n"
        "ERROR: failed to solve: dockerfile parse error on line 3: COPY requires at least two "
        "arguments, but only one was provided. Destination could not be determined\n"
    )


def test_a_trigger_stands_where_the_from_does() -> None:
    place = Place(7, 8)
    found = stages.trigger("RUN a", place)
    assert isinstance(found, Run)
    assert found.place == place
    copy = stages.trigger("COPY <<a /b\nx\na", place)
    assert isinstance(copy, Copy)
    assert copy.contents[0].text == "x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("", "file with no instructions"),
        ("COPY --from=$x a b", "variable expansion is not supported for --from"),
        ("USER", "USER requires exactly one argument"),
    ],
)
def test_a_trigger_that_is_none_is_refused_there(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=f"^{message}") as caught:
        stages.trigger(text, Place(7, 8))
    assert caught.value.places == (Place(7, 8),)
