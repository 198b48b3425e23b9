"""Namespaces made and joined, clocks shifted, and the process in between that takes."""

import os
import pathlib
import subprocess
import time

import pytest

from ketch import cgroups
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.linux.namespaces import KINDS
from tests.kernel.runtime.bundles import Bundle, configuration, in_user_namespace, join
from tests.support import leftovers

pytestmark = pytest.mark.root

JOINABLE = ["user", "ipc", "uts", "network", "pid", "cgroup", "time"]


def test_every_kind_is_made(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("sleep", "60"))
    config["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "time"}]
    with bundle.container(config) as container:
        container.start()
        for _, name in KINDS.values():
            assert container.namespace(name) != os.readlink(f"/proc/self/ns/{name}"), name


def test_what_is_not_listed_is_the_runtime_s(bundle: Bundle) -> None:
    config = configuration("sleep", "60")
    config["linux"]["namespaces"] = [{"type": "mount"}]
    with bundle.container(config) as container:
        for kind, (_, name) in KINDS.items():
            same = container.namespace(name) == os.readlink(f"/proc/self/ns/{name}")
            assert same == (kind != "mount"), kind


@pytest.mark.parametrize("kind", JOINABLE)
def test_each_kind_is_joined_by_path(bundle: Bundle, kind: str) -> None:
    first = in_user_namespace(configuration("sleep", "60"))
    first["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "time"}]
    with bundle.container(first) as container:
        container.start()
        name = KINDS[kind][1]
        second = configuration("sleep", "60")
        join(second, kind, f"/proc/{container.pid}/ns/{name}")
        with bundle.container(second) as other:
            other.start()
            assert other.namespace(name) == container.namespace(name)
            for _, different in KINDS.values():
                if different not in {name, "user", "cgroup", "time"}:
                    assert other.namespace(different) != container.namespace(different)


def test_all_kinds_at_once(bundle: Bundle) -> None:
    """As a second container of a pod, whose namespaces its user namespace owns."""
    first = in_user_namespace(configuration("sleep", "60"))
    first["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "time"}]
    with bundle.container(first) as container:
        container.start()
        second = configuration("sh", "-c", "id -u; sleep 60")
        for kind in JOINABLE:
            join(second, kind, f"/proc/{container.pid}/ns/{KINDS[kind][1]}")
        with bundle.container(second) as other:
            other.start()
            for kind in JOINABLE:
                name = KINDS[kind][1]
                assert other.namespace(name) == container.namespace(name), kind
            status = pathlib.Path(f"/proc/{other.pid}/status").read_text()
            inner = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            assert int(inner.split()[-1]) != 1
            assert len(inner.split()) == 3


def test_a_new_user_namespace_beside_namespaces_of_the_host(bundle: Bundle) -> None:
    """They are joined with privileges that the new user namespace takes away."""
    with bundle.container(configuration("sleep", "60")) as owner:
        owner.start()
        config = in_user_namespace(configuration("cat", "/proc/self/uid_map"))
        join(config, "network", f"/proc/{owner.pid}/ns/net")
        join(config, "ipc", f"/proc/{owner.pid}/ns/ipc")
        with bundle.container(config) as container:
            assert container.namespace("net") == owner.namespace("net")
            assert container.namespace("ipc") == owner.namespace("ipc")
            container.start()
            assert container.wait() == 0, container.output()
            assert container.output().split() == ["0", "200000", "65536"]


def test_init_in_a_joined_pid_namespace_is_the_caller_s_child(bundle: Bundle) -> None:
    with bundle.container(configuration("sleep", "60")) as owner:
        owner.start()
        config = configuration("sh", "-c", "exit 7")
        join(config, "pid", f"/proc/{owner.pid}/ns/pid")
        with bundle.container(config) as container:
            parent = pathlib.Path(f"/proc/{container.pid}/stat").read_text().split()[3]
            assert int(parent) == os.getpid()
            container.start()
            assert container.wait() == 7


def test_init_reached_through_a_process_in_between_is_in_its_cgroup(bundle: Bundle) -> None:
    cgroup = cgroups.manager(f"/ketch-test-{os.getpid()}", cgroups.detect())
    cgroup.create()
    try:
        with bundle.container(configuration("sleep", "60")) as owner:
            owner.start()
            config = configuration("sleep", "60")
            join(config, "pid", f"/proc/{owner.pid}/ns/pid")
            with bundle.container(config, cgroup=cgroup) as container:
                assert cgroup.processes() == [container.pid]
            user = in_user_namespace(configuration("sleep", "60"))
            user["linux"]["namespaces"].append({"type": "cgroup"})
            with bundle.container(user, cgroup=cgroup) as container:
                assert cgroup.processes() == [container.pid]
    finally:
        cgroup.delete()


@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "user namespace"])
def test_clocks_are_shifted(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("cut", "-d.", "-f1", "/proc/uptime")
    if mapped:
        config = in_user_namespace(config)
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {
        "boottime": {"secs": 1_000_000}, "monotonic": {"secs": -1, "nanosecs": 5},
    }  # fmt: skip
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with bundle.container(config) as container:
        offsets = pathlib.Path(f"/proc/{container.pid}/timens_offsets").read_text()
        container.start()
        assert container.wait() == 0
        uptime = int(container.output())
    assert [line.split() for line in offsets.splitlines()] == [
        ["monotonic", "-1", "5"], ["boottime", "1000000", "0"],
    ]  # fmt: skip
    assert before + 1_000_000 - 2 <= uptime <= before + 1_000_010


def test_a_clock_before_zero_is_refused_by_name(bundle: Bundle) -> None:
    config = configuration("true")
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": -(10**9)}}
    with pytest.raises(InvalidArgumentError, match=r"linux\.timeOffsets"):
        bundle.run(config)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere", "uts namespace /nowhere: no such file"),
        ("/proc/self/ns/ipc", "is not a uts namespace"),
        ("/etc/hostname", "is not a uts namespace"),
    ],
)
def test_a_path_that_leads_to_no_such_namespace(bundle: Bundle, path: str, message: str) -> None:
    config = configuration("true")
    join(config, "uts", path)
    with pytest.raises(InvalidArgumentError, match=message):
        bundle.run(config)


