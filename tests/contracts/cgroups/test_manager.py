"""What every cgroup manager must do, on cgroup v1, hybrid and v2.

A machine shows what its kernel has mounted: v1 is tried wherever there are v1 hierarchies, v2
wherever there is a unified one, which on a hybrid machine has few controllers. Limits of v2 itself
are tried on a machine that has v2 alone.
"""

import errno
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ketch import cgroups
from ketch.cgroups import Hierarchy, Layout, Manager
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
)
from ketch.linux import process

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


@pytest.fixture(params=["v1", "hybrid", "v2"])
def layout(request: pytest.FixtureRequest) -> Layout:
    machine = cgroups.detect()
    if request.param == "hybrid":
        if machine.mode != "hybrid":
            pytest.skip(f"this machine has {machine.mode} alone")
        return machine
    version = int(request.param[1])
    found = [each for each in machine.hierarchies if each.version == version]
    if not found:
        pytest.skip(f"no cgroup {request.param} hierarchy is mounted here")
    if request.param == "v2" and machine.mode == "hybrid":
        # Not to have the root pass on what it did not before: v2 itself, without controllers.
        return Layout([Hierarchy(found[0].mountpoint, 2, (), found[0].own)])
    return Layout(found)


@pytest.fixture
def manager(layout: Layout) -> Iterator[Manager]:
    made = cgroups.manager(f"/ketch-test-{secrets.token_hex(4)}/container", layout)
    made.create()
    yield made
    made.kill()
    made.delete(empty_parents=1)


def need(layout: Layout, *controllers: str) -> None:
    for name in controllers:
        if layout.hierarchy_of(name) is None:
            pytest.skip(f"the {layout.mode} hierarchies of this machine have no {name} controller")


