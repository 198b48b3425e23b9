"""Containers that may run for so long, or lie unused for so long, and no longer."""

import signal
import time

import pytest

from tests.support.commands import Engine

pytestmark = pytest.mark.ketch_only("docker has no such limits; --timeout is podman's")

# Takes the place of a program: whatever comes by exec needs nothing else.
ALONE = ("--init", "--entrypoint", "/sbin/docker-init", "busybox")
STATE = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"


def test_a_container_ends_when_its_time_is_up(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "--timeout", "1", "--restart", "always", "busybox",
             "sh", "-c", "trap '' TERM INT; while :; do sleep 1; done")  # fmt: skip
    assert ketch.ok("wait", run_name) == "137"
    assert ketch.ok("inspect", "-f", STATE, run_name) == "exited 137 its time of 1 s is up"
    ketch.ok("rm", run_name)


def test_one_that_is_paused_or_stops_itself_ends_too(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "--timeout", "2", "busybox", "sleep", "1000")
    ketch.ok("pause", run_name)
    begun = time.monotonic()
    stopped = ketch("run", "--rm", "--init", "--timeout", "1", "busybox", "sh", "-c",
                        "kill -STOP $$")  # fmt: skip
    assert stopped.status == 128 + signal.SIGKILL
    assert ketch.ok("wait", run_name) == "137"
    assert time.monotonic() - begun < 20
    ketch.ok("rm", run_name)


def test_one_that_nobody_uses_ends(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "--idle-timeout", "2", *ALONE)
    assert ketch.ok("exec", run_name, "sh", "-c", "sleep 3; echo still there") == "still there"
    used = time.monotonic()
    assert ketch.ok("wait", run_name) == "137"
    assert time.monotonic() - used > 1
    shown = ketch.ok("inspect", "-f", STATE, run_name)
    assert shown == "exited 137 nobody has used it for 2 s"
    ketch.ok("rm", run_name)


def test_its_time_can_be_changed_while_it_runs(ketch: Engine, run_name: str) -> None:
    """Both ways, and of one that had all the time in the world."""
    ketch.ok("run", "-d", "--name", run_name, "--timeout", "6", *ALONE)
    ketch.ok("update", "--timeout", "0", run_name)
    time.sleep(6.5)
    assert ketch.ok("inspect", "-f", "{{.State.Status}}", run_name) == "running"
    ketch.ok("update", "--timeout", "1", run_name)
    assert ketch.ok("wait", run_name) == "137"
    ketch.ok("rm", run_name)


def test_time_is_told_in_whole_seconds_from_0_on(ketch: Engine) -> None:
    refused = ketch("run", "--timeout", "-1", "busybox", "true")
    assert (refused.status, refused.out) == (125, "")
    assert "invalid Timeout: a number of seconds is wanted, 0 for ever" in refused.err


def test_an_init_without_a_program_reaps(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, *ALONE)
    ketch.ok("exec", run_name, "sh", "-c", "(sleep 0.1 &) &")
    time.sleep(0.5)
    processes = ketch.ok("exec", run_name, "ps", "-o", "pid,stat,args").splitlines()
    assert [line.split() for line in processes[1:-1]] == [["1", "S", "/sbin/docker-init"]]
    ketch.ok("stop", "-t", "0", run_name)
    ketch.ok("rm", run_name)
