"""The memory controller: OCI limits to file writes, and its figures.

OCI counts ``swap`` as v1 does, memory and swap together; v2 counts swap alone. -1 lifts a limit,
0 leaves it as it is (as runc and crun read it).

Source: runtime-spec config-linux.md "Memory", Documentation/admin-guide/cgroup-v1/memory.rst,
cgroup-v2.rst "Memory Interface Files".
"""

from ketch.errors import ConflictError, InvalidArgumentError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.facts import Facts, Write
    from ketch.cgroups.figures import MemoryStatistics
    from ketch.spec.runtime import Memory, Resources

_UNSET_SWAPPINESS = (1 << 64) - 1  # how Docker's -1 arrives
# v1 writes "no limit" as the greatest number of pages that a long holds.
_V1_UNLIMITED_FROM_BYTES = 0x7FFF_FFFF_FFFF_0000

V1_LIMIT = "memory.limit_in_bytes"
V1_SWAP = "memory.memsw.limit_in_bytes"


def _limits(memory: "Memory") -> tuple[int, int]:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if 0 < swap < limit:
        raise InvalidArgumentError(
            f"swap limit {swap} is below the memory limit {limit}",
            "it counts memory and swap together, so it is at least the memory limit",
        )
    return limit, swap


def v1(resources: "Resources", facts: "Facts") -> "list[Write]":
    """What to write on v1, in an order that the kernel accepts."""
    memory = resources.get("memory", {})
    limit, swap = _limits(memory)
    writes: list[Write] = []
    if "useHierarchy" in memory:
        writes.append(("memory", "memory.use_hierarchy", str(int(memory["useHierarchy"]))))
    if limit == -1 and swap == 0:
        swap = -1
    # Lifting a limit that the kernel does not keep needs no write.
    if swap == -1 and facts.read("memory", V1_SWAP) is None:
        swap = 0
    pair: list[Write] = []
    if limit:
        pair.append(("memory", V1_LIMIT, str(limit)))
    if swap:
        pair.append(("memory", V1_SWAP, str(swap)))
    # memsw may at no moment be below memory: raise memsw first, or lower memory first.
    if len(pair) == 2 and (swap == -1 or swap >= _number(facts.value("memory", V1_LIMIT, "max"))):
        pair.reverse()
    writes += pair
    if reservation := memory.get("reservation", 0):
        writes.append(("memory", "memory.soft_limit_in_bytes", str(reservation)))
    # memory.kmem.limit_in_bytes is gone (Linux 5.16) and the specification lets it be ignored.
    if tcp := memory.get("kernelTCP", 0):
        writes.append(("memory", "memory.kmem.tcp.limit_in_bytes", str(tcp)))
    if "disableOOMKiller" in memory:
        wanted = str(int(memory["disableOOMKiller"]))
        if f"oom_kill_disable {wanted}" not in facts.value(
            "memory", "memory.oom_control", "oom_kill_disable 0"
        ):
            writes.append(("memory", "memory.oom_control", wanted))
    swappiness = memory.get("swappiness", _UNSET_SWAPPINESS)
    if swappiness != _UNSET_SWAPPINESS:
        if swappiness > 100:
            raise InvalidArgumentError(f"memory swappiness {swappiness} is not between 0 and 100")
        writes.append(("memory", "memory.swappiness", str(swappiness)))
    return writes


