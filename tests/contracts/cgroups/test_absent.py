"""What the manager must do where no cgroup can be made: for an ordinary user, and read-only."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ketch import cgroups
from ketch.cgroups import Layout
from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux import procfs

pytestmark = pytest.mark.root

NOBODY = 65534


@pytest.fixture
def layout() -> Layout:
    return Layout([], cgroups.detect())


@pytest.fixture
def container() -> Iterator[subprocess.Popen[bytes]]:
    """Processes in PID and mount namespaces of their own: two in the same, a third in another.

    The one that is started here waits for the others, and is in their mount namespace as well.
    """
    script = "sleep 60 & unshare --mount sleep 61 & wait"
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    ) as made:
        eventually(lambda: len(tree(made.pid)) == 4)
        yield made
        made.kill()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 5 seconds"
        time.sleep(0.005)


def tree(pid: int) -> list[int]:
    """A process and its descendants, once all programs run."""
    found = [pid]
    for each in found:
        with open(f"/proc/{each}/task/{each}/children", encoding="ascii") as file:
            found += [int(word) for word in file.read().split()]
    names = []
    for each in found:
        with open(f"/proc/{each}/comm", encoding="ascii") as file:
            names.append(file.read().strip())
    return found if sorted(names) == ["sh", "sleep", "sleep", "unshare"] else []


def manager(layout: Layout, first: int) -> cgroups.Manager:
    start_time = procfs.process_start_time(first) or 0
    return cgroups.manager("/ketch-test/none", layout, (first, start_time))


def test_its_processes_are_found_by_its_mount_namespace_and_descent(
    layout: Layout, container: "subprocess.Popen[bytes]"
) -> None:
    expected = sorted(tree(container.pid))
    found = manager(layout, expected[1])
    assert found.processes() == expected
    assert found.exists()
    assert len(found.processes(recursive=False)) == 3


def test_a_pid_that_is_another_process_by_now_names_nobody(
    layout: Layout, container: "subprocess.Popen[bytes]"
) -> None:
    first = tree(container.pid)[1]
    assert not cgroups.manager("/ketch-test/none", layout, (first, 1)).processes()
    assert not manager(layout, os.getpid()).processes()
    assert not cgroups.manager("/ketch-test/none", layout).exists()


def test_all_are_killed_and_nobody_else(
    layout: Layout, container: "subprocess.Popen[bytes]"
) -> None:
    first = tree(container.pid)[1]
    found = manager(layout, first)
    with subprocess.Popen(["sleep", "60"]) as beside:
        found.kill()
        eventually(lambda: not found.exists())
        assert beside.poll() is None
        beside.kill()
    found.delete(empty_parents=1)


def test_what_they_use_is_counted(layout: Layout) -> None:
    hungry = (
        "import time; kept = bytearray(64 << 20); [None for _ in range(10**6)];"
        " print('fed', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-c", hungry], stdout=subprocess.PIPE
    ) as made:
        try:
            assert made.stdout is not None
            assert made.stdout.readline() == b"fed\n"
            found = manager(layout, made.pid)
            figures = found.statistics()
            assert figures["cpu"]["usage_ns"] > 0
            assert 64 << 20 < figures["memory"]["usage_bytes"] < 128 << 20
            assert figures["memory"]["limit_bytes"] is None
            assert figures["pids"] == {"current": 1, "limit": None}
        finally:
            made.kill()


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"limit": 1 << 30}}, "a limit of memory"),
        ({"cpu": {"quota": 50_000, "period": 100_000}}, "a limit of processor time"),
        ({"cpu": {"cpus": "0"}}, "a limit of a cpuset"),
        ({"pids": {"limit": 5}}, "a limit of the number of processes"),
        ({"unified": {"memory.high": "5000"}}, "unified resource memory.high"),
    ],
)
def test_limits_are_refused_by_name(
    layout: Layout, resources: dict[str, object], words: str
) -> None:
    found = cgroups.manager("/ketch-test/none", layout)
    found.create()
    with pytest.raises(UnavailableError, match=words) as caught:
        found.set(resources)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_limit_that_is_wrong_in_itself_is_refused_for_that(layout: Layout) -> None:
    with pytest.raises(InvalidArgumentError, match="below the memory limit"):
        cgroups.manager("/ketch-test/none", layout).set({"memory": {"limit": 9000, "swap": 5000}})


def test_to_be_unlimited_is_granted_as_are_rules_for_devices(layout: Layout) -> None:
    found = cgroups.manager("/ketch-test/none", layout)
    found.create()
    found.set(
        {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": -1, "swap": -1},
            "pids": {"limit": -1},
            "unified": {"memory.high": "max"},
        }
    )


def test_nothing_can_be_paused(layout: Layout) -> None:
    found = cgroups.manager("/ketch-test/none", layout)
    with pytest.raises(UnavailableError, match="can be paused in a control group alone"):
        found.freeze()
    with pytest.raises(UnavailableError):
        found.frozen()
    assert not found.freezer_file()


def test_there_is_no_way_in(layout: Layout) -> None:
    found = cgroups.manager("/ketch-test/none", layout)
    assert found.descriptor() is None
    assert found.entrances() == []
    assert found.paths() == {}
    assert found.oom_kills() == 0


def answer(work: Callable[[], str]) -> str:
    """What a child says, which may do with itself what it likes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, work().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


