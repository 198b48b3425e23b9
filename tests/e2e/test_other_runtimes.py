"""``--runtime``: containers whose program another OCI runtime runs, beside ketch's own."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

import ketch as package
from tests.support.commands import Engine, finish

RUNTIMES = {"ketch": "ketch", "runc": shutil.which("runc"), "crun": shutil.which("crun")}
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
POLITE = (
    "trap 'exit 9' TERM; trap 'echo usr' USR1; httpd -h /etc; echo up; while :; do sleep 0.1; done"
)


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> str:
    """Return a runtime as ``--runtime`` takes it; of each, ketch's own included, the same holds."""
    path = RUNTIMES[request.param]
    if path is None:
        pytest.skip(f"{request.param} is not installed")
    return path


@pytest.fixture
def named(ketch: Engine) -> Iterator[str]:
    """Return a container's name; it is removed at the end."""
    yield "other"
    ketch("rm", "-fv", "other")


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def left(ketch: Engine) -> list[str]:
    """Return which containers have something in the state directory."""
    return os.listdir(pathlib.Path(ketch.prefix[-1]) / "containers")


def test_a_program_runs_and_its_status_is_its_own(ketch: Engine, runtime: str) -> None:
    run = ("run", "--rm", "-i", "--runtime", runtime)
    script = "cat; echo err >&2; exit 3"
    result = ketch(*run, "-h", "hn", "-e", "A=b", "busybox", "sh", "-c", script, stdin="in\n")
    assert (result.status, result.out, result.err) == (3, "in\n", "err\n")
    missing = ketch(*run, "busybox", "no-such")
    assert missing.status == 127
    assert "no-such" in missing.err
    assert ketch(*run, "busybox", "/etc").status == 126
    terminal = ketch.terminal(*run, "-t", "busybox", "sh", "-c", "stty size; exit 4")
    terminal.expect("24 80")
    assert finish(terminal) == 4
    assert left(ketch) == []


def test_what_confines_a_program_holds(ketch: Engine, runtime: str) -> None:
    script = """hostname; ulimit -n; touch /x /e/x; touch /t/y && echo written
    grep -c 'Cap.*:.0000000000000000' /proc/self/status; cat /proc/sys/net/ipv4/ip_forward"""
    result = ketch("run", "--rm", "--runtime", runtime, "--read-only", "--tmpfs", "/t",
                   "--cap-drop",
                   "all", "--ulimit", "nofile=99", "-h", "hn", "--network", "none", "-v",
                   "/etc:/e:ro", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "sh", "-c",
                   script)  # fmt: skip
    assert result.out.split() == ["hn", "99", "written", "5", "1"]
    assert result.err.count("Read-only file system") == 2
    big = ketch("run", "--runtime", runtime, "--name", "oom", "-m", "32m", "busybox", "tail",
                "/dev/zero")  # fmt: skip
    assert big.status == 137
    assert ketch.ok("inspect", "-f", "{{.State.OOMKilled}}", "oom") == "true"
    ketch.ok("rm", "oom")


def test_one_lives_a_containers_life(ketch: Engine, runtime: str, named: str) -> None:
    ketch.ok("run", "-d", "--name", named, "--runtime", runtime, "-p", "127.0.0.1::80", "-v", "/v",
             "-m", "64m", "busybox", "sh", "-c", POLITE)  # fmt: skip
    shown = ketch.ok("inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Status}}", named)
    assert shown == f"{runtime} running"
    until(lambda: ketch.ok("logs", named) == "up")
    address = ketch.ok("port", named, "80")
    with urllib.request.urlopen(f"http://{address}/hostname", timeout=10) as answer:
        assert answer.read()
    script = "id -u; echo $A; pwd; cat; exit 7"
    result = ketch("exec", "-i", "-u", "1000", "-e", "A=b", "-w", "/tmp", named, "sh", "-c", script,
                   stdin="in")  # fmt: skip
    assert (result.status, result.out) == (7, "1000\nb\n/tmp\nin")
    assert ketch("exec", named, "no-such").status == 127
    terminal = ketch.terminal("exec", "-it", named, "sh", "-c", "tty; exit 5")
    terminal.expect("/dev/pts/0")
    assert finish(terminal) == 5
    ketch.ok("exec", "-d", named, "touch", "/v/made")
    until(lambda: "made" in ketch.ok("exec", named, "ls", "/v"))
    ketch.ok("pause", named)
    assert "Paused" in ketch.ok("ps", "--format", "{{.Status}}", "-f", f"name={named}")
    ketch.ok("unpause", named)
    ketch.ok("update", "-m", "80m", "--memory-swap", "80m", named)
    assert "80MiB" in ketch.ok("stats", "--no-stream", named)
    assert "httpd" in ketch.ok("top", named)
    ketch.ok("kill", "-s", "USR1", named)
    until(lambda: "usr" in ketch.ok("logs", named))
    ketch.ok("stop", named)
    assert ketch.ok("wait", named) == "9"
    ketch.ok("start", named)
    assert ketch.ok("inspect", "-f", "{{.State.Status}}", named) == "running"
    ketch.ok("rm", "-f", named)
    assert left(ketch) == []


