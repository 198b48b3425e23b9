"""What instructions make of an image: its configuration and its history, in BuildKit's words."""

from typing import Any

import pytest

from ketch.build.graph import ContextSource, GitSource, HttpSource
from ketch.build.planning.dating import Dateable
from ketch.build.request import Git, LocalDirectory
from tests.support.planning import PATH, Images, config, history, planned, refused, runs


def test_a_dense_dockerfile() -> None:
    found = planned(
        """
        FROM scratch
        MAINTAINER somebody <a@b.example>
        ARG X=1 Y
        ENV A=b C="d e"
        LABEL z=1 a="2 3"
        WORKDIR src
        USER me:us
        SHELL ["/bin/bash", "-c"]
        EXPOSE 443/UDP 80 8000-8001
        VOLUME /data /more
        STOPSIGNAL SIGQUIT
        HEALTHCHECK --interval=90s --retries=3 CMD curl "x"
        RUN echo hi
        CMD ["a", "b\\"c"]
        ONBUILD RUN x
        """
    )
    assert history(found) == [
        "MAINTAINER somebody <a@b.example>",
        "ARG X=1 Y",
        "ENV A=b C=d e",
        "LABEL z=1 a=2 3",
        "WORKDIR /src",
        "USER me:us",
        "SHELL [/bin/bash -c]",
        "EXPOSE [443/udp 80/tcp 8000/tcp 8001/tcp]",
        "VOLUME [/data /more]",
        "STOPSIGNAL SIGQUIT",
        'HEALTHCHECK {Test:[CMD-SHELL curl "x"] Interval:1m30s Timeout:0s StartPeriod:0s '
        "StartInterval:0s Retries:3}",
        "RUN |2 X=1 Y= /bin/bash -c echo hi # buildkit",
        'CMD ["a" "b\\"c"]',
    ]
    document = found.targets[0].config
    assert document["author"] == "somebody <a@b.example>"
    assert (document["os"], document["architecture"]) == ("linux", "amd64")
    assert [*config(found).items()] == [
        ("User", "me:us"),
        ("ExposedPorts", {"443/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}}),
        ("Env", [PATH, "A=b", "C=d e"]),
        ("Cmd", ["a", 'b"c']),
        ("Volumes", {"/data": {}, "/more": {}}),
        ("WorkingDir", "/src"),
        ("Labels", {"a": "2 3", "z": "1"}),
        ("StopSignal", "SIGQUIT"),
        ("ArgsEscaped", True),
        ("Healthcheck", {"Test": ["CMD-SHELL", 'curl "x"'], "Interval": 90 * 10**9, "Retries": 3}),
        ("OnBuild", ["RUN x"]),
        ("Shell", ["/bin/bash", "-c"]),
    ]


def test_history_goes_on_from_a_stage_and_names_what_made_its_layers() -> None:
    found = planned("FROM scratch AS a\nWORKDIR /\nWORKDIR /x\nFROM a\nCOPY y <<z /\nz\n")
    assert history(found) == ["WORKDIR /", "WORKDIR /x", "COPY y <<z / # buildkit"]
    layers = [step.vertex is not None for step in found.targets[0].steps]
    assert layers == [False, True, True]


@pytest.mark.parametrize(
    ("base", "text", "expected"),
    [
        (["sh"], "", ["sh"]),
        (["sh"], "ENTRYPOINT x", None),
        (["sh"], "CMD a\nENTRYPOINT x", ["/bin/sh", "-c", "a"]),
        (["sh"], "ENTRYPOINT x\nCMD a", ["/bin/sh", "-c", "a"]),
        (["sh"], "CMD a\nFROM base AS next\nENTRYPOINT x", None),
    ],
)
def test_a_command_goes_with_the_entry_point_that_it_was_for(
    base: list[str], text: str, expected: list[str] | None
) -> None:
    found = planned(f"FROM base\n{text}\n", Images({"base": {"Cmd": base}}))
    assert config(found).get("Cmd") == expected


def test_what_a_base_has_is_kept_and_its_triggers_are_not() -> None:
    images = Images(
        {
            "base": {
                "Env": ["A=1", "B=2"], "User": "u", "WorkingDir": "/w", "Labels": {"l": "1"},
                "OnBuild": ["ENV T=1"], "Hostname": "odd", "Shell": ["/bin/ash", "-ec"],
            }
        }
    )  # fmt: skip
    found = planned("FROM base\nENV A=3 C=4\nRUN x\n", images)
    assert config(found) == {
        "User": "u",
        "Env": ["A=3", "B=2", PATH, "T=1", "C=4"],
        "WorkingDir": "/w",
        "Labels": {"l": "1"},
        "Shell": ["/bin/ash", "-ec"],
    }
    (step,) = runs(found)
    assert (step.user, step.directory) == ("u", "/w")
    assert step.arguments == ("/bin/ash", "-ec", "x")


@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        ("a", "/a"), ("a b", "/a/b"), ("/a/../b", "/a/../b"), ("/x /y", "/y"), ("/a ../b/.", "/b"),
        ("/app/", "/app/"),
    ],
)  # fmt: skip
def test_directories_go_on_from_each_other(directories: str, expected: str) -> None:
    text = "".join(f"WORKDIR {each}\n" for each in directories.split())
    assert config(planned(f"FROM scratch\n{text}"))["WorkingDir"] == expected


