"""``checkpoint`` and ``start --checkpoint``, where criu can; what is said where it cannot."""

import functools
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Engine
from tests.support.told import run_script, values_of


@functools.cache
def why_not() -> str:
    """Why criu cannot work here, in its own words; empty where it can."""
    if shutil.which("criu") is None:
        return "criu is not installed"
    done = subprocess.run(["criu", "check"], check=False, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["criu check failed"])[0] if done.returncode else ""


# criu works in the virtual machine alone, which is emulated and has a twin beside it.
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
through_criu = pytest.mark.skipif(bool(why_not()), reason=why_not())

# It counts into its log, errors beside, and serves its network as well.
COUNT = """httpd -h /etc; i=0
while [ ! -e /kept/end ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.2; done; exit 7"""
NAME = "counter"


@pytest.fixture
def counter(ketch: Engine) -> Iterator[str]:
    """Return a container that counts, and that is started again when it ends."""
    ketch.ok("run", "-d", "--name", NAME, "--hostname", "counting", "--restart", "always", "-v",
             "/kept", "busybox", "sh", "-c", COUNT)  # fmt: skip
    yield NAME
    ketch.ok("rm", "-fv", NAME)


def counted(ketch: Engine, past: int = 0) -> list[int]:
    """Wait until a container's log has a number greater than another; return all of them."""
    deadline = time.monotonic() + 30
    while True:
        numbers = [int(line) for line in ketch("logs", NAME).out.splitlines() if line.isdigit()]
        if numbers and numbers[-1] > past:
            return numbers
        assert time.monotonic() < deadline, numbers
        time.sleep(0.1)


def state(ketch: Engine) -> str:
    return ketch.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", NAME)


@through_criu
def test_a_container_goes_on_where_it_was(ketch: Engine, counter: str) -> None:
    counted(ketch)
    assert ketch.ok("checkpoint", "create", "--leave-running", counter, "first") == "first"
    assert state(ketch) == "running 0"
    counted(ketch, counted(ketch)[-1])
    again = ketch("checkpoint", "create", counter, "first")
    assert again.status == 1
    assert f"checkpoint with name first already exists for container {counter}" in again.err
    assert ketch.ok("checkpoint", "create", counter, "second") == "second"
    assert state(ketch) == "exited 137"
    saved = counted(ketch)[-1]
    listed = ketch.ok("checkpoint", "ls", counter).splitlines()
    assert listed == ["CHECKPOINT NAME", "first", "second"]

    assert ketch.ok("start", "--checkpoint", "second", counter) == ""
    assert state(ketch) == "running 0"
    numbers = counted(ketch, saved + 2)
    # The same program, on the same log: no number twice, none left out.
    assert numbers == list(range(1, numbers[-1] + 1))
    assert f"e{saved + 1}" in ketch("logs", counter).err.splitlines()
    # As confined as before, and reached as before.
    inside = ketch.ok("exec", counter, "grep", "-E", "^(CapEff|Seccomp):", "/proc/1/status")
    assert inside.split() == ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]
    assert ketch.ok("exec", counter, "cat", "/proc/kcore") == ""
    address = ketch.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", counter)
    other = ketch.ok("run", "--rm", "busybox", "wget", "-qO-", f"http://{address}/hostname")
    assert other == "counting"
    ketch.ok("update", "--restart", "no", counter)
    ketch.ok("exec", counter, "touch", "/kept/end")
    assert ketch.ok("wait", counter) == "7"


