"""``kill -9`` at any system call that changes something: one command later all is true and clean.

strace(1) delivers the signal at the N-th such call of each process that ketch makes (zygote,
monitor, starter, init, finisher) or of the command itself, so ketch has no seam for it. By default
some steps are tried; with KETCH_EVERY_STEP in the environment, each.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import leftovers
from tests.support.commands import Engine

pytestmark = [
    pytest.mark.ketch_only("it is ketch's processes that are killed"),
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed"),
]

STEPS = (
    "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,write,pwrite64,ftruncate,"
    "fsync,fdatasync,sendmsg,sendto,bind,listen,open_tree,move_mount,fsopen,fsconfig,fsmount,"
    "mount_setattr,umount2,pivot_root,clone,clone3,fork,vfork,unshare,setns,link,symlink,"
    "pidfd_send_signal,kill,execve,exit_group"
)
EVERY = bool(os.environ.get("KETCH_EVERY_STEP"))


def numbers(last: int, some: list[int]) -> list[int]:
    """Return which steps to die at."""
    return list(range(1, last + 1)) if EVERY else some


def zygote(ketch: Engine) -> int:
    """Start the zygote if need be; return its pid."""
    ketch.ok("run", "--rm", "--network", "none", "busybox", "true")
    state = os.fsencode(ketch.prefix[-1])
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                name = pathlib.Path("/proc", entry, "comm").read_text()
            except OSError:
                continue
            if state in words and name == "ketch-zygote\n":
                return int(entry)
    pytest.fail("there is no zygote")


def die_at(step: int, *target: str) -> "subprocess.Popen[bytes]":
    """Have processes killed at their own steps of this number."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={STEPS}"]
    command += ["-e", f"inject={STEPS}:signal=KILL:when={step}", *target]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def attached(step: int, pid: int) -> "subprocess.Popen[bytes]":
    tracer = die_at(step, "-p", str(pid))
    deadline = time.monotonic() + 10
    while "TracerPid:\t0" in pathlib.Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return tracer


def end(tracer: "subprocess.Popen[bytes]") -> None:
    tracer.send_signal(signal.SIGINT)
    tracer.wait(20)


def quiet(ketch: Engine, run_name: str) -> None:
    """Wait until nobody works any more but zygote and resolver."""
    deadline = time.monotonic() + 20
    while names := leftovers.working(run_name, ketch.prefix[-1]):
        if time.monotonic() > deadline:
            pytest.fail(f"still at work: {names}\n{ketch.ok('ps', '-a')}")
        time.sleep(0.02)


def check(ketch: Engine, name: str) -> None:
    """Whatever stage it reached, it is listed truly or not at all, and can be removed."""
    for row in ketch.ok("ps", "-a", "--format", "{{.Status}}").splitlines():
        assert row.startswith(("Created", "Exited", "Up", "Dead")), row
    ketch("rm", "-f", name)
    assert ketch.ok("ps", "-aq") == ""
    # What was half made has no name any more, and holds no address.
    ketch.ok("run", "--rm", "--name", name, "busybox", "true")


@pytest.mark.parametrize("options", [["-d"], ["--rm"]], ids=["-d", "--rm"])
def test_a_run_whose_processes_are_killed(ketch: Engine, run_name: str, options: list[str]) -> None:
    for step in numbers(150, [2, 5, 9, 14, 22, 33, 47, 62, 78, 97]):
        tracer = attached(step, zygote(ketch))
        ketch("run", *options, "--name", "victim", "busybox", "sleep", "0.05")
        end(tracer)
        quiet_or_running(ketch, run_name)
        check(ketch, "victim")


def quiet_or_running(ketch: Engine, run_name: str) -> None:
    """Wait until what is left of a run is at rest."""
    deadline = time.monotonic() + 20
    while "Up" in ketch.ok("ps", "--format", "{{.Status}}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    quiet(ketch, run_name)


@pytest.mark.parametrize(
    "command", [["stop", "-t", "1"], ["rm", "-f"], ["kill"]], ids=["stop", "rm", "kill"]
)
def test_a_command_that_is_killed(ketch: Engine, run_name: str, command: list[str]) -> None:
    """The command dies, and so do the container's processes at their steps of the same number."""
    for step in numbers(60, [1, 3, 8, 15]):
        ketch.ok("run", "-d", "--name", "victim", "busybox", "sleep", "60")
        tracer = die_at(step, *ketch.prefix, *command, "victim")
        tracer.wait(20)
        check(ketch, "victim")
        quiet(ketch, run_name)


def test_an_end_whose_finisher_is_killed(ketch: Engine, run_name: str) -> None:
    for step in numbers(40, [1, 4, 9, 15]):
        ketch.ok("run", "-d", "--name", "victim", "busybox", "sleep", "60")
        pid = int(ketch.ok("inspect", "--format", "{{.State.Pid}}", "victim"))
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        monitor = int(status.partition("PPid:")[2].split()[0])
        tracer = attached(step, monitor)
        ketch("kill", "victim")
        end(tracer)
        assert ketch.ok("inspect", "--format", "{{.State.Status}}", "victim") == "exited"
        assert ketch.ok("ps", "-q") == ""
        check(ketch, "victim")
        quiet(ketch, run_name)


STORM = """
import subprocess, sys
number, *prefix = sys.argv[1:]
def ketch(*words): return subprocess.run([*prefix, *words], capture_output=True, text=True)
name = "s" + str(int(number) % 16)  # four at a time want the same
ketch("create", "--name", name, "busybox", "sleep", "60")
ketch("start", name)
ketch("ps", "-a")
ketch("run", "--rm", "busybox", "true")
ketch("stop", "-t", "0", name)
ketch("rm", "-f", name)
"""


def test_a_storm_of_commands_ends_consistent(ketch: Engine, run_name: str) -> None:
    """64 at once create, start, list, run, stop and remove, four of them each the same name."""
    began = time.monotonic()
    storm = [
        subprocess.Popen([sys.executable, "-c", STORM, str(number), *ketch.prefix],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for number in range(64)
    ]  # fmt: skip
    for process in storm:
        _, told = process.communicate(timeout=150)
        assert process.returncode == 0, told.decode()
    assert time.monotonic() - began < 150
    left = ketch.ok("ps", "-aq").split()
    if left:  # a start may have come after the last removal
        ketch.ok("rm", "-f", *left)
    quiet(ketch, run_name)
    ketch.ok("run", "--rm", "busybox", "true")
    assert ketch.ok("ps", "-aq") == ""
