"""The rest of a container's file system: devices, links, masked paths, and the pivot onto it.

Each class is one step of the plan: it says what it does (``describe``) and does it (``execute``)
beneath the descriptor of the container's root, before the root becomes ``/``. Sources such as
``/dev/null`` are therefore the host's own and never what an image put in their place
(CVE-2025-31133).
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError
from ketch.linux import beneath, contested, libc, mount
from ketch.linux.libc import AT_FDCWD
from ketch.linux.scopes import owned, umask
from ketch.runtime import null_device
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.spec.runtime import Device

# runtime-spec, config-linux.md "Default Devices".
DEFAULT_DEVICES: "tuple[Device, ...]" = (
    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
    {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5},
    {"path": "/dev/full", "type": "c", "major": 1, "minor": 7},
    {"path": "/dev/random", "type": "c", "major": 1, "minor": 8},
    {"path": "/dev/urandom", "type": "c", "major": 1, "minor": 9},
    {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0},
)
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
_NODE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class MakeDevices:
    """Make the device nodes of ``/dev``: the specification's own and the configuration's.

    Args:
        devices: the configuration's ``linux.devices``.
        bind: whether to bind the host's nodes instead of making them, since mknod(2) is refused
            in a user namespace.
    """

    __slots__ = ("bind", "devices")

    def __init__(self, devices: "list[Device]", *, bind: bool) -> None:
        named = {device["path"] for device in devices}
        self.devices = [d for d in DEFAULT_DEVICES if d["path"] not in named] + devices
        self.bind = bind

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        paths = " ".join(device["path"] for device in self.devices)
        parents = sorted({os.path.dirname(one["path"]) for one in self.devices} - {"/dev"})
        make_parents = [f"mkdir -p .{quote(one)}" for one in parents]
        if self.bind:
            by_hand = [f"touch .{one['path']}; mount --bind {one['path']} .{one['path']}"
                       for one in self.devices]  # fmt: skip
            return Told("files", f"make {paths} · open_tree(2), move_mount(2)",
                        inside=[*make_parents, *by_hand])  # fmt: skip
        numbers = [(one, f"{one['type']} {one.get('major', 0)} {one.get('minor', 0)}",
                    f"{0o666 if (mode := one.get('fileMode')) is None else mode & 0o7777:04o}")
                   for one in self.devices]  # fmt: skip
        return Told(
            "files",
            f"make {paths} · mknod(2)",
            [(one["path"], f"{number} mode {mode}") for one, number, mode in numbers],
            inside=[
                *make_parents,
                *(
                    f"mknod -m {mode} .{quote(one['path'])} {number}"
                    for one, number, mode in numbers
                ),
            ],
        )

    def execute(self, root: int) -> None:
        """Make the nodes; what is there already stays as it is.

        It may be the host's own node, bound there: what was not made here is not changed.

        Raises:
            InvalidArgumentError: a node cannot be made.
        """
        for device in self.devices:
            parent_path, name = os.path.split(device["path"])
            try:
                with owned(beneath.make_directories(root, parent_path)) as parent:
                    # A fifo is no device: everyone may make one.
                    if self.bind and device["type"] != "p":
                        _bind_device(root, device)
                    else:
                        _make_device(root, parent, name, device)
            except OSError as error:
                raise InvalidArgumentError(
                    f"linux.devices: {device['path']} cannot be made: {error.strerror}"
                ) from error


def _make_device(root: int, parent: int, name: str, device: "Device") -> None:
    kind = _NODE_TYPES[device["type"]]
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    mode = device.get("fileMode")
    mode = 0o666 if mode is None else stat.S_IMODE(mode)
    try:
        with umask(0):
            made = contested.node(name, kind | mode, number, parent)
    except FileExistsError:
        return
    except PermissionError:
        # So it is where the runtime itself is in a user namespace.
        _bind_device(root, device)
        return
    with owned(made):
        owner, group = device.get("uid") or 0, device.get("gid") or 0
        status = os.fstat(made)  # a setgid directory gives what is made in it its group
        if (status.st_uid, status.st_gid) != (owner, group):
            os.chown(contested.path(made), owner, group)
        # A default ACL of the directory, or a change of owner, takes bits away.
        if stat.S_IMODE(os.fstat(made).st_mode) != mode:
            os.chmod(contested.path(made), mode)


def _bind_device(root: int, device: "Device") -> None:
    with (
        owned(_of_host(device)) as source,
        owned(beneath.make_file(root, device["path"])) as target,
    ):
        mount.mount_setattr(source, propagation=mount.MS_PRIVATE)
        mount.move_mount(source, target)


def _of_host(device: "Device") -> int:
    """A detached mount of the host's node of a device: what has its path may be another one.

    Raises:
        FileNotFoundError: the host has none, or none that can be found by its number.
    """
    number = device.get("major", 0), device.get("minor", 0)
    wanted = _NODE_TYPES[device["type"]], os.makedev(*number)
    for path in (device["path"], *_named(wanted[0], *number)):
        try:
            found = mount.open_tree(AT_FDCWD, path, mount.OPEN_TREE_CLONE)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                raise
            continue
        status = os.fstat(found)
        if (stat.S_IFMT(status.st_mode), status.st_rdev) == wanted:
            return found
        os.close(found)
    shown = f"{device['type']} {number[0]}:{number[1]}"
    raise FileNotFoundError(errno.ENOENT, f"the host has no node of the device {shown}")


def _named(kind: int, major: int, minor: int) -> "list[str]":
    """Where a device is, as the kernel calls it: sysfs(5)."""
    directory = "block" if kind == stat.S_IFBLK else "char"
    try:
        with open(f"/sys/dev/{directory}/{major}:{minor}/uevent", encoding="utf-8") as file:
            found = [line.removeprefix("DEVNAME=").strip() for line in file if "DEVNAME=" in line]
    except OSError:
        return []
    return [f"/dev/{name}" for name in found]


class MakeDeviceLinks:
    """Make the links of ``/dev`` that programs expect: runtime-spec "Default Devices"."""

    __slots__ = ()

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        links = _device_links()
        return Told(
            "files",
            "link /dev/" + " /dev/".join(name for name, _ in links) + " · symlink(2)",
            [(f"/dev/{name}", target) for name, target in links],
            inside=[f"ln -sfn {target} ./dev/{name}" for name, target in links],
        )

    def execute(self, root: int) -> None:
        """Make the links; one that is there already stays, but ``ptmx`` must be ours."""
        with owned(beneath.make_directories(root, "/dev")) as directory:
            for name, target in _device_links():
                try:
                    os.symlink(target, name, dir_fd=directory)
                except FileExistsError:
                    if name == "ptmx":
                        os.unlink(name, dir_fd=directory)
                        os.symlink(target, name, dir_fd=directory)


def _device_links() -> "list[tuple[str, str]]":
    """The links, less the one that would lead nowhere: not every kernel shows its memory."""
    has_memory = os.path.exists("/proc/kcore")
    return [link for link in _DEVICE_LINKS if link[0] != "core" or has_memory]


class MaskPath:
    """Hide a path: a file behind ``/dev/null``, a directory behind an empty read-only tmpfs."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        at = f".{quote(self.path)}"
        by_hand = (
            f"if [ -d {at} ]; then mount -t tmpfs -o ro tmpfs {at};"
            f" elif [ -e {at} ]; then mount --bind /dev/null {at}; fi"
        )
        return Told("files", f"hide {self.path} · move_mount(2)", inside=[by_hand])

    def execute(self, root: int) -> None:
        """Hide the path; one that does not exist needs no hiding."""
        _cover(root, self.path, _blank)


