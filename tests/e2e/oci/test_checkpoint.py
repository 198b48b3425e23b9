"""``checkpoint`` and ``restore``, where criu can: runc first, then ketch-oci."""

import array
import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import oci
from tests.support.commands import Engine

Bundle = Callable[..., str]


@functools.cache
def why_not() -> str:
    """Why criu cannot work here, in its own words; empty where it can."""
    if shutil.which("criu") is None:
        return "criu is not installed"
    done = subprocess.run(["criu", "check"], check=False, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["criu check failed"])[0] if done.returncode else ""


pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

COUNT = (
    "i=0; while [ ! -e /data/end ]; do i=$((i+1)); echo $i > /data/count; sleep 0.1; done; exit 7"
)


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def counting(bundle: Bundle, data: pathlib.Path) -> str:
    """Return a bundle whose program counts into a file until it finds another."""

    def change(config: Any) -> None:
        config["mounts"].append(
            {"destination": "/data", "type": "bind", "source": str(data), "options": ["rbind"]}
        )
        config["linux"]["maskedPaths"] = ["/proc/kcore", "/proc/acpi"]
        config["linux"]["readonlyPaths"] = ["/proc/sys"]

    return bundle("sh", "-c", COUNT, change=change)


def count(data: pathlib.Path) -> int:
    """Wait for the next number."""
    file = data / "count"
    before = file.read_text() if file.exists() else ""
    deadline = time.monotonic() + 20
    while (text := file.read_text() if file.exists() else "") in {before, ""}:
        assert time.monotonic() < deadline, "it does not count"
        time.sleep(0.05)
    return int(text)


def status(runtime: Engine) -> str:
    return str(json.loads(runtime.ok("state", "c"))["status"])


def test_it_goes_on_where_it_was(
    runtime: Engine, counting: str, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert oci.quietly(runtime, "run", "--detach", "-b", counting, "c") == 0
    count(data)
    images = f"{tmp_path}/images"
    runtime.ok("checkpoint", "--image-path", images, "c")
    assert runtime.ok("list", "-q") == ""
    saved = int((data / "count").read_text())
    time.sleep(0.3)
    assert int((data / "count").read_text()) == saved
    restore = ["restore", "--detach", "--image-path", images, "-b", counting, "c"]
    assert oci.quietly(runtime, *restore) == 0
    assert saved < count(data) < saved + 60
    assert status(runtime) == "running"
    # It is as confined as before.
    assert runtime.ok("exec", "c", "cat", "/proc/kcore") == ""
    assert runtime("exec", "c", "sh", "-c", "echo 1 > /proc/sys/kernel/panic").status
    (data / "end").touch()
    deadline = time.monotonic() + 20
    while status(runtime) != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    runtime.ok("delete", "c")


def test_it_runs_on_beside_its_images_and_ends_in_the_foreground(
    runtime: Engine, counting: str, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert oci.quietly(runtime, "run", "--detach", "-b", counting, "c") == 0
    count(data)
    first, second = f"{tmp_path}/first", f"{tmp_path}/second"
    runtime.ok("checkpoint", "--pre-dump", "--image-path", first, "c")
    words = ["--leave-running", "--image-path", second, "--parent-path", "../first"]
    runtime.ok("checkpoint", *words, "--work-path", f"{tmp_path}/work", "c")
    assert (tmp_path / "work/dump.log").exists()
    assert status(runtime) == "running"
    count(data)
    runtime.ok("delete", "--force", "c")
    process = runtime.start(
        "restore", "--image-path", second, "-b", counting, "c", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    count(data)
    (data / "end").touch()
    assert process.wait(20) == 7
    assert runtime.ok("list", "-q") == ""


def test_a_terminal_comes_back(runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path) -> None:
    path = bundle("sh", "-c", "while read line; do echo got $line; done", terminal=True)
    images = f"{tmp_path}/images"
    socket_path = f"{tmp_path}/socket"

    def receive(*words: str) -> int:
        """Run a command that hands over a terminal; return the terminal."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(socket_path)
            listener.listen()
            null: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
            words = (*words, "--console-socket", socket_path, "-b", path, "c")
            process = runtime.start(*words, **null)
            listener.settimeout(30)
            connection, _ = listener.accept()
            with connection:
                _, control, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
            assert process.wait(30) == 0, process.stderr
        os.unlink(socket_path)
        return array.array("i", control[0][2])[0]

    def ask(master: int, text: str) -> None:
        os.write(master, f"{text}\n".encode())
        said = b""
        while f"got {text}".encode() not in said:
            said += os.read(master, 1000)

    master = receive("run", "--detach")
    ask(master, "one")
    runtime.ok("checkpoint", "--image-path", images, "c")
    os.close(master)
    master = receive("restore", "--detach", "--image-path", images)
    ask(master, "two")
    os.close(master)
    runtime.ok("delete", "--force", "c")


def test_what_cannot_be_is_said(runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path) -> None:
    path = bundle("sleep", "100")
    assert oci.quietly(runtime, "create", "-b", path, "c") == 0
    refused = runtime("checkpoint", "--image-path", f"{tmp_path}/images", "c")
    assert refused.status == 1
    assert "cannot be checkpointed in created state" in refused.err
    refused = runtime("checkpoint", "--manage-cgroups-mode", "no", "c")
    assert refused.status == 1
    missing = runtime("restore", "--image-path", f"{tmp_path}/none", "-b", path, "d")
    assert missing.status == 1
    assert runtime.ok("list", "-q") == "c"
