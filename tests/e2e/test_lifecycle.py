"""``ps``, ``rm``, ``stop``, ``kill``, ``logs`` and ``exec``."""

import os
import pathlib
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.commands import Engine, finish

pytestmark = pytest.mark.served

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"
POLITE = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"


def start(engine: Engine, name: str, script: str, *options: str) -> str:
    """Start a shell script in the background; return the id once it has printed a line."""
    identity = engine.ok("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)
    until(lambda: bool(engine.ok("logs", name)))
    return identity


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.user
def test_ps_shows_what_runs(engine: Engine) -> None:
    identity = start(engine, "shown", POLITE)
    header, row = engine.ok("ps").splitlines()
    assert header.split("  ")[0] == "CONTAINER ID"
    assert [title.strip() for title in header.split("   ") if title.strip()] == [
        "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES",
    ]  # fmt: skip
    assert row.startswith(f"{identity[:12]}   busybox   ")
    assert "\"sh -c 'trap" in row
    assert "Up " in row
    assert row.endswith("shown")
    assert engine.ok("ps", "-q") == identity[:12]
    engine.ok("rm", "-f", "shown")
    assert len(engine.ok("ps", "-a").splitlines()) == 1


def test_names_are_made_up(engine: Engine) -> None:
    engine.ok("run", "-d", "busybox", "true")
    name = engine.ok("ps", "-a").splitlines()[1].split()[-1]
    assert name.count("_") == 1
    engine.ok("rm", "-f", name)


@pytest.mark.parametrize("length", [64, 12, 5])
def test_a_container_is_named_by_a_prefix_of_its_id(engine: Engine, length: int) -> None:
    identity = engine.ok("run", "-d", "busybox", "sleep", "60")
    assert engine.ok("rm", "-f", identity[:length]) == identity[:length]


def test_rm_refuses_what_runs(engine: Engine) -> None:
    start(engine, "runs", POLITE)
    result = engine("rm", "runs")
    assert result.status == 1
    assert "running" in result.err
    engine.ok("rm", "-f", "runs")


def test_rm_of_nothing_known_is_an_error(engine: Engine) -> None:
    result = engine("rm", "no-such-container")
    assert result.status == 1
    assert "No such container: no-such-container" in result.err


@pytest.mark.vm
def test_stop_asks_first(engine: Engine) -> None:
    start(engine, "polite", POLITE)
    assert engine.ok("stop", "polite") == "polite"
    assert "Exited (3)" in engine.ok("ps", "-a")
    assert engine.ok("logs", "polite") == "up\nbye"
    engine.ok("rm", "polite")


def test_stop_kills_after_its_time(engine: Engine) -> None:
    start(engine, "stubborn", STUBBORN)
    started = time.monotonic()
    engine.ok("stop", "-t", "1", "stubborn")
    assert 0.9 < time.monotonic() - started < 6
    assert "Exited (137)" in engine.ok("ps", "-a")
    engine.ok("rm", "stubborn")


def test_stop_signal(engine: Engine) -> None:
    script = "trap 'echo usr1; exit 4' USR1; echo up; while :; do sleep 0.1; done"
    start(engine, "signalled", script, "--stop-signal", "USR1")
    engine.ok("stop", "signalled")
    assert "Exited (4)" in engine.ok("ps", "-a")
    engine.ok("rm", "signalled")


@pytest.mark.parametrize("spelling", ["HUP", "SIGHUP", "1"])
def test_kill_sends_a_signal(engine: Engine, spelling: str) -> None:
    script = "trap 'echo hup; exit 6' HUP; echo up; while :; do sleep 0.1; done"
    start(engine, "killed", script)
    assert engine.ok("kill", "-s", spelling, "killed") == "killed"
    until(lambda: "Exited (6)" in engine.ok("ps", "-a"))
    engine.ok("rm", "killed")


def test_signals_that_have_no_such_name_are_not_sent(engine: Engine) -> None:
    start(engine, "killed", "echo up; sleep 100")
    for name in ("SIG42", "SIG9", "sig15", "RTMIN+0", "RTMIN+16", "RTMAX-15", "NOSUCH"):
        result = engine("kill", "-s", name, "killed")
        assert (result.status, f"nvalid signal: {name}" in result.err) == (1, True), result.err
    assert "Up" in engine.ok("ps", "-f", "name=killed")
    engine.ok("rm", "-f", "killed")


def test_kill_kills(engine: Engine) -> None:
    start(engine, "killed", STUBBORN)
    engine.ok("kill", "killed")
    until(lambda: "Exited (137)" in engine.ok("ps", "-a"))
    result = engine("kill", "killed")
    assert result.status == 1
    assert "is not running" in result.err
    engine.ok("rm", "killed")


def test_logs_keep_the_streams_apart(engine: Engine) -> None:
    engine("run", "--name", "logged", "busybox", "sh", "-c", "echo out; echo err >&2; printf end")
    result = engine("logs", "logged")
    assert (result.out, result.err) == ("out\nend", "err\n")
    engine.ok("rm", "logged")


def test_logs_follow(engine: Engine) -> None:
    script = "for n in 1 2 3; do echo $n; sleep 0.3; done"
    engine.ok("run", "-d", "--name", "followed", "busybox", "sh", "-c", script)
    assert engine.ok("logs", "-f", "followed") == "1\n2\n3"
    engine.ok("rm", "followed")


def test_exec_runs_inside(engine: Engine) -> None:
    start(engine, "host", POLITE, "-h", "boat", "-e", "A=b", "-w", "/tmp")
    out = engine.ok("exec", "host", "sh", "-c", "hostname; echo $A; pwd; cat /proc/1/comm")
    assert out.splitlines() == ["boat", "b", "/tmp", "sh"]
    engine.ok("rm", "-f", "host")


def test_exec_options_and_statuses(engine: Engine) -> None:
    start(engine, "host", POLITE)
    out = engine.ok("exec", "-e", "A=b", "-u", "www-data", "-w", "/var", "host", "sh", "-c",
                    "echo $A; id -u; pwd")  # fmt: skip
    assert out.splitlines() == ["b", "33", "/var"]
    assert engine("exec", "host", "sh", "-c", "exit 9").status == 9
    assert engine("exec", "host", "no-such-program").status in {126, 127}
    assert engine("exec", "-i", "host", "cat", stdin="in\n").out == "in\n"
    engine.ok("rm", "-f", "host")


@pytest.mark.vm
def test_exec_is_confined_as_the_container_is(engine: Engine) -> None:
    start(engine, "host", POLITE, "--cap-drop", "ALL", "--pids-limit", "50")
    out = engine.ok(
        "exec",
        "host",
        "sh",
        "-c",
        "grep -E '^(CapEff|Seccomp):' /proc/self/status; ls /proc/self/fd | wc -l",
    )
    assert out.splitlines() == ["CapEff:\t0000000000000000", "Seccomp:\t2", "4"]
    for namespace in ("mnt", "pid", "net", "uts", "ipc", "cgroup"):
        links = [f"$(readlink /proc/{pid}/ns/{namespace})" for pid in ("self", "1")]
        assert engine.ok("exec", "host", "sh", "-c", f"test {links[0]} = {links[1]}") == ""
    assert engine.ok("exec", "host", "sh", "-c", "cmp /proc/self/cgroup /proc/1/cgroup") == ""
    engine.ok("rm", "-f", "host")


def test_exec_on_a_terminal(engine: Engine) -> None:
    start(engine, "host", POLITE)
    child = engine.terminal("exec", "-it", "host", "sh", rows=33, columns=99)
    child.expect("# ")
    child.sendline("stty size; tty")
    child.expect("33 99\r\n")
    child.expect("/dev/pts/")
    child.sendline("exit 5")
    assert finish(child) == 5
    engine.ok("rm", "-f", "host")


def test_exec_needs_a_running_container(engine: Engine) -> None:
    engine.ok("run", "--name", "ended", "busybox", "true")
    result = engine("exec", "ended", "true")
    assert result.status == 1
    assert "is not running" in result.err
    engine.ok("rm", "ended")


def test_the_container_outlives_the_command(engine: Engine) -> None:
    process = engine.start("run", "--name", "outlives", "busybox", "sh", "-c", POLITE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    assert "Up " in engine.ok("ps")
    engine.ok("stop", "outlives")
    assert engine.ok("logs", "outlives") == "up\nbye"
    engine.ok("rm", "outlives")


def test_several_at_once_go_on_after_a_failure(engine: Engine) -> None:
    engine.ok("run", "--name", "first", "busybox", "true")
    engine.ok("run", "--name", "third", "busybox", "true")
    result = engine("rm", "first", "second", "third")
    assert (result.status, result.out) == (1, "first\nthird\n")
    assert "second" in result.err


def test_many_are_removed_whatever_they_are_doing(engine: Engine) -> None:
    states = {
        "made": ["create"],
        "ran": ["run", "-d"],
        "runs": ["run", "-d"],
        "held": ["run", "-d"],
        "leaves": ["run", "-d", "--rm"],
        "again": ["run", "-d", "--restart", "always"],
    }
    for name, words in states.items():
        script = "exit 3" if name == "ran" else "sleep 60"
        engine.ok(*words, "--name", name, "busybox", "sh", "-c", script)
    engine.ok("wait", "ran")
    engine.ok("pause", "held")
    made = [engine.ok("create", "busybox", "true") for _ in range(20)]

    result = engine("rm", "made", "runs", "ran", "held")
    assert (result.status, result.out) == (1, "made\nran\n")
    assert '"/runs"' in result.err
    assert '"/held"' in result.err

    left = ["runs", "held", "nonsuch", "leaves", "again", *made]
    result = engine("rm", "-f", *left)
    # Docker's command asks for all of them at once.
    assert (result.status, {*result.out.split()}) == (0, {*left} - {"nonsuch"})
    assert "nonsuch" in result.err
    assert engine.ok("ps", "-aq") == ""


@pytest.mark.ketch_only("docker's daemon kills again what its monitor has not seen end")
def test_of_each_of_many_that_are_removed_is_told(ketch: Engine) -> None:
    identities = [ketch.ok("run", "-d", "busybox", "sleep", "60") for _ in range(3)]
    since = str(time.time())
    result = ketch("rm", "-f", *identities, identities[0][:12])
    assert (result.status, result.out.split()) == (0, identities)  # the last was there no more
    told = ketch.ok("events", "--since", since, "--until", str(time.time() + 0.1),
                    "--filter", "type=container", "--format",
                    '{{.Actor.ID}} {{.Action}} {{index .Actor.Attributes "exitCode"}}')  # fmt: skip
    by_container: dict[str, list[str]] = {}
    for line in told.splitlines():
        identity, action = line.split(" ", 1)
        by_container.setdefault(identity, []).append(action.strip())
    assert by_container == {each: ["kill", "die 137", "destroy"] for each in identities}


@pytest.mark.user
def test_images_tag_and_rmi(engine: Engine) -> None:
    engine.ok("tag", "busybox", "other/name:v1")
    assert "other/name" in engine.ok("images")
    engine.ok("run", "--rm", "other/name:v1", "true")
    assert "Untagged: other/name:v1" in engine.ok("rmi", "other/name:v1")
    assert "other/name" not in engine.ok("images")
    engine.ok("run", "--rm", "busybox", "true")


def test_an_image_in_use_stays(engine: Engine) -> None:
    engine.ok("run", "--name", "user", "busybox", "true")
    result = engine("rmi", "busybox")
    assert result.status == 1
    assert "using" in result.err
    engine.ok("rm", "user")
    engine.ok("run", "--rm", "busybox", "true")


def test_exec_of_a_caller_in_a_chroot_sees_the_containers_files(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    """There the mount namespace has the host's root, where setns(2) alone would lead."""
    script = f"""
        set -e
        mount --rbind / {tmp_path}
        mount --make-rprivate {tmp_path}
        chroot {tmp_path} "$@" run -d --name bird busybox sleep 30
        chroot {tmp_path} "$@" exec bird ls /
        chroot {tmp_path} "$@" rm -f bird
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *ketch.prefix],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **ketch.environment},
    )
    files = done.stdout.splitlines()[1:-1]
    assert "bin" in files
    assert "boot" not in files
