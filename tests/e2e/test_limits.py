"""Limits, seen to limit."""

import pathlib
import time

import pytest

from tests.support.commands import Engine

UNIFIED = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()


def limit(engine: Engine, v1: str, v2: str, *options: str) -> str:
    """Return what a container reads in one of its own cgroup files."""
    path = v2 if UNIFIED else v1
    return engine.ok("run", "--rm", *options, "busybox", "cat", f"/sys/fs/cgroup/{path}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("16m", 16 << 20), ("100M", 100 << 20), ("1g", 1 << 30), ("33554432", 32 << 20),
     ("20480k", 20 << 20), ("0.5g", 512 << 20)],
)  # fmt: skip
def test_memory_is_set(engine: Engine, given: str, expected: int) -> None:
    found = limit(engine, "memory/memory.limit_in_bytes", "memory.max", "-m", given)
    assert int(found) == expected


@pytest.mark.vm
def test_reservation_and_swap_are_set(engine: Engine) -> None:
    options = ("-m", "64m", "--memory-reservation", "32m", "--memory-swap", "64m")
    found = limit(engine, "memory/memory.soft_limit_in_bytes", "memory.low", *options)
    assert int(found) == 32 << 20


@pytest.mark.vm
def test_cpus_is_a_quota(engine: Engine) -> None:
    found = limit(engine, "cpu/cpu.cfs_quota_us", "cpu.max", "--cpus", "0.25")
    assert found.split()[0] == "25000"


def test_quota_and_period(engine: Engine) -> None:
    options = ("--cpu-quota", "20000", "--cpu-period", "50000")
    found = limit(engine, "cpu/cpu.cfs_quota_us", "cpu.max", *options)
    assert found.split()[0] == "20000"


@pytest.mark.skipif(UNIFIED, reason="cgroup v2 has weights, which docker converts")
def test_shares(engine: Engine) -> None:
    assert limit(engine, "cpu/cpu.shares", "", "--cpu-shares", "512") == "512"


@pytest.mark.vm
def test_pids_limit_is_set(engine: Engine) -> None:
    assert limit(engine, "pids/pids.max", "pids.max", "--pids-limit", "21") == "21"


@pytest.mark.vm
def test_a_memory_hog_is_killed(engine: Engine) -> None:
    name = "hog"
    result = engine(
        "run", "--name", name, "-m", "16m", "--memory-swap", "16m", "busybox",
        "awk", 'BEGIN { s = "x"; while (1) s = s s }',
    )  # fmt: skip
    assert result.status == 137
    assert "Exited (137)" in engine.ok("ps", "-a")
    assert engine.ok("inspect", "--format", "{{.State.OOMKilled}}", name) == "true"
    engine.ok("rm", name)


@pytest.mark.vm
def test_a_child_is_killed_and_the_container_lives_on(engine: Engine) -> None:
    """It is told when it happens, and not at the end alone."""
    hog = """awk 'BEGIN { s = "x"; while (1) s = s s }'"""
    begin = time.time()
    name = engine.ok("run", "-d", "-m", "16m", "--memory-swap", "16m", "busybox",
                     "sh", "-c", f"{hog}; exec sleep 1000")  # fmt: skip

    def actions() -> list[str]:
        return engine.ok(
            "events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}",
            "--filter", f"container={name}", "--format", "{{.Action}}",
        ).split()  # fmt: skip

    deadline = time.monotonic() + 15
    while "oom" not in actions() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert actions() == ["create", "start", "oom"]
    state = engine.ok("inspect", "-f", "{{.State.Status}} {{.State.OOMKilled}}", name)
    assert state == "running true"
    engine.ok("kill", name)
    engine.ok("wait", name)
    assert actions() == ["create", "start", "oom", "kill", "die"]
    assert engine.ok("inspect", "-f", "{{.State.OOMKilled}}", name) == "true"
    engine.ok("rm", name)


def test_a_small_program_fits_its_limit(engine: Engine) -> None:
    engine.ok("run", "--rm", "-m", "16m", "busybox", "true")


@pytest.mark.vm
def test_a_busy_loop_gets_its_share_of_a_core(engine: Engine) -> None:
    script = (
        "read up rest < /proc/uptime; end=$((${up%.*} + 3));"
        " while [ ${up%.*} -lt $end ]; do read up rest < /proc/uptime; done; cat /proc/$$/stat"
    )
    started = time.monotonic()
    out = engine.ok("run", "--rm", "--cpus", "0.25", "busybox", "sh", "-c", script)
    wall_seconds = time.monotonic() - started
    fields = out.rpartition(")")[2].split()
    used_seconds = (int(fields[11]) + int(fields[12])) / 100
    assert 0.15 < used_seconds / wall_seconds < 0.32


@pytest.mark.vm
def test_a_fork_bomb_stops(engine: Engine) -> None:
    script = "i=0; while [ $i -lt 100 ]; do sleep 30 & i=$((i + 1)); done"
    result = engine("run", "--rm", "--pids-limit", "20", "busybox", "sh", "-c", script)
    assert "Resource temporarily unavailable" in result.err
    assert result.status != 0


@pytest.mark.vm
def test_cpuset(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--cpuset-cpus", "0", "--cpuset-mems", "0", "busybox", "grep",
                    "-E", "^(Cpus|Mems)_allowed_list", "/proc/self/status")  # fmt: skip
    assert out.split() == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-m", "lots"),
        ("-m", "1k"),
        ("-m", "-5m"),
        ("--cpus", "many"),
        ("--cpus", "10000"),
        ("--cpus", "-1"),
        ("--cpu-shares", "x"),
        ("--cpuset-cpus", "0-9999"),
        ("--cpuset-cpus", "nonsense"),
        ("--pids-limit", "x"),
        ("--memory-swap", "1m"),
        ("--oom-score-adj", "5000"),
        ("--ulimit", "nofile=2:1"),
        ("--ulimit", "nonsense=1"),
        ("--sysctl", "kernel.shmmax"),
    ],
)
def test_malformed_limits_are_told(engine: Engine, option: str, value: str) -> None:
    result = engine("run", "--rm", option, value, "busybox", "true")
    assert result.status == 125, result
    assert result.err.strip()
    assert result.out == ""
