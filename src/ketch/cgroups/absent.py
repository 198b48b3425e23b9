"""The cgroup manager for where no cgroup can be made: an ordinary user to whom none is delegated.

Nothing is made and nothing limited; what is asked for is refused by name. A container's processes
are those that have its init's mount namespace, which no other container has, and all that descend
from them. What they use is what ``/proc`` says of each.

A container with the host's PID namespace may leave processes behind when its init ends, and then
nothing tells whose they are.

Source: mount_namespaces(7), pid_namespaces(7), proc_pid_stat(5), proc_pid_io(5),
Documentation/filesystems/proc.rst.
"""

import os

from ketch.cgroups.filesystem import Manager
from ketch.cgroups.group import read
from ketch.errors import UnavailableError
from ketch.linux import procfs
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.devices import Policy
    from ketch.cgroups.facts import Write
    from ketch.cgroups.figures import Statistics
    from ketch.cgroups.layout import Layout
    from ketch.spec.runtime import Resources

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_KIBIBYTE = 1024


def reason(layout: "Layout") -> tuple[str, str]:
    """Why nothing can be limited, and what would mend it.

    Args:
        layout: of ``layout.usable``, without a hierarchy.
    """
    mounted = layout.shown.hierarchies
    if not mounted:
        return (
            "no control group file system is mounted",
            "mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
    if all(os.statvfs(each.mountpoint).f_flag & os.ST_RDONLY for each in mounted):
        return (
            "the control group file systems are mounted read-only",
            "have whoever made this container mount them writable: --privileged, or"
            " --security-opt writable-cgroups=true",
        )
    if layout.shown.mode != "v2":
        return (
            "cgroup v1 gives ordinary users none",
            "run as root, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    return (
        "no control group is delegated to this user",
        "log in with a systemd session of your own, or start from a cgroup of your own:"
        " systemd-run --user --scope -p Delegate=yes",
    )


class AbsentManager(Manager):
    """What is known and done of a container that has no cgroup.

    Args:
        path: of the cgroup that it would have.
        layout: without a hierarchy.
        init: pid and start time of its first process, zeros where it has none.
    """

    __slots__ = ("_init", "_namespace")

    def __init__(self, path: str, layout: "Layout", init: tuple[int, int]) -> None:
        super().__init__(path, layout)
        self._init = init
        self._namespace = ""

    def _decide(self, resources: "Resources") -> "tuple[list[Write], Policy | None]":
        """Refuse what would have to be written.

        Rules about devices need no cgroup: who has none can make no device nodes either, and finds
        in the container those alone that were put there.
        """
        from ketch.cgroups.resources import asked  # noqa: PLC0415 as in Manager

        if wanted := asked(resources):
            why, hint = reason(self.layout)
            raise UnavailableError(f"{', '.join(wanted)} was asked for, but {why}", hint)
        return [], None

    def exists(self) -> bool:
        """Whether there are processes of the container."""
        return bool(self.processes())

    def processes(self, *, recursive: bool = True) -> list[int]:
        """The pids of the container's processes, ascending.

        Args:
            recursive: whether those count that have gone into another mount namespace.
        """
        if not self._namespace:
            # Kept: the others are to be found after init has ended.
            self._namespace = self._find_namespace()
        if not self._namespace:
            return []
        parents: dict[int, int] = {}
        found: set[int] = set()
        for name in os.listdir("/proc"):
            pid = decimal(name)
            if pid is None or (fields := _stat(pid)) is None:
                continue
            parents[pid] = int(fields[1])
            if _link(pid) == self._namespace:
                found.add(pid)
        if recursive:
            _add_descendants(found, parents)
        return sorted(found)

    def _find_namespace(self) -> str:
        """The container's mount namespace; empty where its init has ended."""
        pid, start_time = self._init
        found = _link(pid) if pid else ""
        # Its pid may be another's by now, and this is who is going to be killed.
        if not procfs.is_running(pid, start_time) or found == _link(os.getpid()):
            return ""
        return found

    def statistics(self) -> "Statistics":
        """What the processes that live use, and those that they have waited for.

        Memory is what each has of its own and its share of what it has with others.
        """
        user = system = tasks = memory_bytes = swap_bytes = read_bytes = write_bytes = 0
        for pid in self.processes():
            fields = _stat(pid)
            if fields is None:
                continue
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
            tasks += int(fields[17])
            memory = _figures(f"/proc/{pid}/smaps_rollup")
            # Without the right to see that: all that is in memory (in pages), shared or not.
            resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            memory_bytes += memory["Pss"] * _KIBIBYTE if "Pss" in memory else resident
            swap_bytes += memory.get("SwapPss", 0) * _KIBIBYTE
            moved = _figures(f"/proc/{pid}/io")
            read_bytes += moved.get("read_bytes", 0)
            write_bytes += moved.get("write_bytes", 0)
        return {
            "memory": {
                "usage_bytes": memory_bytes,
                "limit_bytes": None,
                "peak_bytes": None,
                "swap_usage_bytes": swap_bytes,
                "cache_bytes": 0,
                "inactive_file_bytes": 0,
                "limit_hits": 0,
                "detail": {},
            },
            "cpu": {
                "usage_ns": (user + system) * _TICK_NS,
                "user_ns": user * _TICK_NS,
                "system_ns": system * _TICK_NS,
                "per_cpu_ns": [],
                "periods": 0,
                "throttled_periods": 0,
                "throttled_ns": 0,
            },
            "pids": {"current": tasks, "limit": None},
            "blkio": [
                {
                    "major": 0,
                    "minor": 0,
                    "read_bytes": read_bytes,
                    "write_bytes": write_bytes,
                    "read_operations": 0,
                    "write_operations": 0,
                }
            ],
        }

    def freeze(self, timeout_seconds: float = 5.0) -> None:  # noqa: ARG002
        """Refuse: nothing stops all processes at once but a cgroup.

        Raises:
            UnavailableError: always.
        """
        why, hint = reason(self.layout)
        raise UnavailableError(f"processes can be paused in a control group alone, and {why}", hint)


def _add_descendants(found: set[int], parents: dict[int, int]) -> None:
    """Add all whose ancestors are in a set."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    waiting = list(found)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)


def _link(pid: int) -> str:
    """The mount namespace of a process; empty for a zombie, and for one that we may not look at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/PID/stat`` from the third on; None for a zombie, and where it is gone."""
    try:
        text = read(f"/proc/{pid}/stat")
    except (ProcessLookupError, PermissionError):
        return None
    if text is None:
        return None
    # The program's name, in parentheses, may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields


def _figures(path: str) -> dict[str, int]:
    """The figures of a file of lines ``name: number``; none where we may not look at it."""
    try:
        text = read(path) or ""
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and words and (number := decimal(words[0])) is not None:
            found[name] = number
    return found