def test_an_ordinary_user_has_no_cgroup_but_sees_those_of_the_machine() -> None:
    machine = cgroups.detect()

    def look() -> str:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        found = cgroups.usable("/ketch/somebody")
        return f"{found.mode} {found.shown.mode} {type(cgroups.manager('/a', found)).__name__}"

    assert answer(look) == f"none {machine.mode} AbsentManager"


def test_root_has_all_there_are() -> None:
    found = cgroups.usable("/ketch/somebody")
    assert found.mode == cgroups.detect().mode
    assert found.shown is found


def test_what_is_mounted_read_only_is_not_usable() -> None:
    look = (
        "from ketch import cgroups; from ketch.cgroups import absent;"
        "found = cgroups.usable('/ketch/somebody');"
        "print(found.mode, *absent.reason(found), sep='|')"
    )
    script = (
        "for each in $(sed -n 's/^\\([^ ]* \\)\\{4\\}\\([^ ]*\\) .* - cgroup2\\? .*/\\2/p'"
        " /proc/self/mountinfo); do mount --bind -o remount,ro $each; done;"
        f' exec {sys.executable} -c "{look}"'
    )
    told = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True, text=True
    )
    mode, why, _ = told.stdout.split("|")
    assert (mode, why) == ("none", "the control group file systems are mounted read-only")


def test_a_cgroup_that_belongs_to_the_user_is_usable() -> None:
    machine = cgroups.detect()
    unified = machine.unified
    if unified is None:
        pytest.skip("no cgroup v2 hierarchy is mounted here")
    parent = f"/ketch-test-{os.getpid()}"
    owned = Layout([unified])
    made = cgroups.manager(f"{parent}/own", owned)
    made.create()
    try:
        directory = made.paths()[""]
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
            os.chown(directory + name, NOBODY, NOBODY)

        def look() -> str:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            found = cgroups.usable(f"{parent}/own/ketch/somebody")
            manager = cgroups.manager(f"{parent}/own/ketch/somebody", found)
            manager.create()
            manager.set({"pids": {"limit": -1}} if "pids" in unified.controllers else {})
            told = f"{found.mode} {manager.exists()}"
            manager.delete(empty_parents=1)
            return told

        assert answer(look) == "v2 True"
        assert os.listdir(directory)
    finally:
        made.delete(empty_parents=1)


def test_signals_reach_only_who_is_meant(
    layout: Layout, container: "subprocess.Popen[bytes]"
) -> None:
    first = tree(container.pid)[1]
    found = manager(layout, first)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{first}/ns/mnt"))
    found.kill()  # looked up for the first time when its init is gone
    assert found.processes() == []
