"""Real-time CPU time: on cgroup v1 a cgroup has what its parent can spare, and that has none."""

import os

from ketch.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.layout import Layout
    from ketch.spec.runtime import Resources

_FILE = "cpu.rt_runtime_us"


def provide(path: str, resources: "Resources", layout: "Layout") -> None:
    """See that the cgroups above a container's have real-time CPU time to give.

    Each gets just what its children need together, so that something is left for others.

    Args:
        path: the container's cgroup, absolute, whose directories exist.
        resources: its limits.
        layout: the machine's hierarchies.

    Raises:
        UnsupportedError: this kernel has no real-time limits, or all time is given to others.
    """
    wanted = resources.get("cpu", {}).get("realtimeRuntime", 0)
    if not wanted:
        return
    hierarchy = layout.hierarchy_of("cpu")
    top = hierarchy.mountpoint if hierarchy else ""
    if hierarchy is None or hierarchy.version != 1 or not os.path.exists(f"{top}/{_FILE}"):
        raise UnsupportedError(
            "--cpu-rt-runtime: this kernel limits no real-time CPU time",
            "it needs cgroup v1 and a kernel with CONFIG_RT_GROUP_SCHED",
        )
    directory = top
    for name in path.strip("/").split("/")[:-1]:
        directory = f"{directory}/{name}"
        needed = wanted + sum(
            _read(entry.path) for entry in os.scandir(directory) if entry.is_dir()
        )
        if _read(directory) < needed:
            _write(directory, needed)
        if _read(directory) < needed:
            raise UnsupportedError(
                f"--cpu-rt-runtime {wanted}: {directory} has too little real-time CPU time to give",
                f"see {_FILE} of the cgroups beside and above it",
            )


def _read(directory: str) -> int:
    try:
        with open(f"{directory}/{_FILE}", encoding="ascii") as file:
            return max(int(file.read()), 0)
    except (OSError, ValueError):
        return 0


def _write(directory: str, runtime: int) -> None:
    try:
        with open(f"{directory}/{_FILE}", "w", encoding="ascii") as file:
            file.write(str(runtime))
    except OSError:
        pass  # what it has then is what counts
