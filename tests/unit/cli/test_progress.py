import contextlib
import io
import os
import pty

import pytest

from ketch.cli.progress import Bars, Lines, shown_on


def test_lines_tell_states_and_not_what_merely_goes_on() -> None:
    stream = io.StringIO()
    lines = shown_on(stream)
    assert isinstance(lines, Lines)
    lines.begin("latest", "Pulling from library/x")
    lines.advance("abc", "Downloading", 1, 2)
    lines.say("abc", "Pull complete")
    lines.say("", "Status: done")
    assert stream.getvalue() == (
        "latest: Pulling from library/x\nabc: Pull complete\nStatus: done\n"
    )


def test_a_terminals_lines_change_in_their_place() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream:
        bars = shown_on(stream)
        assert isinstance(bars, Bars)
        bars.begin("latest", "Pulling from library/x")
        bars.say("a", "Waiting")
        bars.say("b", "Waiting")
        bars.say("a", "Pull complete")
        bars.say("", "Status: done")
        bars.say("c", "Preparing")
    pieces = []
    with contextlib.suppress(OSError):  # what a terminal says once its other end is closed
        while piece := os.read(leader, 4096):
            pieces.append(piece)
    shown = b"".join(pieces).decode().replace("\r\n", "\n")
    os.close(leader)
    assert shown == (
        "latest: Pulling from library/x\n"
        "\n\x1b[1A\x1b[2K\ra: Waiting \r\x1b[1B"
        "\n\x1b[1A\x1b[2K\rb: Waiting \r\x1b[1B"
        "\x1b[2A\x1b[2K\ra: Pull complete \r\x1b[2B"
        "Status: done\n"
        "\n\x1b[1A\x1b[2K\rc: Preparing \r\x1b[1B"
    )


def test_what_goes_on_is_drawn_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def fileno(self) -> int:
            return 1

    size = os.terminal_size((80, 24))
    monkeypatch.setattr(os, "get_terminal_size", lambda _: size)
    screen = Screen()
    bars = Bars(screen)
    for position in range(1001):
        bars.advance("a", "Downloading", position, 1000)
    assert 2 <= screen.getvalue().count("Downloading") < 100
    assert "1kB/1kB" in screen.getvalue()  # the last is never left out
