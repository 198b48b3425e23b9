"""Where the control group hierarchies of this machine are, and what each of them controls.

Three layouts exist. On **v1** every controller (or a group of them, such as ``cpu,cpuacct``) has a
hierarchy and a mount of its own. On **v2** one hierarchy has them all. **Hybrid** is v1 with a v2
hierarchy beside it, which holds the controllers that no v1 hierarchy took, often none: it still
tracks processes, kills and freezes them at once, and takes device programs.

``detect`` reads the layout of the calling process from ``/proc``; ``parse`` is its pure half.
``usable`` leaves out what the process may not change.

Source: cgroups(7), Documentation/admin-guide/cgroup-v1, Documentation/admin-guide/cgroup-v2.rst.
"""

import os

from ketch.errors import UnavailableError
from ketch.linux.procfs import unescape


class Hierarchy:
    """One mounted hierarchy.

    Args:
        mountpoint: where it is mounted, absolute.
        version: 1 or 2.
        controllers: its controllers as the kernel names them, in the order of the mount's options;
            a named hierarchy without any has ``name=systemd`` or the like instead. On v2 those
            of the root's ``cgroup.controllers``.
        own: the calling process's cgroup in it, absolute beneath ``mountpoint``.
    """

    __slots__ = ("controllers", "mountpoint", "own", "version")

    def __init__(
        self, mountpoint: str, version: int, controllers: tuple[str, ...], own: str = "/"
    ) -> None:
        self.mountpoint = mountpoint
        self.version = version
        self.controllers = controllers
        self.own = own

    @property
    def filesystem(self) -> str:
        """The file system type to mount it by: ``cgroup`` or ``cgroup2``."""
        return "cgroup" if self.version == 1 else "cgroup2"

    @property
    def options(self) -> str:
        """The options that choose this hierarchy among those of its type; none on v2."""
        return ",".join(self.controllers) if self.version == 1 else ""

    @property
    def tracks(self) -> bool:
        """Whether it is one to keep track of processes by, as systemd does: of v2, or named."""
        return self.version == 2 or any(name.startswith("name=") for name in self.controllers)

    def directory(self, path: str) -> str:
        """Where a cgroup lives in this hierarchy.

        Args:
            path: absolute beneath the hierarchy's root; or relative, beneath the calling process's
                own cgroup on v1 and beside it on v2, where a cgroup with processes of its own
                cannot pass controllers on to children.
        """
        if path.startswith("/"):
            return self.mountpoint + path
        own = self.own if self.version == 1 else os.path.dirname(self.own)
        return f"{self.mountpoint}{own.rstrip('/')}/{path}"


class Layout:
    """All hierarchies of a machine, each at most once, in mount order.

    Args:
        hierarchies: those in which cgroups are made.
        shown: all that are mounted, where those are more: what containers see.
    """

    __slots__ = ("hierarchies", "shown")

    def __init__(self, hierarchies: list[Hierarchy], shown: "Layout | None" = None) -> None:
        self.hierarchies = hierarchies
        self.shown = self if shown is None else shown

    @property
    def mode(self) -> str:
        """``v1``, ``v2`` or ``hybrid``; ``none`` where there is no hierarchy."""
        versions = {hierarchy.version for hierarchy in self.hierarchies}
        if not versions:
            return "none"
        return "hybrid" if len(versions) > 1 else f"v{versions.pop()}"

    def hierarchy_of(self, controller: str) -> Hierarchy | None:
        """The hierarchy that a controller (``memory``, ``io``, ...) belongs to, if any."""
        for hierarchy in self.hierarchies:
            if controller in hierarchy.controllers:
                return hierarchy
        return None

    @property
    def unified(self) -> Hierarchy | None:
        """The v2 hierarchy, if there is one."""
        for hierarchy in self.hierarchies:
            if hierarchy.version == 2:
                return hierarchy
        return None

    def links(self) -> dict[str, str]:
        """The symbolic links beside the v1 mounts: ``{"cpu": "cpu,cpuacct", ...}``.

        Programs look for ``/sys/fs/cgroup/cpu`` even where it is mounted together with cpuacct, so
        a container's view needs them too.
        """
        found: dict[str, str] = {}
        for directory in {
            os.path.dirname(h.mountpoint) for h in self.hierarchies if h.version == 1
        }:
            with os.scandir(directory) as entries:
                found |= {e.name: os.readlink(e.path) for e in entries if e.is_symlink()}
        return found

    def withholds(self, controller: str) -> bool:
        """Whether the machine has a controller of v2 that is not passed on to where we may be."""
        unified = self.shown.unified
        return (
            self.shown is not self
            and unified is not None
            and (controller in _controllers(unified.mountpoint))
        )

    def limits_swap(self) -> bool:
        """Whether the kernel accounts swap to cgroups, so that a swap limit can be set."""
        memory = self.hierarchy_of("memory")
        if memory is None:
            return False
        if memory.version == 1:
            return os.path.exists(f"{memory.mountpoint}/memory.memsw.limit_in_bytes")
        # The root of v2 has no limits to look at; any other cgroup with the controller does.
        with os.scandir(memory.mountpoint) as entries:
            for entry in entries:
                if entry.is_dir() and os.path.exists(f"{entry.path}/memory.max"):
                    return os.path.exists(f"{entry.path}/memory.swap.max")
        return os.path.exists("/proc/swaps")  # the kernel has swap at all


