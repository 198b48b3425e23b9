"""OCI resources to file writes, as text: every field, both versions."""

from typing import Any

import pytest

from ketch.cgroups.cpu import weight_of_shares
from ketch.cgroups.facts import Facts
from ketch.cgroups.layout import Hierarchy, Layout
from ketch.cgroups.resources import device_policy, plan, v2_controllers
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    UnavailableError,
    UnsupportedError,
)

NAMES = ("cpu", "cpuset", "memory", "devices", "blkio", "pids", "hugetlb", "net_cls", "net_prio")
V1 = Layout([Hierarchy(f"/c/{name}", 1, (name,)) for name in (*NAMES, "rdma")])
V2 = Layout([Hierarchy("/c", 2, ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"))])
HYBRID = Layout([Hierarchy("/c/memory", 1, ("memory",)), Hierarchy("/c/u", 2, ("hugetlb",))])
SWAP = {"memory.memsw.limit_in_bytes": "9223372036854771712", "memory.swap.max": "max"}


def text(
    resources: Any, layout: Layout, files: dict[str, str] | None = None, *, fresh: bool = False
) -> list[str]:
    """Plan the writes of a cgroup whose files have the given contents."""
    facts = Facts(lambda _, file: (files or {}).get(file), fresh=fresh)
    return [f"{file}={value}" for _, file, value in plan(resources, layout, facts)]


def test_nothing_asked_nothing_written() -> None:
    assert text({}, V1) == text({}, V2) == []
    empty: Any = {"memory": {}, "cpu": {}, "blockIO": {}, "network": {}, "rdma": {}, "unified": {}}
    assert text(empty, V1) == text(empty, V2) == []


# Memory


@pytest.mark.parametrize(
    ("old_limit", "old_swap", "limit", "swap", "first"),
    [
        ("9223372036854771712", "9223372036854771712", 100, 200, "memory.limit_in_bytes=100"),
        ("100", "200", 50, 60, "memory.limit_in_bytes=50"),  # down
        ("100", "200", 150, 300, "memory.memsw.limit_in_bytes=300"),  # up
        ("100", "100", 150, -1, "memory.memsw.limit_in_bytes=-1"),
    ],
)
def test_v1_memory_and_swap_never_cross(
    old_limit: str, old_swap: str, limit: int, swap: int, first: str
) -> None:
    files = {"memory.limit_in_bytes": old_limit, "memory.memsw.limit_in_bytes": old_swap}
    writes = text({"memory": {"limit": limit, "swap": swap}}, V1, files)
    assert writes[0] == first
    # Replay as the kernel checks.
    now = {name: int(value) for name, value in files.items()}
    for write in writes:
        name, value = write.split("=")
        now[name] = int(value) if int(value) >= 0 else 1 << 63
        assert now["memory.memsw.limit_in_bytes"] >= now["memory.limit_in_bytes"]


def test_v1_memory_fields() -> None:
    memory = {
        "reservation": 10,
        "kernel": 1,
        "kernelTCP": 20,
        "swappiness": 0,
        "disableOOMKiller": True,
        "useHierarchy": True,
    }
    assert text({"memory": memory}, V1, fresh=True) == [
        "memory.use_hierarchy=1",
        "memory.soft_limit_in_bytes=10",
        "memory.kmem.tcp.limit_in_bytes=20",
        "memory.oom_control=1",
        "memory.swappiness=0",
    ]


def test_v1_the_oom_killer_can_be_switched_on_again() -> None:
    on, off = "oom_kill_disable 0\nunder_oom 0\n", "oom_kill_disable 1\nunder_oom 0\n"
    wish = {"memory": {"disableOOMKiller": False}}
    assert text(wish, V1, {"memory.oom_control": off}) == ["memory.oom_control=0"]
    assert text(wish, V1, {"memory.oom_control": on}) == []


def test_v1_lifting_a_limit_lifts_swap_if_the_kernel_has_it() -> None:
    wish = {"memory": {"limit": -1}}
    assert text(wish, V1, SWAP) == ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]
    assert text(wish, V1) == ["memory.limit_in_bytes=-1"]


@pytest.mark.parametrize(
    ("memory", "writes"),
    [
        ({"limit": 100, "swap": 300}, ["memory.swap.max=200", "memory.max=100"]),
        ({"limit": 100, "swap": 100}, ["memory.swap.max=0", "memory.max=100"]),
        ({"limit": 100, "swap": -1}, ["memory.swap.max=max", "memory.max=100"]),
        ({"limit": -1}, ["memory.swap.max=max", "memory.max=max"]),
        ({"limit": 100}, ["memory.max=100"]),
        ({"reservation": 50}, ["memory.low=50"]),
        ({"reservation": -1}, ["memory.low=max"]),
        ({"kernel": 5, "swappiness": (1 << 64) - 1, "useHierarchy": True}, []),
    ],
)
def test_v2_memory(memory: dict[str, Any], writes: list[str]) -> None:
    assert text({"memory": memory}, V2, SWAP) == writes


def test_v2_swap_counts_from_the_limit_in_force() -> None:
    files = {**SWAP, "memory.max": "100\n"}
    assert text({"memory": {"swap": 250}}, V2, files) == ["memory.swap.max=150"]
    with pytest.raises(InvalidArgumentError, match="without a memory limit"):
        text({"memory": {"swap": 250}}, V2, {**SWAP, "memory.max": "max\n"})


def test_v2_without_swap_accounting() -> None:
    assert text({"memory": {"limit": 100, "swap": 100}}, V2) == ["memory.max=100"]
    # A swap limit that would allow some is written, for the kernel to refuse.
    assert "memory.swap.max=1" in text({"memory": {"limit": 100, "swap": 101}}, V2)


@pytest.mark.parametrize("layout", [V1, V2])
def test_swap_below_memory(layout: Layout) -> None:
    with pytest.raises(InvalidArgumentError, match="swap limit 5 is below"):
        text({"memory": {"limit": 10, "swap": 5}}, layout)


@pytest.mark.parametrize(
    "memory",
    [{"disableOOMKiller": True}, {"swappiness": 10}, {"kernelTCP": 1}, {"useHierarchy": False}],
)
def test_v2_says_what_it_has_not(memory: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=next(iter(memory))):
        text({"memory": memory}, V2)


def test_v2_checks_the_use_first_when_asked_to() -> None:
    wish = {"memory": {"limit": 100, "checkBeforeUpdate": True}}
    assert text(wish, V2, {"memory.current": "99\n"}) == ["memory.max=100"]
    with pytest.raises(ConflictError, match="101 bytes in use"):
        text(wish, V2, {"memory.current": "101\n"})


def test_swappiness_out_of_range() -> None:
    with pytest.raises(InvalidArgumentError, match="swappiness 101"):
        text({"memory": {"swappiness": 101}}, V1)


# Processors


@pytest.mark.parametrize(
    ("shares", "weight"),
    # The table of the change in runc and Kubernetes.
    [(0, 1), (2, 1), (1024, 100), (2000, 170), (22000, 1204), (262144, 10000), (10**9, 10000)],
)
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_weights_grow_with_shares() -> None:
    weights = [weight_of_shares(shares) for shares in range(2, 262144, 37)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("old_quota", "old_period"),
    [(-1, 100000), (50000, 100000), (10000, 20000), (200000, 100000), (5000, 100000)],
)
@pytest.mark.parametrize(("quota", "period"), [(25000, 100000), (2000, 4000), (400000, 200000)])
def test_v1_bandwidth_stays_below_the_parents(
    old_quota: int, old_period: int, quota: int, period: int
) -> None:
    """A parent allows exactly the greater of the two ratios: no step may exceed it."""
    files = {"cpu.cfs_quota_us": str(old_quota), "cpu.cfs_period_us": str(old_period)}
    allowed = max(quota / period, old_quota / old_period if old_quota > 0 else 0.0)
    now = {"cpu.cfs_quota_us": old_quota, "cpu.cfs_period_us": old_period}
    for write in text({"cpu": {"quota": quota, "period": period}}, V1, files):
        name, value = write.split("=")
        now[name] = int(value)
        if now["cpu.cfs_quota_us"] > 0:
            assert now["cpu.cfs_quota_us"] / now["cpu.cfs_period_us"] <= allowed
    assert (now["cpu.cfs_quota_us"], now["cpu.cfs_period_us"]) == (quota, period)


def test_burst_never_exceeds_the_quota() -> None:
    lower = {"cpu.cfs_burst_us": "5000", "cpu.cfs_quota_us": "9000"}
    wish = {"cpu": {"quota": 4000, "burst": 3000}}
    assert text(wish, V1, lower) == ["cpu.cfs_burst_us=3000", "cpu.cfs_quota_us=4000"]
    wish = {"cpu": {"quota": 9000, "burst": 8000}}
    assert text(wish, V1, fresh=True) == ["cpu.cfs_quota_us=9000", "cpu.cfs_burst_us=8000"]
    assert text(wish, V2, fresh=True) == ["cpu.max=9000 100000", "cpu.max.burst=8000"]


def test_v1_cpu_fields() -> None:
    cpu = {"shares": 512, "realtimePeriod": 7, "realtimeRuntime": 6, "cpus": "0-1", "mems": "0"}
    assert text({"cpu": cpu}, V1) == [
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
        "cpu.shares=512",
        "cpu.rt_runtime_us=6",
        "cpu.rt_period_us=7",
    ]


@pytest.mark.parametrize("layout", [V1, V2])
def test_idle_takes_no_shares(layout: Layout) -> None:
    assert text({"cpu": {"idle": 1, "shares": 512}}, layout) == ["cpu.idle=1"]
    assert len(text({"cpu": {"idle": 0, "shares": 512}}, layout)) == 2


@pytest.mark.parametrize(
    ("cpu", "write"),
    [
        ({"quota": 25000}, "cpu.max=25000 50000"),
        ({"quota": -1}, "cpu.max=max 50000"),
        ({"period": 10000}, "cpu.max=9000 10000"),
        ({"quota": 1000, "period": 10000}, "cpu.max=1000 10000"),
        ({"shares": 1024}, "cpu.weight=100"),
    ],
)
def test_v2_cpu(cpu: dict[str, int], write: str) -> None:
    assert text({"cpu": cpu}, V2, {"cpu.max": "9000 50000\n"}) == [write]


def test_v2_has_no_realtime() -> None:
    with pytest.raises(UnsupportedError, match="realtime"):
        text({"cpu": {"realtimeRuntime": 1}}, V2)


# The rest


@pytest.mark.parametrize("layout", [V1, V2])
@pytest.mark.parametrize(("limit", "value"), [(64, "64"), (-1, "max"), (0, "1")])
def test_pids(layout: Layout, limit: int, value: str) -> None:
    assert text({"pids": {"limit": limit}}, layout) == [f"pids.max={value}"]


BLOCK = {
    "weight": 500,
    "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 100}],
    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}],
    "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 0}],
}