def v2(resources: "Resources", facts: "Facts") -> "list[Write]":
    """What to write on v2.

    Raises:
        UnsupportedError: the configuration asks for what v2 has not: another OOM killer policy,
            swappiness, a limit of kernel TCP buffers, accounting without a hierarchy.
    """
    memory = resources.get("memory", {})
    limit, swap = _limits(memory)
    for name, asked in (
        ("disableOOMKiller", memory.get("disableOOMKiller", False)),
        ("swappiness", memory.get("swappiness", _UNSET_SWAPPINESS) != _UNSET_SWAPPINESS),
        ("kernelTCP", memory.get("kernelTCP", 0) > 0),
        ("useHierarchy: false", not memory.get("useHierarchy", True)),
    ):
        if asked:
            raise UnsupportedError(f"cgroup v2 has no equivalent of the memory setting {name}")
    if memory.get("checkBeforeUpdate") and limit > 0:
        usage_bytes = int(facts.value("memory", "memory.current", "0"))
        if limit < usage_bytes:
            raise ConflictError(
                f"memory limit {limit} is below the {usage_bytes} bytes in use",
                "free memory in the container first, or ask for a higher limit",
            )
    writes: list[Write] = []
    if limit == -1 and swap == 0:
        swap = -1
    if swap:
        writes += _v2_swap(limit, swap, facts)
    if limit:
        writes.append(("memory", "memory.max", _text(limit)))
    if reservation := memory.get("reservation", 0):
        writes.append(("memory", "memory.low", _text(reservation)))
    return writes


def _v2_swap(limit: int, swap: int, facts: "Facts") -> "list[Write]":
    memory_bytes = limit or _number(facts.value("memory", "memory.max", "max"))
    if swap == -1:
        value = "max"
    elif memory_bytes in (-1, _number("max")):
        raise InvalidArgumentError(
            f"swap limit {swap} without a memory limit", "limit the memory as well"
        )
    elif swap < memory_bytes:
        raise InvalidArgumentError(f"swap limit {swap} is below the memory limit {memory_bytes}")
    else:
        value = str(swap - memory_bytes)
    # A kernel without swap accounting lacks the file; there is then no swap to allow or forbid.
    if value in ("max", "0") and facts.read("memory", "memory.swap.max") is None:
        return []
    return [("memory", "memory.swap.max", value)]


def _text(limit: int) -> str:
    return "max" if limit == -1 else str(limit)


def _number(text: str) -> int:
    """A limit file's value in bytes; no limit is a number greater than any."""
    return 1 << 64 if text.strip() == "max" else int(text)


def v1_statistics(facts: "Facts") -> "MemoryStatistics":
    """The figures of a v1 cgroup."""
    detail = keyed(facts.value("memory", "memory.stat", ""))
    usage_bytes = int(facts.value("memory", "memory.usage_in_bytes", "0"))
    with_swap = facts.read("memory", "memory.memsw.usage_in_bytes")
    return {
        "usage_bytes": usage_bytes,
        "limit_bytes": _v1_limit(facts.value("memory", V1_LIMIT, "-1")),
        "peak_bytes": int(facts.value("memory", "memory.max_usage_in_bytes", "0")),
        "swap_usage_bytes": None if with_swap is None else max(0, int(with_swap) - usage_bytes),
        "cache_bytes": detail.get("total_cache", detail.get("cache", 0)),
        "inactive_file_bytes": detail.get("total_inactive_file", detail.get("inactive_file", 0)),
        "limit_hits": int(facts.value("memory", "memory.failcnt", "0")),
        "detail": detail,
    }


def _v1_limit(text: str) -> int | None:
    limit = int(text)
    return None if limit < 0 or limit >= _V1_UNLIMITED_FROM_BYTES else limit


def v2_statistics(facts: "Facts") -> "MemoryStatistics":
    """The figures of a v2 cgroup."""
    detail = keyed(facts.value("memory", "memory.stat", ""))
    limit = facts.value("memory", "memory.max", "max").strip()
    peak = facts.read("memory", "memory.peak")  # Linux 5.19
    swap = facts.read("memory", "memory.swap.current")
    return {
        "usage_bytes": int(facts.value("memory", "memory.current", "0")),
        "limit_bytes": None if limit == "max" else int(limit),
        "peak_bytes": None if peak is None else int(peak),
        "swap_usage_bytes": None if swap is None else int(swap),
        "cache_bytes": detail.get("file", 0),
        "inactive_file_bytes": detail.get("inactive_file", 0),
        "limit_hits": keyed(facts.value("memory", "memory.events", "")).get("max", 0),
        "detail": detail,
    }


def keyed(text: str) -> dict[str, int]:
    """Read a flat keyed file: lines of a name and a number."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}
