"""A configuration's mounts: what their options mean, and how each comes to its place.

What their options mean, ``mount_options`` says. A mount is built detached (fsopen(2) or
open_tree(2)) and attached to the *descriptor* of its mount point, which was found beneath the
container's root: no path is resolved twice, so nothing can be exchanged between a check and its
use (CVE-2021-30465, CVE-2023-27561).
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError, SyscallError, UnsupportedError, in_words
from ketch.linux import beneath, mount, statfs
from ketch.linux.libc import AT_FDCWD, AT_RECURSIVE
from ketch.linux.scopes import ExitStack, owned
from ketch.runtime.mount_options import MountOptions
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Mount

# What lxcfs and checkpoint/restore cover inside /proc, as runc lets them.
_COVERABLE = frozenset({
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
    "/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
})  # fmt: skip
# Made with the kernel's own labels, or with none.
_UNLABELLED = frozenset({"proc", "sysfs"})
_HELD = "/proc/self/fd/"
_TMPFS_MODE = 0o1777  # the kernel's, where nothing is covered
UNHIDDEN = "--security-opt systempaths=unconfined, or podman's unmask=ALL"
"""How whoever makes a container leaves its /proc as it is."""

_OWNED_BY = {"proc": "PID", "sysfs": "network", "mqueue": "IPC", "cgroup": "cgroup"}


class MountOperation:
    """One mount of the configuration, ready to be made.

    Args:
        specification: the entry of ``mounts``.
        where: the entry's name in errors, such as ``mounts[3]``.
        label: the SELinux context of what file systems made here hold, or empty.

    Attributes:
        apart: how a bind leaves the peer group of its source: ``MS_SLAVE``, ``MS_PRIVATE``, or 0
            to stay in it.
        inside: where its source is beneath the container's root, or empty where it is elsewhere.
        is_late: whether that is in what an earlier mount brings.
        warning: what of it will have no effect, or empty.
    """

    __slots__ = (
        "_prepared",
        "apart",
        "destination",
        "inside",
        "is_late",
        "label",
        "mappings",
        "options",
        "shown",
        "source",
        "type",
        "warning",
        "where",
    )

    def __init__(self, specification: "Mount", where: str, label: str = "") -> None:
        self.destination = specification["destination"]
        self.source = specification.get("source", "")
        self.shown = specification.get("shown") or self.source
        self.type = specification.get("type", "")
        self.options = MountOptions(specification.get("options", []), is_bind=self.type == "bind")
        self.where = where
        self.label = label
        self.apart = mount.MS_SLAVE
        self.inside = ""
        self.is_late = False
        self.mappings = (
            specification.get("uidMappings") or [],
            specification.get("gidMappings") or [],
        )
        self._prepared: int | None = None
        options = self.options
        if self.mappings[0] and not options.id_map:
            options.id_map = "idmap"
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

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        options = self.options
        if options.remount:
            return Told("files", f"change the mount {self.destination} · mount_setattr(2)")
        if options.bind:
            mapped = ", ids mapped," if options.id_map else ""
            calls = "open_tree(2) OPEN_TREE_CLONE, " + (
                "mount_setattr(2) MOUNT_ATTR_IDMAP, " if mapped else ""
            )
            words = options.restrictions()
            if words and not mapped:
                calls += "mount_setattr(2), "
            to = ", ".join([self.destination, *words])
            return Told(
                "files",
                f"bind {self.shown}{mapped} to {to} · {calls}move_mount(2)",
                inside=self._bind_by_hand(),
            )
        read_only = ", read-only" if "read-only" in options.restrictions() else ""
        calls = "fsopen(2), fsmount(2), move_mount(2)"
        return Told(
            "files",
            f"mount {self.type} on {self.destination}{read_only} · {calls}",
            [option.partition("=")[::2] for option in options.data],
            inside=self._mount_by_hand(),
        )

    def _bind_by_hand(self) -> list[str]:
        """Commands that bind as the operation does; without ids that are mapped."""
        source, at = quote(self.shown), f".{quote(self.destination)}"
        recursive = "--rbind" if self.options.recursive_bind else "--bind"
        commands = [
            f"if [ -d {source} ]; then mkdir -p {at}",
            f"else mkdir -p $(dirname {at}); touch {at}; fi",
            f"mount {recursive} {source} {at}",
        ]
        if words := self.options.restrictions():
            restricted = ",".join("ro" if word == "read-only" else word for word in words)
            commands.append(f"mount -o remount,bind,{restricted} {at}")
        return commands

    def _mount_by_hand(self) -> list[str]:
        """Commands that mount a new file system as the operation does."""
        at = f".{quote(self.destination)}"
        words = ["ro" if word == "read-only" else word for word in self.options.restrictions()]
        chosen = ",".join([*words, *self.options.data])
        options = f" -o {quote(chosen)}" if chosen else ""
        source = quote(self.source or self.type)
        return [f"mkdir -p {at}", f"mount -t {self.type}{options} {source} {at}"]

    def prepare(self, user_namespace: int | None = None) -> int | None:
        """Take a bind's source while it is in reach, before the container's init is made.

        Args:
            user_namespace: descriptor of the namespace whose maps ``idmap`` applies, or None.

        Returns:
            The detached mount's descriptor, which the caller closes once init has its copy; None
            where the source is beneath the root and only earlier mounts will bring it there.

        Raises:
            InvalidArgumentError: there is no such source.
            UnsupportedError: its file system cannot map ids.
        """
        try:
            tree = self._bound_by_parent()
        except FileNotFoundError as error:
            if self.inside and not self.options.id_map:
                return None
            raise self._without_source() from error
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
                f"{self.where}: ids of {self.shown} cannot be mapped: "
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
                own = self._bound_by_init(root) if self.options.bind else self._made(root)
            stack.callback(os.close, own)
            directory = stat.S_ISDIR(os.fstat(own).st_mode)
            target = self._mount_point(root, directory)
            stack.callback(os.close, target)
            self._check_place(root, target, own)
            if self.options.copy_up:
                self.options.copy_up(target, own)
                self._change_attributes(own)
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
                "namespace, and nothing hidden in the host's: bind that instead; in a container, "
                f"have it made with nothing hidden: {UNHIDDEN}"
            )
        return InvalidArgumentError(f"{self.where}: {self.destination}: {in_words(error)}", hint)

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
            return beneath.make_directories(root, self.destination, self._mode_to_make(root))
        target = beneath.make_file(root, self.destination)
        if stat.S_ISDIR(os.fstat(target).st_mode):
            os.close(target)
            raise InvalidArgumentError(
                f"{self.where}: {self.destination} is a directory, and {self.shown} is none",
                "name the file that it is to be mounted on",
            )
        return target

    def _check_place(self, root: int, target: int, own: int) -> None:
        """Refuse to cover procfs, where labels are asked for and paths are masked, and the root.

        What runc refuses, and by the place that was found, since a symlink may lead there:
        CVE-2019-16884, CVE-2019-19921.
        """
        inside = place_beneath(root, target, f"{self.where}.destination", self.destination)
        if not f"{inside}/".startswith("/proc/") or inside in _COVERABLE:
            return
        if inside == "/proc" and statfs.kind(own) == statfs.PROC_SUPER_MAGIC:
            return
        raise InvalidArgumentError(
            f"{self.where}.destination: {self.destination} cannot be mounted over, because it is "
            "inside /proc",
            "mount it elsewhere",
        )

    def _bound_by_parent(self) -> int:
        if not self.inside:
            return self._bound()
        # Beneath the root here as well: a symlink there is the image's.
        path = os.path.normpath(self.source).removesuffix(self.inside)
        with (
            owned(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root,
            owned(beneath.open_path(root, self.inside)) as place,
        ):
            return self._bound(place, "")

    def _bound_by_init(self, root: int) -> int:
        try:
            if not self.inside:
                return self._bound()
            # Its place in the tree as it is by now, however little of the way there init may go.
            with owned(beneath.open_path(root, self.inside)) as place:
                return self._bound(place, "")
        except FileNotFoundError as error:
            raise self._without_source() from error

    def _without_source(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.where}.source: {self.shown} does not exist", "make it, or mend the path"
        )

    def _bound(self, directory: int = AT_FDCWD, path: str | None = None) -> int:
        flags = mount.OPEN_TREE_CLONE | (AT_RECURSIVE if self.options.recursive_bind else 0)
        try:
            tree = mount.open_tree(directory, self.source if path is None else path, flags)
        except SyscallError as error:
            if error.errno != errno.EINVAL or not self.is_held:
                raise
            # Before Linux 6.15 a detached tree cannot be cloned. This one is nobody else's.
            tree = os.dup(int(self.source.removeprefix(_HELD)))
        # First of all: what is mounted on a peer of the host's mount appears on the host, and
        # what is unmounted goes from there.
        if self.apart:
            mount.mount_setattr(tree, propagation=self.apart, recursive=True)
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
            if self.options.copy_up:  # written to first, and then made what it should be
                return mount.fsmount(context)
            made = mount.fsmount(context, self.options.set_attributes)
        if self.options.set_recursive or self.options.clear_recursive:
            self._change_attributes(made)
        return made

    def _mode_to_make(self, root: int) -> int:
        """The mode of a mount point that is missing; its parents are there, or are made here.

        A tmpfs's takes its own, so that the next one has it from there, at the next start; but not
        where it would be the host's directory, or a volume's, that all can write to.
        """
        if not self._takes_mode():
            return 0o755
        parent = os.path.dirname(os.path.normpath(self.destination))
        with owned(beneath.make_directories(root, parent)) as directory:
            own = os.fstat(directory).st_dev == os.fstat(root).st_dev
        return _TMPFS_MODE if own else 0o755

    def _takes_mode(self) -> bool:
        """Whether it is a tmpfs for which no mode is given."""
        return self.type == "tmpfs" and not any(
            option.startswith("mode=") for option in self.options.data
        )

    def _covered_mode(self, root: int) -> list[str]:
        """A tmpfs takes the mode of what it covers, where no other is given: runc's way."""
        if not self._takes_mode():
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
            try:
                mount.mount_setattr(
                    tree,
                    set_attributes=options.set_attributes,
                    clear_attributes=options.clear_attributes,
                )
            except SyscallError as error:
                # Where the runtime itself is in a user namespace, what mounts from outside have is
                # theirs for good. With nothing to be taken away it was something else.
                if error.errno != errno.EPERM or not options.keep_locked():
                    raise
                self._change_attributes(tree)
                return
        if options.set_recursive or options.clear_recursive:
            mount.mount_setattr(
                tree,
                set_attributes=options.set_recursive,
                clear_attributes=options.clear_recursive,
                recursive=True,
            )


def place_beneath(root: int, target: int, field: str, wanted: str) -> str:
    """Where a mount point is beneath the container's root, once links have been followed.

    Args:
        root: descriptor of the container's root directory.
        target: of the mount point.
        field: what asks for it, for errors.
        wanted: the path by which it was found.

    Raises:
        InvalidArgumentError: it is the root itself, and all that is beneath it would be covered.
    """
    top, place = (os.readlink(f"/proc/self/fd/{number}") for number in (root, target))
    if place == top:
        raise InvalidArgumentError(
            f"{field}: {wanted} is the container's root itself",
            "root.path says what is mounted there",
        )
    return place.removeprefix(top.rstrip("/"))
