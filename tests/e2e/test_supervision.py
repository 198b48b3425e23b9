"""Start, attach, restart, pause, health and the rest of a container's life, watched over."""

import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from ketch.engine.containers.containers import Containers
from ketch.engine.records.rows import Container
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from tests.support.commands import Engine, finish, heeds

POLITE = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def state(engine: Engine, name: str, field: str) -> str:
    return engine.ok("inspect", "--format", f"{{{{.{field}}}}}", name)


# Create and start


def test_create_then_start_attached(engine: Engine) -> None:
    script = "echo out; echo err >&2; exit 5"
    identity = engine.ok("create", "--name", "made", "busybox", "sh", "-c", script)
    assert state(engine, "made", "State.Status") == "created"
    assert state(engine, "made", "Id") == identity
    for _ in range(2):
        result = engine("start", "-a", "made")
        assert (result.status, result.out, result.err) == (5, "out\n", "err\n")
    assert engine.ok("logs", "made").split() == ["out", "out"]
    engine.ok("rm", "made")


def test_start_passes_input_on_and_ends_it(engine: Engine) -> None:
    engine.ok("create", "-i", "--name", "reader", "busybox", "sh", "-c", "cat; echo end")
    assert engine("start", "-ai", "reader", stdin="word\n").out == "word\nend\n"
    engine.ok("rm", "reader")


def test_start_goes_on_after_a_failure_and_leaves_what_runs_alone(engine: Engine) -> None:
    engine.ok("create", "--name", "first", "busybox", "sleep", "60")
    result = engine("start", "first", "no-such", "first")
    assert (result.status, result.out) == (1, "first\nfirst\n")
    assert "No such container: no-such" in result.err
    engine.ok("rm", "-f", "first")


def test_a_program_that_is_missing_leaves_its_reason(engine: Engine) -> None:
    engine.ok("create", "--name", "missing", "busybox", "/no/such/program")
    result = engine("start", "missing")
    assert result.status == 1
    assert "/no/such/program" in result.err
    assert state(engine, "missing", "State.ExitCode") == "127"
    engine.ok("rm", "missing")


@pytest.mark.user
def test_restart_makes_a_new_process_in_the_same_container(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "again", "busybox", "sh", "-c", f"date > /made; {POLITE}")
    until(lambda: engine("logs", "again").out == "up\n")
    before = state(engine, "again", "State.Pid")
    assert engine.ok("restart", "-t", "5", "again") == "again"
    until(lambda: engine("logs", "again").out == "up\nbye\nup\n")
    assert state(engine, "again", "State.Pid") != before
    assert state(engine, "again", "RestartCount") == "0"
    engine.ok("rm", "-f", "again")


def test_restart_keeps_what_is_removed_when_it_ends(engine: Engine) -> None:
    engine.ok("run", "-d", "--rm", "--name", "kept", "busybox", "sleep", "60")
    engine.ok("restart", "-t", "0", "kept")
    assert state(engine, "kept", "State.Running") == "true"
    engine.ok("kill", "kept")
    until(lambda: engine("inspect", "kept").status == 1)


# Attach


@pytest.mark.user
def test_several_attach_at_once(engine: Engine) -> None:
    script = "until read -t 1 word; do echo here; done; echo got $word; read word; exit 4"
    engine.ok("run", "-di", "--name", "shared", "busybox", "sh", "-c", script)
    first, second = (engine.start("attach", "shared") for _ in range(2))
    quiet = engine.start("attach", "--no-stdin", "shared")
    assert first.stdin is not None
    assert second.stdin is not None
    outputs = [process.stdout for process in (first, second, quiet)]
    for output in outputs:
        assert output is not None
        assert output.readline() == b"here\n"  # from now on it is attached
    first.stdin.write(b"one\n")
    first.stdin.flush()
    for output in outputs:
        assert output is not None
        assert next(line for line in output if line != b"here\n") == b"got one\n"
    second.stdin.write(b"two\n")
    second.stdin.flush()
    for process in (first, second, quiet):
        process.communicate(timeout=20)
        assert process.returncode == 4
    engine.ok("rm", "shared")


