"""Finding the hierarchies in the text of /proc/self/mountinfo and /proc/self/cgroup."""

import pytest

from ketch.cgroups.layout import Hierarchy, Layout, parse

ROOT_MOUNT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"

V2 = ROOT_MOUNT + (
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
)
HYBRID = ROOT_MOUNT + (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HYBRID_MEMBERSHIP = (
    "4:memory:/user.slice\n3:cpu,cpuacct:/\n1:name=systemd:/user.slice/session-1.scope\n"
    "0::/user.slice/session-1.scope\n"
)


def test_v2() -> None:
    layout = parse(V2, "0::/user.slice/a.scope\n")
    assert layout.mode == "v2"
    (unified,) = layout.hierarchies
    assert (unified.mountpoint, unified.version, unified.own) == (
        "/sys/fs/cgroup",
        2,
        "/user.slice/a.scope",
    )
    assert (unified.filesystem, unified.options) == ("cgroup2", "")


def test_hybrid() -> None:
    layout = parse(HYBRID, HYBRID_MEMBERSHIP)
    assert layout.mode == "hybrid"
    assert [(h.mountpoint, h.version, h.options) for h in layout.hierarchies] == [
        ("/sys/fs/cgroup/unified", 2, ""),
        ("/sys/fs/cgroup/systemd", 1, "name=systemd"),
        ("/sys/fs/cgroup/cpu,cpuacct", 1, "cpu,cpuacct"),
        ("/sys/fs/cgroup/memory", 1, "memory"),
    ]
    memory = layout.hierarchy_of("memory")
    assert memory is not None
    assert memory.own == "/user.slice"
    assert layout.hierarchy_of("cpuacct") is layout.hierarchy_of("cpu")
    assert layout.hierarchy_of("rdma") is None


def test_v1_without_the_unified_hierarchy() -> None:
    text = "".join(line for line in HYBRID.splitlines(keepends=True) if "cgroup2" not in line)
    assert parse(text, HYBRID_MEMBERSHIP).mode == "v1"


def test_the_usual_mount_of_a_hierarchy_wins() -> None:
    other = "40 1 0:32 /docker/x /srv/memory rw - cgroup cgroup rw,memory\n"
    for text in (other + HYBRID, HYBRID + other):
        memory = parse(text, HYBRID_MEMBERSHIP).hierarchy_of("memory")
        assert memory is not None
        assert memory.mountpoint == "/sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("cgroup", "root", "own"),
    [
        ("/docker/x", "/docker/x", "/"),
        ("/docker/x/child", "/docker/x", "/child"),
        ("/docker/xy", "/docker/x", "/"),
        ("/../../elsewhere", "/", "/"),
    ],
)
def test_own_cgroup_beneath_the_mounted_part(cgroup: str, root: str, own: str) -> None:
    text = f"35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    (memory,) = parse(text, f"4:memory:{cgroup}\n").hierarchies
    assert memory.own == own


def test_spaces_in_the_mount_point() -> None:
    (found,) = parse("1 1 0:1 / /a\\040b rw - cgroup2 none rw\n", "0::/\n").hierarchies
    assert found.mountpoint == "/a b"


def test_no_cgroups_at_all() -> None:
    assert parse(ROOT_MOUNT, "").hierarchies == []


@pytest.mark.parametrize(
    ("version", "path", "directory"),
    [
        (1, "/ketch/x", "/c/ketch/x"),
        (2, "/ketch/x", "/c/ketch/x"),
        (1, "x", "/c/user.slice/a.scope/x"),
        # Beside the caller's own cgroup, whose processes keep it from passing controllers on.
        (2, "x", "/c/user.slice/x"),
    ],
)
def test_directory(version: int, path: str, directory: str) -> None:
    assert Hierarchy("/c", version, (), "/user.slice/a.scope").directory(path) == directory


def test_directory_of_a_relative_path_in_the_root() -> None:
    assert Hierarchy("/c", 1, ("cpu",)).directory("x") == "/c/x"
    assert Hierarchy("/c", 2, ()).directory("x") == "/c/x"


def test_links(tmp_path: object) -> None:
    import os

    os.mkdir(f"{tmp_path}/cpu,cpuacct")
    os.symlink("cpu,cpuacct", f"{tmp_path}/cpu")
    layout = Layout([Hierarchy(f"{tmp_path}/cpu,cpuacct", 1, ("cpu", "cpuacct"))])
    assert layout.links() == {"cpu": "cpu,cpuacct"}
