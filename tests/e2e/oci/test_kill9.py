"""Whatever is killed, and whenever: the next command finds a whole container, or none."""

import json
import os
import pathlib
import subprocess
import time
from typing import Any

import pytest

from tests.e2e.oci.conftest import Bundle
from tests.support import oci
from tests.support.commands import Engine


@pytest.fixture
def ketch(ketch_oci: str, tmp_path: pathlib.Path) -> Engine:
    return Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])


def left(tmp_path: pathlib.Path) -> list[str]:
    """List what a container of this test may leave: cgroups, processes, files of its state."""
    found = [str(path) for path in pathlib.Path("/sys/fs/cgroup").glob("*/ketch-test-oci-kill9")]
    found += [str(path) for path in (tmp_path / "state").glob("c*")]
    marker = str(tmp_path).encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if marker in words:
                found.append(words.decode())
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("command", ["create", "run"])
def test_a_killed_maker(
    ketch: Engine, bundle: Bundle, tmp_path: pathlib.Path, command: str
) -> None:
    def place(config: Any) -> None:
        config["linux"]["cgroupsPath"] = "/ketch-test-oci-kill9"

    path = bundle("sleep", "1000", change=place)
    null = subprocess.DEVNULL
    started = time.monotonic()
    assert oci.quietly(ketch, "create", "-b", path, "c") == 0
    whole_seconds = time.monotonic() - started
    ketch.ok("delete", "c")
    outcomes = set()
    for step in range(30):
        words = [*ketch.prefix, command, "-b", path, "c"]
        maker = subprocess.Popen(words, stdin=null, stdout=null, stderr=null)
        time.sleep(whole_seconds * 1.2 * step / 30)
        maker.kill()
        maker.wait()
        rows = json.loads(ketch.ok("list", "-f", "json")) or []
        outcomes.add(rows[0]["status"] if rows else "none")
        assert len(rows) <= 1
        if rows:
            assert rows[0]["status"] in {"created", "running", "stopped"}
            ketch.ok("delete", "--force", "c")
        deadline = time.monotonic() + 5
        while found := left(tmp_path):
            assert time.monotonic() < deadline, (step, rows, found)
            time.sleep(0.05)
    assert "none" in outcomes


def test_a_killed_init(ketch: Engine, bundle: Bundle) -> None:
    assert oci.quietly(ketch, "create", "-b", bundle("true"), "c") == 0
    os.kill(json.loads(ketch.ok("state", "c"))["pid"], 9)
    deadline = time.monotonic() + 5
    while json.loads(ketch.ok("state", "c"))["status"] != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "cannot start a container that has stopped" in ketch("start", "c").err
    ketch.ok("delete", "c")


def test_a_killed_delete(ketch: Engine, bundle: Bundle) -> None:
    null = subprocess.DEVNULL
    path = bundle("sleep", "1000")
    for step in range(10):
        assert oci.quietly(ketch, "run", "-d", "-b", path, "c") == 0
        words = [*ketch.prefix, "delete", "--force", "c"]
        remover = subprocess.Popen(words, stdin=null, stdout=null, stderr=null)
        time.sleep(0.01 * step)
        remover.kill()
        remover.wait()
        ketch.ok("delete", "--force", "c")
        assert ketch.ok("list", "-q") == ""
