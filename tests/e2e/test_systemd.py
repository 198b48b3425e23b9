"""systemd as PID 1 of a container without privileges."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.commands import Engine

# Where no Debian with systemd is cached yet, the first of them makes it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def image(ketch_engine: Engine) -> Iterator[str]:
    """Return the name of a Debian's image that runs systemd."""
    try:
        archive = images.systemd_archive()
    except images.CannotMakeError as error:
        pytest.skip(f"no Debian image: {error}")
    ketch_engine.ok(
        "import", "--change", 'CMD ["/sbin/init"]', str(archive), "systemd", timeout=200
    )
    yield "systemd"
    ketch_engine.ok("rmi", "systemd")


@contextlib.contextmanager
def booted(ketch: Engine, image: str, *options: str) -> Iterator[str]:
    """Start it and wait until all that it starts has come up, or has failed."""
    container = ketch.ok("run", "-d", "--network", "none", *options, image)
    try:
        await_boot(ketch, container)
        yield container
    finally:
        ketch.ok("rm", "-f", container)


def await_boot(ketch: Engine, container: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        state = ketch("exec", container, "systemctl", "is-system-running")
        if state.out.strip() in {"running", "degraded"}:
            return
        told = ketch("inspect", "-f", "{{json .State}}", container).out, ketch("logs", container)
        assert ketch.ok("ps", "-q"), told
        assert time.monotonic() < deadline, state
        time.sleep(0.1)


@pytest.mark.vm
@pytest.mark.parametrize("ids", ["host", "auto"])
def test_it_boots_starts_units_and_stops_at_its_signal(ketch: Engine, image: str, ids: str) -> None:
    with booted(ketch, image, "--userns", ids, "-m", "512m") as container:
        script = (
            "systemctl show -p Result --value systemd-journald; cat /proc/1/comm;"
            " systemd-run --quiet --wait --pipe cat /proc/self/cgroup | grep -E '^0:|name=';"
            " tr '\\0' '\\n' </proc/1/environ | grep ^container;"
            " grep -E '^tmpfs /(run|tmp) ' /proc/mounts"
        )
        told = ketch.ok("exec", container, "sh", "-c", script).splitlines()
        assert told[:2] == ["success", "systemd"]
        assert len([line for line in told if line.startswith("tmpfs ")]) == 2
        assert all(".service" in line for line in told if "::/" in line or "name=" in line)
        assert "container=ketch" in told
        assert f"container_uuid={container[:32]}" in told
        assert ketch.ok("inspect", "-f", "{{.Config.StopSignal}}", container) == "SIGRTMIN+3"
        # What it is allowed it cannot make more of.
        unified = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
        limit = "memory.max" if unified else "memory/memory.limit_in_bytes"
        assert ketch("exec", container, "sh", "-c", f"echo 1G >/sys/fs/cgroup/{limit}").status
        begun = time.monotonic()
        ketch.ok("stop", "-t", "60", container, timeout=90)
        took_seconds = time.monotonic() - begun
        status = ketch.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", container)
        assert (status, took_seconds < 30) == ("exited 0", True), took_seconds
        ketch.ok("start", container)
        await_boot(ketch, container)


def test_what_always_and_false_mean_for_another_program(ketch: Engine) -> None:
    shown = "echo $container; grep -E ' /(run|tmp|run/lock|var/log/journal) ' /proc/mounts"
    places = ketch.ok("run", "--rm", "--systemd=always", "--read-only", "busybox", "sh", "-c",
                      f"{shown}; touch /tmp/there").splitlines()  # fmt: skip
    assert places[0] == "ketch"
    assert sorted(line.split()[1] for line in places[1:]) == [
        "/run", "/run/lock", "/tmp", "/var/log/journal"
    ]  # fmt: skip
    assert not ketch("run", "--rm", "--systemd=false", "busybox", "sh", "-c", shown).out.strip()
    refused = ketch("run", "--rm", "--systemd=always", "--init", "busybox", "true")
    assert refused.status == 125
    assert "conflicting options: Systemd and Init" in refused.err
