"""Logging for a monitor that sleeps: until silence, or until somebody else is needed."""

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from ketch.engine.logs import json_file
from ketch.engine.monitor import scribe
from ketch.engine.monitor.handover import Channel
from ketch.engine.monitor.supervision import Streams
from ketch.linux.memory_image import Image
from ketch.spec import log_drivers


@pytest.fixture
def pipes() -> Iterator[tuple[Streams, list[int]]]:
    streams = Streams.make(interactive=False, terminal=False)
    theirs = [os.dup(descriptor) for descriptor in streams.given[1:]]
    streams.started(None)
    yield streams, theirs
    streams.close()
    for descriptor in theirs:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scribe, "_PAUSE_MS", 20)
    monkeypatch.setattr(scribe, "_REST_MS", 50)


def _serve(streams: Streams, path: pathlib.Path, others: list[int], begun: bytes = b"") -> bytes:
    """Let a scribe write, which takes over from another one; return what it tells."""
    log = json_file.Writer(str(path), log_drivers.rotation(log_drivers.JSON_FILE, {}))
    if begun:
        log.resume(*scribe.begun(begun))
    ours, theirs = Channel.pair()
    scribe.serve(theirs, streams, others, log, Image())
    told, _ = ours.take()
    ours.close()
    theirs.close()
    return told


def _entries(path: pathlib.Path) -> list[tuple[str, str]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(entry["stream"], entry["log"]) for entry in entries]


def test_a_line_in_two_halves_is_one_entry_though_two_scribes_wrote(
    pipes: tuple[Streams, list[int]], tmp_path: pathlib.Path
) -> None:
    streams, (out, err) = pipes
    os.write(out, b"whole\nha")
    os.write(err, b"amiss\n")
    told = _serve(streams, tmp_path / "log", [])
    assert scribe.rests(told)
    assert scribe.begun(told)[:2] == (b"ha", b"")
    os.write(out, b"lf\n")
    os.write(err, b"\xff\0")
    told = _serve(streams, tmp_path / "log", [], told)
    assert scribe.begun(told)[:2] == (b"", b"\xff\0")
    found = _entries(tmp_path / "log")
    assert sorted(found[:2]) == [("stderr", "amiss\n"), ("stdout", "whole\n")]
    assert found[2:] == [("stdout", "half\n")]


def test_it_gives_way_to_others_and_leaves_what_it_has_not_read(
    pipes: tuple[Streams, list[int]], tmp_path: pathlib.Path
) -> None:
    streams, (out, _err) = pipes
    knocking, knock = os.pipe()
    os.close(knock)
    os.write(out, b"word\n")
    told = _serve(streams, tmp_path / "log", [knocking])
    os.close(knocking)
    assert told
    assert not scribe.rests(told)
    logged = "".join(text for _, text in _entries(tmp_path / "log"))
    left = b"" if logged else os.read(next(iter(streams.outputs)), 100)
    assert logged + left.decode() == "word\n"


def test_it_gives_way_when_a_stream_has_ended(
    pipes: tuple[Streams, list[int]], tmp_path: pathlib.Path
) -> None:
    streams, theirs = pipes
    os.write(theirs[0], b"last")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, theirs[0])
    os.close(null)
    told = _serve(streams, tmp_path / "log", [])
    assert not scribe.rests(told)
    assert scribe.begun(told)[:2] == (b"last", b"")


def test_one_that_was_killed_has_told_nothing() -> None:
    assert not scribe.rests(b"")
