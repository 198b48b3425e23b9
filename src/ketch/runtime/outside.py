"""What a container has from outside of itself, as criu(8) has to be told of it.

Its own mounts and files criu saves and makes again. A bind, the cover of a masked path, a namespace
that was joined, a standard stream: each gets a name when the container is saved, and under that
name something is put in its place when it is restored.

Source: https://criu.org/External_resources.
"""

import os
import stat

from ketch.errors import InvalidArgumentError, SyscallError, UnsupportedError
from ketch.linux import beneath, mount
from ketch.linux.libc import AT_FDCWD, AT_RECURSIVE
from ketch.linux.scopes import owned
from ketch.runtime import null_device
from ketch.runtime.filesystem import DEFAULT_DEVICES
from ketch.runtime.mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.cgroups import Manager
    from ketch.spec.runtime import Config

COVER = "/dev/null"
"""The name of what covers masked files: runc's, which can restore what is saved here."""

_STREAMS = 3
# Kind of a namespace: what criu calls it, where it is to be left alone, or to be joined.
_LEFT_ALONE = {"network": "net", "pid": "pid"}
_JOINED = {"ipc": "ipc", "uts": "uts", "user": "user"}


def mounts(config: "Config", rootfs: str, cgroup: "Manager | None") -> list[tuple[str, str]]:
    """The mounts whose files are not the container's: where each is, and what is bound there.

    Args:
        config: its configuration, sources of binds absolute.
        rootfs: absolute path of its root filesystem.
        cgroup: its control groups.
    """
    linux = config.get("linux", {})
    kinds = {each["type"] for each in linux.get("namespaces", [])}
    found = []
    with owned(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        for entry in config.get("mounts", []):
            place = _resolved(root, entry["destination"])
            if MountOptions(entry.get("options", [])).bind:
                found.append((place, entry["source"]))
            elif entry.get("type") in {"cgroup", "cgroup2"} and cgroup and "cgroup" not in kinds:
                found += _cgroups(place, cgroup)
    if "user" in kinds:
        # Not made there, but bound.
        devices = {each["path"] for each in (*DEFAULT_DEVICES, *(linux.get("devices") or []))}
        found += [(path, path) for path in sorted(devices)]
    return found


def _resolved(root: int, path: str) -> str:
    """A mount point's path in the container, symlinks followed."""
    try:
        descriptor = beneath.open_path(root, path)
    except OSError:
        return os.path.normpath(path)  # below another mount
    with owned(descriptor):
        real = os.readlink(f"/proc/self/fd/{descriptor}")
    # Of another mount namespace's root, or a detached one, it is just the slash.
    return real.removeprefix(os.readlink(f"/proc/self/fd/{root}").rstrip("/")) or "/"


def _cgroups(place: str, cgroup: "Manager") -> list[tuple[str, str]]:
    directories = cgroup.paths()
    if cgroup.layout.mode == "v2":
        return [(place, directories[""])]
    return [
        (f"{place}/{os.path.basename(each.mountpoint)}", directories[(*each.controllers, "")[0]])
        for each in cgroup.layout.hierarchies
    ]


def covers(config: "Config", pid: int) -> list[str]:
    """The masked files, which the null device covers; directories have a file system of their own.

    Args:
        config: the container's configuration.
        pid: its init.
    """
    found = []
    for path in config.get("linux", {}).get("maskedPaths") or []:
        try:
            status = os.stat(f"/proc/{pid}/root{path}", follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == null_device.NUMBER:
            found.append(path)
    return found


def left_alone(config: "Config") -> list[str]:
    """The namespaces that were joined by path and are to be as they are, in criu's words.

    Raises:
        InvalidArgumentError: there is none at the path any more.
    """
    found = []
    for kind, path in _paths(config):
        if name := _LEFT_ALONE.get(kind):
            try:
                found.append(f"{name}[{os.stat(path).st_ino}]:{_key(name)}")
            except OSError as error:
                raise InvalidArgumentError(f"linux.namespaces: {path}: {error.strerror}") from error
    return found


def rejoined(config: "Config") -> tuple[list[dict[str, str]], dict[str, int]]:
    """The namespaces to enter again.

    Returns:
        Those that criu joins by path, and descriptors, owned by the caller, of those it is given.

    Raises:
        InvalidArgumentError: there is none at a path.
        UnsupportedError: criu cannot enter one of this kind.
    """
    joined = []
    given: dict[str, int] = {}
    for kind, path in _paths(config):
        if name := _LEFT_ALONE.get(kind):
            try:
                given[_key(name)] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise InvalidArgumentError(f"linux.namespaces: {path}: {error.strerror}") from error
        elif name := _JOINED.get(kind):
            joined.append({"ns": name, "ns_file": path})
        else:
            raise UnsupportedError(f"criu cannot restore into a {kind} namespace that is there")
    return joined, given


def _paths(config: "Config") -> list[tuple[str, str]]:
    namespaces = config.get("linux", {}).get("namespaces", [])
    return [(each["type"], each["path"]) for each in namespaces if each.get("path")]


def _key(name: str) -> str:
    return f"extRoot{name.title()}NS"  # runc's


class Files:
    """The open files of a container's processes that lie outside of its mounts.

    Args:
        init: its init.
        processes: the pids of all its processes.

    Attributes:
        streams: where init's standard streams lead: the name of a pipe, a path, or criu's name of
            a file outside.
        nulls: criu's names of those files that are the null device.
    """

    __slots__ = ("nulls", "streams")

    def __init__(self, init: int, processes: list[int]) -> None:
        with open(f"/proc/{init}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            inside = {line.split(" ", 1)[0] for line in file}
        nulls = set()
        for pid in {init, *processes}:
            for number in _descriptors(pid):
                name, status = _outside_file(pid, number, inside)
                if name and stat.S_ISCHR(status.st_mode) and status.st_rdev == null_device.NUMBER:
                    nulls.add(name)
        self.nulls = sorted(nulls)
        self.streams = [
            _outside_file(init, number, inside)[0] or _link(init, number)
            for number in range(_STREAMS)
        ]

    def external(self) -> list[str]:
        """All of them, as criu is told of them."""
        return sorted({*self.nulls, *(each for each in self.streams if each.startswith("file["))})


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _link(pid: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}")
    except FileNotFoundError:
        return ""


def _outside_file(pid: int, number: "int | str", inside: set[str]) -> tuple[str, os.stat_result]:
    """Criu's name of an open file where it lies on none of the container's mounts, else nothing."""
    try:
        status = os.stat(f"/proc/{pid}/fd/{number}")
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file if ":" in line)
    except (FileNotFoundError, ProcessLookupError):
        return "", os.stat("/")
    mounted = facts["mnt_id"].strip()
    of_kernel = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    if mounted in inside or of_kernel or not _has_path(status):
        return "", status
    return f"file[{int(mounted):x}:{status.st_ino:x}]", status


def _has_path(status: os.stat_result) -> bool:
    """Whether it is a file, and not something that the kernel keeps as one (an eventfd)."""
    kind = stat.S_IFMT(status.st_mode)
    is_null = kind == stat.S_IFCHR and status.st_rdev == null_device.NUMBER
    return is_null or kind in {stat.S_IFREG, stat.S_IFDIR}


def streams(saved: list[str], nulls: list[str], null: int) -> "list[dict[str, str | int]]":
    """What criu puts in the place of the streams and files that were saved.

    Args:
        saved: ``Files.streams``.
        nulls: ``Files.nulls``.
        null: descriptor of the null device.
    """
    given: list[dict[str, str | int]] = [{"key": name, "fd": null} for name in nulls]
    for number, name in enumerate(saved):
        if name.startswith("pipe:") or (name.startswith("file[") and name not in nulls):
            given.append({"key": name.replace(" ", ""), "fd": number})
    return given


def detached(tree: int) -> int:
    """A detached copy of a mount, or, where that is detached itself, another descriptor of it."""
    try:
        return mount.open_tree(tree, "", mount.OPEN_TREE_CLONE | AT_RECURSIVE)
    except SyscallError:
        return os.dup(tree)


def places(trees: "Mapping[str, int]", place: str) -> dict[str, str]:
    """Where ``lay_out`` mounts detached trees, by the paths that they are known by.

    Args:
        trees: descriptors of detached mounts, by these paths.
        place: the directory that is covered.
    """
    return {path: f"{place}/tree{number}" for number, path in enumerate(trees)}


def lay_out(config: "Config", rootfs: str, place: str, trees: "Mapping[str, int]") -> None:
    """Mount what criu, or another runtime, builds a container from; in a mount namespace for it.

    Args:
        config: the container's configuration.
        rootfs: absolute path of its root filesystem; missing mount points are made in it.
        place: a directory, which is covered: ``root`` in it is the root filesystem, ``null`` the
            cover of masked files.
        trees: descriptors of detached mounts, by the paths that the root filesystem and sources of
            binds are known by; others are really there.
    """
    tree = trees.get(rootfs, -1)
    if tree < 0:
        tree = mount.open_tree(AT_FDCWD, rootfs, mount.OPEN_TREE_CLONE | AT_RECURSIVE)
    cover = null_device.clone()
    mount.mount("tmpfs", place, "tmpfs")
    os.mkdir(f"{place}/root")
    os.close(os.open(f"{place}/null", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
    mount.move_mount(tree, AT_FDCWD, f"{place}/root")
    mount.move_mount(cover, AT_FDCWD, f"{place}/null")
    for path, target in places(trees, place).items():
        if path == rootfs:
            continue
        if os.path.isdir(path):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
        mount.move_mount(trees[path], AT_FDCWD, target)
    above: list[tuple[str, str]] = []  # mounts so far: where, and their sources, or nothing
    for entry in config.get("mounts", []):
        destination = os.path.normpath(entry["destination"])
        source = entry["source"] if MountOptions(entry.get("options", [])).bind else ""
        parents = [pair for pair in above if destination.startswith(f"{pair[0]}/")]
        above.append((destination, source))
        if not parents:
            _make_mount_point(tree, destination, source)
        elif parents[-1][1]:
            inner = os.open(parents[-1][1], os.O_PATH | os.O_CLOEXEC)
            _make_mount_point(inner, destination.removeprefix(parents[-1][0]), source)
            os.close(inner)


def _make_mount_point(root: int, path: str, source: str) -> None:
    if source and not os.path.isdir(source):
        os.close(beneath.make_file(root, path))
    else:
        os.close(beneath.make_directories(root, path))
