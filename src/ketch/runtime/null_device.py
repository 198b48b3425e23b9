"""The host's null device, as a container may have it: writable as a device, unchangeable as a file.

A container's root is, without a user namespace, the owner of the host's ``/dev/null``. Handed in as
a standard stream or as the cover of a masked path, ``chmod 0 /proc/self/fd/0`` would change it for
the whole machine. Through a read-only mount it can be read and written but not changed.
"""

import os
import stat

from ketch.errors import UnavailableError
from ketch.linux import mount
from ketch.linux.libc import AT_FDCWD
from ketch.linux.scopes import owned

NUMBER = os.makedev(1, 3)


def clone() -> int:
    """Make a detached, read-only mount of it; the host's ``/dev`` must be in sight.

    Returns:
        A descriptor of the mount, which the caller owns.

    Raises:
        UnavailableError: the host's ``/dev/null`` is something else (CVE-2025-31133).
        SyscallError: the caller may not mount.
    """
    tree = mount.open_tree(AT_FDCWD, "/dev/null", mount.OPEN_TREE_CLONE)
    try:
        _check(os.fstat(tree))
        # Nothing is mounted on it, so there is nothing to hear of from the host's /dev.
        mount.mount_setattr(
            tree, set_attributes=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE
        )
    except BaseException:
        os.close(tree)
        raise
    return tree


def _check(status: os.stat_result) -> None:
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != NUMBER:
        raise UnavailableError(
            "/dev/null is not the null device", "make it anew: mknod -m 666 /dev/null c 1 3"
        )


def open_unchangeable() -> int:
    """Open it for reading and writing through such a mount.

    Returns:
        A descriptor, close-on-exec, which the caller owns; -1 where the caller may not mount, and
        so is not the device's owner either.

    Raises:
        UnavailableError: the host's ``/dev/null`` is closed to the caller.
    """
    try:
        tree = clone()
    except PermissionError:
        return -1
    with owned(tree):
        try:
            return os.open(f"/proc/self/fd/{tree}", os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as error:
            # Root itself is refused nothing; so this is root of a user namespace, or nobody's.
            mode = os.fstat(tree).st_mode & 0o7777
            raise UnavailableError(
                f"/dev/null has mode {mode:04o}, by which not everybody can use it",
                "open it again: chmod 666 /dev/null",
            ) from error