def has_use(operation: object, root: int) -> bool:
    """Whether a step has something to do; what is to be hidden or closed may not be there."""
    if not isinstance(operation, (MaskPath, ReadOnlyPath)):
        return True
    return beneath.exists(root, operation.path)


def _cover(root: int, path: str, make: "Callable[[int], int]") -> None:
    """Attach a mount to a path, if there is one; ``make`` builds it from the path's descriptor."""
    try:
        target = beneath.open_path(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with owned(target), owned(make(target)) as cover:
        mount.move_mount(cover, target)


def _blank(target: int) -> int:
    """A detached mount that shows nothing, of the target's kind."""
    if stat.S_ISDIR(os.fstat(target).st_mode):
        return _empty_directory()
    return null_device.clone()


def _empty_directory() -> int:
    with owned(mount.fsopen("tmpfs")) as context:
        mount.fsconfig(context, "source", "tmpfs")
        mount.fsconfig(context, "size", "0k")
        mount.fsconfig(context, "mode", "755")
        return mount.fsmount(context, mount.MOUNT_ATTR_RDONLY)


class ReadOnlyPath:
    """Make a path unwritable by binding it onto itself, read-only."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        at = f".{quote(self.path)}"
        words = f"make {self.path} read-only · open_tree(2), mount_setattr(2), move_mount(2)"
        by_hand = [f"mount --rbind {at} {at} && mount -o remount,bind,ro {at}"]
        return Told("files", words, inside=by_hand)

    def execute(self, root: int) -> None:
        """Make the path read-only; one that does not exist needs no protection."""
        _cover(root, self.path, _read_only)


def _read_only(target: int) -> int:
    """A detached, read-only copy of the mounts at the target."""
    tree = mount.open_tree(target, "", mount.OPEN_TREE_CLONE | libc.AT_RECURSIVE)
    try:
        mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
    except BaseException:
        os.close(tree)
        raise
    return tree


class ReadOnlyMount:
    """Make the mount at a path read-only after its content has been made."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        by_hand = [f"mount -o remount,bind,ro .{quote(self.path)}"]
        return Told(
            "files", f"make the mount {self.path} read-only · mount_setattr(2)", inside=by_hand
        )

    def execute(self, root: int) -> None:
        """Set the mount's read-only attribute."""
        with owned(beneath.open_path(root, self.path)) as target:
            mount.mount_setattr(target, set_attributes=mount.MOUNT_ATTR_RDONLY)


class WriteSysctl:
    """Set one kernel parameter of the container's namespaces: sysctl(8)."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def describe(self) -> Told:
        """What the operation does, in words, with its system call."""
        return Told(
            "limits",
            f"set {self.name} to {self.value!r} · proc_sys(5)",
            inside=[f"echo {quote(self.value)} > /proc/sys/{sysctl_path(self.name)}"],
        )

    def execute(self, root: int) -> None:  # noqa: ARG002 - every step takes the root
        """Write the value through the host's procfs, whose entries follow the caller's namespaces.

        Raises:
            InvalidArgumentError: there is no such parameter, or it refuses the value.
        """
        try:
            write_text("/proc/sys/" + sysctl_path(self.name), self.value)
        except OSError as error:
            raise InvalidArgumentError(
                f"linux.sysctl: {self.name}={self.value!r}: {error.strerror}",
                "check the parameter's name and value: sysctl -a lists what this kernel has",
            ) from error


def sysctl_path(name: str) -> str:
    """Turn a parameter's dotted name into its path, as sysctl(8) does.

    The first separator decides: in ``net/ipv4/conf/eth0.1/rp_filter`` dots are part of names.
    """
    dot, slash = name.find("."), name.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name
    return name.translate({ord("."): "/", ord("/"): "."})


def write_text(path: str, text: str) -> None:
    """Write a kernel file in one write(2), as such files want it."""
    with owned(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as descriptor:
        os.write(descriptor, os.fsencode(text))
