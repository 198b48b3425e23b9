"""Whatever a Dockerfile says, it comes to a plan or to an error of its own; what it can multiply is
bounded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.build.graph import Plan, Vertex
from ketch.build.planning.description import describe, vertices
from ketch.build.planning.stages import STAGES_MAX
from ketch.build.request import ImageInput, LocalDirectory
from ketch.spec.dockerfile.errors import DockerfileError
from tests.support.planning import Images, planned, refused

_WORDS = st.sampled_from(
    [
        "a", "b", "scratch", "one", "two", "0", "1", "/", ".", "..", "/x/", "$A", "${A:-b}",
        "${A:?}", "${B#x}", "x=y", "A=$A$A", "A", '"q w"', "'s'", "*.c", "<<E", "--", "=", "[",
        '["a", "b"]', "\\", "#", "$BUILDPLATFORM", "linux/arm64", "80/tcp", "1-9", "https://h.example/p.git#x",
        "http://h.example/f", "git@h.example:p", "NONE", "CMD", "\udcff", "é", "\0",
    ]
)  # fmt: skip
_FLAGS = st.sampled_from(
    [
        "--from=one", "--from=0", "--from=b", "--chown=$A", "--chmod=u+x", "--chmod=9", "--link",
        "--parents", "--exclude=*.c", "--platform=$BUILDPLATFORM", "--platform=linux/arm64",
        "--mount=type=cache,target=/c", "--mount=from=two,target=t", "--mount=type=ssh",
        "--mount=type=secret,id=s,env=A", "--mount=type=tmpfs,target=/,size=1", "--network=none",
        "--network=host", "--security=insecure", "--checksum=sha256:1", "--keep-git-dir=true",
        "--interval=1s", "--unpack", "--device=v.example/c=n", "--nothing",
    ]
)  # fmt: skip
_KEYWORDS = st.sampled_from(
    [
        "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL",
        "MAINTAINER", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
    ]
)  # fmt: skip


@st.composite
def _instruction(draw: st.DrawFn) -> str:
    keyword = draw(_KEYWORDS)
    if draw(st.booleans()) and draw(st.booleans()):
        keyword = f"ONBUILD {keyword}"
    parts = [keyword, *draw(st.lists(_FLAGS, max_size=2)), *draw(st.lists(_WORDS, max_size=4))]
    line = " ".join(parts)
    return f"{line}\n#!x\n$A\nE" if "<<E" in line else line


@st.composite
def _dockerfile(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.sampled_from(["ARG A=b", "ARG A", "ARG B=$A"]), max_size=2))
    for name in draw(st.lists(st.sampled_from(["", " AS one", " AS two"]), min_size=1, max_size=4)):
        base = draw(st.sampled_from(["scratch", "a", "one", "two", "$A", "trigger", "ctx"]))
        flag = draw(st.sampled_from(["", "--platform=$BUILDPLATFORM ", "--platform=$A "]))
        lines.append(f"FROM {flag}{base}{name}")
        lines += draw(st.lists(_instruction(), max_size=6))
    return "\n".join([*lines, ""])


def _tried(text: str) -> "Plan | str":
    images = Images({"trigger": {"OnBuild": ["COPY --from=one / /", "ARG A=t", "RUN $A"]}})
    try:
        return planned(
            text,
            images,
            platforms=["linux/amd64", "linux/arm64"],
            contexts={"context": LocalDirectory("/"), "ctx": ImageInput("trigger")},
            entitlements=["network.host", "security.insecure", "device"],
        )
    except DockerfileError as error:
        return error.message


@given(_dockerfile())
@settings(max_examples=100, deadline=None)
def test_a_plan_or_an_error_and_the_same_each_time(text: str) -> None:
    found, again = _tried(text), _tried(text)
    if not isinstance(found, Plan) or not isinstance(again, Plan):
        assert found == again
        return
    assert describe(found) == describe(again)
    seen: set[Vertex] = set()
    for vertex in vertices(found):
        assert seen.issuperset(vertex.inputs)
        seen.add(vertex)
    for target in found.targets:
        assert seen.issuperset(step.vertex for step in target.steps if step.vertex is not None)


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_bytes_of_any_kind(content: bytes) -> None:
    _tried(content.decode(errors="surrogateescape"))


_DOUBLED = "FROM scratch\nENV A=x\n" + "ENV A=$A$A\n" * 18
_PAIRS = " ".join(f"A{number}=" for number in range(8_000))


@pytest.mark.parametrize(
    "text",
    [
        # Each of these would come to gigabytes, or take hours.
        _DOUBLED + "".join(f"RUN {number}$A\n" for number in range(5_000)),
        _DOUBLED + "RUN a\nENV B=1\n" * 4_000,
        f"FROM scratch AS s\nENV {_PAIRS}\n" + "FROM s AS s\nENV B=1\n" * 900,
        f"FROM scratch AS s\nARG {_PAIRS}\n" + "FROM s AS s\nRUN x\n" * 900,
        f"FROM scratch AS s\nLABEL {_PAIRS}\n" + "FROM s AS s\n" * 900,
        "FROM scratch AS s\nEXPOSE 1-65535\n" + "FROM s AS s\nEXPOSE 1\n" * 900,
        "".join(f"FROM many AS s{number}\n" for number in range(30))
        + "FROM scratch\n"
        + "".join(f"COPY --from=s{number} / /\n" for number in range(30)),
    ],
    ids=["names", "variables", "stages", "arguments", "labels", "ports", "triggers"],
)
def test_what_a_dockerfile_multiplies_is_bounded(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ketch.build.planning.stages._PLANNED_MAX", 8 << 20)  # it takes less time
    error = refused(text, Images({"many": {"OnBuild": ["USER a"] * 1_000}}))
    assert error.message.startswith(
        (
            "the Dockerfile comes to a plan that is too large",
            "more than 20000 instructions",
            "image configuration: ",
        )
    )


def test_many_stages() -> None:
    chain = "FROM scratch AS s\n" + "FROM s AS s\nUSER x\n" * (STAGES_MAX - 1)
    assert len(planned(chain).targets[0].steps) == STAGES_MAX - 1
    assert refused(f"{chain}FROM s\n").message == f"more than {STAGES_MAX} stages and images"
    copies = "FROM scratch\n" + "".join(f"COPY --from=i{n} a /\n" for n in range(STAGES_MAX))
    assert refused(copies).message == f"more than {STAGES_MAX} stages and images"


def test_rules_are_looked_for_so_often_and_not_more() -> None:
    missing = " ".join(f"$MISSING{number}" for number in range(4_000))
    found = planned("FROM scratch\n" + f"COPY {missing} /\n" * 5)
    assert len(found.warnings) == 1_000
