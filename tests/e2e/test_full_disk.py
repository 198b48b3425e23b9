"""A disk that is full: what frees it works while others fill it, and what it says is true."""

import contextlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine
from tests.support.images import busybox_archive

pytestmark = pytest.mark.ketch_only("docker's daemon keeps its database on another disk")

# Takes each block that anybody gives back, in files of a block, in a directory of its own.
_TAKE_ALL = """
import contextlib, itertools, os, sys, time
for number in itertools.count():
    with contextlib.suppress(OSError):
        file = os.open(f"{sys.argv[1]}/{number // 64}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            while os.write(file, bytes(int(sys.argv[2]))):
                pass
        finally:
            os.close(file)
    time.sleep(0.002)
"""


# Smaller than a page, so that a page of a file that is mapped may be a hole in part.
_BLOCK_BYTES = 1024


@pytest.fixture
def small(ketch: Engine, scratch: pathlib.Path) -> Iterator[tuple[Engine, pathlib.Path]]:
    """Return an engine whose root is on a small disk of its own, and that disk's directory."""
    disk, state = scratch / "disk", scratch / "small-state"
    image = disk.with_suffix(".img")
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    made = ["mkfs.ext4", "-q", "-b", str(_BLOCK_BYTES), "-m", "0", str(image)]
    subprocess.run(made, check=True)
    if subprocess.run(["mount", "-o", "loop", image, disk], check=False).returncode:
        pytest.skip("no file can be mounted here")
    engine = Engine("ketch", [ketch.prefix[0], "--root", f"{disk}/root", "--state", str(state)])
    try:
        engine.ok("import", str(busybox_archive()), "busybox")
        yield engine, disk
    finally:
        engine.ok("system", "reset", "-f")
        subprocess.run(["umount", "-l", disk], check=True)
        image.unlink()
        disk.rmdir()


@contextlib.contextmanager
def full(disk: pathlib.Path) -> Iterator[None]:
    """Have every block of a disk taken, and each that is given back meanwhile."""
    directory = disk / "taken"
    directory.mkdir()
    taker = subprocess.Popen([sys.executable, "-c", _TAKE_ALL, directory, str(_BLOCK_BYTES)])
    try:
        deadline = time.monotonic() + 20
        while os.statvfs(disk).f_bavail:
            assert time.monotonic() < deadline, "the disk does not get full"
            time.sleep(0.05)
        yield
    finally:
        taker.kill()
        taker.wait()


def test_what_frees_the_disk_works(small: tuple[Engine, pathlib.Path]) -> None:
    """What the database needs of the disk is its own from the first command on."""
    engine, disk = small
    engine.ok("tag", "busybox", "other")
    engine.ok("volume", "create", "named")
    engine.ok("network", "create", "unused")
    others = [f"other{number}" for number in range(4)]
    for name in others:
        engine.ok("create", "--name", name, "-v", "/anonymous", "busybox", "true")
    running = ("run", "-d", "--network", "none", "--name")
    for name in ("stopped", "killed", "removed"):
        engine.ok(*running, name, "busybox", "sleep", "1000")
    engine.ok(*running, "waits", "busybox", "sh", "-c", "sleep 5; exit 7")

    with full(disk):
        assert engine.ok("exec", "killed", "echo", "inside") == "inside"
        engine.ok("stop", "-t", "0", "stopped")
        engine.ok("kill", "killed")
        assert engine.ok("wait", "waits") == "7"
        states = engine.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()
        told = dict(line.split(" ", 1) for line in states)
        assert told["stopped"].startswith("Exited (137)")
        assert told["waits"].startswith("Exited (7)")
        assert told["removed"].startswith("Up")
        assert not any("years" in status for status in told.values())
        engine.ok("rm", "-v", *others[:2], "stopped")
        engine.ok("rm", "-f", others[2], "removed")
        engine.ok("rmi", "other")
        for kind in ("container", "volume", "network", "image", "builder", "system"):
            engine.ok(kind, "prune", "-f")
        assert engine.ok("ps", "-aq") == ""

    for file in (disk / "taken").iterdir():
        file.unlink()
    assert engine.ok("run", "--rm", "--network", "none", "busybox", "echo", "room") == "room"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_entries_that_a_log_loses_are_counted(
    small: tuple[Engine, pathlib.Path], driver: str
) -> None:
    engine, disk = small
    script = "until [ -e /dev/shm/go ]; do sleep 0.1; done; seq 30000; exec sleep 1000"
    engine.ok("run", "-d", "--network", "none", "--name", "talks", "--log-driver", driver,
              "busybox", "sh", "-c", script)  # fmt: skip
    shown = ["inspect", "-f", "{{.State.LogEntriesLost}}", "talks"]
    assert engine.ok(*shown) in {"", "0"}
    with full(disk):
        engine.ok("exec", "talks", "touch", "/dev/shm/go")
        deadline = time.monotonic() + 60
        while "sleep 1000" not in engine.ok("top", "talks"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while not (lost := engine.ok(*shown)).isdecimal() or lost == "0":  # while it is full
            assert time.monotonic() < deadline
            time.sleep(0.1)
    subprocess.run(["rm", "-r", disk / "taken"], check=True)
    engine.ok("stop", "-t", "0", "talks")
    lost = engine.ok(*shown)
    (ended,) = engine.ok("events", "--since", "0", "--until", str(int(time.time()) + 1),
                         "--filter", "event=die", "--format", "{{json .Actor.Attributes}}",
                         ).splitlines()  # fmt: skip
    assert json.loads(ended)["logEntriesLost"] == lost
    told = [line for line in engine("logs", "talks").err.splitlines() if "were lost here" in line]
    kept = engine.ok("logs", "talks").splitlines()
    assert sum(int(line.split()[1]) for line in told) == int(lost)
    assert len(kept) + int(lost) == 30000


def test_an_end_that_cannot_be_recorded_is_told_all_the_same(
    small: tuple[Engine, pathlib.Path],
) -> None:
    engine, disk = small
    log = f"{disk}/root/ketch.db-wal"
    engine.ok("run", "-d", "--network", "none", "--name", "ends", "busybox", "sh", "-c",
              "sleep 1; exit 7")  # fmt: skip
    subprocess.run(["chattr", "+i", log], check=True)
    try:
        time.sleep(2)
    finally:
        subprocess.run(["chattr", "-i", log], check=True)
    found = engine.ok("inspect", "-f", "{{.State.ExitCode}} {{.State.Error}}", "ends")
    assert found == "7 "
    assert engine.ok("ps", "-a", "--format", "{{.Status}}").startswith("Exited (7)")


def test_the_databases_log_gives_back_what_it_has_grown_by(
    small: tuple[Engine, pathlib.Path],
) -> None:
    """It grows while somebody reads an old state."""
    engine, disk = small
    log = disk / "root" / "ketch.db-wal"
    reader = sqlite3.connect(disk / "root" / "ketch.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM container").fetchall()
    writer = sqlite3.connect(disk / "root" / "ketch.db", isolation_level=None)
    for number in range(40):
        attributes = f"{number:0100000}"
        writer.execute(
            "INSERT INTO event (time_ns, type, action, actor_id, attributes)"
            " VALUES (1, 'volume', 'create', 'x', ?)", (attributes,))  # fmt: skip
    grown = log.stat().st_size
    assert grown > 3 << 20
    writer.execute("DELETE FROM event WHERE time_ns = 1")
    reader.execute("COMMIT")
    for _ in range(3):
        engine.ok("volume", "create", "named")
        engine.ok("volume", "rm", "named")
    assert log.stat().st_size <= 2 << 20
    writer.close()
    reader.close()