def test_attach_needs_what_runs(engine: Engine) -> None:
    engine.ok("create", "--name", "idle", "busybox", "sleep", "60")
    result = engine("attach", "idle")
    assert result.status == 1
    assert "cannot attach to a stopped container, start it first" in result.err
    engine.ok("start", "idle")
    engine.ok("pause", "idle")
    result = engine("attach", "idle")
    assert result.status == 1
    assert "cannot attach to a paused container, unpause it first" in result.err
    engine.ok("rm", "-f", "idle")


def test_the_keys_detach_and_the_program_goes_on(engine: Engine) -> None:
    engine.ok("run", "-dit", "--name", "term", "busybox", "sh")
    terminal = engine.terminal("attach", "--detach-keys", "ctrl-x,x", "term")
    terminal.sendline("echo a$((1+1))b")
    terminal.expect("a2b")
    terminal.send("\x18x")
    finish(terminal)
    assert state(engine, "term", "State.Running") == "true"
    terminal = engine.terminal("attach", "term", rows=31, columns=77)
    terminal.sendline("stty size; exit 6")
    terminal.expect("31 77")
    assert finish(terminal) == 6
    engine.ok("rm", "term")


def test_signals_are_passed_on_by_attach(engine: Engine) -> None:
    script = "trap 'echo usr1; exit 7' USR1; echo up; while :; do sleep 0.1; done"
    engine.ok("run", "-d", "--name", "signalled", "busybox", "sh", "-c", script)
    process = engine.start("attach", "signalled")
    time.sleep(0.7)
    until(lambda: heeds(process.pid, 10))  # a user's has been other programs before
    process.send_signal(10)
    process.communicate(timeout=20)
    assert process.returncode == 7
    engine.ok("rm", "signalled")


# Pause


@pytest.mark.vm
def test_pause_holds_all_of_it(engine: Engine) -> None:
    script = "while :; do echo tick; sleep 0.1; done"
    engine.ok("run", "-d", "--name", "held", "busybox", "sh", "-c", script)
    assert engine.ok("pause", "held") == "held"
    assert state(engine, "held", "State.Status") == "paused"
    assert "(Paused)" in engine.ok("ps")
    assert engine("pause", "held").status == 1
    assert "unpause" in engine("exec", "held", "true").err
    before = engine.ok("logs", "held")
    time.sleep(0.5)
    assert engine.ok("logs", "held") == before
    assert engine.ok("unpause", "held") == "held"
    until(lambda: engine.ok("logs", "held") != before)
    assert "is not paused" in engine("unpause", "held").err
    engine.ok("pause", "held")
    engine.ok("stop", "-t", "1", "held")
    engine.ok("rm", "held")


# Restart policies


def test_on_failure_gives_up_after_its_count(engine: Engine) -> None:
    engine.ok("run", "-d", "--restart", "on-failure:2", "--name", "fails", "busybox", "sh", "-c",
              "echo run; exit 9")  # fmt: skip
    until(lambda: engine.ok("logs", "fails") == "run\nrun\nrun")
    until(lambda: state(engine, "fails", "State.Status") == "exited")
    assert state(engine, "fails", "RestartCount") == "2"
    assert state(engine, "fails", "State.ExitCode") == "9"
    engine.ok("rm", "fails")


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_a_policy_holds_until_somebody_stops_it(engine: Engine, policy: str) -> None:
    engine.ok("run", "-d", "--restart", policy, "--name", "policy", "busybox", "sh", "-c",
              "echo run; sleep 0.2")  # fmt: skip
    until(lambda: engine.ok("logs", "policy").count("run") >= 3)
    assert engine.ok("stop", "-t", "1", "policy") == "policy"
    assert state(engine, "policy", "State.Status") == "exited"
    runs = engine.ok("logs", "policy")
    time.sleep(0.8)
    assert engine.ok("logs", "policy") == runs
    engine.ok("rm", "policy")


def test_what_waits_to_be_restarted_can_be_removed(engine: Engine) -> None:
    engine.ok("run", "-d", "--restart", "always", "--name", "waits", "busybox", "false")
    # It is seen in one of its pauses, which double each time.
    until(lambda: "Restarting (1)" in engine.ok("ps"))
    engine.ok("rm", "-f", "waits")


# Health