def test_the_same_through_the_process_in_between(bundle: Bundle) -> None:
    before = _children()
    config = configuration("true")
    join(config, "pid", "/proc/self/ns/ipc")
    with pytest.raises(InvalidArgumentError, match="is not a pid namespace"):
        bundle.run(config)
    assert _children() == before


def test_the_runtime_s_own_user_namespace_may_be_joined(bundle: Bundle) -> None:
    config = configuration("id", "-u")
    join(config, "user", "/proc/self/ns/user")
    assert bundle.output(config) == "0\n"


def test_a_mount_namespace_is_joined_and_paths_are_looked_up_there(
    bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    script = (
        f"mount -t tmpfs tmpfs {seen} && echo there > {seen}/file && echo ready && exec sleep 60"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        namespace = f"/proc/{other.pid}/ns/mnt"
        config = configuration("sh", "-c", "cat /seen/file; readlink /proc/self/ns/mnt")
        config["mounts"].append(
            {"destination": "/seen", "type": "bind", "source": str(seen), "options": ["bind"]}
        )
        join(config, "mount", namespace)
        assert bundle.output(config).split() == ["there", os.readlink(namespace)]
        other.kill()
    assert not (seen / "file").exists()


def test_the_runtime_s_own_mount_namespace_is_not_pivoted(bundle: Bundle) -> None:
    config = configuration("true")
    join(config, "mount", "/proc/self/ns/mnt")
    with pytest.raises(InvalidArgumentError, match="is the caller's own"):
        bundle.run(config)
    config["linux"]["namespaces"].pop()
    with pytest.raises(UnsupportedError, match="shares the caller's mount namespace"):
        bundle.run(config)


def test_loopback_is_on_in_a_new_network_namespace(bundle: Bundle) -> None:
    assert "127.0.0.1" in bundle.output(configuration("ip", "addr", "show", "lo", "up"))


def test_a_joined_network_is_left_as_it_is(bundle: Bundle) -> None:
    name = f"ketch{os.getpid() % 10**7}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        config = configuration("ip", "-o", "addr")
        join(config, "network", f"/run/netns/{name}")
        assert bundle.output(config) == ""
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        leftovers.remove_named_namespaces()


def test_the_session_keyring_is_the_container_s(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "cat /proc/keys | grep _ses; sleep 60")
    with bundle.container(config, container_id="boxed") as container:
        container.start()
        again = configuration("grep", "-c", "_ses.boxed", "/proc/keys")
        deadline = time.monotonic() + 5
        while not container.output() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "_ses.boxed" in container.output()
        assert container.execute(again, container_id="boxed") == (0, "1\n")
    without = bundle.run(configuration("grep", "-c", "_ses.other", "/proc/keys"),
                         container_id="other", new_keyring=False)  # fmt: skip
    assert without == (1, "0\n")


def _children() -> str:
    return pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text()
