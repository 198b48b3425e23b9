"""The container's root file system: its place in the mount namespace, and the change to it."""

import os

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux import libc, mount
from ketch.linux.libc import AT_FDCWD
from ketch.linux.procfs import unescape
from ketch.linux.scopes import owned

# Of the host's tree in the new mount namespace. Unless the configuration wants it shared, nothing
# that is mounted inside may travel to the host.
_HOST_TREE = {
    "private": mount.MS_PRIVATE | mount.MS_REC,
    "rprivate": mount.MS_PRIVATE | mount.MS_REC,
    "shared": mount.MS_SHARED,
    "rshared": mount.MS_SHARED | mount.MS_REC,
    # An unbindable tree could not be bound into the container.
    "unbindable": mount.MS_PRIVATE | mount.MS_REC,
    "runbindable": mount.MS_PRIVATE | mount.MS_REC,
}
# Of the container's own root, once it is the root.
_FINALLY = {
    "shared": (mount.MS_SHARED, False),
    "rshared": (mount.MS_SHARED, True),
    "unbindable": (mount.MS_UNBINDABLE, False),
    "runbindable": (mount.MS_UNBINDABLE, True),
}


def open_place(path: str) -> int:
    """Open the directory that ``root.path`` names, where the root is mounted until the pivot.

    Raises:
        InvalidArgumentError: there is none, or it cannot be reached.
    """
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else ""
        reason = reason or f"cannot be used: {(error.strerror or '').lower()}"
        raise InvalidArgumentError(f"root.path: {path} {reason}") from error


def clone(path: str) -> int:
    """Make a detached copy of the tree at ``root.path``, with what is mounted below it.

    Raises:
        InvalidArgumentError: there is no such directory.
    """
    try:
        return mount.open_tree(AT_FDCWD, path, mount.OPEN_TREE_CLONE | libc.AT_RECURSIVE)
    except FileNotFoundError as error:
        raise InvalidArgumentError(f"root.path: {path} does not exist") from error


def attach(path: str, place: int, rootfs: int | None, propagation: str) -> int:
    """Mount the root file system at its path in this mount namespace.

    Args:
        path: ``root.path``.
        place: descriptor from ``open_place``.
        rootfs: descriptor of a detached mount to be the root, or None to bind what is at the path.
        propagation: ``linux.rootfsPropagation``.

    Returns:
        The root's descriptor: ``rootfs`` itself where there was one.
    """
    mount.mount("", "/", flags=_HOST_TREE.get(propagation, mount.MS_SLAVE | mount.MS_REC))
    root = clone(path) if rootfs is None else rootfs
    # Private keeps what is mounted below to ourselves; a slave still hears of the host's mounts.
    kind = mount.MS_SLAVE if propagation in {"slave", "rslave"} else mount.MS_PRIVATE
    mount.mount_setattr(root, propagation=kind, recursive=True)
    if propagation in {"shared", "rshared"}:
        # pivot_root(2) refuses a shared parent, and the host would see the root appear.
        mount.mount("", _mount_of(place), flags=mount.MS_PRIVATE)
    mount.move_mount(root, place)
    return root


def pivot(root: int, propagation: str) -> None:
    """Make a mounted directory the root of this mount namespace and let go of the old one.

    With both arguments "." the old root ends up mounted over the new one and no directory for it
    is needed: pivot_root(2), "pivot_root(".", ".")".

    Args:
        root: descriptor of the new root, a mount point in this mount namespace.
        propagation: ``linux.rootfsPropagation``.
    """
    with owned(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as old_root:
        os.fchdir(root)
        libc.syscall("pivot_root", "onto the container's root", b".", b".")
        os.fchdir(old_root)
        # Unmounting must not travel to the host's own mount tree.
        mount.mount("", ".", flags=mount.MS_SLAVE | mount.MS_REC)
        mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
    _propagate_finally(root, propagation)


def move(root: int, propagation: str) -> None:
    """Move a mounted directory over the root, where pivot_root(2) cannot be: on an initramfs.

    The old root stays underneath. Whoever has CAP_SYS_CHROOT in the container reaches it, so the
    host's procfs and sysfs are taken away first.

    Args:
        root: descriptor of the new root, a mount point in this mount namespace.
        propagation: ``linux.rootfsPropagation``.
    """
    own = os.readlink(f"/proc/self/fd/{root}")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.partition(" - ") for line in file]
    mounted = [(unescape(left.split(" ")[4]), right.split(" ")[0]) for left, _, right in lines]
    for path, kind in reversed(mounted):
        if kind in {"proc", "sysfs"} and not f"{path}/".startswith(f"{own}/"):
            mount.mount("", path, flags=mount.MS_SLAVE | mount.MS_REC)
            mount.umount2(path, mount.MNT_DETACH)
    os.fchdir(root)
    mount.mount(".", "/", flags=_MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    _propagate_finally(root, propagation)


_MS_MOVE = 8192


def _propagate_finally(root: int, propagation: str) -> None:
    if propagation in _FINALLY:
        kind, recursive = _FINALLY[propagation]
        mount.mount_setattr(root, propagation=kind, recursive=recursive)


def _mount_of(descriptor: int) -> str:
    """Where the mount that holds an open file is mounted."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            if fields[0] == number:
                return unescape(fields[4])
    raise UnavailableError("root.path: the mount that holds it is not in /proc/self/mountinfo")