class Child:
    """A process that began its life in a cgroup; ended and reaped on exit."""

    def __init__(self, manager: Manager, work: Callable[[], object]) -> None:
        entrances, descriptor = manager.entrances(), manager.descriptor()
        inside, entered = os.pipe()
        try:
            self.pid, self.pidfd = process.clone3(0, cgroup=descriptor)
            if self.pid == 0:
                status = 99
                try:
                    cgroups.enter(entrances)
                    os.write(entered, b"!")
                    status = int(bool(work()))
                finally:
                    os._exit(status)
            assert os.read(inside, 1)
        finally:
            for opened in (*entrances, *([] if descriptor is None else [descriptor])):
                os.close(opened)
            os.close(inside)
            os.close(entered)
        self._status: int | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.wait()
        os.close(self.pidfd)

    def wait(self) -> int:
        """Exit status, or minus the signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


def sleep() -> None:
    time.sleep(60)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 5 seconds"
        time.sleep(0.005)


def content(manager: Manager, controller: str, file: str) -> str:
    with open(f"{manager.paths()[controller]}/{file}", encoding="ascii") as opened:
        return opened.read().strip()


# Life


def test_it_exists_in_every_hierarchy_and_then_nowhere(layout: Layout) -> None:
    parent = f"/ketch-test-{secrets.token_hex(4)}"
    manager = cgroups.manager(f"{parent}/a/b", layout)
    assert not manager.exists()
    manager.create()
    assert manager.exists()
    directories = set(manager.paths().values())
    assert len(directories) == len(layout.hierarchies)
    assert all(directory.endswith(f"{parent}/a/b") for directory in directories)
    assert all(os.path.isdir(directory) for directory in directories)
    manager.delete(empty_parents=2)
    assert not manager.exists()
    assert not any(os.path.exists(h.mountpoint + parent) for h in layout.hierarchies)


def test_deleting_twice_is_fine_and_parents_in_use_stay(layout: Layout) -> None:
    parent = f"/ketch-test-{secrets.token_hex(4)}"
    one, other = (cgroups.manager(f"{parent}/{name}", layout) for name in "ab")
    one.create()
    other.create()
    one.delete(empty_parents=1)
    one.delete(empty_parents=1)
    assert other.exists()
    other.delete(empty_parents=1)


def test_a_relative_path_is_beneath_the_callers_own(layout: Layout) -> None:
    name = f"ketch-test-{secrets.token_hex(4)}"
    manager = cgroups.manager(name, layout)
    manager.create()
    try:
        for hierarchy in layout.hierarchies:
            own = hierarchy.own if hierarchy.version == 1 else os.path.dirname(hierarchy.own)
            assert os.path.isdir(f"{hierarchy.mountpoint}/{own}/{name}")
    finally:
        manager.delete()


@pytest.mark.parametrize("path", ["", "/", "//", "/a/../b", "..", "a\nb"])
def test_paths_that_name_no_cgroup_of_their_own(layout: Layout, path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        cgroups.manager(path, layout)


def test_an_empty_leftover_is_used_again_but_no_frozen_one(manager: Manager) -> None:
    again = cgroups.manager(manager.path, manager.layout)
    again.create()
    manager.freeze()
    with pytest.raises(ConflictError, match="is frozen"):
        again.create()
    assert manager.frozen()


def test_a_cgroup_in_use_is_not_taken_over(manager: Manager) -> None:
    with Child(manager, sleep) as child:
        with pytest.raises(ConflictError, match=rf"in use by process {child.pid} \("):
            cgroups.manager(manager.path, manager.layout).create()
        assert manager.processes() == [child.pid]


def test_a_failure_half_way_leaves_nothing(layout: Layout, tmp_path: object) -> None:
    obstacle = f"{tmp_path}/file"
    with open(obstacle, "w", encoding="ascii"):
        pass
    broken = Layout([*layout.hierarchies, Hierarchy(obstacle, 1, ("none",))])
    parent = f"/ketch-test-{secrets.token_hex(4)}"
    manager = cgroups.manager(parent, broken)
    with pytest.raises(OSError, match="cannot make cgroup"):
        manager.create()
    assert not any(os.path.exists(h.mountpoint + parent) for h in layout.hierarchies)


def test_begin_and_end_at_the_same_time_beneath_one_parent(layout: Layout) -> None:
    """The parent that one removes as empty is the parent that the other is about to use."""
    parent = f"/ketch-test-{secrets.token_hex(4)}"

    def come_and_go(name: str) -> None:
        for _ in range(40):
            manager = cgroups.manager(f"{parent}/{name}", layout)
            manager.create()
            manager.delete(empty_parents=1)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            come_and_go("child")
            status = 0
        finally:
            os._exit(status)
    try:
        come_and_go("parent")
    finally:
        assert os.waitpid(pid, 0)[1] == 0
    assert not any(os.path.exists(h.mountpoint + parent) for h in layout.hierarchies)


# Entering


def test_a_child_is_in_every_hierarchy_by_its_first_deed(manager: Manager) -> None:
    read_end, write_end = os.pipe()

    def tell() -> None:
        with open("/proc/self/cgroup", "rb") as file:
            os.write(write_end, file.read())

    with Child(manager, tell) as child:
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            lines = pipe.read().splitlines()
        assert child.wait() == 0
    found = dict(line.split(":", 2)[1:] for line in lines)
    for hierarchy in manager.layout.hierarchies:
        assert found[hierarchy.options] == manager.path


def test_attaching_from_outside(manager: Manager) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        manager.attach(sleeper.pid)
        assert manager.processes() == [sleeper.pid]
        manager.kill()
        assert sleeper.wait() == -signal.SIGKILL


def test_attaching_nobody(manager: Manager) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(NotFoundError, match=f"process {gone.pid}"):
        manager.attach(gone.pid)


def test_processes_beneath(manager: Manager) -> None:
    inner = cgroups.manager(f"{manager.path}/inner", manager.layout)
    inner.create()
    with Child(inner, sleep) as child:
        assert manager.processes() == [child.pid]
        assert manager.processes(recursive=False) == []
        manager.kill()
        assert child.wait() == -signal.SIGKILL
    manager.delete()
    assert not inner.exists()


def test_joining_a_container_that_divided_its_cgroup(manager: Manager) -> None:
    """As systemd does inside: on v2 the upper one then takes no process."""
    need(manager.layout, "pids")
    if manager.layout.mode != "v2":
        pytest.skip("only v2 keeps processes out of a divided cgroup")
    inner = cgroups.manager(f"{manager.path}/init.scope", manager.layout)
    inner.create()
    with Child(inner, sleep) as init:
        with open(f"{manager.paths()['']}/cgroup.subtree_control", encoding="ascii") as file:
            assert "pids" in file.read()
        descriptor = manager.descriptor(near=init.pid)
        assert descriptor is not None
        found = os.fstat(descriptor)
        os.close(descriptor)
        assert os.path.samestat(found, os.stat(inner.paths()[""]))


# Limits


def test_a_limit_that_cannot_be_passed_down(manager: Manager) -> None:
    """On v2 a cgroup with processes of its own has no controllers for its children."""
    need(manager.layout, "memory")
    inner = cgroups.manager(f"{manager.path}/inner", manager.layout)
    with Child(manager, sleep):
        inner.create()
        if manager.layout.mode != "v2":
            inner.set({"memory": {"limit": 64 * MEBIBYTE}})
            return
        with pytest.raises(ConflictError, match="memory controller could not be enabled"):
            inner.set({"memory": {"limit": 64 * MEBIBYTE}})


def test_a_memory_hog_dies_at_its_limit(manager: Manager) -> None:
    need(manager.layout, "memory")
    manager.set({"memory": {"limit": 32 * MEBIBYTE, "swap": 32 * MEBIBYTE}})
    assert manager.oom_kills() == 0

    def hog() -> None:
        held = [b"\1" * MEBIBYTE for _ in range(128)]
        assert held

    with Child(manager, hog) as child:
        assert child.wait() == -signal.SIGKILL
    assert manager.oom_kills() == 1
    assert manager.statistics()["memory"]["limit_bytes"] == 32 * MEBIBYTE


def test_memory_limits_move_both_ways(manager: Manager) -> None:
    need(manager.layout, "memory")
    for limit in (64, 16, 256):
        manager.set({"memory": {"limit": limit * MEBIBYTE, "swap": 2 * limit * MEBIBYTE}})
        assert manager.statistics()["memory"]["limit_bytes"] == limit * MEBIBYTE
    manager.set({"memory": {"limit": -1}})
    assert manager.statistics()["memory"]["limit_bytes"] is None


def test_a_busy_loop_gets_its_share_of_a_processor(manager: Manager) -> None:
    need(manager.layout, "cpu")
    manager.set({"cpu": {"quota": 20000, "period": 100000}})

    def spin() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass

    start = time.monotonic()
    with Child(manager, spin) as child:
        assert child.wait() == 0
        used_seconds = os.times().children_user + os.times().children_system
    elapsed_seconds = time.monotonic() - start
    figures = manager.statistics()["cpu"]
    assert figures["throttled_periods"] >= 5
    # A slice may be begun in the last period and not be used up in the first.
    assert 0.05 * elapsed_seconds < figures["usage_ns"] / 1e9 < 0.3 * elapsed_seconds
    assert used_seconds > 0


def test_quota_and_period_change_in_both_directions(manager: Manager) -> None:
    need(manager.layout, "cpu")
    outer = cgroups.manager(os.path.dirname(manager.path), manager.layout)
    outer.create()
    outer.set({"cpu": {"quota": 50000, "period": 100000}})
    for quota, period in ((25000, 50000), (5000, 10000), (100000, 200000), (1000, 100000)):
        manager.set({"cpu": {"quota": quota, "period": period}})
        if manager.layout.mode == "v2":
            assert content(manager, "cpu", "cpu.max") == f"{quota} {period}"
        else:
            assert content(manager, "cpu", "cpu.cfs_quota_us") == str(quota)
            assert content(manager, "cpu", "cpu.cfs_period_us") == str(period)


def test_forks_stop_at_the_limit(manager: Manager) -> None:
    need(manager.layout, "pids")
    manager.set({"pids": {"limit": 5}})

    def fork_six_times() -> bool:
        for number in range(6):
            try:
                if os.fork() == 0:
                    sleep()
            except BlockingIOError:
                return number != 4  # itself and four children
        return True

    with Child(manager, fork_six_times) as child:
        assert child.wait() == 0
        assert manager.statistics()["pids"] == {"current": 4, "limit": 5}
        manager.kill()


def test_a_cpuset_shows_in_the_process(manager: Manager) -> None:
    need(manager.layout, "cpuset")
    manager.set({"cpu": {"cpus": "0", "mems": "0"}})

    def allowed() -> bool:
        with open("/proc/self/status", encoding="ascii") as status:
            return "Cpus_allowed_list:\t0\n" not in status.read()

    with Child(manager, allowed) as child:
        assert child.wait() == 0


def test_processors_that_do_not_exist(manager: Manager) -> None:
    need(manager.layout, "cpuset")
    with pytest.raises(InvalidArgumentError, match=r"'4000' to .*cpuset\.cpus") as caught:
        manager.set({"cpu": {"cpus": "4000"}})
    if manager.layout.mode != "v2":  # which takes any number, and ignores what is not there
        assert "allows 0" in caught.value.hint


def test_what_is_not_named_stays(manager: Manager) -> None:
    need(manager.layout, "pids", "cpu")
    manager.set({"pids": {"limit": 7}})
    manager.set({"cpu": {"shares": 512}})
    assert content(manager, "pids", "pids.max") == "7"


def test_limits_beyond_a_gone_cgroup(layout: Layout) -> None:
    need(layout, "pids")
    manager = cgroups.manager(f"/ketch-test-{secrets.token_hex(4)}", layout)
    with pytest.raises(ConflictError, match="the cgroup is gone"):
        manager.set({"pids": {"limit": 7}})


# Devices


def attempt(kind: int, major: int, minor: int, flags: int = os.O_RDONLY) -> str:
    """Make a device node and open it; ends with the name of the call that was refused, or ""."""
    path = f"/tmp/ketch-test-node-{os.getpid()}"
    step = "mknod"
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
        step = "open"
        os.close(os.open(path, flags))
    except OSError as error:
        # A device that is allowed may still not exist (ENXIO, ENODEV).
        return step if error.errno == errno.EPERM else ""
    finally:
        if step == "open":
            os.unlink(path)
    return ""


CHARACTER, BLOCK = 0o020000, 0o060000


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            [{"allow": False, "access": "rwm"}],
            {"null": "", "kmsg": "open", "block": "open", "write": "open"},
        ),
        (
            [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
            ],
            {"null": "", "kmsg": "", "block": "open", "write": "open"},
        ),
        (
            [
                {"allow": True, "access": "rwm"},
                {"allow": False, "type": "b", "access": "rwm"},
                {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "w"},
            ],
            {"null": "", "kmsg": "", "block": "mknod", "write": "open"},
        ),
        ([{"allow": True, "access": "rwm"}], {"null": "", "kmsg": "", "block": "", "write": ""}),
    ],
)
@pytest.mark.parametrize("before", ["fresh", "allowed", "denied"])
def test_devices(manager: Manager, rules: Any, expected: dict[str, str], before: str) -> None:
    if before != "fresh":
        manager.set({"devices": [{"allow": before == "allowed", "access": "rwm"}]})
    manager.set({"devices": rules})
    attempts: dict[str, Callable[[], str]] = {
        "null": lambda: attempt(CHARACTER, 1, 3, os.O_RDWR),
        "kmsg": lambda: attempt(CHARACTER, 1, 11, os.O_RDONLY | os.O_NONBLOCK),
        "write": lambda: attempt(CHARACTER, 1, 11, os.O_WRONLY),
        "block": lambda: attempt(BLOCK, 7, 250),
    }
    found = {}
    for name, tried in attempts.items():
        read_end, write_end = os.pipe()
        with Child(manager, lambda: os.write(write_end, tried().encode()) and None) as child:  # noqa: B023
            os.close(write_end)
            with os.fdopen(read_end) as pipe:
                found[name] = pipe.read()
            assert child.wait() == 0
    assert found == expected


# Freezing and killing


def test_frozen_processes_do_nothing(manager: Manager) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)

    def tick() -> None:
        while True:
            os.write(write_end, b".")
            time.sleep(0.001)

    def ticks() -> bytes:
        try:
            return os.read(read_end, 1 << 16)
        except BlockingIOError:
            return b""

    with Child(manager, tick):
        eventually(ticks)
        assert not manager.frozen()
        manager.freeze()
        assert manager.frozen()
        ticks()
        time.sleep(0.05)
        assert ticks() == b""
        manager.thaw()
        assert not manager.frozen()
        eventually(ticks)
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_fork_bomb_dies(manager: Manager, frozen: bool) -> None:
    need(manager.layout, "pids")
    manager.set({"pids": {"limit": 60}})

    def bomb() -> None:
        while True:
            try:
                os.fork()
            except BlockingIOError:
                time.sleep(0.001)

    with Child(manager, bomb) as child:
        eventually(lambda: len(manager.processes()) > 50)
        if frozen:
            manager.freeze()
        manager.kill()
        assert manager.processes() == []
        assert not manager.frozen()
        assert child.wait() == -signal.SIGKILL


def test_killing_the_frozen(manager: Manager) -> None:
    with Child(manager, sleep) as child:
        manager.freeze()
        manager.kill()
        assert child.wait() == -signal.SIGKILL


def test_killing_what_is_removed_meanwhile(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd removes a scope whose last process has ended."""

    def write(path: str, _value: str) -> None:
        os.rmdir(os.path.dirname(path))
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr("ketch.cgroups.group._write", write)
    manager.kill()
    assert manager.processes() == []


