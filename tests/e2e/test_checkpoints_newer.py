"""Checkpoints by Debian 13's criu, which knows kernels that Debian 12's does not."""

import functools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.commands import Engine
from tests.support.peers import TREE

_PROGRAM = """#!/bin/sh
exec {tree}/usr/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu \
{tree}/usr/sbin/criu "$@"
"""
# Where ketch finds it first; nobody else on the machine sees it there.
_WITHIN = 'mount --bind "$1" /usr/local/sbin && shift && exec "$@"'
_COUNT = "i=0; echo kept > /tmp/kept; while :; do i=$((i+1)); echo $i; sleep 0.2; done"


@functools.cache
def why_not() -> str:
    """Why this criu cannot work here; empty where it can."""
    if not (TREE / "usr/sbin/criu").exists() or not (TREE / "usr/lib64").exists():
        return "the tree of Debian 13's peers, with criu, is not here"
    try:
        done = subprocess.run(
            ["sh", "-c", _PROGRAM.partition("\n")[2].format(tree=TREE.resolve()), "criu", "check"],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    return (done.stderr.strip().splitlines() or ["criu check failed"])[0] if done.returncode else ""


pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture
def engine(ketch: Engine, tmp_path: Path) -> Iterator[Engine]:
    """Return a ketch that finds that criu, with an engine of its own."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "criu").write_text(_PROGRAM.format(tree=TREE.resolve()))
    (programs / "criu").chmod(0o755)
    places = ["--root", str(tmp_path / "root"), "--state", str(tmp_path / "state")]
    within = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _WITHIN, "-",
              str(programs)]  # fmt: skip
    made = Engine("ketch", [*within, ketch.prefix[0], *places])
    made.ok("import", str(images.busybox_archive()), "busybox")
    yield made
    made("system", "reset", "-f")


def _counted(engine: Engine, past: int = 0) -> list[int]:
    until = time.monotonic() + 30
    while True:
        numbers = [int(line) for line in engine("logs", "counter").out.split()]
        if numbers and numbers[-1] > past:
            return numbers
        assert time.monotonic() < until, numbers
        time.sleep(0.1)


@pytest.mark.parametrize(
    "options",
    [["-v", "/kept"], ["--network", "none", "--read-only", "--tmpfs", "/tmp"]],
    ids=["a network and a volume", "read-only, and files in memory"],
)
def test_a_container_goes_on_where_it_was(engine: Engine, options: list[str]) -> None:
    """Also twice, and what it has in memory file systems with it."""
    engine.ok("run", "-d", "--name", "counter", *options, "busybox", "sh", "-c", _COUNT)
    _counted(engine)
    assert engine.ok("checkpoint", "create", "--leave-running", "counter", "first") == "first"
    _counted(engine, _counted(engine)[-1])
    for name in ("second", "third"):
        assert engine.ok("checkpoint", "create", "counter", name) == name
        saved = _counted(engine)[-1]
        assert engine.ok("start", "--checkpoint", name, "counter") == ""
        numbers = _counted(engine, saved + 2)
        assert numbers == list(range(1, numbers[-1] + 1))
        assert engine.ok("exec", "counter", "cat", "/tmp/kept") == "kept"
    inside = engine.ok("exec", "counter", "grep", "-E", "^(CapEff|Seccomp):", "/proc/1/status")
    assert inside.split() == ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]
