"""An ordinary user's limits, in control groups that systemd or whoever starts it delegates."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support import images, users
from tests.support.users import User

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(
        not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
        or not pathlib.Path("/run/systemd/system").exists(),
        reason="needs cgroup v2 alone, and systemd as init: the virtual machine has both",
    ),
]


@pytest.fixture(scope="module")
def lingering(run_name: str) -> Iterator[User]:
    """Return a user whose manager runs, whose engine has the image ``busybox``."""
    with users.made(run_name) as user:
        # As loginctl(1) does; the machine's logind is switched off.
        mark = pathlib.Path("/var/lib/systemd/linger", user.name)
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
        subprocess.run(["systemctl", "start", f"user@{user.uid}.service"], check=True)
        try:
            found = replace(user, session=f"/run/user/{user.uid}")
            archive = images.busybox_archive().read_bytes()
            found.ketch.ok("import", "-", "busybox", stdin=archive)
            yield found
        finally:
            mark.unlink()
            subprocess.run(["systemctl", "stop", f"user@{user.uid}.service"], check=True)


def test_limits_count(lingering: User) -> None:
    shown = lingering.ketch.ok(
        "run", "--rm", "--network", "none", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5",
        "busybox", "sh", "-c", "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max",
        timeout=120,
    )  # fmt: skip
    assert shown.split() == ["67108864", "50", "50000", "100000"]


def test_what_is_not_delegated_is_refused_by_name(lingering: User) -> None:
    refused = lingering.ketch("run", "--rm", "--cpuset-cpus", "0", "busybox", "true", timeout=120)
    assert refused.status == 125
    assert "the controller cpuset is not delegated to this user" in refused.err
    assert "systemctl edit user@.service" in refused.err


def test_a_running_container_is_paused_counted_and_killed_for_want_of_memory(
    lingering: User,
) -> None:
    ketch = lingering.ketch
    ketch.ok("run", "-d", "--name", "one", "--network", "none", "-m", "32m", "busybox", "sleep",
             "1000", timeout=120)  # fmt: skip
    try:
        pid = ketch.ok("inspect", "-f", "{{.State.Pid}}", "one")
        place = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").strip()
        manager = f"0::/user.slice/user-{lingering.uid}.slice/user@{lingering.uid}.service"
        assert place.startswith(f"{manager}/user.slice/ketch-")
        figures = json.loads(ketch.ok("stats", "--no-stream", "--format", "json", "one"))
        assert figures["MemUsage"].endswith(" / 32MiB")
        ketch.ok("pause", "one")
        assert ketch.ok("inspect", "-f", "{{.State.Status}}", "one") == "paused"
        ketch.ok("unpause", "one")
        assert ketch.ok("exec", "one", "echo", "here") == "here"
        ketch.ok("update", "--pids-limit", "77", "one")
        assert ketch.ok("exec", "one", "cat", "/sys/fs/cgroup/pids.max") == "77"
    finally:
        ketch.ok("rm", "-f", "one")
    eaten = ketch("run", "--name", "eater", "--network", "none", "-m", "16m", "--memory-swap",
                  "16m", "busybox", "tail", "/dev/zero", timeout=120)  # fmt: skip
    assert eaten.status == 137
    assert ketch.ok("inspect", "-f", "{{.State.OOMKilled}}", "eater") == "true"
    ketch.ok("rm", "eater")


def test_it_is_told(lingering: User) -> None:
    found = json.loads(lingering.ketch.ok("system", "check", "--format", "json"))["Offers"]
    offers = {offer["Name"]: offer for offer in found}
    assert offers["control groups"]["State"] == "yes"
    assert "memory, pids" in offers["control groups"]["Detail"]
    assert "not delegated" in offers["control groups"]["Detail"]
    assert offers["lingering"]["State"] == "yes"
    assert offers["runtime directory"]["Detail"] == f"/run/user/{lingering.uid}/ketch"
    told = lingering.ketch.ok("info", "-f", "{{.MemoryLimit}} {{.CPUSet}} {{.CgroupDriver}}")
    assert told == "true false cgroupfs"


def test_a_cgroup_that_is_handed_in_is_divided(run_name: str) -> None:
    archive = images.busybox_archive()
    work = (
        f"ketch import - busybox < {archive} && ketch run --rm --network none -m 64m busybox"
        " cat /sys/fs/cgroup/memory.max && ketch run --rm --network none --cpuset-cpus 0 busybox"
        " cat /sys/fs/cgroup/cpuset.cpus && ketch system reset --force"
    )
    with users.made(run_name) as user:
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["systemd-run", "--quiet", "--pipe", "--wait", f"--property=User={user.name}",
             "--property=Delegate=yes", f"--setenv=PATH={path}", "sh", "-c", work],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    assert done.stdout.split()[1:] == ["67108864", "0"], done
