"""What the client writes of the steps that it is told."""

import json
import subprocess

import pytest

from ketch.cli.explaining import Explainer
from ketch.spec.told import Told, quote


def written(form: str, *steps: Told, terminal: bool = False, ends: int = 1) -> list[str]:
    explainer = Explainer(form, terminal=terminal)
    parts = [explainer.take(step.encode().encode()) for step in steps]
    parts += [explainer.take(b"") for _ in range(ends)]
    return b"".join(parts).decode().splitlines()


HOSTILE = Told("files", "bind \x1b[2J to /x", [("na\x07me", "a\nb\x1b]0;title\x07")])


def test_names_that_come_from_elsewhere_do_not_speak_to_the_terminal() -> None:
    for terminal in (False, True):
        lines = written("text", HOSTILE, terminal=terminal)
        text = "\n".join(lines).replace("\x1b[2m", "").replace("\x1b[0m", "")
        assert "\x07" not in text
        assert "\x1b]" not in text
        assert "\x1b[2J" not in text
        assert sum("a\\nb" in line for line in lines) == 1


def test_a_terminal_s_topics_are_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    steps = [Told("files", "one · call(2)"), Told("files", "two"), Told("limits", "three")]
    for number, step in enumerate(steps):
        step.began_ns = 1_000_000 * number * number
    assert written("text", *steps, terminal=True) == [
        "files",
        "  1.00 ms  one · call(2)",
        "  3.00 ms  two",
        "limits",
        "           three",
    ]


def test_each_line_of_json_is_a_step() -> None:
    first, second = Told("files", "one · a(2), b(2)", [("x", 1)]), Told("limits", "two")
    first.began_ns, second.began_ns = 5, 12
    assert [json.loads(line) for line in written("json", first, second)] == [
        {"topic": "files", "step": "one", "calls": ["a(2)", "b(2)"],
         "values": [{"name": "x", "value": "1"}], "elapsedNs": 7},
        {"topic": "limits", "step": "two", "calls": [], "values": [], "elapsedNs": None},
    ]  # fmt: skip


def test_a_script_enters_once_all_that_is_new() -> None:
    steps = [
        Told("network", "link", outside=["ip netns add x", "nsenter --net=/run/netns/x"]),
        Told("namespaces", "uts", outside=["unshare --uts"]),
        Told("namespaces", "pid", outside=["unshare --pid"]),
        Told("namespaces", "name\nrm -r /", inside=["hostname x"]),
        Told("record", "nothing to do by hand"),
    ]
    lines = written("commands", *steps, ends=2)
    assert lines[0] == "#!/bin/sh"
    body = [line for line in lines[3:] if line and not line.startswith("#")]
    assert body == [
        "ip netns add x",
        "status=0",
        "nsenter --net=/run/netns/x unshare --uts --pid --fork sh -eu <<'INSIDE' || status=$?",
        "hostname x",
        "INSIDE",
    ]


def test_an_argument_keeps_its_lines_and_ends_no_script() -> None:
    argument = "one\nINSIDE\ntwo"
    step = Told(
        "program", "become", outside=["unshare --uts"], inside=[f"printf %s {quote(argument)}"]
    )
    script = "\n".join(written("commands", step)).replace("unshare --uts --fork ", "")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == argument


def test_nothing_told_nothing_written() -> None:
    for form in ("text", "json", "commands"):
        assert written(form, ends=2) == []
