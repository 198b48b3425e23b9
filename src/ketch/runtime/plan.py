"""From a configuration to what will be done: pure code, decided before anything happens.

A plan is a list of operations in the order in which they are executed. Each says in words what it
does, with the system call behind it, so that what is explained is what is done.
"""

import os

from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.linux import mount
from ketch.linux.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    KINDS,
)
from ketch.runtime.cgroup_mount import CgroupMount, is_for_systemd
from ketch.runtime.filesystem import (
    MakeDeviceLinks,
    MakeDevices,
    MaskPath,
    ReadOnlyMount,
    ReadOnlyPath,
    WriteSysctl,
)
from ketch.runtime.mounts import MountOperation
from ketch.runtime.steps import SetDomainName, SetHostName, SwitchLoopbackOn
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ketch.cgroups.layout import Layout
    from ketch.runtime.steps import Step
    from ketch.spec.runtime import Config, Device, IdMapping, Mount, TimeOffset

    class Operation(Protocol):
        """Something that init does to the container's file system."""

        def describe(self) -> Told:
            """What the step does."""

        def execute(self, root: int) -> None:
            """Do it, beneath the descriptor of the container's root."""


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
        config: the configuration.
        clone_flags: the namespaces that init is born into.
        new_cgroup_namespace: whether init makes a cgroup namespace, once it is in its cgroup.
        joins: ``(kind, path)`` of the namespaces that are joined.
        joins_mounts: whether a mount namespace is among them, in which paths then are looked up.
        in_user_namespace: whether the container has, or joins, a user namespace.
        id_maps: ``(uids, gids)`` of a new user namespace.
        time_offsets: ``linux.timeOffsets``.
        crosses: whether init is cloned by a process in between.
        propagation: ``linux.rootfsPropagation``.
        steps: what init does to its namespaces.
        operations: what init does to its file systems, in order.
        closing: what it does to them after the hooks.
        read_only_root: whether the root is made read-only at the end.
        hooked: whether hooks run while the container is made.
        warnings: what of the configuration will have no effect.
        visit: what the parent does in init's network namespace while init mounts: switching an
            interface on takes the kernel a millisecond and more.
    """

    __slots__ = (
        "clone_flags",
        "closing",
        "config",
        "crosses",
        "hooked",
        "id_maps",
        "in_user_namespace",
        "joins",
        "joins_mounts",
        "new_cgroup_namespace",
        "operations",
        "propagation",
        "read_only_root",
        "steps",
        "time_offsets",
        "visit",
        "warnings",
    )

    def __init__(self, config: "Config", layout: "Layout | None", bundle: str) -> None:
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
        joined = {kind for kind, _ in self.joins}
        self.joins_mounts = "mount" in joined
        if not self.clone_flags & CLONE_NEWNS and not self.joins_mounts:
            raise UnsupportedError(
                "linux.namespaces: a container that shares the caller's mount namespace",
                'add {"type": "mount"} to linux.namespaces, or what is mounted for the container '
                "stays on the host",
            )
        new_user = bool(self.clone_flags & CLONE_NEWUSER)
        self.in_user_namespace = new_user or "user" in joined
        self.id_maps: tuple[list[IdMapping], list[IdMapping]] = (
            linux.get("uidMappings") or [],
            linux.get("gidMappings") or [],
        )
        self.time_offsets: dict[str, TimeOffset] = linux.get("timeOffsets") or {}
        # In a new user namespace init has no privileges left to join what belongs to the host's.
        self.crosses = bool(joined & {"user", "pid"} or self.time_offsets or (new_user and joined))
        self.propagation = linux.get("rootfsPropagation", "")
        self.read_only_root = config.get("root", {}).get("readonly", False)
        hooks = config.get("hooks", {})
        self.hooked = bool(
            hooks.get("prestart") or hooks.get("createRuntime") or hooks.get("createContainer")
        )
        self.steps = self._steps(config)
        self.visit: Step | None = None
        if self.clone_flags & CLONE_NEWNET and not self.in_user_namespace:
            self.visit = SwitchLoopbackOn()
        self.operations: list[Operation] = []
        self.closing: list[Operation] = []
        self.warnings: list[str] = []
        if "user" in joined and any(self.id_maps):
            self.warnings.append(
                "linux.uidMappings, linux.gidMappings: those of the joined user namespace count"
            )
        self._lay_out(config, layout, bundle)

    def _steps(self, config: "Config") -> "list[Step]":
        steps: list[Step] = []
        if self.clone_flags & CLONE_NEWNET and self.in_user_namespace:
            steps.append(SwitchLoopbackOn())
        if name := config.get("hostname"):
            steps.append(SetHostName(name))
        if name := config.get("domainname"):
            steps.append(SetDomainName(name))
        return steps

    def _lay_out(self, config: "Config", layout: "Layout | None", bundle: str) -> None:
        linux = config.get("linux", {})
        rootfs = os.path.normpath(os.path.join(bundle, config["root"]["path"]))
        label = linux.get("mountLabel", "")
        if label:
            from ketch.runtime import tuning  # noqa: PLC0415 wanted by few

            tuning.require_selinux("linux.mountLabel")
        made_dev = False
        made: list[str] = []
        for index, given in enumerate(config.get("mounts", [])):
            # Some callers name a mount point by its path on the host, which runc strips.
            place = beneath(given["destination"], rootfs)
            entry: Mount = {**given, "destination": place}
            if entry.get("type") in {"cgroup", "cgroup2"} and layout is not None:
                if not layout.shown.hierarchies:
                    continue
                namespaced = self.new_cgroup_namespace
                tracking = layout.hierarchies if is_for_systemd(config) else []
                if is_for_systemd(config) and not any(h.tracks for h in tracking):
                    self.warnings.append(
                        "systemd will not boot: no control group of its own is to be had here, "
                        "since none is delegated to this user"
                    )
                self.operations.append(
                    CgroupMount(entry, layout.shown, namespaced=namespaced, tracking=tracking)
                )
                made.append(place)
                continue
            operation = MountOperation(entry, f"mounts[{index}]", label)
            if operation.warning:
                self.warnings.append(operation.warning)
            if operation.options.bind:
                self._place_source(operation, bundle, rootfs, made)
            made.append(place)
            if place == "/dev" and not operation.options.bind:
                made_dev = True
                if operation.options.set_attributes & mount.MOUNT_ATTR_RDONLY:
                    # Its nodes have to be made first.
                    operation.options.set_attributes &= ~mount.MOUNT_ATTR_RDONLY
                    self.closing.append(ReadOnlyMount("/dev"))
            self.operations.append(operation)
        # A /dev that is the host's, or the image's own, is left alone, as runc does.
        if made_dev:
            devices: list[Device] = [
                {**device, "path": os.path.normpath(device["path"])}
                for device in linux.get("devices") or []
            ]
            self.operations.append(MakeDevices(devices, bind=self.in_user_namespace))
            self.operations.append(MakeDeviceLinks())
        sysctls = linux.get("sysctl") or {}
        self.closing += [WriteSysctl(name, value) for name, value in sysctls.items()]
        self._cover(_once(linux.get("readonlyPaths") or []), _once(linux.get("maskedPaths") or []))

    def _cover(self, read_only: list[str], masked: list[str]) -> None:
        for path in read_only:
            if _clean(path) == "/":
                self.read_only_root = True
            else:
                self.closing.append(ReadOnlyPath(path))
        for path in masked:
            if _clean(path) == "/":
                raise InvalidArgumentError(f"linux.maskedPaths: {path} is the container's root")
            self.closing.append(MaskPath(path))

    def _place_source(
        self, bind: MountOperation, bundle: str, rootfs: str, made: list[str]
    ) -> None:
        """Say where a bind's source is, and how far it stays with its host's mount.

        Args:
            bind: the operation.
            bundle: what a relative source begins at.
            rootfs: where the root file system is.
            made: the mount points of the operations before it.
        """
        bind.source = os.path.join(bundle, bind.source)
        source = _clean(bind.source)
        if source.startswith(f"{rootfs.rstrip('/')}/") and rootfs != "/":
            inside = beneath(source, rootfs)
            bind.inside = inside
            bind.is_late = any(f"{inside}/".startswith(f"{place}/") for place in made)
        options = bind.options
        if self.in_user_namespace:
            options.keep_locked()
        # As a namespace with ids of its own has all its mounts from the kernel: slaves, whatever
        # the configuration says. Else who asks twice for a place in the host's group has it.
        asked = any(kind == mount.MS_SHARED for kind, _ in options.propagation)
        if asked and self.propagation in {"shared", "rshared"} and not self.in_user_namespace:
            bind.apart = 0
        elif self.propagation and self.propagation not in {"shared", "rshared", "slave", "rslave"}:
            bind.apart = mount.MS_PRIVATE

    def early_binds(self, *, privileged: bool) -> list[MountOperation]:
        """The binds whose sources the parent has to open.

        Those with mapped ids, which init may not ask for, and in a user namespace all: its root
        may not even reach them; and those whose sources are held open, which belong to the parent's
        mount namespace. Without privileges the parent can do no better than init, and no better
        than it where the source is in what is mounted by then.

        Args:
            privileged: whether the parent may clone mounts.
        """
        binds = [
            operation
            for operation in self.operations
            if isinstance(operation, MountOperation) and operation.options.bind
        ]
        return [
            bind
            for bind in binds
            if bind.options.id_map
            or bind.is_held
            or (self.in_user_namespace and privileged and not bind.is_late)
        ]

    def explain_birth(self) -> list[Told]:
        """The namespaces that init is born into, but for those that are joined."""
        # See namespaces.cross for these two.
        unshared = {"user"} if self.crosses else set()
        unshared |= {"time"} if self.time_offsets else set()
        return [
            explain_namespace(kind, "unshare(2)" if kind in unshared else "clone3(2)")
            for kind, (flag, _) in KINDS.items()
            if self.clone_flags & flag
        ]


def beneath(path: str, rootfs: str) -> str:
    """A path in the container, given with or without the path of its root on the host.

    Args:
        path: the path.
        rootfs: absolute path of the root file system on the host.

    Returns:
        It from the container's root on, without ``.``, ``..`` and slashes that say nothing.
    """
    clean = _clean(path if path.startswith("/") else f"/{path}")
    if rootfs != "/" and f"{clean}/".startswith(f"{rootfs}/"):
        return clean[len(rootfs) :] or "/"
    return clean


def _once(paths: list[str]) -> list[str]:
    """The paths, each named once, however it is spelt."""
    # Where a symlink goes before "..", text does not tell.
    return list(dict.fromkeys(path if "/.." in path else _clean(path) for path in paths))


def _clean(path: str) -> str:
    """An absolute path without ``.``, ``..`` and slashes that say nothing, as most are."""
    if "/." in path or "//" in path or path[-1] == "/":
        return os.path.normpath(path).replace("//", "/")
    return path


def explain_namespace(kind: str, call: str) -> Told:
    """What a new namespace of a kind is for, and the call that makes it."""
    word = {"mount": "NS", "network": "NET"}.get(kind, kind.upper())
    by_hand = f"unshare --{'net' if kind == 'network' else kind}"
    return Told("namespaces", f"{_WORDS[kind]} · {call} CLONE_NEW{word}", outside=[by_hand])
