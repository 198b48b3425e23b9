"""``exec``: as whom, where, and what it ends with."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine


@pytest.fixture
def running(engine: Engine, run_name: str) -> Iterator[str]:
    """Return a container that runs, with a group of its own."""
    engine.ok("run", "-d", "--name", run_name, "--group-add", "1234", "busybox", "sleep", "1000")
    yield run_name
    engine.ok("rm", "-f", run_name)


@pytest.mark.served
@pytest.mark.many_ids("a user with one id has one group")
def test_the_containers_groups_stay_whoever_it_runs_as(engine: Engine, running: str) -> None:
    for user, groups in (([], "0 1234"), (["-u", "4321"], "0 1234"), (["-u", "1:44"], "44 1234")):
        assert engine.ok("exec", *user, running, "id", "-G") == groups


@pytest.mark.user
@pytest.mark.served
def test_what_cannot_be_run_is_126(engine: Engine, running: str) -> None:
    for words in (["-w", "/nodir"], ["-w", "relative"], ["-u", "nope"], ["-u", "0:nope"]):
        assert engine("exec", *words, running, "true").status == 126, words
        # Nobody waits for a program's status then.
        assert engine("exec", "-d", *words, running, "true").status == 1, words
    assert engine("exec", running, "/etc").status == 126


def test_what_is_missing_is_127(ketch: Engine, served_engine: Engine, run_name: str) -> None:
    """As with podman, and with dockerd since 28: before, it wrote 126 over the status that it had
    found (moby 45795, 48552).
    """
    ketch.ok("run", "-d", "--name", run_name, "busybox", "sleep", "1000")
    assert ketch("exec", run_name, "no-such-program").status == 127
    assert ketch("exec", run_name, "").status == 127
    assert served_engine("exec", run_name, "/no/such/program").status == 127
    assert ketch("exec", "nobody", "true").status == 1
    ketch.ok("pause", run_name)
    assert ketch("exec", run_name, "true").status == 1
    ketch.ok("rm", "-f", run_name)


@pytest.mark.ketch_only("docker's command line puts others in the place of such bytes")
def test_arguments_are_bytes(ketch: Engine, run_name: str) -> None:
    """Names of files need not be UTF-8."""
    name = "caf\udce9"
    ketch.ok("run", "-d", "--name", run_name, "-h", name, "--dns-opt", name, "busybox", "sleep",
             "1000")  # fmt: skip
    ketch.ok("exec", run_name, "touch", f"/tmp/{name}")
    assert ketch.ok("exec", run_name, "find", "/tmp", "-name", "caf*") == f"/tmp/{name}"
    assert ketch.ok("exec", run_name, "hostname") == name
    assert name in ketch.ok("exec", run_name, "cat", "/etc/hosts")
    assert name in ketch.ok("exec", run_name, "cat", "/etc/resolv.conf")
    told = ketch.ok("events", "--since", "1m", "--until", "0s", "--filter", f"container={run_name}",
                    "--format", "{{.Action}}")  # fmt: skip
    assert "exec_create: touch /tmp/caf\ufffd" in told
    ketch.ok("rm", "-f", run_name)


@pytest.mark.ketch_only("docker enters the control group after its fork")
def test_the_limit_of_processes_is_named(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "--pids-limit", "1", "busybox", "sleep", "1000")
    refused = ketch("exec", run_name, "true")
    assert refused.status == 126
    assert "limit" in refused.err
    assert "--pids-limit" in refused.err
    refused = ketch("run", "--rm", "--init", "--pids-limit", "1", "busybox", "true")
    assert refused.status == 125
    assert "--pids-limit" in refused.err
    ketch.ok("update", "--pids-limit", "5", run_name)
    ketch.ok("exec", run_name, "true")
    ketch.ok("rm", "-f", run_name)


@pytest.mark.ketch_only("looks into the database")
def test_what_is_kept_of_a_session_is_bounded(
    ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    ketch.ok("run", "-d", "--name", run_name, "busybox", "sleep", "1000")
    ketch.ok("exec", run_name, "true", "x" * 100_000)
    told = ketch.ok("events", "--since", "1m", "--until", "0s", "--filter", f"container={run_name}",
                    "--format", "{{.Action}}")  # fmt: skip
    # Containers of that name were there before.
    created, started = [
        line for line in told.splitlines() if line.startswith("exec_") and ": " in line
    ][-2:]
    assert created.startswith("exec_create: true xxx")
    assert len(created) < 2000
    assert len(started) < 2000
    ketch.ok("rm", "-f", run_name)
