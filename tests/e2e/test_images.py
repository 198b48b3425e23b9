"""Image commands: the same words and figures from ketch, from docker, and over the API."""

import os
import pathlib
import re

import pytest

from tests.support.archives import archive, member
from tests.support.commands import Engine, finish


@pytest.mark.served
def test_load_tells_a_terminal_how_far_it_is(engine: Engine, tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "image.tar")
    content = archive(member(b"file", data=os.urandom(3 << 20)))
    engine.ok("import", "-", "loading:1", stdin=content)
    layer = engine.ok("image", "inspect", "-f", "{{index .RootFS.Layers 0}}", "loading:1")
    engine.ok("save", "-o", file, "loading:1")
    engine.ok("rmi", "loading:1")

    terminal = engine.terminal("load", "-i", file, columns=150)
    terminal.expect("Loaded image: loading:1\r\n")
    steps = re.findall(rf"\r{layer[7:19]}: Loading layer \[(=*)> *\] +\S+/(\S+)\r",
                       str(terminal.before))  # fmt: skip
    assert finish(terminal) == 0
    assert len(steps) >= 2
    assert len(steps[0][0]) < len(steps[-1][0]) == 50  # cells of a full bar
    assert {size for _, size in steps} == {f"{len(content) / 1e6:.4g}MB"}

    # What is there already is not told of, nor is anything to a pipe or to who wants quiet.
    again = engine.terminal("load", "-i", file)
    assert finish(again) == 0
    assert str(again.before) == "Loaded image: loading:1\r\n"
    engine.ok("rmi", "loading:1")
    assert engine.ok("load", "-i", file) == "Loaded image: loading:1"
    engine.ok("rmi", "loading:1")
    quiet = engine.terminal("load", "-q", "-i", file)
    assert finish(quiet) == 0
    assert str(quiet.before) == "Loaded image: loading:1\r\n"

    # Whoever loses its name by it is told of, quiet or not.
    other = engine.ok("import", "-", "loading:1", stdin=archive(member(b"other")))
    assert engine.ok("load", "-q", "-i", file).splitlines() == [
        f"The image loading:1 already exists, renaming the old one with ID {other} to empty string",
        "Loaded image: loading:1",
    ]
    engine.ok("rmi", "loading:1", other)


def test_a_container_outlives_its_image_and_cannot_be_committed(engine: Engine) -> None:
    identifier = engine.ok("import", "-", "gone", stdin=archive(member(b"file", data=b"content")))
    engine.ok("create", "--name", "orphan", "gone", "command")
    try:
        refused = engine("rmi", identifier)
        assert refused.status == 1
        assert "image is being used by stopped container" in refused.err
        assert engine.ok("rmi", "-f", "gone").splitlines() == [
            "Untagged: gone:latest", f"Deleted: {identifier}"
        ]  # fmt: skip
        assert engine.ok("ps", "-a", "--format", "{{.Image}}") == identifier[7:19]
        committed = engine("commit", "orphan", "back")
        assert (committed.status, committed.out) == (1, "")
        assert identifier in committed.err
        if engine.name == "ketch":
            assert "ketch export orphan | ketch import -" in committed.err
        assert engine("image", "inspect", "back").status == 1
        # Its files are all there, and can be an image's again.
        export = engine.start("export", "orphan")
        engine.ok("import", "-", "back", stdin=export.stdout)
        assert export.wait() == 0
        engine.ok("create", "--name", "orphan-2", "back", "command")
        assert b"content" in engine.ok("cp", "orphan-2:/file", "-").encode()
        engine.ok("rm", "orphan-2")
        engine.ok("rmi", "back")
    finally:
        engine.ok("rm", "orphan")
