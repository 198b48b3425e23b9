"""Files seen through a user namespace: what belongs to its root on the disk is root's inside.

On the disk ids stay what they are in every image, so that layers are shared, and written to by
whatever container, without one of their files changing its owner.

A file system whose own mounts cannot be mapped, overlayfs, is stacked from mapped ones instead. It
keeps copies of the mounts that it was made from, and does its own work there (copying up, making
whiteouts) with the ids and capabilities of whoever made it. So it is made by a thread that has a
mount namespace of its own, where mapped mounts cover the directories, and the ids of the
namespace's root, but the capabilities of the host's.

Source: mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.19 for overlayfs.
"""

import errno
import os

from ketch.errors import SyscallError, UnsupportedError
from ketch.linux import fsuid, libc, mount, namespaces
from ketch.linux.apart import apart
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def clone(path: str, user_namespace: int) -> int:
    """Returns a detached mount of a directory, its ids mapped; the caller owns the descriptor.

    Raises:
        UnsupportedError: its file system cannot map ids.
        SyscallError: it cannot be mounted.
    """
    tree = mount.open_tree(libc.AT_FDCWD, path, mount.OPEN_TREE_CLONE)
    try:
        mount.mount_setattr(
            tree, set_attributes=mount.MOUNT_ATTR_IDMAP, user_namespace=user_namespace
        )
    except SyscallError as error:
        os.close(tree)
        if error.errno != errno.EINVAL:
            raise
        raise UnsupportedError(
            f"the file system of {path} cannot map ids, as --userns asks for",
            "ext4, xfs, btrfs and others can: choose another --root, or leave --userns out",
        ) from error
    return tree


def seen(places: "Sequence[str]", user_namespace: int, make: "Callable[[], int]") -> int:
    """Have a file system made of directories as a user namespace sees them.

    Args:
        places: the directories.
        user_namespace: its descriptor.
        make: makes the file system of what is in the directories, under their own names.

    Returns:
        What ``make`` returns.

    Raises:
        UnsupportedError: the directories' file system cannot map ids.
        SyscallError: the kernel refused.
    """

    def work() -> int:
        _cover(places, user_namespace)
        root = os.stat(places[-1])  # the engine's own directory: root's
        with fsuid.acting_as(root.st_uid, root.st_gid):
            return make()

    return apart(work)


def _cover(places: "Sequence[str]", user_namespace: int) -> None:
    """Mount directories over themselves, in a mount namespace of this thread's own."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
    for place in places:
        with owned(clone(place, user_namespace)) as tree:
            mount.move_mount(tree, libc.AT_FDCWD, place)
