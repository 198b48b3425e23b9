"""How a build shows, by what it says of itself."""

import io
import json

import pytest

from ketch.build.graph import Remark
from ketch.build.progress import Event, Log, Status, VertexState, Warned
from ketch.cli import build_progress
from ketch.cli.build_progress import Plain, RawJson, Silent, Terminal
from ketch.cli.build_trace import bytes_text
from ketch.errors import InvalidArgumentError
from ketch.spec.dockerfile.errors import Place

S = 1_000_000_000
BEGUN = 1_700_000_000 * S


def vertex(name: str, started: float = 0, ended: float = 0, **more: object) -> VertexState:
    at = {"started_ns": BEGUN + int(started * S), "completed_ns": 0}
    if ended:
        at["completed_ns"] = BEGUN + int(ended * S)
    return VertexState(f"sha256:{name}", name, **{**at, **more})  # type: ignore[arg-type]


def log(name: str, data: bytes, at: float = 0) -> Log:
    return Log(f"sha256:{name}", 1, data, BEGUN + int(at * S))


def shown(*events: Event) -> str:
    stream = io.StringIO()
    display = Plain(stream)
    with display.going_on():
        for event in events:
            display.trace.update(event)
            display._show()
    return stream.getvalue()


def test_vertices_one_after_the_other() -> None:
    text = shown(
        vertex("load"), Status("sha256:load", "transferring", 57, 0, BEGUN, BEGUN + S // 1000),
        vertex("load", 0, 0.1), vertex("a"), vertex("a", 0, 0.2, cached=True), vertex("b"),
        log("b", b"one\ntw", 1.5), log("b", b"o\n", 12), vertex("b", 0, 12.25),
    )  # fmt: skip
    assert text == (
        "#1 load\n#1 transferring 57B done\n#1 DONE 0.1s\n\n#2 a\n#2 CACHED\n\n"
        "#3 b\n#3 1.500 one\n#3 12.00 two\n#3 DONE 12.2s\n"
    )


def test_what_failed_is_shown_again_at_the_end() -> None:
    text = shown(
        vertex("bad"), vertex("other"), log("bad", b"no\x1b[2Jend"),
        vertex("bad", 0, 1, error="exit code: 1"),
        vertex("other", 0, 1, error="context canceled"),
    )  # fmt: skip
    assert "#1 ERROR: exit code: 1\n" in text
    assert "#2 CANCELED\n" in text
    assert text.endswith("------\n > bad:\n1.000 no\\x1b[2Jend\n------\n")
    assert "\x1b" not in text


def test_a_vertex_is_turned_to_only_when_the_other_has_ended() -> None:
    text = shown(
        vertex("a"), log("a", b"1\n"), vertex("b"), log("b", b"2\n"), log("a", b"3\n"),
        vertex("a", 0, 1), vertex("b", 0, 2),
    )  # fmt: skip
    assert text == (
        "#1 a\n#1 0.000 1\n#1 0.000 3\n#1 DONE 1.0s\n\n#2 b\n#2 0.000 2\n#2 DONE 2.0s\n"
    )


def test_a_line_without_end_does_not_grow_for_ever() -> None:
    display = Plain(io.StringIO())
    display.trace.update(vertex("a"))
    for _ in range(100):
        display.trace.update(log("a", b"x" * 10_000))
    shown = display.trace.vertices["sha256:a"]
    assert len(shown.tail) <= 16 * 1024
    assert sum(map(len, shown.kept)) > 900_000


def test_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    display = Terminal(stream)
    with display.going_on():
        for number in range(20):
            display.take(vertex(f"step {number}"))
            display.take(log(f"step {number}", b"output\n" * 9))
        display._show()
        for number in range(20):
            display.take(vertex(f"step {number}", 0, 1.5))
    drawn = stream.getvalue().split("\x1b[?25l")
    assert all(len(one.split("\n")) <= 11 for one in drawn[:-1])  # or it would scroll away
    assert "(20/20) FINISHED" in drawn[-1]
    last = [line for line in drawn[-1].split("\n") if "=> step" in line]
    assert len(last) == 20
    assert all(len(line.removeprefix("\x1b[2K")) < 60 and line.endswith("1.5s") for line in last)


def test_json_lines() -> None:
    stream = io.StringIO()
    display = RawJson(stream)
    finding = Remark("Rule", "in general", "https://rule.example", "here", Place(3, 4))
    with display.going_on():
        for event in (
            vertex("a", 1), Status("sha256:a", "sending", 3, 9, BEGUN), log("a", b"\xff"),
            Warned("sha256:a", finding, "Dockerfile", b"FROM x"), vertex("a", 1, 2, error="e"),
        ):  # fmt: skip
            display.take(event)
    first, second, third, fourth, fifth = map(json.loads, stream.getvalue().splitlines())
    assert first["vertexes"][0]["started"] == "2023-11-14T22:13:21Z"
    assert (second["statuses"][0]["current"], second["statuses"][0]["total"]) == (3, 9)
    assert third["logs"][0]["data"] == "/w=="
    assert fourth["warnings"][0]["range"][0]["start"]["line"] == 3
    assert fifth["vertexes"][0]["error"] == "e"


def test_which_display_is_chosen() -> None:
    stream = io.StringIO()
    assert isinstance(build_progress.display("", stream), Plain)
    assert isinstance(build_progress.display("quiet", stream), Silent)
    for mode in ("tty", "loud"):
        with pytest.raises(InvalidArgumentError):
            build_progress.display(mode, stream)


def test_amounts_are_written_as_buildkit_writes_them() -> None:
    assert [bytes_text(count) for count in (0, 999, 1000, 57_040, 3_000_000_000)] == [
        "0B", "999B", "1.00kB", "57.04kB", "3.00GB",
    ]  # fmt: skip


def test_a_summary_of_findings() -> None:
    finding = Remark("Rule", "", "", "said", Place(7, 7))
    one = Warned("v", finding, "Dockerfile", b"")
    assert build_progress.summary([]) == ""
    assert " 1 warning found" in build_progress.summary([one])
    assert " - Rule: said (line 7)\n" in build_progress.summary([one, one])
