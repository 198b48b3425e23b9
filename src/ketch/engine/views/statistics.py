"""What running containers use: the document of ``stats``, and what people are shown of it."""

import os
import time

from ketch import cgroups
from ketch.engine.configuration import cgroup_paths
from ketch.errors import KetchError
from ketch.linux import procfs
from ketch.spec.timestamps import SECOND_NS, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cgroups.figures import BlockStatistics, Statistics
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

_NEVER = "0001-01-01T00:00:00Z"
_NO_CPU: "dict[str, Any]" = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_BLKIO_LISTS = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive",
    "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive",
    "io_time_recursive", "sectors_recursive",
)  # fmt: skip
_NETWORK_FIELDS = (
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "", "", "", "", "tx_bytes", "tx_packets",
    "tx_errors", "tx_dropped",
)  # fmt: skip
_TICK_NS = SECOND_NS // os.sysconf("SC_CLK_TCK")


class Sampler:
    """Takes samples of containers, each with the one before it.

    Args:
        settings: the engine's places.
    """

    __slots__ = ("_before", "_managers", "_settings")

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._managers: dict[str, tuple[int, cgroups.Manager]] = {}  # with when it was started
        self._before: dict[str, dict[str, Any]] = {}

    def sample(self, container: "Container") -> "dict[str, Any]":
        """Returns what a container uses now, in the API's keys (``ContainerStatsResponse``).

        ``precpu_stats`` is of this sampler's last sample of it. Of a container that does not run
        everything is zero or missing.
        """
        read_ns = time.time_ns()
        found = self._take(container)
        document: dict[str, Any] = {
            "read": rfc3339(read_ns) if found else _NEVER,
            "preread": _NEVER,
            "pids_stats": {},
            "blkio_stats": dict.fromkeys(_BLKIO_LISTS),
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": _NO_CPU,
            "precpu_stats": _NO_CPU,
            "memory_stats": {},
            "name": f"/{container.name}",
            "id": container.id,
            **found,
        }
        before = self._before.get(container.id)
        if before is not None and found:
            document["preread"] = before["read"]
            document["precpu_stats"] = before["cpu_stats"]
        self._before[container.id] = document
        return document

    def forget(self, container_id: str) -> None:
        """Let go of what was kept of a container that is no more."""
        self._before.pop(container_id, None)
        self._managers.pop(container_id, None)

    def _take(self, container: "Container") -> "dict[str, Any]":
        if not container.is_active or not container.init_pid:
            return {}
        started_ns, manager = self._managers.get(container.id, (0, None))
        try:
            if manager is None or started_ns != container.started_ns:
                manager = cgroup_paths.manager(self._settings, container)
                self._managers[container.id] = (container.started_ns, manager)
            statistics = manager.statistics()
        except (OSError, ValueError, KetchError):
            return {}  # it has ended meanwhile
        mode = container.record.get("HostConfig", {}).get("NetworkMode", "")
        networks = {} if mode in {"host", "none"} else _networks(container.init_pid)
        if not procfs.is_running(container.init_pid, container.init_start_time):
            networks = {}  # they may have been another process's
        return {
            "pids_stats": _pids(statistics),
            "blkio_stats": _blkio(statistics),
            "cpu_stats": _cpu(statistics),
            "memory_stats": _memory(statistics),
            **({"networks": networks} if networks else {}),
        }


def _pids(statistics: "Statistics") -> "dict[str, int]":
    pids = statistics.get("pids")
    if pids is None:
        return {}
    limit = pids["limit"]
    return {"current": pids["current"], **({} if limit is None else {"limit": limit})}


def _cpu(statistics: "Statistics") -> "dict[str, Any]":
    cpu = statistics.get("cpu")
    if cpu is None:
        return _NO_CPU
    per_cpu = {"percpu_usage": cpu["per_cpu_ns"]} if cpu["per_cpu_ns"] else {}
    return {
        "cpu_usage": {
            "total_usage": cpu["usage_ns"],
            **per_cpu,
            "usage_in_kernelmode": cpu["system_ns"],
            "usage_in_usermode": cpu["user_ns"],
        },
        **_host_cpu(),
        "throttling_data": {
            "periods": cpu["periods"],
            "throttled_periods": cpu["throttled_periods"],
            "throttled_time": cpu["throttled_ns"],
        },
    }


