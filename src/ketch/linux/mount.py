"""Mounts: mount(2) and the descriptor-based calls that Linux 5.2 added beside it.

The newer calls (fsopen, open_tree, move_mount, mount_setattr) build a mount before it has a place,
so nothing can be seen, raced or left behind until it is attached; a detached mount goes away with
its last descriptor.
"""

import ctypes
import os

from ketch.errors import SyscallError
from ketch.linux import libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40

_mount = libc.function(
    "mount",
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_umount2 = libc.function("umount2", ctypes.c_char_p, ctypes.c_int)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, bind, move or change a mount: mount(2).

    Args:
        source: device, directory or label; empty for none.
        target: where; a path the caller trusts, such as ``/proc/self/fd/N``.
        filesystem: the file system's type, empty for bind and flag changes.
        flags: ``MS_*``.
        data: the file system's own options.

    Raises:
        SyscallError: the kernel refused.
    """
    _mount(
        f"{source or 'none'} on {target}" + (f", type {filesystem}" if filesystem else ""),
        os.fsencode(source) or None,
        os.fsencode(target),
        os.fsencode(filesystem) or None,
        flags,
        os.fsencode(data) or None,
    )


def umount2(target: str, flags: int = 0) -> None:
    """Take a mount away: umount2(2).

    Raises:
        SyscallError: the kernel refused.
    """
    _umount2(target, os.fsencode(target), flags)


def fsopen(filesystem: str) -> int:
    """Begin to build a file system: fsopen(2). Returns a descriptor that the caller owns."""
    return libc.syscall("fsopen", filesystem, os.fsencode(filesystem), _FSOPEN_CLOEXEC)


def fsconfig(context: int, key: str, value: str | None = None) -> None:
    """Set one option of a file system being built: fsconfig(2).

    Args:
        context: descriptor from ``fsopen``.
        key: the option's name.
        value: its value, below 256 bytes, or None for a flag.

    Raises:
        SyscallError: with the kernel's own explanation where it gave one.
    """
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    encoded = None if value is None else os.fsencode(value)
    detail = key if value is None else f"{key}={value}"
    _explained(context, command, detail, os.fsencode(key), encoded, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    """Create the file system and a detached mount of it: FSCONFIG_CMD_CREATE, fsmount(2).

    Args:
        context: descriptor from ``fsopen``.
        attributes: ``MOUNT_ATTR_*``.

    Returns:
        A descriptor of the mount's root, which the caller owns. The mount lasts until it is closed,
        or as long as the place where ``move_mount`` put it.
    """
    _explained(context, _FSCONFIG_CMD_CREATE, "create", None, None, 0)
    return libc.syscall("fsmount", "", context, _FSMOUNT_CLOEXEC, attributes)


def open_tree(directory: int, path: str, flags: int = 0) -> int:
    """Open a mounted tree, or with OPEN_TREE_CLONE a detached copy of it: open_tree(2).

    Args:
        directory: descriptor that ``path`` is relative to, or ``libc.AT_FDCWD``.
        path: the path; empty means ``directory`` itself.
        flags: OPEN_TREE_CLONE, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW.
    """
    if not path:
        flags |= libc.AT_EMPTY_PATH
    return libc.syscall(
        "open_tree", path or str(directory), directory, os.fsencode(path), flags | os.O_CLOEXEC
    )


def move_mount(mount_descriptor: int, target_directory: int, target: str = "") -> None:
    """Attach a detached mount: move_mount(2).

    Args:
        mount_descriptor: from ``fsmount`` or ``open_tree``.
        target_directory: descriptor that ``target`` is relative to, or the target itself.
        target: path of the mount point, empty for ``target_directory`` itself.
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (0 if target else _MOVE_MOUNT_T_EMPTY_PATH)
    libc.syscall(
        "move_mount",
        target or str(target_directory),
        mount_descriptor,
        b"",
        target_directory,
        os.fsencode(target),
        flags,
    )


def mount_setattr(
    directory: int,
    path: str = "",
    *,
    set_attributes: int = 0,
    clear_attributes: int = 0,
    propagation: int = 0,
    user_namespace: int = 0,
    recursive: bool = False,
) -> None:
    """Change the attributes of a mount, or of a whole tree of them: mount_setattr(2), Linux 5.12.

    Args:
        directory: descriptor that ``path`` is relative to.
        path: the mount; empty means ``directory`` itself.
        set_attributes: ``MOUNT_ATTR_*`` to add.
        clear_attributes: ``MOUNT_ATTR_*`` to take away.
        propagation: MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, or 0 to leave it.
        user_namespace: descriptor whose id mapping MOUNT_ATTR_IDMAP applies.
        recursive: all mounts below as well.
    """
    flags = (0 if path else libc.AT_EMPTY_PATH) | (libc.AT_RECURSIVE if recursive else 0)
    attributes = _MountAttr(set_attributes, clear_attributes, propagation, user_namespace)
    libc.syscall(
        "mount_setattr",
        path or str(directory),
        directory,
        os.fsencode(path),
        flags,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )


def _explained(
    context: int, command: int, detail: str, key: bytes | None, value: bytes | None, aux: int
) -> None:
    """Call fsconfig; on failure add what the kernel wrote to the context's message log."""
    try:
        libc.syscall("fsconfig", detail, context, command, key, value, aux)
    except SyscallError as error:
        said = []
        while True:
            try:
                line = os.read(context, 512).decode(errors="replace").strip()
                said.append(line[2:])  # "e", "w" or "i" for how bad it is comes first
            except OSError:  # ENODATA: the log is empty
                break
        if said:
            raise SyscallError(
                error.errno or 0, "fsconfig", f"{detail}: {'; '.join(said)}"
            ) from error
        raise
