"""SELinux labels of what is mounted: ``-v source:target:z`` and ``Z``."""

import errno
import os

from ketch.errors import InvalidArgumentError

ATTRIBUTE = "security.selinux"

CONTEXT = "system_u:object_r:container_file_t:s0"
"""What container policies let containers read and write."""

# Relabelling these would lock the host out of itself; go-selinux's list.
_EXCLUDED = (
    "/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib",
    "/lib64", "/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr",
    "/var", "/var/lib", "/var/log",
)  # fmt: skip


def is_active() -> bool:
    """Whether this kernel labels files."""
    return os.path.exists("/sys/fs/selinux/enforce")


def relabel(source: str, context: str = CONTEXT) -> None:
    """Give a file, or all in a directory, the label that containers may use.

    Args:
        source: the host's path; symlinks in it are labelled and not followed.
        context: the label.

    Raises:
        InvalidArgumentError: the host itself needs that path with its own label.
    """
    if os.path.realpath(source) in _EXCLUDED:
        raise InvalidArgumentError(f"SELinux relabeling of {source} is not allowed")
    value = context.encode() + b"\0"
    _set(source, value)
    if os.path.islink(source):
        return
    for directory, names, files in os.walk(source):
        for name in (*names, *files):
            _set(os.path.join(directory, name), value)


def _set(path: str, value: bytes) -> None:
    try:
        os.setxattr(path, ATTRIBUTE, value, follow_symlinks=False)
    except OSError as error:
        # It is gone meanwhile, or on a file system without labels.
        if error.errno not in {errno.ENOENT, errno.ENOTSUP}:
            raise InvalidArgumentError(
                f"SELinux relabeling of {path}: {os.strerror(error.errno or 0).lower()}"
            ) from error
