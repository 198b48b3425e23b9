"""What a container uses, in the shape in which runc's ``events`` prints it."""

from ketch.cgroups.group import read
from ketch.spec.number_lists import number_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cgroups import Manager
    from ketch.cgroups.figures import Statistics

_NO_LIMIT = 2**64 - 1
_CPUSET_FLAGS = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
    "memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def figures(cgroup: "Manager") -> "dict[str, Any]":
    """The ``data`` of an event of type ``stats``; times in nanoseconds, sizes in bytes."""
    found = cgroup.statistics()
    paths = cgroup.paths()
    return {
        "cpu": _cpu(found),
        "cpuset": _cpuset(paths.get("cpuset", "")),
        "memory": _memory(found, paths.get("memory", "")),
        "pids": _pids(found),
        "blkio": _blkio(found),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(found: "Statistics") -> "dict[str, Any]":
    if "cpu" not in found:
        return {"usage": {"kernel": 0, "user": 0}, "throttling": {}}
    cpu = found["cpu"]
    usage: dict[str, Any] = {"total": cpu["usage_ns"]}
    if cpu["per_cpu_ns"]:
        usage["percpu"] = cpu["per_cpu_ns"]
    usage |= {"kernel": cpu["system_ns"], "user": cpu["user_ns"]}
    throttling = {
        "periods": cpu["periods"],
        "throttledPeriods": cpu["throttled_periods"],
        "throttledTime": cpu["throttled_ns"],
    }
    return {"usage": usage, "throttling": _without_zeros(throttling)}


def _cpuset(directory: str) -> "dict[str, Any]":
    prefix = f"{directory}/cpuset"
    found: dict[str, Any] = {}
    if directory and (cpus := sorted(number_list((read(f"{prefix}.cpus") or "").strip()))):
        found["cpus"] = cpus
    mems = sorted(number_list((read(f"{prefix}.mems") or "").strip())) if directory else []
    for name in _CPUSET_FLAGS:
        found[name] = int((directory and read(f"{prefix}.{name}")) or 0)
        if name == "cpu_exclusive" and mems:
            found["mems"] = mems
    return found


def _memory(found: "Statistics", directory: str) -> "dict[str, Any]":
    if "memory" not in found:
        return {name: {"limit": 0, "failcnt": 0} for name in ("usage", "swap", "kernel")}
    memory = found["memory"]
    raw = memory["detail"]
    told: dict[str, Any] = {}
    if cache := raw.get("cache", raw.get("file", 0)):
        told["cache"] = cache
    if read(f"{directory}/memory.usage_in_bytes") is None:  # v2
        limit, peak = memory["limit_bytes"], memory["peak_bytes"]
        swap = memory["swap_usage_bytes"] or 0
        swap_limit = (read(f"{directory}/memory.swap.max") or "max").strip()
        usage = memory["usage_bytes"]
        told["usage"] = _entry(_NO_LIMIT if limit is None else limit, usage, peak or 0, 0)
        told["swap"] = _entry(
            _NO_LIMIT if limit is None or swap_limit == "max" else limit + int(swap_limit),
            usage + swap, 0, 0,
        )  # fmt: skip
        told |= {"kernel": _entry(0, 0, 0, 0), "kernelTCP": _entry(0, 0, 0, 0)}
    else:
        for name, infix in (
            ("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp."),
        ):  # fmt: skip
            files = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
            texts = (read(f"{directory}/memory.{infix}{file}") for file in files)
            told[name] = _entry(*(int(text or 0) for text in texts))
    return told | {"raw": dict(sorted(raw.items()))}


def _entry(limit: int, usage: int, peak: int, failures: int) -> dict[str, int]:
    return {"limit": limit, **_without_zeros({"usage": usage, "max": peak}), "failcnt": failures}


def _pids(found: "Statistics") -> dict[str, int]:
    pids = found.get("pids")
    if pids is None:
        return {}
    return _without_zeros({"current": pids["current"], "limit": pids["limit"] or 0})


def _blkio(found: "Statistics") -> "dict[str, Any]":
    told: dict[str, Any] = {}
    for name, unit in (("ioServiceBytesRecursive", "bytes"), ("ioServicedRecursive", "operations")):
        entries = []
        for device in found.get("blkio", []):
            counts = {
                "Read": device["read_bytes" if unit == "bytes" else "read_operations"],
                "Write": device["write_bytes" if unit == "bytes" else "write_operations"],
            }
            numbers = _without_zeros({"major": device["major"], "minor": device["minor"]})
            entries += [
                {**numbers, "op": operation, **_without_zeros({"value": value})}
                for operation, value in counts.items()
            ]
        if entries:
            told[name] = entries
    return told


def _without_zeros(values: dict[str, int]) -> dict[str, int]:
    """As Go's ``omitempty`` does."""
    return {name: value for name, value in values.items() if value}