def test_arguments_are_seen_from_their_line_on() -> None:
    found = planned(
        """
        ARG GLOBAL=g
        ARG UNSEEN=u
        FROM scratch AS one
        RUN [ "0" ]
        ARG GLOBAL
        ARG GIVEN=default OTHER=${GLOBAL}x UNSET
        ENV OTHER=env
        RUN [ "1" ]
        FROM one
        ARG LATER=1
        RUN [ "2" ]
        """,
        build_args={"GIVEN": "given", "NONE": None},
    )
    first, second, third = runs(found)
    assert first.environment == (PATH,)
    assert second.environment == (PATH, "GLOBAL=g", "GIVEN=given", "OTHER=env")
    assert third.environment == ("GLOBAL=g", "GIVEN=given", PATH, "OTHER=env", "LATER=1")
    assert history(found)[1:3] == ["ARG GLOBAL=g", "ARG GIVEN=given OTHER=gx UNSET"]
    assert history(found)[4] == "RUN |4 GLOBAL=g GIVEN=given OTHER=env UNSET= 1 # buildkit"
    assert found.unused_arguments == []


def test_arguments_that_nothing_declares_are_told() -> None:
    given = {"A": "1", "TYPO": "1", "http_proxy": "x", "BUILDKIT_INLINE_CACHE": "1", "G": "1"}
    found = planned("ARG G\nFROM scratch\nFROM scratch\nARG A\n", target="0", build_args=given)
    assert found.unused_arguments == ["TYPO"]


def test_labels_of_the_request_win_and_leave_no_trace_in_the_history() -> None:
    found = planned("FROM scratch\nLABEL a=1 b=2\n", labels={"b": "3", "c": "4"})
    assert config(found)["Labels"] == {"a": "1", "b": "3", "c": "4"}
    assert history(found) == ["LABEL a=1 b=2"]


def test_one_time_for_all() -> None:
    found = planned("FROM scratch\nCOPY a /\nWORKDIR /x\n", build_args={"SOURCE_DATE_EPOCH": "7"})
    assert found.epoch_s == 7
    vertices = [step.vertex for step in found.targets[0].steps]
    assert [getattr(vertex, "time_s", None) for vertex in vertices] == [7, 7]
    assert planned("ARG SOURCE_DATE_EPOCH=8\nFROM scratch\n").epoch_s == 8
    for text in ("now", "-1", "253402300800", "1.5"):
        error = refused("FROM scratch\n", build_args={"SOURCE_DATE_EPOCH": text})
        assert error.message == f"invalid SOURCE_DATE_EPOCH: {text}"


def test_the_contexts_own_time() -> None:
    name = "SOURCE_DATE_EPOCH"
    text = f"ARG {name}=context\nFROM scratch\nARG {name}\nLABEL a=${name}\n"
    for given in ({}, {name: "context"}):
        found = planned(text, dated=lambda _: 9, build_args=given)
        assert (found.epoch_s, config(found)["Labels"]) == (9, {"a": "9"})
        found = planned(text, build_args=given)
        assert (found.epoch_s, config(found)["Labels"]) == (None, {"a": ""})
    assert planned(text, dated=lambda _: 9, build_args={name: "8"}).epoch_s == 8


def test_the_time_of_a_named_context_or_of_a_stage_that_is_one_download() -> None:
    asked: list[object] = []

    def dated(source: Dateable) -> int:
        match source:
            case ContextSource():
                asked.append(source.context)
            case HttpSource() | GitSource():
                asked.append((source.url, source.checksum))
        return 9

    def found(name: str, stage: str, **wanted: Any) -> int | None:
        text = f"ARG V=1\n{stage}\nFROM scratch\nCOPY a /\n"
        given = {"SOURCE_DATE_EPOCH": name, "W": "2"}
        return planned(text, dated=dated, build_args=given, **wanted).epoch_s

    contexts = {"context": LocalDirectory("/"), "named": Git("https://host.example/a.git")}
    assert found("named", "", contexts=contexts) == 9
    added = "FROM scratch AS When\nARG V\nARG W\nARG X=$W\nADD"
    assert found("when", f"{added} https://host.example/$V/$X/f /") == 9
    digest = f"sha256:{'1' * 64}"
    assert found("WHEN", f"{added} --checksum={digest} https://host.example/f / ") == 9
    assert found("when", f"{added} https://host.example/b.git#v$V / ") == 9
    assert asked == [
        "named", ("https://host.example/1/2/f", ""), ("https://host.example/f", digest),
        ("https://host.example/b.git#v1", ""),
    ]  # fmt: skip
    only = "SOURCE_DATE_EPOCH stage "
    for stage, message in (
        ("FROM busybox AS when", "must use FROM scratch"),
        ("FROM scratch AS when", "must contain exactly one remote ADD"),
        (f"{added} https://host.example/f /\nADD https://host.example/g /",
         "must contain exactly one remote ADD"),
        (f"{added} https://host.example/f b /", "must contain exactly one remote ADD source"),
        (f"{added} f /", "source must be a single HTTP(S) or Git ADD"),
        (f"{added} https://host.example/f /\nRUN true",
         "does not meet source-only requirements: unsupported RUN instruction"),
    ):  # fmt: skip
        error = refused(f"{stage}\nFROM scratch\n", build_args={"SOURCE_DATE_EPOCH": "when"})
        assert (error.message, error.places[0].first) == (only + message, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STOPSIGNAL SIGNONE", "invalid signal: SIGNONE"),
        ("ENV A=${B:?needed}", 'failed to process "${B:?needed}": B: needed'),
        ("ARG A=${B:?}", 'failed to process "${B:?}": B: is not allowed to be unset'),
        ("RUN []", "arguments are required"),
    ],
)
def test_what_cannot_be_says_where(text: str, message: str) -> None:
    error = refused(f"FROM scratch\n\n{text}\n")
    assert error.message == message
    assert [place.first for place in error.places] == [3]


def test_an_image_that_nobody_could_read_is_refused() -> None:
    volumes = " ".join(f"/{number}" for number in range(300))
    assert "more than 256 Volumes" in refused(f"FROM scratch\nVOLUME {volumes}\n").message
