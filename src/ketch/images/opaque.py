"""Directories that hide all that lower layers have in them: overlayfs's ``opaque`` attribute.

It is ``trusted.overlay.opaque`` for root. In a user namespace nobody has trusted attributes, and
overlayfs is mounted with ``userxattr`` (Linux 5.11), by which it is ``user.overlay.opaque``. Only
the form that the caller's mounts go by counts: the other one may be a container's own doing.

Source: Linux, Documentation/filesystems/overlayfs.rst, "User xattr".
"""

import os

from ketch.linux import namespaces


def make_opaque(directory: int | str | bytes) -> None:
    """Have a directory hide what lower layers have in it.

    Raises:
        OSError: the file system has no such attributes.
    """
    os.setxattr(directory, _attribute(), b"y")


def is_opaque(directory: int | str | bytes) -> bool:
    """Whether a directory hides what lower layers have in it."""
    try:
        return os.getxattr(directory, _attribute()) == b"y"
    except OSError:
        return False


def _attribute() -> bytes:
    initial = namespaces.in_initial_user_namespace()
    return b"trusted.overlay.opaque" if initial else b"user.overlay.opaque"