def parse(mountinfo: str, membership: str) -> Layout:
    """Find the hierarchies in the text of two files; v2's controllers stay empty.

    Args:
        mountinfo: of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).
        membership: of ``/proc/self/cgroup`` (cgroups(7)).
    """
    own: dict[str, str] = {}  # controller, "name=..." or "" for v2 -> path
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found: dict[tuple[str, ...], tuple[bool, Hierarchy]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if not right.startswith("cgroup"):
            continue
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            controllers_found: tuple[str, ...] = ()
        else:
            # Beside the controllers stand plain options such as rw, xattr and clone_children.
            controllers_found = tuple(name for name in options.split(",") if name in own)
        mount_root, mountpoint = (unescape(field) for field in left.split(" ", 5)[3:5])
        cgroup = own.get(controllers_found[0] if controllers_found else "", "/")
        hierarchy = Hierarchy(
            mountpoint, 2 if kind == "cgroup2" else 1, controllers_found, _below(cgroup, mount_root)
        )
        # Other programs bind hierarchies elsewhere; the usual place wins, else the first.
        usual = mountpoint == "/sys/fs/cgroup" or mountpoint.startswith("/sys/fs/cgroup/")
        if controllers_found not in found or (usual and not found[controllers_found][0]):
            found[controllers_found] = (usual, hierarchy)
    return Layout([hierarchy for _, hierarchy in found.values()])


def _below(cgroup: str, mount_root: str) -> str:
    """The process's cgroup as a path beneath a mount of part of a hierarchy."""
    if mount_root == "/" and not cgroup.startswith("/.."):
        return cgroup
    if cgroup == mount_root or cgroup.startswith(f"{mount_root}/"):
        return cgroup[len(mount_root) :] or "/"
    return "/"


def detect() -> Layout:
    """The layout that the calling process sees.

    Raises:
        UnavailableError: no control group file system is mounted.
    """
    layout = mounted()
    if not layout.hierarchies:
        raise UnavailableError(
            "no control group file system is mounted, so containers cannot be limited or tracked",
            "mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
    if (unified := layout.unified) is not None:
        unified.controllers = _controllers(unified.mountpoint)
    return layout


def usable(path: str) -> Layout:
    """The hierarchies in which the calling process may make, or has, a cgroup.

    All that are mounted for the machine's root; fewer, or none, for an ordinary user, and where
    they are mounted read-only, as in a container.

    Args:
        path: of the cgroup, absolute beneath every hierarchy's root.
    """
    there = mounted()
    found = there.hierarchies
    if all(os.access(hierarchy.mountpoint, os.W_OK) for hierarchy in found):
        if (unified := there.unified) is not None:
            unified.controllers = _controllers(unified.mountpoint)
        return there
    kept = []
    for hierarchy in found:
        nearest = hierarchy.directory(path)
        while not os.path.isdir(nearest) and len(nearest) > len(hierarchy.mountpoint):
            nearest = os.path.dirname(nearest)
        if hierarchy.version == 2:
            hierarchy.controllers = _controllers(nearest)
        if os.access(nearest, os.W_OK):
            kept.append(hierarchy)
    return Layout(kept, there)


def mounted() -> Layout:
    """The hierarchies that the calling process sees, without the controllers of v2's."""
    texts = []
    for name in ("mountinfo", "cgroup"):
        with open(f"/proc/self/{name}", encoding="utf-8", errors="surrogateescape") as file:
            texts.append(file.read())
    return parse(*texts)


def _controllers(directory: str) -> tuple[str, ...]:
    """What a v2 cgroup has to pass down."""
    with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:
        return tuple(file.read().split())