def test_health(engine: Engine) -> None:
    engine.ok(
        "run",
        "-d",
        "--name",
        "patient",
        "--health-cmd",
        "echo looked; test -e /ok",
        "--health-interval",
        "1s",
        "--health-retries",
        "6",
        "busybox",
        "sleep",
        "60",
    )
    assert state(engine, "patient", "State.Health.Status") == "starting"
    assert "(health: starting)" in engine.ok("ps")
    until(lambda: state(engine, "patient", "State.Health.Status") == "unhealthy")
    assert engine.ok("ps", "-q", "--filter", "health=unhealthy")
    engine.ok("exec", "patient", "touch", "/ok")
    until(lambda: state(engine, "patient", "State.Health.Status") == "healthy")
    template = "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}"
    log = engine.ok("inspect", "--format", template, "patient").splitlines()
    assert len(log) <= 5
    assert log[-1] == "0 looked"
    engine.ok("rm", "-f", "patient")


def test_a_check_that_takes_too_long_has_failed(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "slow", "--health-cmd", "sleep 30", "--health-timeout",
              "300ms", "--health-interval", "200ms", "--health-retries", "1", "busybox",
              "sleep", "60")  # fmt: skip
    until(lambda: state(engine, "slow", "State.Health.Status") == "unhealthy")
    template = "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}"
    assert "-1 Health check exceeded timeout" in engine.ok("inspect", "-f", template, "slow")
    engine.ok("rm", "-f", "slow")


@pytest.mark.root_engine("looks into the database, which is closed to others")
@pytest.mark.ketch_only("looks into the database")
def test_checks_that_cannot_be_run_leave_no_sessions(ketch: Engine) -> None:
    script = "rm /bin/sh; exec sleep 60"
    ketch.ok("run", "-d", "--name", "bare", "--health-cmd", "true", "--health-interval", "100ms",
             "--health-retries", "3", "busybox", "sh", "-c", script)  # fmt: skip
    until(lambda: state(ketch, "bare", "State.Health.Status") == "unhealthy")
    store = Store(ketch.prefix[2])
    with store.reading() as connection:
        query = "SELECT count(*) FROM exec WHERE monitor_pid > 0 AND exit_status IS NULL"
        assert connection.execute(query).fetchone()[0] <= 1  # one that has just begun
    store.close()
    ketch.ok("rm", "-f", "bare")


@pytest.mark.ketch_only("podman's option")
@pytest.mark.parametrize("action", ["kill", "stop", "restart"])
def test_what_is_done_about_the_unhealthy(ketch: Engine, action: str) -> None:
    ketch.ok(
        "run",
        "-d",
        "--name",
        "ill",
        "--health-cmd",
        "false",
        "--health-on-failure",
        action,
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
        "busybox",
        "sh",
        "-c",
        POLITE,
    )
    if action == "restart":
        until(lambda: ketch.ok("logs", "ill").count("up") >= 2)
        until(lambda: "restart" in told(ketch, "ill"))
    else:
        until(lambda: state(ketch, "ill", "State.Status") == "exited")
        assert state(ketch, "ill", "State.ExitCode") == {"kill": "137", "stop": "3"}[action]
    # It may be in the middle of its next restart.
    until(lambda: ketch("rm", "-f", "ill").status == 0)


# Exec, update, events


def test_exec_in_the_background(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "host", "busybox", "sleep", "60")
    assert engine.ok("exec", "-d", "host", "sh", "-c", "touch /done; sleep 30") == ""
    until(lambda: engine("exec", "host", "test", "-e", "/done").status == 0)
    ids = engine.ok("inspect", "--format", "{{len .ExecIDs}}", "host")
    assert ids == "1"
    engine.ok("rm", "-f", "host")


@pytest.mark.vm
@pytest.mark.parametrize(
    "command",
    [
        ("ps", "--filter", "name=nobody-at-all"),
        ("ps", "--filter", "name=nobody-at-all", "--size"),
        ("events", "--since", "0", "--until", "1"),
    ],
)
def test_a_field_that_never_is_is_told_before_there_is_anything(
    engine: Engine, command: tuple[str, ...]
) -> None:
    status = 64 if command[0] == "events" else 1
    kind = "*events.Message" if command[0] == "events" else "*formatter.ContainerContext"
    for template in ("{{.Nope}}", "{{json .Nope}}", "{{if .Nope}}x{{end}}"):
        done = engine(*command, "--format", template)
        assert (done.status, done.out) == (status, "")
        assert f"can't evaluate field Nope in type {kind}" in done.err
    good = "{{.Status}}{{.ID}}{{if .ID}}{{slice .ID 0 1}}{{end}}{{json .}}"
    assert engine(*command, "--format", good).status == 0