def test_v1_block() -> None:
    throttles = [
        "blkio.throttle.read_bps_device=8:0 100",
        "blkio.throttle.write_bps_device=8:16 0",
        "blkio.throttle.write_iops_device=8:0 7",
    ]
    assert text({"blockIO": BLOCK}, V1) == [
        "blkio.bfq.weight=500",
        "blkio.bfq.weight_device=8:0 10",
        *throttles,
    ]
    assert text({"blockIO": BLOCK}, V1, {"blkio.weight": "500"}) == [
        "blkio.weight=500",
        "blkio.weight_device=8:0 10",
        *throttles,
    ]
    leaves = {"leafWeight": 30, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 40}]}
    assert text({"blockIO": leaves}, V1) == [
        "blkio.leaf_weight=30",
        "blkio.leaf_weight_device=8:0 40",
    ]


def test_v2_block() -> None:
    throttles = ["io.max=8:0 rbps=100 wiops=7", "io.max=8:16 wbps=max"]
    assert text({"blockIO": BLOCK}, V2) == [
        "io.weight=default 4950",
        "io.weight=8:0 1",
        *throttles,
    ]
    assert text({"blockIO": BLOCK}, V2, {"io.bfq.weight": "default 100"}) == [
        "io.bfq.weight=default 500",
        "io.bfq.weight=8:0 10",
        *throttles,
    ]


