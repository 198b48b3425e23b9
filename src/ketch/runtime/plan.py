"""From a configuration to what will be done: pure code, decided before anything happens.

A plan is a list of operations in the order in which they are executed. Each says in words what it
does, with the system call behind it, so that what is explained is what is done.
"""

from ketch.errors import UnsupportedError
from ketch.linux import mount
from ketch.linux.namespaces import CLONE_NEWCGROUP, CLONE_NEWNS, CLONE_NEWUSER, KINDS
from ketch.runtime.cgroup_mount import CgroupMount
from ketch.runtime.filesystem import (
    MakeDeviceLinks,
    MakeDevices,
    MaskPath,
    ReadOnlyMount,
    ReadOnlyPath,
    WriteSysctl,
)
from ketch.runtime.mounts import MountOperation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ketch.cgroups.layout import Layout
    from ketch.spec.runtime import Config

    class Operation(Protocol):
        """One step of a plan."""

        def describe(self) -> str:
            """What the step does, in words, with its system call."""

        def execute(self, root: int) -> None:
            """Do it, beneath the descriptor of the container's root."""


_PROPAGATION = {
    "": mount.MS_SLAVE | mount.MS_REC,
    "private": mount.MS_PRIVATE,
    "rprivate": mount.MS_PRIVATE | mount.MS_REC,
    "slave": mount.MS_SLAVE,
    "rslave": mount.MS_SLAVE | mount.MS_REC,
    "shared": mount.MS_SHARED,
    "rshared": mount.MS_SHARED | mount.MS_REC,
    "unbindable": mount.MS_UNBINDABLE,
    "runbindable": mount.MS_UNBINDABLE | mount.MS_REC,
}
_WORDS = {
    "user": "new user namespace: ids inside are not ids outside",
    "mount": "new mount namespace: what is mounted inside is seen inside only",
    "pid": "new PID namespace: the program will be its PID 1",
    "network": "new network namespace: interfaces, addresses and ports of its own",
    "uts": "new UTS namespace: a host name of its own",
    "ipc": "new IPC namespace: shared memory and message queues of its own",
    "cgroup": "new cgroup namespace: its own cgroup is the root of what it sees",
    "time": "new time namespace: clocks with offsets of their own",
}


class Plan:
    """What a configuration comes to.

    Attributes:
        clone_flags: the namespaces that init is born into.
        new_cgroup_namespace: whether init makes a cgroup namespace, once it is in its cgroup.
        joins: ``(kind, path)`` of the namespaces that init enters.
        root_propagation: ``MS_*`` for the host's tree in the new mount namespace.
        operations: what init does to its file systems, in order.
        read_only_root: whether the root is made read-only at the end.
    """

    __slots__ = (
        "clone_flags",
        "config",
        "joins",
        "new_cgroup_namespace",
        "operations",
        "read_only_root",
        "root_propagation",
    )

    def __init__(self, config: "Config", layout: "Layout") -> None:
        linux = config.get("linux", {})
        self.config = config
        self.clone_flags = 0
        self.joins: list[tuple[str, str]] = []
        for namespace in linux.get("namespaces", []):
            if path := namespace.get("path"):
                self.joins.append((namespace["type"], path))
            else:
                self.clone_flags |= KINDS[namespace["type"]][0]
        self.new_cgroup_namespace = bool(self.clone_flags & CLONE_NEWCGROUP)
        self.clone_flags &= ~CLONE_NEWCGROUP
        if not self.clone_flags & CLONE_NEWNS:
            raise UnsupportedError(
                "linux.namespaces: a container without a mount namespace of its own",
                'add {"type": "mount"} to linux.namespaces',
            )
        self.root_propagation = _PROPAGATION[linux.get("rootfsPropagation", "")]
        self.read_only_root = config.get("root", {}).get("readonly", False)
        self.operations = self._operations(config, layout)

    def _operations(self, config: "Config", layout: "Layout") -> "list[Operation]":
        linux = config.get("linux", {})
        operations: list[Operation] = []
        late: list[Operation] = []
        made_dev = False
        for index, entry in enumerate(config.get("mounts", [])):
            if entry.get("type") in {"cgroup", "cgroup2"}:
                operations.append(CgroupMount(entry, layout, namespaced=self.new_cgroup_namespace))
                continue
            operation = MountOperation(entry, f"mounts[{index}]")
            if entry["destination"].rstrip("/") == "/dev" and not operation.options.bind:
                made_dev = True
                if operation.options.set_attributes & mount.MOUNT_ATTR_RDONLY:
                    # Its nodes have to be made first.
                    operation.options.set_attributes &= ~mount.MOUNT_ATTR_RDONLY
                    late.append(ReadOnlyMount("/dev"))
            operations.append(operation)
        # A /dev that is the host's, or the image's own, is left alone, as runc does.
        if made_dev:
            in_user_namespace = bool(self.clone_flags & CLONE_NEWUSER) or any(
                kind == "user" for kind, _ in self.joins
            )
            operations.append(MakeDevices(linux.get("devices", []), bind=in_user_namespace))
            operations.append(MakeDeviceLinks())
        late += [WriteSysctl(name, value) for name, value in linux.get("sysctl", {}).items()]
        late += [ReadOnlyPath(path) for path in linux.get("readonlyPaths", [])]
        late += [MaskPath(path) for path in linux.get("maskedPaths", [])]
        return operations + late

    def explain(self) -> list[str]:
        """The whole plan in words, in the order of execution."""
        flags = self.clone_flags | (CLONE_NEWCGROUP if self.new_cgroup_namespace else 0)
        lines = [
            f"{_WORDS[kind]} · clone3(2) CLONE_NEW{_flag_word(kind)}"
            for kind, (flag, _) in KINDS.items()
            if flags & flag
        ]
        lines += [f"join the {kind} namespace {path} · setns(2)" for kind, path in self.joins]
        lines += [step.describe() for step in self.operations]
        return lines


def _flag_word(kind: str) -> str:
    return {"mount": "NS", "network": "NET"}.get(kind, kind.upper())
