"""The container's view of its control groups: the mount of type ``cgroup`` in a configuration.

On v2 it is one file system. On v1 it is a tmpfs with one mount a hierarchy, laid out as on the
host, links such as ``cpu`` for ``cpu,cpuacct`` included. In a cgroup namespace a new mount shows
the container's own cgroup as its root; without one, the container's part of the host's tree is
bound instead.

Source: cgroup_namespaces(7), runtime-spec config-linux.md "Default Filesystems".
"""

import os

from ketch.linux import beneath, mount
from ketch.linux.libc import AT_FDCWD
from ketch.linux.scopes import ExitStack, owned
from ketch.runtime.mount_options import MountOptions
from ketch.runtime.mounts import place_beneath
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.cgroups.layout import Hierarchy, Layout
    from ketch.spec.runtime import Config, Mount


SYSTEMD_ANNOTATION = "org.ketch.systemd"
"""``true`` has the hierarchies that but track processes writable, whatever mounts say."""


def is_for_systemd(config: "Config") -> bool:
    """Whether the container is to have what systemd needs: where processes are tracked alone."""
    return config.get("annotations", {}).get(SYSTEMD_ANNOTATION) == "true"


class CgroupMount:
    """Mount the control groups as this host has them.

    Args:
        specification: the configuration's entry.
        layout: the host's hierarchies.
        namespaced: whether the container has a cgroup namespace of its own.
        tracking: hierarchies in which the container has a cgroup, of which those that but track
            processes, and v2's, are writable whatever is written of the mount.
    """

    __slots__ = ("destination", "layout", "namespaced", "options", "tracking")

    def __init__(
        self,
        specification: "Mount",
        layout: "Layout",
        *,
        namespaced: bool,
        tracking: "Sequence[Hierarchy]" = (),
    ) -> None:
        self.destination = specification["destination"]
        self.options = MountOptions(specification.get("options", []))
        self.layout = layout
        self.namespaced = namespaced
        self.tracking = tracking

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        how = "fsopen(2)" if self.namespaced else "open_tree(2)"
        at = f".{quote(self.destination)}"
        by_hand = []
        if self.layout.mode == "v2":
            by_hand.append(f"mount -t cgroup2 cgroup2 {at}")
        else:
            by_hand.append(f"mount -t tmpfs -o mode=755 tmpfs {at}")
            for hierarchy in self.layout.hierarchies:
                place = f"{at}/{os.path.basename(hierarchy.mountpoint)}"
                options = f" -o {hierarchy.options}" if hierarchy.options else ""
                kind = hierarchy.filesystem
                by_hand.append(f"mkdir {place} && mount -t {kind}{options} {kind} {place}")
            by_hand += [f"ln -s {link} {at}/{name}" for name, link in self.layout.links().items()]
        return Told(
            "files",
            f"show its control groups ({self.layout.mode}) at {self.destination} · {how}",
            [
                (os.path.basename(hierarchy.mountpoint), hierarchy.options or hierarchy.filesystem)
                for hierarchy in self.layout.hierarchies
            ],
            inside=by_hand,
        )

    def execute(self, root: int) -> None:
        """Mount beneath the container's root; the caller must be in the container's cgroup.

        Raises:
            InvalidArgumentError: its place is the root itself.
            SyscallError: the kernel refused.
        """
        with ExitStack() as stack:
            if self.layout.mode == "v2":
                tree = self._hierarchy(self.layout.hierarchies[0])
                stack.callback(os.close, tree)
                mount.move_mount(tree, self._mount_point(root, stack))
                return
            context = mount.fsopen("tmpfs")
            stack.callback(os.close, context)
            mount.fsconfig(context, "source", "tmpfs")
            mount.fsconfig(context, "mode", "755")
            attributes = self.options.set_attributes
            top = mount.fsmount(context, attributes & ~mount.MOUNT_ATTR_RDONLY)
            stack.callback(os.close, top)
            mount.move_mount(top, self._mount_point(root, stack))
            for hierarchy in self.layout.hierarchies:
                tree = self._hierarchy(hierarchy)
                stack.callback(os.close, tree)
                # Made by us a moment ago in our own tmpfs: nothing can stand in the way.
                name = os.path.basename(hierarchy.mountpoint)
                os.mkdir(name, 0o755, dir_fd=top)
                mount.move_mount(tree, top, name)
            for name, link in self.layout.links().items():
                os.symlink(link, name, dir_fd=top)
            if attributes & mount.MOUNT_ATTR_RDONLY:
                mount.mount_setattr(top, set_attributes=mount.MOUNT_ATTR_RDONLY)

    def _mount_point(self, root: int, stack: ExitStack) -> int:
        target = beneath.make_directories(root, self.destination)
        stack.callback(os.close, target)
        place_beneath(root, target, "mounts", self.destination)
        return target

    def _hierarchy(self, hierarchy: "Hierarchy") -> int:
        """Returns a detached mount of one hierarchy, as the container is to see it."""
        attributes = self.options.set_attributes
        if hierarchy in self.tracking and hierarchy.tracks:
            attributes &= ~mount.MOUNT_ATTR_RDONLY
        if not self.namespaced:
            own = _own_cgroup(hierarchy)
            tree = mount.open_tree(AT_FDCWD, hierarchy.mountpoint + own, mount.OPEN_TREE_CLONE)
            # What is mounted on it later must not appear in the host's.
            mount.mount_setattr(tree, set_attributes=attributes, propagation=mount.MS_PRIVATE)
            return tree
        with owned(mount.fsopen(hierarchy.filesystem)) as context:
            mount.fsconfig(context, "source", hierarchy.filesystem)
            for option in filter(None, hierarchy.options.split(",")):
                key, equals, value = option.partition("=")
                mount.fsconfig(context, key, value if equals else None)
            return mount.fsmount(context, attributes)


def _own_cgroup(hierarchy: "Hierarchy") -> str:
    """The caller's cgroup in a hierarchy, as it is now."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if tuple(filter(None, controllers.split(","))) == (
                hierarchy.controllers if hierarchy.version == 1 else ()
            ):
                return path
    return ""
