"""SELinux labels of what is mounted: ``-v source:target:z`` and ``Z``."""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError
from ketch.linux import contested, descent
from ketch.linux.scopes import owned

ATTRIBUTE = "security.selinux"

CONTEXT = "system_u:object_r:container_file_t:s0"
"""What container policies let containers read and write."""

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

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
    value = context.encode() + b"\0"
    with owned(_open(source)) as top:
        opened = os.fsdecode(os.readlink(contested.path(top)))
        if opened in _EXCLUDED or os.path.realpath(source) in _EXCLUDED:
            raise InvalidArgumentError(f"SELinux relabeling of {source} is not allowed")
        _set(contested.path(top), source, value)
        if not stat.S_ISDIR(os.fstat(top).st_mode):
            return
        # A container may have it mounted, and exchange its files for symlinks to the host's.
        for directory, name, _ in descent.statuses(top):
            try:
                place = os.open(name, _PATH, dir_fd=directory)
            except FileNotFoundError:
                continue
            with owned(place):
                _set(contested.path(place), os.fsdecode(name), value)


def _open(source: str) -> int:
    try:
        return os.open(source, _PATH)
    except OSError as error:
        raise _failed(source, error) from error


def _set(path: bytes, shown: str, value: bytes) -> None:
    try:
        os.setxattr(path, ATTRIBUTE, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # as on a file system without labels
            raise _failed(shown, error) from error


def _failed(path: str, error: OSError) -> InvalidArgumentError:
    reason = os.strerror(error.errno or 0).lower()
    return InvalidArgumentError(f"SELinux relabeling of {path}: {reason}")