def test_it_is_restarted_and_its_health_is_looked_at(
    ketch: Engine, runtime: str, named: str
) -> None:
    ketch.ok("run", "-d", "--name", named, "--runtime", runtime, "--restart", "on-failure:2",
             "busybox", "sh", "-c", "echo run; exit 1")  # fmt: skip
    until(lambda: ketch.ok("inspect", "-f", "{{.State.Status}}", named) == "exited")
    assert ketch.ok("logs", named).split() == ["run"] * 3
    ketch.ok("rm", named)
    ketch.ok("run", "-d", "--name", named, "--runtime", runtime, "--health-cmd", "sleep 77",
             "--health-interval", "300ms", "--health-timeout", "1s", "--health-retries", "1",
             "busybox", "sleep", "600")  # fmt: skip
    until(lambda: ketch.ok("inspect", "-f", "{{.State.Health.Status}}", named) == "unhealthy")
    ketch.ok("rm", "-f", named)


def test_its_monitor_is_killed(ketch: Engine, runtime: str, named: str) -> None:
    ketch.ok("run", "-d", "--name", named, "--runtime", runtime, "busybox", "sleep", "600")
    pid = int(ketch.ok("inspect", "-f", "{{.State.Pid}}", named))
    pids = [pid]
    while "monitor" not in (name := pathlib.Path(f"/proc/{pids[-1]}/comm").read_text()):
        assert name.strip() in {"sleep", "ketch-shim"}
        stat = pathlib.Path(f"/proc/{pids[-1]}/stat").read_text()
        pids.append(int(stat.rpartition(")")[2].split()[1]))
    os.kill(pids[-1], signal.SIGKILL)
    until(lambda: ketch.ok("inspect", "-f", "{{.State.Status}}", named) == "exited")
    assert ketch.ok("inspect", "-f", "{{.State.ExitCode}}", named) in {"255", "137"}
    assert not os.path.exists(f"/proc/{pid}/root/etc")
    ketch.ok("start", named)
    ketch.ok("rm", "-f", named)
    assert left(ketch) == []


def test_a_sandbox_is_run_by_it(ketch: Engine, runtime: str) -> None:
    engine = package.Engine(*ketch.prefix[2::2])
    with package.Sandbox.create("busybox", runtime=runtime, userns="host", engine=engine) as made:
        for _ in range(2):
            result = made.run("id -u; cat; exit 3", stdin=b"in")
            assert (result.status, result.stdout) == (3, b"65534\nin")
        made.files.write("/workspace/a", b"b")
        assert made.run("cat /workspace/a").stdout == b"b"
    assert left(ketch) == []


# What else may be named, and what may be wrong with it


def write(path: pathlib.Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('echo \'{"level":"error","msg":"no machine \\u001b[31mto be had"}\' >&3; exit 1',
         "no machine  [31mto be had"),
        ("exit 42", "create failed: exit status 42"),
        ("kill -9 $$", "create failed: signal 9"),
        ("head -c 300000 /dev/urandom >&3; exit 1", "create failed: "),
        ("exit 0", "No such file or directory"),
        ('[ "${0}" ] && echo 1 > pid; exit 0', "none that it has made"),
        ('echo rubbish > pid; exit 0', "none that it has made"),
    ],
)  # fmt: skip
def test_a_runtime_that_fails(
    ketch: Engine, tmp_path: pathlib.Path, script: str, reason: str
) -> None:
    path = write(tmp_path / "bad", script)
    result = ketch("run", "--rm", "--name", "bad", "--runtime", path, "busybox", "true")
    assert result.status == 125, result
    assert reason.lower() in result.err.lower()
    assert "\x1b" not in result.err
    ketch("rm", "bad")
    assert left(ketch) == []


