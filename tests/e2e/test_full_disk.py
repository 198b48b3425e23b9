"""A disk that a container has filled: what frees it works, and what it says is true."""

import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine
from tests.support.images import busybox_archive

pytestmark = pytest.mark.ketch_only("docker's daemon keeps its database on another disk")


@pytest.fixture
def small(ketch: Engine, scratch: pathlib.Path) -> Iterator[Engine]:
    """Return an engine whose root is a small file system of its own."""
    disk, state = scratch / "disk", scratch / "small-state"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    engine = Engine("ketch", [ketch.prefix[0], "--root", f"{disk}/root", "--state", str(state)])
    try:
        engine.ok("import", str(busybox_archive()), "busybox")
        yield engine
    finally:
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        for container in engine("ps", "-aq").out.split():
            engine("rm", "-f", container)
        subprocess.run(["umount", "-l", disk], check=True)


def fill(engine: Engine, name: str) -> None:
    """Run a container that fills the disk to the last byte, goes on trying and stays."""
    script = "while :; do dd if=/dev/zero of=/$i bs=4k; i=x$i; sleep 0.1; done 2>/dev/null"
    engine.ok("run", "-d", "--name", name, "--network", "none", "busybox", "sh", "-c", script)
    for _ in range(200):
        if engine("run", "--rm", "--network", "none", "busybox", "true").status:
            break
        time.sleep(0.05)


def test_what_frees_the_disk_works(small: Engine) -> None:
    """The database's log has its room on the disk from the first command on."""
    small.ok("volume", "create", "named")
    others = [f"other{number}" for number in range(5)]
    for name in others:
        small.ok("create", "--name", name, "-v", "/anonymous", "busybox", "true")

    def names() -> set[str]:
        return set(small.ok("ps", "-a", "--format", "{{.Names}}").split())

    fill(small, "full")
    small.ok("rm", "-v", *others[:2])
    small.ok("stop", "-t", "0", "full")
    assert small.ok("ps", "-a", "--filter", "name=full", "--format", "{{.State}}") == "exited"
    small.ok("rm", "full")
    assert names() == set(others[2:])
    fill(small, "again")
    small.ok("rm", "-f", *others[2:], "again")
    assert names() == set()
    assert small.ok("run", "--rm", "--network", "none", "busybox", "echo", "room") == "room"
    small.ok("volume", "rm", "named")