def test_update_changes_what_runs(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "limited", "-m", "64m", "busybox", "sleep", "60")
    assert engine("update", "-m", "200m", "limited").status == 1
    # A limit that kernels have no more: scripts that set it go on.
    assert engine.ok("update", "--kernel-memory", "50m", "limited") == "limited"
    engine.ok("update", "-m", "100m", "--memory-swap", "150m", "--pids-limit", "55", "--restart",
              "on-failure:3", "limited")  # fmt: skip
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    assert engine("exec", "limited", "sh", "-c", f"cat {files} 2>&-").out.strip() == "104857600"
    assert state(engine, "limited", "HostConfig.RestartPolicy") == "{on-failure 3}"
    assert state(engine, "limited", "HostConfig.PidsLimit") == "55"
    engine.ok("rm", "-f", "limited")


@pytest.mark.vm
@pytest.mark.ketch_only("Docker refuses, since a limit of 0 is less than any")
def test_a_limit_can_be_set_where_none_was(ketch: Engine) -> None:
    ketch.ok("run", "-d", "--name", "limited", "busybox", "sleep", "60")
    ketch.ok("update", "-m", "10m", "limited")
    shown = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
    assert ketch.ok("inspect", "-f", shown, "limited") == "10485760 20971520"  # as by run -m
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    read = ("exec", "limited", "sh", "-c", f"cat {files} 2>&-")
    assert ketch(*read).out.strip() == "10485760"
    # Up and down: the two limits pass each other.
    for memory, swap in (("100m", "200m"), ("8m", "16m"), ("64m", "-1"), ("128m", "")):
        ketch.ok("update", "-m", memory, *(["--memory-swap", swap] if swap else []), "limited")
        assert ketch(*read).out.strip() == str(int(memory[:-1]) << 20)
    assert ketch.ok("inspect", "-f", shown, "limited") == "134217728 -1"
    ketch.ok("rm", "-f", "limited")


@pytest.mark.ketch_only("the library's and podman's ways are among them")
@pytest.mark.in_process
def test_every_restart_is_told(ketch: Engine, served_engine: Engine, run_name: str) -> None:
    import ketch as package

    started = ["run", "-d", "--rm", "--name", run_name, "busybox", "sleep", "1000"]
    container = ketch.ok(*started)
    ketch.ok("restart", "-t", "0", run_name)
    served_engine.ok("restart", "-t", "0", run_name)
    package.Engine(ketch.prefix[2], ketch.prefix[4]).containers.get(run_name).restart(timeout=0)
    assert told(ketch, container).count("restart") == 3
    ketch.ok("rm", "-f", run_name)


def told(ketch: Engine, name: str) -> list[str]:
    """What has happened to a container."""
    return ketch.ok("events", "--since", "5m", "--until", "0s", "--filter", f"container={name}",
                    "--format", "{{.Action}}").splitlines()  # fmt: skip


@pytest.mark.ketch_only("podman's placeholders")
def test_ps_knows_the_first_process(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "busybox", "sleep", "1000")
    pid = state(ketch, run_name, "State.Pid")
    form = "{{.Pid}} {{.ExitCode}} {{.Restarts}} {{.Exited}} {{.AutoRemove}}"
    assert ketch.ok("ps", "--format", form) == f"{pid} 0 0 false false"
    assert ketch.ok("ps", "--format", "table {{.Pid}}").splitlines()[0] == "PID"
    assert "Pid" not in json.loads(ketch.ok("ps", "--format", "json"))
    ketch.ok("kill", run_name)
    assert ketch.ok("ps", "-a", "--format", form) == "0 137 0 true false"
    ketch.ok("rm", run_name)


def test_wait_for_several(engine: Engine) -> None:
    for number in (3, 5):
        engine.ok("run", "-d", "--name", f"w{number}", "busybox", "sh", "-c",
                  f"sleep 0.5; exit {number}")  # fmt: skip
    assert engine.ok("wait", "w3", "w5") == "3\n5"
    engine.ok("rm", "w3", "w5")


# What holds it all


