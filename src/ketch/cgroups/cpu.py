"""The cpu, cpuacct and cpuset controllers: OCI limits to file writes, and their figures.

Source: runtime-spec config-linux.md "CPU", Documentation/scheduler/sched-bwc.rst,
Documentation/admin-guide/cgroup-v1/cpusets.rst, cgroup-v2.rst "CPU" and "Cpuset".
"""

from math import ceil, log2

from ketch.cgroups.memory import keyed
from ketch.errors import InvalidArgumentError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.facts import Facts, Write
    from ketch.cgroups.figures import CpuStatistics
    from ketch.spec.runtime import Cpu, Resources

_DEFAULT_PERIOD_US = "100000"
_SHARES_MIN, _SHARES_MAX = 2, 1 << 18


def weight_of_shares(shares: int) -> int:
    """Convert v1's cpu.shares (2 to 262144) to v2's cpu.weight (1 to 10000).

    The curve that keeps both ends and takes the default, 1024, to the default, 100: what runc
    does since 1.3.2 and crun since 1.23. Before, both drew a straight line between the ends, on
    which a default container weighed 39 against its neighbours' 100.
    """
    if shares <= _SHARES_MIN:
        return 1
    if shares >= _SHARES_MAX:
        return 10000
    magnitude = log2(shares)
    return ceil(10 ** ((magnitude * magnitude + 125 * magnitude) / 612 - 7 / 34))


def v1(resources: "Resources", facts: "Facts") -> "list[Write]":
    """What to write to v1's cpu controller, in an order that the kernel accepts.

    Raises:
        InvalidArgumentError: shares that there are not.
    """
    cpu = resources.get("cpu", {})
    writes: list[Write] = []
    if "idle" in cpu:
        writes.append(("cpu", "cpu.idle", str(cpu["idle"])))
    # An idle cgroup has no shares: the kernel refuses to set them.
    if (shares := cpu.get("shares", 0)) and not cpu.get("idle"):
        if shares < _SHARES_MIN:  # which the kernel would take for the nearest that it knows
            raise InvalidArgumentError(f"the minimum allowed cpu-shares is {_SHARES_MIN}")
        if shares > _SHARES_MAX:
            raise InvalidArgumentError(f"the maximum allowed cpu-shares is {_SHARES_MAX}")
        writes.append(("cpu", "cpu.shares", str(shares)))
    return writes + _v1_realtime(cpu, facts) + _v1_bandwidth(cpu, facts)


def _v1_realtime(cpu: "Cpu", facts: "Facts") -> "list[Write]":
    runtime, period = cpu.get("realtimeRuntime", 0), cpu.get("realtimePeriod", 0)
    writes: list[Write] = []
    if period:
        writes.append(("cpu", "cpu.rt_period_us", str(period)))
    if runtime:
        writes.append(("cpu", "cpu.rt_runtime_us", str(runtime)))
    # The runtime may at no moment exceed the period, nor their ratio the parent's: as below.
    if len(writes) == 2 and period < int(facts.value("cpu", "cpu.rt_period_us", "1000000")):
        writes.reverse()
    return writes


def _v1_bandwidth(cpu: "Cpu", facts: "Facts") -> "list[Write]":
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    writes: list[Write] = []
    if quota:
        writes.append(("cpu", "cpu.cfs_quota_us", str(quota)))
    if period:
        writes.append(("cpu", "cpu.cfs_period_us", str(period)))
    # quota/period may at no moment exceed the parent's. Both ends of the change do not, so pass
    # through a ratio below one of them: a longer period goes first, a shorter one last.
    if quota and period:
        old_quota = int(facts.value("cpu", "cpu.cfs_quota_us", "-1"))
        old_period = int(facts.value("cpu", "cpu.cfs_period_us", _DEFAULT_PERIOD_US))
        if old_quota < 0 or period >= old_period:
            writes.reverse()
    return _with_burst(cpu, writes, "cpu.cfs_burst_us", facts)


def _with_burst(cpu: "Cpu", writes: "list[Write]", file: str, facts: "Facts") -> "list[Write]":
    """Put the burst, which may at no moment exceed the quota, before or after the others."""
    if "burst" not in cpu:
        return writes
    write: Write = ("cpu", file, str(cpu["burst"]))
    lower = cpu["burst"] <= int(facts.value("cpu", file, "0"))
    return [write, *writes] if lower else [*writes, write]


def v2(resources: "Resources", facts: "Facts") -> "list[Write]":
    """What to write to v2's cpu controller.

    Raises:
        UnsupportedError: the configuration asks for realtime scheduling, which v2 has not.
    """
    cpu = resources.get("cpu", {})
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise UnsupportedError("cgroup v2 has no realtime period or runtime to set")
    writes: list[Write] = []
    if "idle" in cpu:
        writes.append(("cpu", "cpu.idle", str(cpu["idle"])))
    if (shares := cpu.get("shares", 0)) and not cpu.get("idle"):
        writes.append(("cpu", "cpu.weight", str(weight_of_shares(shares))))
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    bandwidth: list[Write] = []
    if quota or period:
        old_quota, old_period = facts.value("cpu", "cpu.max", f"max {_DEFAULT_PERIOD_US}").split()
        first = old_quota if quota == 0 else "max" if quota < 0 else str(quota)
        bandwidth.append(("cpu", "cpu.max", f"{first} {period or old_period}"))
    return writes + _with_burst(cpu, bandwidth, "cpu.max.burst", facts)


def cpuset(resources: "Resources", facts: "Facts") -> "list[Write]":  # noqa: ARG001 (as the others)
    """What to write to the cpuset controller, the same on v1 and v2."""
    cpu = resources.get("cpu", {})
    writes: list[Write] = []
    if cpus := cpu.get("cpus", ""):
        writes.append(("cpuset", "cpuset.cpus", cpus))
    if mems := cpu.get("mems", ""):
        writes.append(("cpuset", "cpuset.mems", mems))
    return writes


def v1_statistics(facts: "Facts") -> "CpuStatistics":
    """The figures of a v1 cgroup, from cpuacct and cpu."""
    bandwidth = keyed(facts.value("cpu", "cpu.stat", ""))
    return {
        "usage_ns": int(facts.value("cpuacct", "cpuacct.usage", "0")),
        "user_ns": int(facts.value("cpuacct", "cpuacct.usage_user", "0")),
        "system_ns": int(facts.value("cpuacct", "cpuacct.usage_sys", "0")),
        "per_cpu_ns": [
            int(field) for field in facts.value("cpuacct", "cpuacct.usage_percpu", "").split()
        ],
        "periods": bandwidth.get("nr_periods", 0),
        "throttled_periods": bandwidth.get("nr_throttled", 0),
        "throttled_ns": bandwidth.get("throttled_time", 0),
    }


def v2_statistics(facts: "Facts") -> "CpuStatistics":
    """The figures of a v2 cgroup, which times no processor apart."""
    found = keyed(facts.value("cpu", "cpu.stat", ""))
    return {
        "usage_ns": found.get("usage_usec", 0) * 1000,
        "user_ns": found.get("user_usec", 0) * 1000,
        "system_ns": found.get("system_usec", 0) * 1000,
        "per_cpu_ns": [],
        "periods": found.get("nr_periods", 0),
        "throttled_periods": found.get("nr_throttled", 0),
        "throttled_ns": found.get("throttled_usec", 0) * 1000,
    }
