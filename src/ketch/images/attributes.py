"""The extended attributes of files that images keep.

Left out are overlayfs's own, by which a layer could redirect directories of others, and the host's
security labels; file capabilities stay.
"""

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CAPABILITY = b"security.capability"


def read(target: int | bytes, *, follow: bool = False) -> dict[bytes, bytes]:
    """Returns the attributes of a file.

    Args:
        target: a descriptor, or a path.
        follow: whether a symlink that the path ends with is followed.
    """
    found: dict[bytes, bytes] = {}
    follow = follow or isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError:
        return found
    if not names:  # mostly
        return found
    for name in filter(_is_kept, map(os.fsencode, names)):
        try:
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError:
            continue  # gone meanwhile, or not ours to read
    return found


def write(
    target: int | bytes, attributes: "Mapping[bytes, bytes]", *, follow: bool = False
) -> None:
    """Give a file attributes.

    Args:
        target: a descriptor, or a path.
        attributes: any; those that are left out are passed over.
        follow: whether a symlink that the path ends with is followed.

    Raises:
        OSError: one cannot be set, such as file capabilities by whoever may not.
    """
    follow = follow or isinstance(target, int)
    for name, value in attributes.items():
        if not _is_kept(name):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            # Docker passes over these as well: the file system has no such attribute, or not on
            # this kind of file.
            if error.errno not in {errno.EOPNOTSUPP, errno.EPERM} or name == _CAPABILITY:
                raise


def _is_kept(name: bytes) -> bool:
    if name.startswith(b"security."):
        return name == _CAPABILITY
    return not name.startswith((b"trusted.overlay.", b"user.overlay."))
