"""A configuration's mounts: what their options mean, and how each comes to its place.

Options are turned into attributes and file system parameters by pure code. A mount is then built
detached (fsopen(2) or open_tree(2)) and attached to the *descriptor* of its mount point, which was
found beneath the container's root: no path is resolved twice, so nothing can be exchanged between
a check and its use (CVE-2021-30465, CVE-2023-27561).
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError, SyscallError, UnsupportedError
from ketch.linux import beneath, mount, statfs
from ketch.linux.libc import AT_FDCWD, AT_RECURSIVE
from ketch.linux.scopes import ExitStack, owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.spec.runtime import Mount

# Option: (attributes set, attributes cleared). mount(8), mount_setattr(2).
_ATTRIBUTES = {
    "ro": (mount.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mount.MOUNT_ATTR_RDONLY),
    "nosuid": (mount.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mount.MOUNT_ATTR_NOSUID),
    "nodev": (mount.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mount.MOUNT_ATTR_NODEV),
    "noexec": (mount.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mount.MOUNT_ATTR_NOEXEC),
    "noatime": (mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR__ATIME),
    "atime": (0, mount.MOUNT_ATTR__ATIME),
    "relatime": (mount.MOUNT_ATTR_RELATIME, mount.MOUNT_ATTR__ATIME),
    "norelatime": (mount.MOUNT_ATTR_RELATIME, mount.MOUNT_ATTR__ATIME),  # the kernel's default
    "strictatime": (mount.MOUNT_ATTR_STRICTATIME, mount.MOUNT_ATTR__ATIME),
    "nostrictatime": (mount.MOUNT_ATTR_RELATIME, mount.MOUNT_ATTR__ATIME),
    "nodiratime": (mount.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, mount.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, mount.MOUNT_ATTR_NOSYMFOLLOW),
}
_PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "unbindable": mount.MS_UNBINDABLE,
}
# What lxcfs and checkpoint/restore cover inside /proc, as runc lets them.
_COVERABLE = frozenset({
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
    "/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
})  # fmt: skip
# No-ops of mount(8) that callers write down all the same.
_IGNORED = frozenset(
    {"defaults", "nobind", "silent", "loud", "iversion", "noiversion", "acl", "noacl"}
)
# Options of a file system as a whole, which a bind of a part of it cannot change.
_OF_SUPERBLOCK = frozenset({"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"})
# Made with the kernel's own labels, or with none.
_UNLABELLED = frozenset({"proc", "sysfs"})
_HELD = "/proc/self/fd/"
_OWNED_BY = {"proc": "PID", "sysfs": "network", "mqueue": "IPC", "cgroup": "cgroup"}


class MountOptions:
    """A mount's options, told apart.

    Attributes:
        bind: whether it binds a path instead of making a file system.
        recursive_bind: whether mounts below the bound path come along.
        set_attributes: ``MOUNT_ATTR_*`` of this mount to set.
        clear_attributes: those to clear.
        set_recursive: those to set on it and all mounts below.
        clear_recursive: those to clear there.
        propagation: ``(MS_* type, recursive)`` changes, in order.
        data: the file system's own parameters, ``key`` or ``key=value``.
        copy_up: what has a tmpfs begin with what it covers (``tmpcopyup``), or None.
        id_map: whether ids are mapped on the way; ``idmap``, or ``ridmap`` for mounts below too.
        remount: whether the mount that is there already is to be changed.
    """

    __slots__ = (
        "bind",
        "clear_attributes",
        "clear_recursive",
        "copy_up",
        "data",
        "id_map",
        "propagation",
        "recursive_bind",
        "remount",
        "set_attributes",
        "set_recursive",
    )

    def __init__(self, options: list[str]) -> None:
        self.bind = self.recursive_bind = self.remount = False
        self.copy_up: Callable[[int, int], None] | None = None
        self.id_map = ""
        self.set_attributes = self.clear_attributes = 0
        self.set_recursive = self.clear_recursive = 0
        self.propagation: list[tuple[int, bool]] = []
        self.data: list[str] = []
        for option in options:
            self._take(option)
        if self.bind:
            self.data = [option for option in self.data if option not in _OF_SUPERBLOCK]

    def _take(self, option: str) -> None:
        if option in {"bind", "rbind"}:
            self.bind = True
            self.recursive_bind |= option == "rbind"
        elif option in _ATTRIBUTES:
            change = _ATTRIBUTES[option]
            self.set_attributes, self.clear_attributes = _merge(
                self.set_attributes, self.clear_attributes, change
            )
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            change = _ATTRIBUTES[option[1:]]
            self.set_recursive, self.clear_recursive = _merge(
                self.set_recursive, self.clear_recursive, change
            )
        elif option in _PROPAGATION:
            self.propagation.append((_PROPAGATION[option], False))
        elif option[:1] == "r" and option[1:] in _PROPAGATION:
            self.propagation.append((_PROPAGATION[option[1:]], True))
        elif option == "tmpcopyup":
            # Here, since init, which copies, has nowhere to load it from.
            from ketch.linux.copytree import copy_tree  # noqa: PLC0415 - few ask for it

            self.copy_up = copy_tree
        elif option in {"idmap", "ridmap"}:
            self.id_map = option
        elif option == "remount":
            self.remount = True
        elif option not in _IGNORED:
            self.data.append(option)


def _merge(to_set: int, to_clear: int, change: tuple[int, int]) -> tuple[int, int]:
    """Apply one option after others: the last one to name an attribute wins."""
    adds, removes = change
    return (to_set & ~removes) | adds, (to_clear | removes) & ~(adds & ~mount.MOUNT_ATTR__ATIME)


class MountOperation:
    """One mount of the configuration, ready to be made.

    Args:
        specification: the entry of ``mounts``.
        where: the entry's name in errors, such as ``mounts[3]``.
        label: the SELinux context of what file systems made here hold, or empty.

    Attributes:
        warning: what of it will have no effect, or empty.
    """

    __slots__ = (
        "_prepared",
        "destination",
        "label",
        "mappings",
        "options",
        "source",
        "type",
        "warning",
        "where",
    )

    def __init__(self, specification: "Mount", where: str, label: str = "") -> None:
        self.destination = specification["destination"]
        self.source = specification.get("source", "")
        self.type = specification.get("type", "")
        self.options = MountOptions(specification.get("options", []))
        self.where = where
        self.label = label
        self.mappings = (
            specification.get("uidMappings") or [],
            specification.get("gidMappings") or [],
        )
        self._prepared: int | None = None
        options = self.options
        if self.mappings[0] and not options.id_map:
            options.id_map = "idmap"
        if self.type == "bind" and not options.bind:
            options.bind = options.recursive_bind = True
        self.warning = ""
        if options.bind and options.data:
            # mount(2) takes no file system's own options with a bind, and runc tells nobody.
            unknown = ", ".join(options.data)
            self.warning = f"{where}.options: mean nothing to a bind mount: {unknown}"
        elif options.remount and options.data:
            unknown = ", ".join(options.data)
            raise InvalidArgumentError(f"{where}.options: unknown for a remounted mount: {unknown}")
        elif not (options.bind or options.remount or self.type):
            raise InvalidArgumentError(f"{where}.type: missing, and it is not a bind mount")

    @property
    def is_held(self) -> bool:
        """Whether the source is a file or a tree that the caller holds open."""
        return self.source.startswith(_HELD)

    def describe(self) -> str:
        """What the operation does, in words, with its system call."""
        options = self.options
        if options.remount:
            return f"change the mount {self.destination} · mount_setattr(2)"
        if options.bind:
            mapped = ", ids mapped," if options.id_map else ""
            calls = "open_tree(2) OPEN_TREE_CLONE, " + (
                "mount_setattr(2) MOUNT_ATTR_IDMAP, " if mapped else ""
            )
            return f"bind {self.source}{mapped} to {self.destination} · {calls}move_mount(2)"
        return f"mount {self.type} on {self.destination} · fsopen(2), fsmount(2), move_mount(2)"

    def prepare(self, user_namespace: int | None = None) -> int:
        """Take a bind's source while it is in reach, before the container's init is made.

        Args:
            user_namespace: descriptor of the namespace whose maps ``idmap`` applies, or None.

        Returns:
            The detached mount's descriptor, which the caller closes once init has its copy.

        Raises:
            InvalidArgumentError: there is no such source.
            UnsupportedError: its file system cannot map ids.
        """
        try:
            tree = self._bound()
        except SyscallError as error:
            raise self._refused(error) from error
        try:
            if user_namespace is not None:
                mount.mount_setattr(
                    tree,
                    set_attributes=mount.MOUNT_ATTR_IDMAP,
                    user_namespace=user_namespace,
                    recursive=self.options.id_map == "ridmap",
                )
        except SyscallError as error:
            os.close(tree)
            raise UnsupportedError(
                f"{self.where}: ids of {self.source} cannot be mapped: "
                f"{os.strerror(error.errno or 0).lower()}",
                "the file system must support it (ext4, xfs, btrfs, tmpfs since Linux 6.3...), and "
                "mapping needs the file system's own CAP_SYS_ADMIN",
            ) from error
        self._prepared = tree
        return tree

    def execute(self, root: int) -> None:
        """Build the mount and attach it beneath the root.

        Args:
            root: descriptor of the container's root directory.

        Raises:
            InvalidArgumentError: the source of a bind does not exist, an option is unknown to the
                file system, or the kernel refuses the mount.
        """
        try:
            if self.options.remount:
                self._remount(root)
            else:
                self._attach(root)
        except OSError as error:
            raise self._refused(error) from error

    def _attach(self, root: int) -> None:
        with ExitStack() as stack:
            own = self._prepared
            if own is None:
                own = self._bound() if self.options.bind else self._made(root)
            stack.callback(os.close, own)
            directory = stat.S_ISDIR(os.fstat(own).st_mode)
            target = self._mount_point(root, directory)
            stack.callback(os.close, target)
            self._spare_procfs(root, target, own)
            if self.options.copy_up:
                self.options.copy_up(target, own)
            mount.move_mount(own, target)
            for kind, recursive in self.options.propagation:
                mount.mount_setattr(own, propagation=kind, recursive=recursive)

    def _remount(self, root: int) -> None:
        with owned(beneath.open_path(root, self.destination)) as target:
            self._change_attributes(target)
            for kind, recursive in self.options.propagation:
                mount.mount_setattr(target, propagation=kind, recursive=recursive)

    def _refused(self, error: OSError) -> InvalidArgumentError:
        hint = ""
        if isinstance(error, PermissionError) and not isinstance(error, SyscallError):
            hint = "in a user namespace its root must own the image's files to add mount points"
        elif error.errno == errno.EPERM and self.type in _OWNED_BY:
            hint = (
                f"in a user namespace {self.type} needs the container's own {_OWNED_BY[self.type]} "
                "namespace, and nothing hidden in the host's: bind the host's instead"
            )
        return InvalidArgumentError(f"{self.where}: {self.destination}: {error}", hint)

    def _mount_point(self, root: int, directory: bool) -> int:
        # A symlink at /proc or /sys could make a procfs appear elsewhere and leave the paths that
        # are masked later pointing at nothing: CVE-2019-19921.
        if self.type in {"proc", "sysfs"}:
            try:
                return beneath.open_path(root, self.destination, follow=False)
            except FileNotFoundError:
                pass
            except SyscallError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise InvalidArgumentError(
                    f"{self.where}.destination: {self.destination} leads through a symlink, "
                    f"which {self.type} must not",
                    "remove the symlink from the image",
                ) from error
        if directory:
            return beneath.make_directories(root, self.destination)
        target = beneath.make_file(root, self.destination)
        if stat.S_ISDIR(os.fstat(target).st_mode):
            os.close(target)
            raise InvalidArgumentError(
                f"{self.where}: {self.destination} is a directory, and {self.source} is none",
                "name the file that it is to be mounted on",
            )
        return target

    def _spare_procfs(self, root: int, target: int, own: int) -> None:
        """Refuse to cover procfs, where labels are asked for and paths are masked.

        What runc refuses, and by the place that was found, since a symlink may lead there:
        CVE-2019-16884, CVE-2019-19921.
        """
        top, place = (os.readlink(f"/proc/self/fd/{number}") for number in (root, target))
        inside = place.removeprefix(top.rstrip("/"))
        if not f"{inside}/".startswith("/proc/") or inside in _COVERABLE:
            return
        if inside == "/proc" and statfs.kind(own) == statfs.PROC_SUPER_MAGIC:
            return
        raise InvalidArgumentError(
            f"{self.where}.destination: {self.destination} cannot be mounted over, because it is "
            "inside /proc",
            "mount it elsewhere",
        )

    def _bound(self) -> int:
        flags = mount.OPEN_TREE_CLONE | (AT_RECURSIVE if self.options.recursive_bind else 0)
        try:
            tree = mount.open_tree(AT_FDCWD, self.source, flags)
        except FileNotFoundError as error:
            raise InvalidArgumentError(
                f"{self.where}.source: {self.source} does not exist", "make it, or mend the path"
            ) from error
        except SyscallError as error:
            if error.errno != errno.EINVAL or not self.is_held:
                raise
            # Before Linux 6.15 a detached tree cannot be cloned. This one is nobody else's.
            tree = os.dup(int(self.source.removeprefix(_HELD)))
        self._change_attributes(tree)
        return tree

    def _made(self, root: int) -> int:
        try:
            context = mount.fsopen(self.type)
        except SyscallError as error:
            if error.errno == errno.ENODEV:
                raise UnsupportedError(
                    f"{self.where}.type: this kernel has no file system {self.type}"
                ) from error
            raise
        with owned(context):
            if self.source:
                mount.fsconfig(context, "source", self.source)
            for option in [*self._covered_mode(root), *self.options.data]:
                key, equals, value = option.partition("=")
                mount.fsconfig(context, key, value if equals else None)
            if self.label and self.type not in _UNLABELLED:
                mount.fsconfig(context, "context", self.label)
            made = mount.fsmount(context, self.options.set_attributes)
        if self.options.set_recursive or self.options.clear_recursive:
            self._change_attributes(made)
        return made

    def _covered_mode(self, root: int) -> list[str]:
        """A tmpfs takes the mode of what it covers, where no other is given: runc's way."""
        if self.type != "tmpfs" or any(option.startswith("mode=") for option in self.options.data):
            return []
        try:
            covered = beneath.open_path(root, self.destination)
        except FileNotFoundError:
            return []
        with owned(covered):
            return [f"mode={stat.S_IMODE(os.fstat(covered).st_mode):o}"]

    def _change_attributes(self, tree: int) -> None:
        options = self.options
        if options.set_attributes or options.clear_attributes:
            mount.mount_setattr(
                tree,
                set_attributes=options.set_attributes,
                clear_attributes=options.clear_attributes,
            )
        if options.set_recursive or options.clear_recursive:
            mount.mount_setattr(
                tree,
                set_attributes=options.set_recursive,
                clear_attributes=options.clear_recursive,
                recursive=True,
            )
