"""From the command to the program and back: whatever happens to the client, nothing is lost."""

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from ketch.engine.requests import launch
from tests.support.commands import Engine

PROGRAM = pathlib.Path(sys.executable).with_name("ketch")

# All that the client may load: each costs a third of a millisecond of every start.
CLIENT_MODULES = {
    "_socket", "apport_python_hook", "binascii", "errno", "select", "sitecustomize",
    "ketch", "ketch.cli", "ketch.cli.caller", "ketch.cli.flags", "ketch.cli.main",
    "ketch.cli.session",
    "ketch.engine", "ketch.engine.requests", "ketch.engine.requests.launch",
    "ketch.engine.requests.wire", "ketch.engine.settings",
    "ketch.errors", "ketch.spec", "ketch.spec.flag", "ketch.spec.values",
}  # fmt: skip


def eventually(condition: object, what: str, seconds: float = 15) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def monitor_of(ketch: Engine, container: str) -> int:
    """Pid of the process in charge: the parent of the container's first process."""
    pid = int(ketch.ok("inspect", "--format", "{{.State.Pid}}", container))
    return int(re.search(r"PPid:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


# What it costs


def test_the_client_loads_no_more_than_it_must(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "busybox", "sleep", "60")
    run, exec_ = ("run", "--rm", "busybox", "true"), ("exec", run_name, "true")
    always = _loaded("-c", "")
    try:
        loaded = [
            _loaded(*ketch.prefix, *words) - always - CLIENT_MODULES for words in (run, exec_)
        ]
    finally:
        ketch.ok("rm", "-f", run_name)
    assert loaded == [{"ketch.cli.run", "ketch.spec.options"}, {"ketch.cli.execute"}]


def _loaded(*words: str) -> set[str]:
    """Names of the modules that an interpreter loads."""
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_what_a_zygote_forks_loads_nothing(
    ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    """A module that it has not loaded beforehand each start, exec and end would load anew."""
    # While one runs, so does the resolver, which is an interpreter of its own.
    ketch.ok("run", "-d", "--name", run_name, "busybox", "sleep", "60")
    limits = ("-m", "100m", "--cpus", "1", "--pids-limit", "100", "-u", "nobody", "-e", "A=B")
    (zygote,) = _zygotes(ketch)
    # OpenSSL's pages would be in the tables that each fork copies; nothing that starts needs it.
    assert "libcrypto" not in pathlib.Path(f"/proc/{zygote}/maps").read_text()
    # To a file: who waits on a busy machine looks often, and a pipe that is full stops them all.
    trace = tmp_path / "trace"
    with subprocess.Popen(
        ["strace", "-f", "-q", "-o", trace, "-e", "trace=openat", "-p", str(zygote)],
        stderr=subprocess.DEVNULL,
    ) as tracer:
        eventually(lambda: _traced(zygote), "strace did not attach")
        ketch.ok("run", "--rm", "busybox", "true")
        ketch.ok("run", "--rm", "-v", "/data", *limits, "busybox", "true")
        ketch.ok("exec", "-u", "nobody", "-w", "/tmp", run_name, "true")
        ketch.ok("stop", "-t", "0", run_name)
        ketch.ok("start", run_name)
        ketch.ok("rm", "-f", run_name)
        eventually(lambda: not _children(zygote), "a monitor did not end", 60)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
    engine = trace.read_text(encoding="utf-8")
    assert "/proc/self/mountinfo" in engine
    assert re.findall(r'"[^"]*\.(?:py|pyc|so)"', engine) == []


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_nobody_reads_the_databases_log_anew_while_a_container_runs(
    ketch: Engine, run_name: str
) -> None:
    """Its monitor keeps the log's index, which who is first to open it would truncate."""
    command = ["strace", "-f", "-qq", "-e", "trace=ftruncate", *ketch.prefix, "ps", "-a"]
    ketch.ok("run", "-d", "--name", run_name, "busybox", "sleep", "60")
    try:
        monitor = monitor_of(ketch, run_name)
        held = {os.readlink(f"/proc/{monitor}/fd/{number}")
                for number in os.listdir(f"/proc/{monitor}/fd")}  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        ketch.ok("rm", "-f", run_name)
    assert any(name.endswith("/ketch.db-shm") for name in held)
    assert done.stderr == ""


def test_only_what_lasts_is_flushed_to_the_disk(ketch: Engine) -> None:
    """An overlay's end writes back all of the disk it is on, for which the program's end waits."""
    root = ("grep", " / ", "/proc/mounts")
    assert "volatile" in ketch.ok("run", "--rm", "busybox", *root)
    kept = ketch.ok("run", "-d", "busybox", *root)
    try:
        assert ketch.ok("wait", kept) == "0"
        assert "volatile" not in ketch.ok("logs", kept)
    finally:
        ketch.ok("rm", "-f", kept)


def test_a_container_to_be_removed_can_be_restarted(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--rm", "--name", run_name, "busybox", "sh", "-c",
             "echo x >> /starts; trap exit TERM; while :; do sleep 0.1; done")  # fmt: skip
    ketch.ok("restart", run_name)
    try:
        eventually(lambda: ketch.ok("exec", run_name, "cat", "/starts").split() == ["x", "x"],
                   "what it wrote before its restart is not there")  # fmt: skip
    finally:
        ketch.ok("rm", "-f", run_name)


def test_an_output_that_is_full_is_told(ketch: Engine) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*ketch.prefix, "images"], check=False, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_warm_start_makes_few_processes(ketch: Engine, run_name: str) -> None:
    """The client forks nobody; a monitor and a starter, which clones init, and finishes."""
    ketch.ok("run", "--rm", "busybox", "true")
    (zygote,) = _zygotes(ketch)
    calls = "trace=execve,execveat,clone,clone3,fork,vfork"
    with subprocess.Popen(
        ["strace", "-f", "-q", "-e", calls, "-p", str(zygote)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        eventually(lambda: _traced(zygote), "strace did not attach")
        client = subprocess.run(
            ["strace", "-f", "-q", "-e", calls, *ketch.prefix, "run", "--rm", "busybox", "true"],
            check=True, capture_output=True, text=True,
        ).stderr  # fmt: skip
        eventually(lambda: not _children(zygote), "the monitor did not end")
        tracer.send_signal(signal.SIGINT)
        _, engine = tracer.communicate(timeout=20)
    assert _count(client) == {"execve": 1}
    counted = _count(engine)
    forks = counted.pop("clone", 0) + counted.pop("fork", 0) + counted.pop("vfork", 0)
    assert forks == 2, engine
    assert counted == {"clone3": 1, "execve": 1}, engine


def test_who_begins_a_run_stays_for_a_second(ketch: Engine, run_name: str) -> None:
    """Its memory is not for those that last; their end is told by a process that is forked then."""
    running = ketch.start("run", "--name", run_name, "busybox", "sh", "-c", "sleep 3; exit 7")
    eventually(lambda: ketch.ok("ps", "-q", "--filter", f"name={run_name}"), "it did not start")
    monitor = monitor_of(ketch, run_name)
    eventually(lambda: len(_children(monitor).split()) == 1, "the starter did not leave", 2.5)
    assert running.wait(20) == 7
    running.communicate()
    assert ketch.ok("inspect", "--format", "{{.State.ExitCode}}", run_name) == "7"
    ketch.ok("rm", run_name)


def test_who_begins_a_run_is_killed_before_the_end(ketch: Engine, run_name: str) -> None:
    running = ketch.start("run", "-i", "--name", run_name, "--rm", "busybox", "sh", "-c",
                          "read word; exit 7")  # fmt: skip
    eventually(lambda: ketch.ok("ps", "-q", "--filter", f"name={run_name}"), "it did not start")
    init = int(ketch.ok("inspect", "--format", "{{.State.Pid}}", run_name))
    for pid in map(int, _children(monitor_of(ketch, run_name)).split()):
        if pid != init:
            os.kill(pid, signal.SIGKILL)
    assert running.communicate(b"word\n", timeout=20) == (b"", b"")
    assert running.returncode == 7
    assert run_name not in ketch.ok("ps", "-a")


def _count(trace: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", trace, re.MULTILINE):
        found[name] = found.get(name, 0) + 1
    return found


def _zygotes(ketch: Engine) -> list[int]:
    """Those that serve callers like this process; other tests' callers may have others."""
    own = os.fsencode(launch.zygote_name())
    state = ketch.prefix[ketch.prefix.index("--state") + 1]
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                name = pathlib.Path("/proc", entry, "comm").read_text()
            except OSError:
                continue
            if {os.fsencode(state), own} <= {*words} and name == "ketch-zygote\n":
                found.append(int(entry))
    return found


def _traced(pid: int) -> bool:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return re.search(r"TracerPid:\s*0$", text, re.MULTILINE) is None


def _children(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()


# Streams


@pytest.mark.parametrize("size", [0, 1, 65536, 200_000_000])
def test_much_input_and_output_at_once_arrive_whole(ketch: Engine, size: int) -> None:
    piece = os.urandom(1 << 20)
    sent, got = hashlib.sha256(), hashlib.sha256()
    process = ketch.start("run", "-i", "--rm", "busybox", "cat")
    assert process.stdin is not None
    assert process.stdout is not None

    def feed() -> None:
        left = size
        while left:
            part = piece[: min(left, len(piece))]
            sent.update(part)
            process.stdin.write(part)  # type: ignore[union-attr]
            left -= len(part)
        process.stdin.close()  # type: ignore[union-attr]

    feeder = threading.Thread(target=feed, daemon=True)  # else a failure would not end
    feeder.start()
    while data := process.stdout.read(1 << 16):
        got.update(data)
    feeder.join()
    assert process.wait(20) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    assert got.hexdigest() == sent.hexdigest()


def test_short_output_is_never_lost(ketch: Engine) -> None:
    """What comes in one piece with the word that the program runs is output as well."""
    for number in range(25):
        assert ketch.ok("run", "--rm", "--network", "none", "busybox", "echo", str(number)) == str(
            number
        )


def test_a_slow_reader_gets_all_of_it_long_after_the_program_ended(ketch: Engine) -> None:
    process = ketch.start("run", "--rm", "busybox", "sh", "-c", "yes | head -c 500000; exit 7")
    time.sleep(1.5)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=30)
    assert (len(out), process.returncode) == (500_000, 7)


def test_a_stopped_client_stops_nobody_else(ketch: Engine) -> None:
    process = ketch.start("run", "--rm", "busybox", "sh", "-c", "echo a; sleep 1; echo b; exit 3")
    assert process.stdout is not None
    assert process.stdout.readline() == b"a\n"
    process.send_signal(signal.SIGSTOP)
    assert ketch.ok("run", "--rm", "busybox", "echo", "other") == "other"
    eventually(lambda: ketch.ok("ps", "-aq") == "", "the container waits for its client")
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=20)[0] == b"b\n"
    assert process.returncode == 3


def test_a_pipe_into_head_ends(ketch: Engine) -> None:
    words = " ".join(ketch.prefix)
    command = f"{words} run --name pipe busybox sh -c 'echo 1; echo 2; sleep 1; echo 3' | head -1"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, timeout=30)
    assert (done.stdout, done.stderr) == (b"1\n", b"")
    eventually(lambda: ketch.ok("ps", "-q") == "", "it runs on")
    assert ketch.ok("logs", "pipe") == "1\n2\n3"
    ketch.ok("rm", "pipe")


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_like_empty_ones(ketch: Engine, stream: str) -> None:
    words = " ".join(ketch.prefix)
    command = f"{words} run --rm -i busybox sh -c 'echo out; cat; exit 5' {stream}"
    done = subprocess.run(
        ["sh", "-c", command], check=False, capture_output=True, timeout=30,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr


# The client's end


def test_output_after_a_killed_client_goes_to_the_log(ketch: Engine) -> None:
    process = ketch.start("run", "--name", "orphan", "busybox", "sh", "-c",
                          "echo first; sleep 0.7; echo second; exit 4")  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    process.kill()
    process.communicate()
    assert ketch.ok("wait", "orphan") == "4"
    assert ketch.ok("logs", "orphan") == "first\nsecond"
    ketch.ok("rm", "orphan")


@pytest.mark.parametrize("zygote", [[], ["--no-zygote"]], ids=["zygote", "no zygote"])
def test_an_interrupted_start_leaves_nothing(ketch: Engine, zygote: list[str]) -> None:
    """Ctrl-C at any moment: the program never ran, or it gets the signal."""
    for milliseconds in (5, 20, 30, 40, 60, 120):
        process = ketch.start(*zygote, "run", "--rm", "busybox", "sleep", "30")
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            # It ran already, and sleep as PID 1 ignores what it does not handle, as under docker.
            (running,) = ketch.ok("ps", "-q").split()
            ketch.ok("kill", running)
            assert process.wait(10) == 137
        else:
            told = process.communicate()[1]
            # Python itself, while it loads what it runs, has a status and words of its own.
            loading = process.returncode == 1 and b"KeyboardInterrupt" in told
            assert loading or process.returncode in {130, -signal.SIGINT}, told
        process.communicate()
        eventually(lambda: ketch.ok("ps", "-aq") == "", "a stray container")


def test_a_detached_start_holds_nothing_of_the_caller(ketch: Engine) -> None:
    reader, writer = os.pipe()
    words = " ".join(ketch.prefix)
    started = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", f'id=$({words} run -d --name held busybox sleep 60); echo "$id"'],
        check=True, capture_output=True, text=True, pass_fds=[writer], stdin=subprocess.PIPE,
    )  # fmt: skip
    assert time.monotonic() - started < 10
    assert re.fullmatch("[0-9a-f]{64}\n", done.stdout)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    (zygote,) = _zygotes(ketch)
    for pid in (zygote, monitor_of(ketch, "held")):
        streams = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
        assert streams[:2] == ["/dev/null", "/dev/null"]
        assert streams[2].endswith("/errors.log")
    ketch.ok("rm", "-f", "held")


# The engine's end


def test_a_killed_zygote_is_not_noticed(ketch: Engine) -> None:
    process = ketch.start("run", "--rm", "busybox", "sh", "-c", "echo up; sleep 1; echo down")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    for pid in _zygotes(ketch):
        os.killpg(pid, signal.SIGKILL)
    assert ketch.ok("run", "--rm", "busybox", "echo", "next") == "next"
    assert process.communicate(timeout=20)[0] == b"down\n"
    assert process.returncode == 0


def test_a_killed_monitor_is_told_and_the_container_goes_with_it(ketch: Engine) -> None:
    process = ketch.start("run", "--name", "lost", "busybox", "sh", "-c", "echo up; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.kill(monitor_of(ketch, "lost"), signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 125
    assert b"monitor has gone" in err
    eventually(lambda: ketch.ok("ps", "-q") == "", "it runs without a monitor")
    assert "Exited (255)" in ketch.ok("ps", "-a")
    ketch.ok("rm", "lost")


def test_the_callers_own_limits_apply_whoever_started_the_zygote(ketch: Engine) -> None:
    script = "ulimit -n; ulimit -Hn; cut -d' ' -f19 /proc/self/stat; umask; env | wc -l"
    plain = ketch.ok("run", "--rm", "busybox", "sh", "-c", script)
    special = subprocess.run(
        ["prlimit", "--nofile=321:1234", "nice", "-n", "7", "choom", "-n", "77", "--",
         "env", "SECRET=1", "sh", "-c", 'umask 077; exec "$@"', "sh",
         *ketch.prefix, "run", "--rm", "busybox", "sh", "-c", script],
        check=True, capture_output=True, text=True,
    ).stdout.rstrip("\n")  # fmt: skip
    assert ketch.ok("run", "--rm", "busybox", "sh", "-c", script) == plain
    niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    assert special.splitlines()[:3] == ["321", "1234", str(niceness)]
    assert special.splitlines()[3:] == plain.splitlines()[3:]
    assert "SECRET" not in special


def test_an_engine_failure_is_a_sentence(ketch: Engine, tmp_path: pathlib.Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    for places in (["--root", f"{blocked}/root"], ["--state", f"{blocked}/state"]):
        done = subprocess.run(
            [str(PROGRAM), *ketch.prefix[1:], *places, "run", "busybox", "true"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 125
        assert str(blocked) in done.stderr
        assert "Traceback" not in done.stderr
