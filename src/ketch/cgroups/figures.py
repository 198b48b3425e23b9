"""The shapes of what a cgroup has used, one for v1 and v2, units in the names; types alone."""

from typing import TypedDict


class MemoryStatistics(TypedDict):
    """Memory; ``detail`` is the kernel's memory.stat under its own names."""

    usage_bytes: int
    limit_bytes: int | None
    peak_bytes: int | None
    swap_usage_bytes: int | None
    cache_bytes: int
    inactive_file_bytes: int
    limit_hits: int
    detail: dict[str, int]


class CpuStatistics(TypedDict):
    """Processor time; ``per_cpu_ns`` is empty on v2."""

    usage_ns: int
    user_ns: int
    system_ns: int
    per_cpu_ns: list[int]
    periods: int
    throttled_periods: int
    throttled_ns: int


class PidsStatistics(TypedDict):
    """Tasks (threads, not only processes)."""

    current: int
    limit: int | None


class BlockStatistics(TypedDict):
    """Traffic of one block device."""

    major: int
    minor: int
    read_bytes: int
    write_bytes: int
    read_operations: int
    write_operations: int


class Statistics(TypedDict, total=False):
    """All figures of one cgroup."""

    memory: MemoryStatistics
    cpu: CpuStatistics
    pids: PidsStatistics
    blkio: list[BlockStatistics]