def test_hugepages() -> None:
    wish = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}
    assert text(wish, V1) == ["hugetlb.2MB.limit_in_bytes=4096"]
    reserved = {"hugetlb.2MB.rsvd.max": "max"}
    assert text(wish, V2, reserved) == ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096"]
    assert text(wish, HYBRID) == ["hugetlb.2MB.max=4096"]


def test_network() -> None:
    wish = {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}}
    assert text(wish, V1) == ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]
    with pytest.raises(UnsupportedError, match="net_cls"):
        text(wish, V2)


@pytest.mark.parametrize("layout", [V1, V2])
def test_rdma(layout: Layout) -> None:
    wish = {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {}}}
    assert text(wish, layout) == ["rdma.max=mlx5_0 hca_handle=3 hca_object=10000"]


def test_unified() -> None:
    wish = {"unified": {"memory.high": "100", "cgroup.max.depth": "3"}}
    assert text(wish, V2) == ["memory.high=100", "cgroup.max.depth=3"]
    assert text({"unified": {"hugetlb.2MB.max": "0"}}, HYBRID) == ["hugetlb.2MB.max=0"]
    refused: list[tuple[dict[str, str], Layout, type[KetchError]]] = [
        ({"memory.high": "1"}, V1, UnsupportedError),
        ({"memory.high": "1"}, HYBRID, UnavailableError),  # memory is v1's there
        ({"../x.y": "1"}, V2, InvalidArgumentError),
        ({"memory": "1"}, V2, InvalidArgumentError),
        ({"misc.max": "1"}, V2, UnavailableError),
    ]
    for files, layout, error in refused:
        with pytest.raises(error):
            text({"unified": files}, layout)


