"""The program that is PID 1 under ``--init``, run here as any other process."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from ketch.linux import signals
from ketch.runtime import pid_one

SCRIPTS = pathlib.Path(__file__).parents[3] / "scripts"
MACHINE = os.uname().machine

runs_here = pytest.mark.skipif(
    MACHINE not in {"x86_64", "aarch64"}, reason="there is no code for this machine"
)


def served(directory: pathlib.Path, script: str) -> int:
    """Start a shell script whose parent becomes the program; return that one's pid."""
    path = directory / "pid-one"
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            awaited, ready = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(ready)
                assert os.read(awaited, 1) == b""
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                # As a container's program has them; make(1) and nohup(1) leave some ignored.
                signals.reset_internal()
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                os.chdir(directory)
                os.execv("/bin/sh", ["sh", "-c", script])
            os.close(awaited)
            os.set_inheritable(ready, True)
            path.write_bytes(pid_one.executable(MACHINE, child, ready))
            path.chmod(0o755)
            os.execv(path, ["served"])
        finally:
            os._exit(99)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def appears(path: pathlib.Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.01)


@runs_here
@pytest.mark.parametrize(
    ("script", "expected"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143),
     ("(sleep 0.05; exit 3) & sleep 0.2; exit 5", 5)],
)  # fmt: skip
def test_it_ends_as_its_child_does(tmp_path: pathlib.Path, script: str, expected: int) -> None:
    assert status(served(tmp_path, script)) == expected


@runs_here
def test_its_child_begins_when_it_is_what_it_is_to_be(tmp_path: pathlib.Path) -> None:
    pid = served(tmp_path, "cat /proc/$PPID/cmdline >told")
    assert status(pid) == 0
    assert (tmp_path / "told").read_bytes() == b"served\0"


@runs_here
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, 32, 33, 64])
def test_signals_go_to_its_child(tmp_path: pathlib.Path, number: int) -> None:
    pid = served(tmp_path, "touch there; exec sleep 20")
    appears(tmp_path / "there")
    while pathlib.Path(f"/proc/{pid}/comm").read_text() != "docker-init\n":
        time.sleep(0.01)
    os.kill(pid, number)
    assert status(pid) == 128 + number


def test_the_bytes_are_those_of_the_source(tmp_path: pathlib.Path) -> None:
    assembler = shutil.which("as")
    if MACHINE != "x86_64" or assembler is None or shutil.which("objcopy") is None:
        pytest.skip("needs binutils for x86_64")
    source = SCRIPTS / "pid_one_x86_64.s"
    subprocess.run([assembler, source, "-o", tmp_path / "o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", tmp_path / "o", tmp_path / "bytes"],
                   check=True)  # fmt: skip
    assembled = (tmp_path / "bytes").read_bytes()
    assert pid_one.executable("x86_64", 0, 0).endswith(assembled)


def test_no_code_for_a_machine() -> None:
    with pytest.raises(KeyError):
        pid_one.executable("riscv64", 2, 3)
