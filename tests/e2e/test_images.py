"""Image commands: the same words and figures from ketch, from docker, and over the API."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from ketch.spec import sizes
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


def test_disk_usage_is_dus_and_what_a_prune_frees(scratch: pathlib.Path) -> None:
    # Docker tells of unpacked layers alone, and takes those that several images have for free.
    program = str(pathlib.Path(sys.executable).with_name("ketch"))
    engine = Engine("ketch", [program, "--root", f"{scratch}/usage/root", "--state",
                              f"{scratch}/usage/state"])  # fmt: skip
    places = [f"{engine.prefix[2]}/{part}/sha256" for part in ("blobs", "snapshots")]

    def taken() -> int:
        """Return what du(1) counts, in bytes, without the two directories themselves."""
        counted = subprocess.run(["du", "-B1", "-cs", *places], check=True, capture_output=True,
                                 text=True).stdout  # fmt: skip
        return int(counted.split()[-2]) - sum(os.stat(place).st_blocks * 512 for place in places)

    def told() -> list[str]:
        line = engine.ok("system", "df", "--format", "{{.Type}};{{.Size}};{{.Reclaimable}}")
        return line.splitlines()[0].split(";")[1:]

    base = archive(member(b"base", data=os.urandom(1_500_000)))
    engine.ok("import", "-", "used", stdin=base)
    engine.ok("create", "--name", "holder", "used", "command")
    engine.ok("create", "--name", "maker", "used", "command")
    engine.ok("commit", "-m", "shares its layers", "maker", "unused")
    engine.ok("import", "-", "orphaned", stdin=archive(member(b"o", data=os.urandom(700_000))))
    engine.ok("create", "--name", "orphan", "orphaned", "command")
    try:
        engine.ok("rmi", "-f", "orphaned")
        engine.ok("rm", "maker")
        engine.ok("import", "-", "other", stdin=archive(member(b"x", data=os.urandom(2_500_000))))
        before = taken()
        size, reclaimable = told()
        engine.ok("image", "prune", "-a", "-f")
        freed = before - taken()
        assert freed > 5_000_000  # the archive and its file
        assert size == sizes.size(before, 4)
        assert reclaimable == f"{sizes.size(freed, 4)} ({freed * 100 // before}%)"
        assert told() == [sizes.size(taken(), 4), "0B (0%)"]
    finally:
        engine.ok("rm", "holder", "orphan")
