"""What the options of a configuration's mounts mean: runtime-spec config.md "Linux mount options".

Source: mount(8), mount(2), mount_setattr(2), do_mount() in the kernel's fs/namespace.c.
"""

from ketch.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
# Options of access times, by the option that takes them back.
_TAKEN_BACK = {
    "atime": "noatime",
    "norelatime": "relatime",
    "nostrictatime": "strictatime",
    "diratime": "nodiratime",
}
# What the kernel keeps in a user namespace of a mount that comes from outside of it.
_LOCKED = (
    mount.MOUNT_ATTR_RDONLY
    | mount.MOUNT_ATTR_NOSUID
    | mount.MOUNT_ATTR_NODEV
    | mount.MOUNT_ATTR_NOEXEC
)
_SWITCHES = _LOCKED | mount.MOUNT_ATTR_NOSYMFOLLOW
_RESTRICTIONS = (
    ("read-only", mount.MOUNT_ATTR_RDONLY), ("nosuid", mount.MOUNT_ATTR_NOSUID),
    ("nodev", mount.MOUNT_ATTR_NODEV), ("noexec", mount.MOUNT_ATTR_NOEXEC),
)  # fmt: skip
_PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "unbindable": mount.MS_UNBINDABLE,
}
# No-ops of mount(8) that callers write down all the same.
_SWITCHED_OFF = frozenset({"silent", "loud", "iversion", "noiversion"})
_IGNORED = frozenset({"", "defaults", "nobind", "acl", "noacl"}) | _SWITCHED_OFF
# Options of a file system as a whole, which a bind of a part of it cannot change.
_OF_SUPERBLOCK = frozenset({"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"})
# Each is a flag of mount(2), or takes one back: as in runc, the others are then those named.
_FLAGS = _OF_SUPERBLOCK | _SWITCHED_OFF


class MountOptions:
    """A mount's options, told apart.

    A bind, or a mount that is changed, has afterwards the attributes that were named and no others,
    as MS_BIND | MS_REMOUNT of mount(2) has it, if any was named at all; its access times stay as
    they are unless they were named too.

    Args:
        options: as the configuration has them.
        is_bind: whether the mount's type says that it is a bind, recursive unless an option is.

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
        "_named",
        "_times",
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

    def __init__(self, options: list[str], *, is_bind: bool = False) -> None:
        self.bind = self.recursive_bind = self.remount = False
        self.copy_up: Callable[[int, int], None] | None = None
        self.id_map = ""
        self.set_attributes = self.clear_attributes = 0
        self.set_recursive = self.clear_recursive = 0
        self.propagation: list[tuple[int, bool]] = []
        self.data: list[str] = []
        self._named = False
        self._times: set[str] = set()
        for option in options:
            self._take(option)
        if is_bind and not self.bind:
            self.bind = self.recursive_bind = True
        if self.bind:
            self.data = [option for option in self.data if option not in _OF_SUPERBLOCK]
        if self.bind or self.remount:
            self._clear_what_is_not_named()
        self._settle_times()

    def _take(self, option: str) -> None:
        self._named |= option in _FLAGS
        if option in {"bind", "rbind"}:
            self.bind = True
            self.recursive_bind |= option == "rbind"
        elif option in _ATTRIBUTES:
            self._name(option)
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

    def _name(self, option: str) -> None:
        self._named = True
        if option in _TAKEN_BACK:
            self._times.discard(_TAKEN_BACK[option])
        elif option in _TAKEN_BACK.values():
            self._times.add(option)
        else:
            self.set_attributes, self.clear_attributes = _merge(
                self.set_attributes, self.clear_attributes, _ATTRIBUTES[option]
            )

    def _clear_what_is_not_named(self) -> None:
        if self._named:
            self.clear_attributes |= _SWITCHES & ~self.set_attributes

    def restrictions(self) -> list[str]:
        """What cannot be done there, in words."""
        attributes = self.set_attributes | self.set_recursive
        return [word for word, flag in _RESTRICTIONS if attributes & flag]

    def _settle_times(self) -> None:
        """Bring options of access times to one attribute, as do_mount() of the kernel does."""
        if not self._times:
            return
        self.clear_attributes |= mount.MOUNT_ATTR__ATIME
        if "strictatime" in self._times:
            self.set_attributes |= mount.MOUNT_ATTR_STRICTATIME
        elif "noatime" in self._times:
            self.set_attributes |= mount.MOUNT_ATTR_NOATIME
        if "nodiratime" in self._times:
            self.set_attributes |= mount.MOUNT_ATTR_NODIRATIME
        else:
            self.clear_attributes |= mount.MOUNT_ATTR_NODIRATIME

    def keep_locked(self) -> bool:
        """Leave a bind the attributes that its source has, as the kernel would in a namespace.

        In a user namespace nobody may take them from a mount that comes from outside. The parent,
        who opens the sources, could, and must not.

        Returns:
            Whether some were to be taken.
        """
        if not self.bind or self.remount:
            return False
        before = self.clear_attributes
        self.clear_attributes &= ~_LOCKED
        return self.clear_attributes != before


def _merge(to_set: int, to_clear: int, change: tuple[int, int]) -> tuple[int, int]:
    """Apply one option after others: the last one to name an attribute wins."""
    adds, removes = change
    return (to_set & ~removes) | adds, (to_clear | removes) & ~(adds & ~mount.MOUNT_ATTR__ATIME)