HOLDER = """
import sys
from ketch.engine.requests import launch
from ketch.engine.requests import wire
from ketch.engine.home import places
from ketch.engine.settings import Settings, is_ordinary

root, state, name = sys.argv[1:]
settings = Settings(root, state, home=places.configuration() if is_ordinary() else "")

def frames(connection):
    decoder = wire.Decoder()
    while data := connection.recv(65536):
        yield from decoder.feed(data)

starter = launch.connect(settings)
starter.sendall(wire.frame(wire.REQUEST, wire.encode(
    {"action": "start", **settings.fields, "container": name, "hold": True,
     "lifetime": "process"})))
told = frames(starter)
kind, payload = next(told)
assert kind == wire.CREATED, payload
watcher = launch.reach_monitor(settings, payload.decode())
watcher.sendall(wire.frame(wire.REQUEST, wire.encode(
    {"action": "attach", "stdin": False, "stdout": True, "stderr": False})))
starter.sendall(wire.frame(wire.GO))
assert next(told)[0] == wire.STARTED
seen = frames(watcher)
assert next(seen)[0] == wire.STARTED
print(next(seen)[1].decode(), end="", flush=True)
sys.stdin.read()
"""


@pytest.mark.ketch_only("a protocol of ketch's")
def test_who_attaches_before_the_start_sees_the_first_word_and_may_share_its_end(
    ketch: Engine,
) -> None:
    identity = ketch.ok("create", "--name", "bound", "busybox", "sh", "-c", "echo first; sleep 60")
    holder = subprocess.Popen(
        [*ketch.python, "-c", HOLDER, ketch.prefix[2], ketch.prefix[4], "bound"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"first\n"
    assert ketch.ok("ps", "-q", "--no-trunc") == identity
    holder.kill()
    holder.communicate()
    until(lambda: ketch.ok("ps", "-aq") == "")


@pytest.mark.ketch_only("docker has a daemon for it")
def test_a_reboot(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """The state directory empty, another boot id, no process left: policies decide."""
    for name in ("no", "always", "unless-stopped", "on-failure"):
        ketch.ok("run", "-d", "--restart", name, "--name", name, "busybox", "sleep", "60")
    ketch.ok("run", "-d", "--restart", "unless-stopped", "--name", "stopped", "busybox", "true")
    ketch.ok("stop", "-t", "0", "stopped")
    ketch.ok("create", "--restart", "always", "--name", "never", "busybox", "true")
    for name in ("no", "always", "unless-stopped", "on-failure"):
        pid = state(ketch, name, "State.Pid")
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        os.kill(int(status.partition("PPid:")[2].split()[0]), 9)
    until(lambda: not ketch.ok("ps", "-q"))
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("11111111-2222-3333-4444-555555555555\n")
    after = Engine("ketch", [
        "unshare", "-m", "sh", "-c",
        f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id; exec "$@"', "sh",
        *ketch.prefix[:4], f"{ketch.prefix[4]}/rebooted",
    ])  # fmt: skip
    listed = after.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()
    assert all(" Exited (255) " in row for row in listed if row.split()[0] in
               {"no", "always", "unless-stopped", "on-failure"})  # fmt: skip
    assert set(after.ok("system", "start").split()) == {"always", "unless-stopped", "on-failure"}
    running = after.ok("ps", "--format", "{{.Names}}").split()
    assert set(running) == {"always", "unless-stopped", "on-failure"}
    after.ok("rm", "-f", *after.ok("ps", "-aq").split())


@pytest.mark.ketch_only("what it costs")
@pytest.mark.parametrize(("script", "limit_kb"), [("", 800), ("echo up; ", 1400)])
def test_an_idle_container_costs_little(ketch: Engine, script: str, limit_kb: int) -> None:
    """Private memory of all of ketch's processes for one more container."""
    names = [f"idle{number}" for number in range(4)]
    for name in names:
        ketch.ok("run", "-d", "--name", name, "busybox", "sh", "-c", f"{script}exec sleep 60")
        until(lambda name=name: bool(ketch.ok("logs", name)) == bool(script))  # type: ignore[misc]
    monitor = monitor_of(ketch, names[1])
    found = [monitor, *scribes(monitor)]
    assert len(found) == 1 + bool(script)
    assert _private_kb(monitor) <= 800
    # A scribe gives back what it can once its program has been silent for a second.
    until(lambda: sum(map(_private_kb, found)) <= limit_kb)
    ketch.ok("rm", "-f", *names)


def monitor_of(engine: Engine, name: str) -> int:
    """Pid of a container's monitor."""
    pid = state(engine, name, "State.Pid")
    return int(pathlib.Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0])


def scribes(monitor: int) -> list[int]:
    """Pids of the children that write a monitor's log."""
    children = pathlib.Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if pathlib.Path(f"/proc/{pid}/comm").read_text() == "ketch-scribe\n"
    ]


def _private_kb(pid: int) -> int:
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


@pytest.mark.ketch_only("its processes")
def test_a_line_is_logged_whole_though_somebody_attaches_amid_it(ketch: Engine) -> None:
    script = "trap 'echo lf' USR1; printf ha; while :; do sleep 0.1; done"
    ketch.ok("run", "-d", "--name", "halves", "busybox", "sh", "-c", script)
    monitor = monitor_of(ketch, "halves")
    until(lambda: bool(scribes(monitor)))
    attached = ketch.start("attach", "--no-stdin", "--sig-proxy=false", "halves")
    until(lambda: not scribes(monitor))
    ketch.ok("kill", "-s", "USR1", "halves")
    until(lambda: ketch("logs", "halves").out == "half\n")
    log = pathlib.Path(state(ketch, "halves", "LogPath")).read_text()
    assert [json.loads(line)["log"] for line in log.splitlines()] == ["half\n"]
    ketch.ok("rm", "-f", "halves")
    assert attached.communicate()[0] == b"lf\n"


@pytest.mark.ketch_only("its processes")
def test_a_container_goes_on_when_the_one_who_writes_its_log_is_killed(ketch: Engine) -> None:
    script = "trap 'echo again' USR1; echo first; while :; do sleep 0.1; done"
    ketch.ok("run", "-d", "--name", "unwritten", "busybox", "sh", "-c", script)
    until(lambda: ketch("logs", "unwritten").out == "first\n")
    (scribe,) = scribes(monitor_of(ketch, "unwritten"))
    os.kill(scribe, signal.SIGKILL)
    ketch.ok("kill", "-s", "USR1", "unwritten")
    until(lambda: ketch("logs", "unwritten").out == "first\nagain\n")
    ketch.ok("rm", "-f", "unwritten")


class _Late(Containers):
    """Looks a container up a moment before it ends, and acts on that a moment after."""

    seen: Container | None = None

    def find(self, reference: str) -> Container:
        found, self.seen = self.seen, None
        return found or super().find(reference)


@pytest.mark.in_process
@pytest.mark.ketch_only("in process")
@pytest.mark.parametrize("action", ["remove", "stop"])
def test_one_that_ends_just_before_it_is_ended_is_not_started_again(
    ketch: Engine, action: str
) -> None:
    script = "sleep 0.5; exit 1"
    ketch.ok("run", "-d", "--restart", "always", "--name", "ending", "busybox", "sh", "-c", script)
    settings = Settings(ketch.prefix[2], ketch.prefix[4])
    containers = _Late(settings, Store(settings.root))
    seen = containers.find("ending")
    assert seen.status == "running"
    until(lambda: containers.find("ending").status == "restarting")
    containers.seen = seen
    if action == "remove":
        containers.remove("ending", force=True)
        assert ketch("inspect", "ending").status == 1
    else:
        containers.stop("ending")
        assert state(ketch, "ending", "State.Status") == "exited"
        ketch.ok("rm", "ending")


def test_a_container_that_was_started_again_can_be_attached_to(engine: Engine) -> None:
    script = (
        "if [ -e /been ]; then trap 'echo heard' USR1; else touch /been; exit 1; fi; "
        "while :; do sleep 0.1; done"
    )
    engine.ok("run", "-d", "--restart", "always", "--name", "silent", "busybox", "sh", "-c", script)
    until(lambda: state(engine, "silent", "RestartCount") == "1")
    # While it waits it counts as running already, but cannot be attached to.
    until(lambda: state(engine, "silent", "State.Status") == "running")
    attached = engine.start("attach", "--no-stdin", "--sig-proxy=false", "silent")
    time.sleep(0.5)
    engine.ok("kill", "-s", "USR1", "silent")
    assert attached.stdout is not None
    assert attached.stdout.readline() == b"heard\n"
    engine.ok("rm", "-f", "silent")
    attached.communicate()
