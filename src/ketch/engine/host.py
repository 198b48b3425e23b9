"""What a container's configuration depends on of the host, read once."""

import os

from ketch.cgroups import delegation
from ketch.linux import libc, namespaces
from ketch.spec import capabilities
from ketch.spec.digits import decimal

_CPU = "/sys/devices/system/cpu"
# Controllers by which containers are limited.
_LIMITING = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
_SHOWN = ("net", "pid", "ipc")  # kinds of namespaces that sysfs, proc and mqueue show
_LAST_GROUP = 2147483647  # of those that ping_group_range takes: icmp(7)


class Host:
    """Facts about this machine and this process.

    Args:
        cpus: the CPUs that there are, as the kernel lists them: ``0-3``.
        memory_nodes: the memory nodes, likewise.
        capabilities: the set that a container can be given, bit n for capability n.
        makes_devices: whether device nodes can be made: mknod(2).
        maps_ids: whether files can be mounted with other owners than they have.
        machine: the architecture as uname(2) has it.
        release: the kernel's release as uname(2) has it.
        hostname: the host's name.
        last_group: the last group id of those that there are from 0 on.
        owned: which namespaces are this user namespace's, of ``net``, ``pid`` and ``ipc``: what
            shows them can be mounted for a container that shares them.
        unified_cgroups: whether there is only cgroup v2.
        sets_groups: whether processes may have supplementary groups: user_namespaces(7).
        cgroups: the cgroup below which containers' are made, as an ordinary user's process or a
            container has it; empty for the root of the hierarchies.
        sysctls: which of Docker's default kernel parameters exist.
        bounds_own_cgroup: whether limits stay what they are though a container may change its own
            cgroup of v2; found out when it is first asked for, where it is None.
        apparmor: whether AppArmor confines processes.
        selinux: whether SELinux labels processes and files.
        thermal_paths: directories that tell what the CPUs are doing, to be masked.
    """

    __slots__ = (
        "_bounds_own_cgroup",
        "apparmor",
        "capabilities",
        "cgroups",
        "cpus",
        "hostname",
        "last_group",
        "machine",
        "makes_devices",
        "maps_ids",
        "memory_nodes",
        "owned",
        "release",
        "selinux",
        "sets_groups",
        "sysctls",
        "thermal_paths",
        "unified_cgroups",
    )  # fmt: skip

    def __init__(
        self,
        *,
        cpus: str = "0",
        memory_nodes: str = "0",
        capabilities: int = 0,
        machine: str = "x86_64",
        release: str = "",
        hostname: str = "",
        last_group: int = _LAST_GROUP,
        makes_devices: bool = True,
        maps_ids: bool = True,
        owned: tuple[str, ...] = _SHOWN,
        sets_groups: bool = True,
        unified_cgroups: bool = True,
        cgroups: str = "",
        sysctls: tuple[str, ...] = (),
        thermal_paths: tuple[str, ...] = (),
        apparmor: bool = False,
        selinux: bool = False,
        bounds_own_cgroup: bool | None = None,
    ) -> None:
        self.cpus = cpus
        self.memory_nodes = memory_nodes
        self.capabilities = capabilities
        self.machine = machine
        self.release = release
        self.hostname = hostname
        self.last_group = last_group
        self.makes_devices = makes_devices
        self.maps_ids = maps_ids
        self.owned = owned
        self.unified_cgroups = unified_cgroups
        self.cgroups = cgroups
        self.sysctls = sysctls
        self.thermal_paths = thermal_paths
        self.apparmor = apparmor
        self.selinux = selinux
        self.sets_groups = sets_groups
        self._bounds_own_cgroup = bounds_own_cgroup

    @property
    def bounds_own_cgroup(self) -> bool:
        """Whether limits stay though a container may change its own cgroup of v2."""
        if self._bounds_own_cgroup is None:
            self._bounds_own_cgroup = _bounds_own_cgroup()
        return self._bounds_own_cgroup


PING_GROUPS = "net.ipv4.ping_group_range"
DEFAULT_SYSCTLS = {
    # Unprivileged ports and ping cost no capability in a network namespace of one's own.
    "net.ipv4.ip_unprivileged_port_start": "0",
    PING_GROUPS: f"0 {_LAST_GROUP}",
}


def examine() -> Host:
    """Reads the facts from /proc and /sys."""
    name = os.uname()
    initial = namespaces.in_initial_user_namespace()
    cpus = _line(f"{_CPU}/online") or "0"
    thermal = (f"{_CPU}/{entry}/thermal_throttle" for entry in _directory(_CPU))
    return Host(
        cpus=cpus,
        memory_nodes=_line("/sys/devices/system/node/online") or "0",
        capabilities=_bounding_set(),
        machine=libc.MACHINE,
        release=name.release,
        hostname=name.nodename,
        last_group=_last_group(),
        # Both take privileges over what the machine's root has mounted and made.
        makes_devices=initial,
        maps_ids=initial,
        owned=tuple(kind for kind in _SHOWN if namespaces.owns(kind)),
        sets_groups=_line("/proc/self/setgroups") != "deny",
        unified_cgroups=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        cgroups=delegation.subtree(),
        sysctls=tuple(
            sysctl
            for sysctl in DEFAULT_SYSCTLS
            if os.path.exists(f"/proc/sys/{sysctl.replace('.', '/')}")
        ),
        thermal_paths=tuple(path for path in thermal if os.path.isdir(path)),
        apparmor=_line("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
    )


def _bounds_own_cgroup() -> bool:
    """Whether v2 keeps a namespace's limits from whoever is inside, or has none: cgroups(7)."""
    for line in _line("/proc/self/mounts").splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            there = _line(f"{point}/cgroup.controllers").split()
            return "nsdelegate" in options.split(",") or _LIMITING.isdisjoint(there)
    return True


def _last_group() -> int:
    """The last of the groups from 0 on that the user namespace has: user_namespaces(7)."""
    after = 0
    for line in sorted(
        _line("/proc/self/gid_map").splitlines(), key=lambda line: int(line.split()[0])
    ):
        first, _, count = map(int, line.split())
        if first != after:
            break
        after = first + count
    return min(after - 1, _LAST_GROUP) if after else _LAST_GROUP


def _bounding_set() -> int:
    """What this process can hand on; the kernel's newest capabilities without a name excluded."""
    known = (1 << len(capabilities.NAMES)) - 1
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16) & known
    return 0


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _directory(path: str) -> list[str]:
    try:
        return sorted(entry for entry in os.listdir(path) if decimal(entry[3:]) is not None)
    except OSError:
        return []