def test_a_runtime_cannot_change_the_hosts_null_device(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    """crun gives a program's streams to the program's user; without -i, one is the null device."""
    asked = f"{sys.executable} -c 'import os; print(os.fstatvfs(0).f_flag & os.ST_RDONLY)'"
    script = f"""echo '{{"level":"error","msg":"read-only: '$({asked})'"}}' >&3; exit 1"""
    path = write(tmp_path / "curious", script)
    result = ketch("run", "--rm", "--runtime", path, "busybox", "true")
    assert "read-only: 1" in result.err


@pytest.mark.skipif(RUNTIMES["runc"] is None, reason="runc is not installed")
def test_a_runtime_that_hangs_leaves_its_state_or_dies(
    ketch: Engine, tmp_path: pathlib.Path, named: str
) -> None:
    """At the end it does nothing of what it is asked for; what there was is gone all the same."""
    script = f'case "$*" in *delete*) exit 1;; *) exec {RUNTIMES["runc"]} "$@";; esac'
    path = write(tmp_path / "forgetful", script)
    ketch.ok("run", "-d", "--name", named, "--runtime", path, "busybox", "sleep", "600")
    pid = int(ketch.ok("inspect", "-f", "{{.State.Pid}}", named))
    shim = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    until(lambda: ketch.ok("inspect", "-f", "{{.State.Status}}", named) == "exited")
    assert not os.path.exists(f"/proc/{pid}/root/etc")
    ketch.ok("rm", named)
    assert left(ketch) == []
    script = f'case "$*" in *create*) sleep 600;; *) exec {RUNTIMES["runc"]} "$@";; esac'
    path = write(tmp_path / "slow", script)
    hung = ketch.start("run", "--rm", "--name", named, "--runtime", path,
                       "busybox", "true", stderr=subprocess.PIPE)  # fmt: skip
    time.sleep(2)
    hung.terminate()
    hung.wait(60)
    until(lambda: ketch("ps", "-aq", "-f", f"name={named}").out == "" or
          ketch("rm", "-f", named).status == 0, 60)  # fmt: skip
    until(lambda: left(ketch) == [])


def test_runtimes_are_named_by_the_configuration_file(
    ketch: Engine, tmp_path: pathlib.Path, named: str
) -> None:
    refused = ketch("run", "--rm", "--runtime", "no-such", "busybox", "true")
    assert refused.status == 125
    assert "unknown or invalid runtime name: no-such" in refused.err
    if RUNTIMES["runc"] is None:
        pytest.skip("runc is not installed")
    script = f'echo "$@" >> {tmp_path}/calls; [ "$1" = --debug ] && shift; exec runc "$@"'
    path = write(tmp_path / "logged", script)
    file = pathlib.Path(ketch.prefix[2]) / "config.json"
    told = {"runtimes": {"logged": {"path": path, "runtimeArgs": ["--debug"]}},
            "default-runtime": "logged"}  # fmt: skip
    file.write_text(json.dumps(told))
    try:
        info = json.loads(ketch.ok("info", "--format", "{{json .}}"))
        assert info["Runtimes"]["logged"] == told["runtimes"]["logged"]  # type: ignore[index]
        assert info["DefaultRuntime"] == "logged"
        ketch.ok("run", "--name", named, "busybox", "true")
        assert ketch.ok("inspect", "-f", "{{.HostConfig.Runtime}}", named) == "logged"
        calls = (tmp_path / "calls").read_text().splitlines()
        assert all(call.startswith("--debug --root ") for call in calls)
        told["default-runtime"] = "gone"
        file.write_text(json.dumps(told))
        wrong = ketch("run", "--rm", "busybox", "true")
        assert "specified default runtime 'gone' does not exist" in wrong.err
        file.write_text(json.dumps({"runtimes": {"runc": {"path": path}}}))
        assert "runtime name 'runc' is reserved" in ketch("run", "busybox", "true").err
    finally:
        file.unlink()
