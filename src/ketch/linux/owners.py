"""Whom files belong to, where the kernel cannot say it.

A user namespace of one id has no other owner to give: chown(2) says EINVAL. So what a file should
have is remembered in an attribute of it, in the form of fuse-overlayfs and containers/storage:
``uid:gid:mode:kind``. Regular files and directories alone can have one (xattr(7)); other files stay
the user's own. Device nodes, which the root of the machine alone can make, are empty files whose
attribute says ``char-MAJOR-MINOR`` or ``block-MAJOR-MINOR``.

It is believed in such a namespace alone. There everybody is the same user, who may say of all files
what it likes. Elsewhere whoever may write to a file would make it somebody else's.
"""

import errno
import os
import stat

from ketch.linux import contested, namespaces
from ketch.linux.scopes import owned, suppress

ATTRIBUTE = b"user.containers.override_stat"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: b"file", stat.S_IFDIR: b"dir"}
_DEVICES = {b"char": stat.S_IFCHR, b"block": stat.S_IFBLK}
_ID_MAX = (1 << 32) - 2
_DIGITS_MAX = 10


class Remembered:
    """What a file's attribute says.

    Attributes:
        uid: its owner.
        gid: its group.
        kind: the kind of device that it stands for, S_IFCHR or S_IFBLK; 0 for none.
        device: that device's number.
    """

    __slots__ = ("device", "gid", "kind", "uid")

    def __init__(self, uid: int, gid: int, kind: int = 0, device: int = 0) -> None:
        self.uid = uid
        self.gid = gid
        self.kind = kind
        self.device = device

    @classmethod
    def read(cls, value: bytes) -> "Remembered | None":
        """Returns what an attribute says; None where it says nothing that can be."""
        uid, gid, _mode, what, *_ = [*value.split(b":"), b"", b"", b"", b""]
        owner, group = _number(uid, _ID_MAX), _number(gid, _ID_MAX)
        if owner is None or group is None:
            return None
        word, first, second, *_ = [*what.split(b"-"), b"", b""]
        kind, major, minor = _DEVICES.get(word, 0), _number(first, 0xFFF), _number(second, 0xFFFFF)
        if not kind or major is None or minor is None:
            return cls(owner, group)
        return cls(owner, group, kind, os.makedev(major, minor))


def _number(digits: bytes, largest: int) -> int | None:
    """Returns a number that anybody may have written; None where it is none, or too large.

    Python reads no more than some thousand digits, and an attribute has room for more.
    """
    if not digits.isdigit() or len(digits) > _DIGITS_MAX or int(digits) > largest:
        return None
    return int(digits)


def alone() -> bool:
    """Whether the caller's user namespace has one id and no other: user_namespaces(7)."""
    with open("/proc/self/uid_map", "rb", buffering=0) as file:
        lines = file.read().splitlines()
    return len(lines) == 1 and lines[0].split()[2] == b"1"


def give(file: int | bytes, uid: int, gid: int) -> None:
    """Give a file to somebody: chown(2), or have it remembered.

    Args:
        file: a descriptor, or a path of ``contested.path``.
        uid: the user.
        gid: the group.

    Raises:
        OSError: it cannot be; EINVAL where the namespace has some ids, and not this one.
    """
    try:
        os.chown(file, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL or not alone():
            raise
        remember(file, uid, gid)


def remember(file: int | bytes, uid: int, gid: int) -> None:
    """Have a file's attribute say whom it belongs to; the user's own files need none."""
    status = os.stat(file)
    if stat.S_IFMT(status.st_mode) not in _KINDS:
        return
    before = seen(file)
    if before is not None and before.kind:
        _write(file, status, Remembered(uid, gid, before.kind, before.device))
    elif uid or gid:
        _write(file, status, Remembered(uid, gid))
    elif before is not None:
        with suppress(OSError):
            os.removexattr(file, ATTRIBUTE)


def seen(file: int | bytes) -> Remembered | None:
    """Returns what is remembered of a file, None for nothing."""
    try:
        return Remembered.read(os.getxattr(file, ATTRIBUTE))
    except OSError:
        return None


def node(name: str | bytes, mode: int, device: int, directory: int) -> int:
    """Make a fifo or a device node, as ``contested.node``; in a user namespace what stands for it.

    Returns:
        An O_PATH descriptor of it, which the caller owns.

    Raises:
        OSError: it cannot be made.
    """
    try:
        return contested.node(name, mode, device, directory)
    except PermissionError:
        if stat.S_IFMT(mode) not in _DEVICES.values() or namespaces.in_initial_user_namespace():
            raise
    return stand_in(name, mode, device, directory)


def stand_in(name: str | bytes, mode: int, device: int, directory: int) -> int:
    """Make what stands for a device node; returns an O_PATH descriptor of it."""
    with owned(os.open(name, _NEW, stat.S_IMODE(mode), dir_fd=directory)) as made:
        _write(made, os.fstat(made), Remembered(0, 0, stat.S_IFMT(mode), device))
        return os.open(contested.path(made), _PATH & ~os.O_NOFOLLOW)


def _write(file: int | bytes, status: os.stat_result, said: Remembered) -> None:
    what = _KINDS[stat.S_IFMT(status.st_mode)]
    if said.kind:
        word = b"char" if said.kind == stat.S_IFCHR else b"block"
        what = b"%s-%d-%d" % (word, os.major(said.device), os.minor(said.device))
    mode = stat.S_IMODE(status.st_mode)
    value = b"%d:%d:%04o:%s" % (said.uid, said.gid, mode, what)
    try:
        os.setxattr(file, ATTRIBUTE, value)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a file system in memory, before Linux 6.6
            raise