def test_killing_nobody(manager: Manager, layout: Layout) -> None:
    manager.kill()
    cgroups.manager(f"/ketch-test-{secrets.token_hex(4)}", layout).kill()


def test_delete_names_who_is_in_the_way(manager: Manager) -> None:
    with Child(manager, sleep) as child, pytest.raises(ConflictError) as caught:
        manager.delete(timeout_seconds=0.05)
    assert f"process {child.pid} (" in caught.value.message


def test_delete_waits_for_the_dying(manager: Manager) -> None:
    with Child(manager, lambda: time.sleep(0.2)):
        manager.delete()
    assert not manager.exists()


# Figures and privileges


def test_statistics(manager: Manager) -> None:
    with Child(manager, lambda: sum(range(10**6)) and None) as child:
        assert child.wait() == 0
    found = manager.statistics()
    need(manager.layout, "memory", "cpu", "pids")
    assert set(found) == {"memory", "cpu", "pids", "blkio"}
    assert found["cpu"]["usage_ns"] > 0
    assert found["memory"]["peak_bytes"] != 0
    assert found["pids"]["current"] == 0


def test_without_privileges(layout: Layout) -> None:
    """In a process of its own, since it gives up being root."""
    script = (
        "import os, sys\n"
        "from ketch import cgroups\n"
        "from ketch.errors import PermissionDeniedError\n"
        "layout = cgroups.detect()\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    cgroups.manager('/ketch-test-unprivileged', layout).create()\n"
        "except PermissionDeniedError as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "cannot make cgroup" in done.stdout
    assert issubclass(PermissionDeniedError, KetchError)