@through_criu
def test_a_directory_of_ones_own(ketch: Engine, counter: str, tmp_path: Path) -> None:
    place = ("--checkpoint-dir", str(tmp_path))
    saved = counted(ketch)[-1]
    ketch.ok("exec", "-d", counter, "sleep", "1000")
    ketch.ok("checkpoint", "create", *place, counter, "kept")
    assert ketch.ok("checkpoint", "ls", counter) == "CHECKPOINT NAME"
    assert ketch.ok("checkpoint", "ls", *place, counter).splitlines()[1:] == ["kept"]
    missing = ketch("start", "--checkpoint", "kept", counter)
    assert missing.status == 1
    assert f"checkpoint kept does not exist for container {counter}" in missing.err
    # What cannot be restored leaves a container that can be started all the same.
    pages = tmp_path / "kept" / "pages-1.img"
    pages.rename(tmp_path / "pages")
    broken = ketch("start", "--checkpoint", "kept", *place, counter)
    assert broken.status == 1
    assert "criu failed: type RESTORE" in broken.err
    assert state(ketch).split()[0] == "exited"
    (tmp_path / "pages").rename(pages)
    ketch.ok("start", "--checkpoint", "kept", *place, counter)
    numbers = counted(ketch, saved + 1)
    assert numbers == list(range(1, numbers[-1] + 1))
    assert "sleep 1000" not in ketch.ok("top", counter)  # what exec runs is not saved
    ketch.ok("checkpoint", "rm", *place, counter, "kept")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_said(ketch: Engine, tmp_path: Path) -> None:
    """Nothing but a checkpoint is taken for one, and a name never leads elsewhere."""
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "file").touch()
    place = ("--checkpoint-dir", str(tmp_path))
    ketch.ok("create", "--name", NAME, "busybox", "true")
    try:
        assert ketch.ok("checkpoint", "ls", NAME) == "CHECKPOINT NAME"
        assert ketch.ok("checkpoint", "ls", *place, NAME) == "CHECKPOINT NAME"
        stopped = ketch("checkpoint", "create", NAME, "one")
        assert (stopped.status, stopped.err.strip()) == (1, f"ketch: Container {NAME} not running")
        for name in ("other", "link", "file", "none"):
            missing = ketch("checkpoint", "rm", *place, NAME, name)
            assert missing.status == 1
            assert f"checkpoint {name} does not exist for container {NAME}" in missing.err
        for name in ("..", "../one", "a/b", "x"):
            refused = ketch("checkpoint", "rm", NAME, name)
            assert refused.status == 1
            assert f"Invalid checkpoint ID ({name})" in refused.err
        assert len(list(tmp_path.iterdir())) == 3
        several = ketch("start", "--checkpoint", "one", NAME, NAME)
        assert several.status == 1
        assert "you cannot restore multiple containers at once" in several.err
    finally:
        ketch.ok("rm", NAME)


@pytest.mark.skipif(not why_not(), reason="criu works here")
def test_a_container_runs_on_where_criu_cannot_work(ketch: Engine) -> None:
    ketch.ok("run", "-d", "--name", NAME, "busybox", "sleep", "100")
    try:
        refused = ketch("checkpoint", "create", NAME, "one")
        assert refused.status == 1
        assert why_not() in refused.err
        assert ketch.ok("checkpoint", "ls", NAME) == "CHECKPOINT NAME"
        assert state(ketch) == "running 0"
    finally:
        ketch.ok("rm", "-f", NAME)


def test_a_checkpoint_that_goes_is_told_of_and_goes_by_hand(ketch: Engine) -> None:
    container = ketch.ok("create", "busybox", "true")
    place = Path(ketch.prefix[ketch.prefix.index("--root") + 1], "containers", container)
    saved = place / "checkpoints" / "one"

    def save() -> None:
        saved.mkdir(parents=True, exist_ok=True)
        (saved / "inventory.img").touch()
        (saved / "descriptors.json").write_text("[]")

    save()
    assert "one" in ketch.ok("checkpoint", "ls", container)
    told = ketch("checkpoint", "rm", "--explain=json", container, "one").err
    assert values_of(told, "remove a checkpoint of container") == {"images": [str(saved)]}
    save()
    script = ketch("checkpoint", "rm", "--explain=commands", container, "one").err
    save()
    assert run_script(script).returncode == 0
    assert not saved.exists()
    ketch.ok("rm", container)


@through_criu
def test_what_criu_is_asked_is_told(ketch: Engine, counter: str) -> None:
    counted(ketch)
    pid = ketch.ok("inspect", "-f", "{{.State.Pid}}", counter)
    told = ketch("checkpoint", "create", "--leave-running", "--explain=json", counter, "first").err
    saved = values_of(told, "save the processes, they run on")
    assert saved["process"] == [pid]
    assert Path(saved["images"][0], "inventory.img").exists()
    assert Path(saved["log"][0]).exists()