@pytest.mark.parametrize(
    ("resources", "controller"),
    [
        ({"memory": {"limit": 1}}, "memory"),
        ({"pids": {"limit": 1}}, "pids"),
        ({"cpu": {"cpus": "0"}}, "cpuset"),
        ({"rdma": {"x": {"hcaObjects": 1}}}, "rdma"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_without_its_controller_is_an_error(
    resources: dict[str, Any], controller: str, version: int
) -> None:
    layout = Layout([Hierarchy("/c", version, ("freezer",))])
    with pytest.raises(UnavailableError, match=f"no {controller} controller"):
        text(resources, layout)


def test_device_rules_go_to_v1_or_else_to_a_program() -> None:
    wish: Any = {"devices": [{"allow": True}]}
    assert device_policy(wish, V1) is None
    assert text(wish, V1, {"devices.list": "c 1:3 rwm\n"}) == ["devices.allow=a"]
    policy = device_policy(wish, V2)
    assert policy is not None
    assert policy.allows_everything
    assert text(wish, V2) == []
    assert device_policy({}, V2) is None
    with pytest.raises(UnavailableError, match="no devices controller"):
        device_policy(wish, Layout([Hierarchy("/c", 1, ("memory",))]))


def test_controllers_needed_of_v2() -> None:
    wish: Any = {"memory": {"limit": 1}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}
    assert v2_controllers(wish, HYBRID) == {"hugetlb"}
    assert v2_controllers(wish, V2) == {"hugetlb", "memory"}
    assert v2_controllers(wish, V1) == set()
    assert v2_controllers({"unified": {"pids.max": "1"}}, V2) == {"pids"}
