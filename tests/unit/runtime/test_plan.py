from typing import Any

import pytest

from ketch.cgroups.layout import Hierarchy, Layout
from ketch.errors import UnsupportedError
from ketch.linux import namespaces
from ketch.runtime.filesystem import MakeDevices, sysctl_path
from ketch.runtime.mappings import text
from ketch.runtime.mounts import MountOperation
from ketch.runtime.plan import Plan

LAYOUT = Layout([Hierarchy("/sys/fs/cgroup", 2, ("memory",))])


def plan(*kinds: str, joins: tuple[tuple[str, str], ...] = (), **fields: Any) -> Plan:
    linux = fields.pop("linux", {})
    linux["namespaces"] = [{"type": kind} for kind in kinds]
    linux["namespaces"] += [{"type": kind, "path": path} for kind, path in joins]
    config: Any = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "linux": linux, **fields}
    return Plan(config, LAYOUT, "/bundle")


def test_namespaces_are_made_at_birth_but_for_that_of_cgroups() -> None:
    made = plan("mount", "pid", "cgroup", "network")
    expected = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET
    assert made.clone_flags == expected
    assert made.new_cgroup_namespace
    assert not made.in_user_namespace


@pytest.mark.parametrize(
    ("kinds", "joins", "offsets", "crosses"),
    [
        (("mount", "pid"), (), {}, False),
        (("mount", "user", "time"), (), {}, False),
        (("mount",), (("network", "/n"), ("ipc", "/i"), ("time", "/t")), {}, False),
        (("mount",), (("pid", "/p"),), {}, True),
        (("mount",), (("user", "/u"),), {}, True),
        (("mount", "user"), (("network", "/n"),), {}, True),
        (("mount", "time"), (), {"boottime": {"secs": 1}}, True),
    ],
)
def test_what_needs_a_process_in_between(
    kinds: tuple[str, ...],
    joins: tuple[tuple[str, str], ...],
    offsets: dict[str, Any],
    *,
    crosses: bool,
) -> None:
    assert plan(*kinds, joins=joins, linux={"timeOffsets": offsets}).crosses == crosses


def test_a_mount_namespace_is_a_must() -> None:
    with pytest.raises(UnsupportedError, match=r"linux\.namespaces"):
        plan("pid")
    assert plan("pid", joins=(("mount", "/proc/1/ns/mnt"),)).joins_mounts


def test_devices_are_bound_in_a_user_namespace_and_a_host_s_dev_is_left_alone() -> None:
    tmpfs = [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]
    (devices,) = (o for o in plan("mount", mounts=tmpfs).operations if isinstance(o, MakeDevices))
    assert not devices.bind
    mapped = plan("mount", "user", mounts=tmpfs)
    (devices,) = (o for o in mapped.operations if isinstance(o, MakeDevices))
    assert devices.bind
    bound = [{"destination": "/dev", "type": "bind", "source": "/dev"}]
    assert not any(isinstance(o, MakeDevices) for o in plan("mount", mounts=bound).operations)


def test_dev_becomes_read_only_after_its_nodes_are_made() -> None:
    options = ["ro", "nosuid"]
    made = plan("mount", mounts=[{"destination": "/dev/", "type": "tmpfs", "options": options}])
    assert [step.describe().words for step in made.closing] == [
        "make the mount /dev read-only · mount_setattr(2)"
    ]


def test_which_sources_the_parent_opens() -> None:
    ids = [{"containerID": 0, "hostID": 1, "size": 1}]
    mounts = [
        {"destination": "/a", "type": "bind", "source": "/plain"},
        {"destination": "/b", "type": "tmpfs"},
        {"destination": "/c", "source": "/mapped", "options": ["bind"], "uidMappings": ids,
         "gidMappings": ids},
    ]  # fmt: skip

    def sources(made: Plan, *, privileged: bool) -> list[str]:
        return [bind.source for bind in made.early_binds(privileged=privileged)]

    assert sources(plan("mount", mounts=mounts), privileged=True) == ["/mapped"]
    mapped = plan("mount", "user", mounts=mounts)
    assert sources(mapped, privileged=True) == ["/plain", "/mapped"]
    assert sources(mapped, privileged=False) == ["/mapped"]


def test_sources_are_relative_to_the_bundle() -> None:
    made = plan("mount", mounts=[
        {"destination": "/a", "type": "bind", "source": "near"},
        {"destination": "/b", "type": "bind", "source": "/far"},
        {"destination": "/c", "type": "tmpfs", "source": "name"},
    ])  # fmt: skip
    operations = [o for o in made.operations if isinstance(o, MountOperation)]
    assert [o.source for o in operations] == ["/bundle/near", "/far", "name"]


def test_a_plan_in_words() -> None:
    made = plan(
        "mount", "uts", "cgroup", joins=(("network", "/run/netns/blue"),),
        hostname="boxed", domainname="example",
        mounts=[
            {"destination": "/proc", "type": "proc"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup"},
            {"destination": "/data", "source": "/srv", "options": ["rbind", "ro"]},
        ],
        linux={
            "sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    )  # fmt: skip
    told = made.explain_birth() + [step.describe() for step in made.steps]
    told += [operation.describe() for operation in (*made.operations, *made.closing)]
    assert [one.words for one in told] == [
        "new UTS namespace: a host name of its own · clone3(2) CLONE_NEWUTS",
        "new mount namespace: what is mounted inside is seen inside only · clone3(2) CLONE_NEWNS",
        "host name boxed · sethostname(2)",
        "domain name example · setdomainname(2)",
        "mount proc on /proc · fsopen(2), fsmount(2), move_mount(2)",
        "show its control groups (v2) at /sys/fs/cgroup · fsopen(2)",
        "bind /srv to /data, read-only"
        " · open_tree(2) OPEN_TREE_CLONE, mount_setattr(2), move_mount(2)",
        "set net.ipv4.ip_forward to '1' · proc_sys(5)",
        "make /proc/sys read-only · open_tree(2), mount_setattr(2), move_mount(2)",
        "hide /proc/kcore · move_mount(2)",
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("kernel", "kernel"),
    ],
)
def test_names_of_kernel_parameters(name: str, path: str) -> None:
    assert sysctl_path(name) == path


def test_maps_as_the_kernel_reads_them() -> None:
    assert text([
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65536},
    ]) == "0 1000 1\n1 100000 65536\n"  # fmt: skip
