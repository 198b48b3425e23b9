"""A file beyond 4 GiB among all other kinds, through everything that an image can go through."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support import registry as registries
from tests.support import trees
from tests.support.commands import Engine

# Holes around data at the start, across 2^32 and at the very end, which is at no block's end.
SIZE = (1 << 32) + 123_456_789
PARTS = {0: 70_001, (1 << 32) - 123_456: 300_001, SIZE - 4097: 4097}
STORED_BYTES_MAX = 2 << 20
MEMORY_BYTES_MAX = 150 << 20

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("docker-registry"), reason="docker-registry is not installed"
    ),
    pytest.mark.timeout(300),  # it reads and writes 4 GiB a dozen times
]


def root(ketch: Engine, name: str) -> pathlib.Path:
    """Return where the files of a running container are."""
    pid = ketch.ok("inspect", "--format", "{{.State.Pid}}", name)
    return pathlib.Path(f"/proc/{pid}/root/kept")


def seen(ketch: Engine, image: str) -> dict[str, tuple[object, ...]]:
    """Return all that a container of an image sees; the file's holes must be holes."""
    ketch.ok("run", "-d", "--name", "reader", "--network", "none", image, "sleep", "60")
    try:
        assert (root(ketch, "reader") / "large").stat().st_blocks * 512 < STORED_BYTES_MAX
        return trees.listing(root(ketch, "reader"))
    finally:
        ketch.ok("rm", "-f", "reader")


# In between, because what a process held counts on when it executes another program.
_MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def measured(ketch: Engine, *words: str) -> None:
    """Run a command that may hold so much memory and no more."""
    command = [sys.executable, "-c", _MEASURE, *ketch.prefix, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert int(done.stdout.splitlines()[-1]) << 10 < MEMORY_BYTES_MAX, words


def test_a_file_beyond_4_gib_survives_commit_export_save_push_and_the_ways_back(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    ketch.ok("run", "-d", "--name", "writer", "--network", "none", "busybox", "sleep", "60")
    try:
        place = root(ketch, "writer")
        trees.fill(place)
        with (place / "large").open("wb", buffering=0) as file:
            for offset, length in PARTS.items():
                file.seek(offset)
                file.write(os.urandom(length))
        before = trees.listing(place)
        assert before["large"][3][0] == SIZE  # type: ignore[index]
        measured(ketch, "commit", "writer", "large")
        exported = tmp_path / "exported.tar"
        measured(ketch, "export", "-o", str(exported), "writer")
    finally:
        ketch.ok("rm", "-f", "writer")
    assert seen(ketch, "large") == before

    assert exported.stat().st_size > SIZE
    assert exported.stat().st_blocks * 512 < 2 * STORED_BYTES_MAX
    measured(ketch, "import", str(exported), "imported")
    assert seen(ketch, "imported") == before
    ketch.ok("rmi", "imported")

    saved = tmp_path / "large.tar"
    measured(ketch, "save", "-o", str(saved), "large")
    assert saved.stat().st_size > SIZE
    assert saved.stat().st_blocks * 512 < 2 * STORED_BYTES_MAX
    ketch.ok("rmi", "large")
    measured(ketch, "load", "-i", str(saved))
    assert seen(ketch, "large") == before

    with registries.docker_registry(tmp_path / "registry") as host:
        name = f"{host}/large"
        ketch.ok("tag", "large", name)
        measured(ketch, "push", name)
        ketch.ok("rmi", "-f", "large", name)
        ketch.ok("image", "prune", "-f")
        measured(ketch, "pull", name)
    assert seen(ketch, name) == before
    ketch.ok("rmi", name)
