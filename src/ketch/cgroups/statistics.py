"""What a cgroup has used: one shape for v1 and v2, units in the names.

A figure is None where the kernel does not keep it, a limit where there is none. A controller that
is not there is left out.
"""

from ketch.cgroups import blkio, cpu, memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.facts import Facts
    from ketch.cgroups.figures import Statistics
    from ketch.cgroups.layout import Layout


def collect(layout: "Layout", facts: "Facts") -> "Statistics":
    """Read the figures of every controller that the layout has."""
    found: Statistics = {}
    if (hierarchy := layout.hierarchy_of("memory")) is not None:
        found["memory"] = (memory.v1_statistics, memory.v2_statistics)[hierarchy.version - 1](facts)
    if layout.hierarchy_of("cpuacct") is not None:
        found["cpu"] = cpu.v1_statistics(facts)
    elif (hierarchy := layout.hierarchy_of("cpu")) is not None and hierarchy.version == 2:
        found["cpu"] = cpu.v2_statistics(facts)
    if layout.hierarchy_of("pids") is not None:
        limit = facts.value("pids", "pids.max", "max").strip()
        found["pids"] = {
            "current": int(facts.value("pids", "pids.current", "0")),
            "limit": None if limit == "max" else int(limit),
        }
    if layout.hierarchy_of("blkio") is not None:
        found["blkio"] = blkio.v1_statistics(facts)
    elif layout.hierarchy_of("io") is not None:
        found["blkio"] = blkio.v2_statistics(facts)
    return found