def _host_cpu() -> dict[str, int]:
    """Processor time of the whole host, idle time included, and how many CPUs are online."""
    with open("/proc/stat", encoding="ascii") as file:
        lines = [line.split() for line in file if line.startswith("cpu")]
    # user nice system idle iowait irq softirq steal; guests' time is in user: proc(5)
    ticks = sum(map(int, lines[0][1:9]))
    return {"system_cpu_usage": ticks * _TICK_NS, "online_cpus": len(lines) - 1}


def _memory(statistics: "Statistics") -> "dict[str, Any]":
    memory = statistics.get("memory")
    if memory is None:
        return {}
    total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit_bytes = memory["limit_bytes"]
    found: dict[str, Any] = {"usage": memory["usage_bytes"]}
    if memory["peak_bytes"]:
        found["max_usage"] = memory["peak_bytes"]
    found["stats"] = memory["detail"]
    if memory["limit_hits"]:
        found["failcnt"] = memory["limit_hits"]
    found["limit"] = total_bytes if limit_bytes is None else min(limit_bytes, total_bytes)
    return found


def _blkio(statistics: "Statistics") -> "dict[str, Any]":
    devices = statistics.get("blkio") or []
    found: dict[str, Any] = {name: [] for name in _BLKIO_LISTS}
    found["io_service_bytes_recursive"] = _operations(devices, "bytes")
    found["io_serviced_recursive"] = _operations(devices, "operations")
    return found


def _operations(devices: "list[BlockStatistics]", unit: str) -> "list[dict[str, Any]]":
    return [
        {"major": device["major"], "minor": device["minor"], "op": operation,
         "value": device[f"{operation}_{unit}"]}  # type: ignore[literal-required]
        for device in devices
        for operation in ("read", "write")
    ]  # fmt: skip


def _networks(init_pid: int) -> dict[str, dict[str, int]]:
    """Traffic of each link but loopback in a process's network namespace."""
    found = {}
    try:
        with open(f"/proc/{init_pid}/net/dev", encoding="utf-8", errors="replace") as file:
            lines = file.readlines()[2:]
    except OSError:
        return {}
    for line in lines:
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            continue
        numbers = map(int, figures.split())
        found[name.strip()] = {
            field: number for field, number in zip(_NETWORK_FIELDS, numbers) if field  # noqa: B905
        }  # fmt: skip
    return found


# What people are shown


class Figures:
    """The few numbers that a line of ``stats`` has, computed as Docker's command line does.

    Attributes:
        cpu_percent: of one CPU; two busy ones are 200.
        memory_bytes: in use, less what the kernel can take back at once.
        memory_limit_bytes: the container's limit, or the host's memory.
        memory_percent: of the limit.
        received_bytes: by all links.
        sent_bytes: by all links.
        read_bytes: from block devices.
        written_bytes: to block devices.
        tasks: processes and threads.
    """

    __slots__ = (
        "cpu_percent", "memory_bytes", "memory_limit_bytes", "memory_percent", "read_bytes",
        "received_bytes", "sent_bytes", "tasks", "written_bytes",
    )  # fmt: skip

    def __init__(self, document: "dict[str, Any]") -> None:
        self.cpu_percent = _cpu_percent(document)
        memory = document["memory_stats"]
        usage = memory.get("usage", 0)
        detail = memory.get("stats", {})
        idle = detail.get("total_inactive_file", detail.get("inactive_file", 0))
        self.memory_bytes: int = usage - idle if idle < usage else usage
        self.memory_limit_bytes: int = memory.get("limit", 0)
        self.memory_percent = 0.0
        if self.memory_limit_bytes:
            self.memory_percent = self.memory_bytes / self.memory_limit_bytes * 100
        links = document.get("networks", {}).values()
        self.received_bytes = sum(link["rx_bytes"] for link in links)
        self.sent_bytes = sum(link["tx_bytes"] for link in links)
        moved = document["blkio_stats"]["io_service_bytes_recursive"] or ()
        self.read_bytes = sum(entry["value"] for entry in moved if entry["op"] == "read")
        self.written_bytes = sum(entry["value"] for entry in moved if entry["op"] == "write")
        self.tasks: int = document["pids_stats"].get("current", 0)


def _cpu_percent(document: "dict[str, Any]") -> float:
    now, before = document["cpu_stats"], document["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or passed <= 0:
        return 0.0
    cpus: int = now.get("online_cpus", 1)
    return float(used / passed * cpus * 100)
