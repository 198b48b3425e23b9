"""Files at names that others may exchange: in a container's tree, a volume, a shared directory.

Between the call that makes or looks at something under a name and the next one that takes that
name, whoever can write to the directory may have put something else there: a symlink to a file of
the host's, a device that acts when it is opened. So what is at a name is opened once, following no
symlink and without acting (O_PATH), checked to be what is expected, and meant by that descriptor
from then on. ``/proc/self/fd`` leads to the very file, whatever its name means by now.
"""

import errno
import os
import stat

from ketch.linux.scopes import owned

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(name: str | bytes, directory: int) -> int:
    """Open a regular file for reading, and nothing else.

    A fifo would make its reader wait, a terminal become its opener's, and a device act (a watchdog
    that is opened and closed restarts the machine).

    Args:
        name: its name.
        directory: descriptor of the directory that it is in.

    Returns:
        A descriptor, close-on-exec, which the caller owns.

    Raises:
        OSError: there is no such file; ESTALE where something else is at the name.
    """
    with owned(os.open(name, _PATH, dir_fd=directory)) as place:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise exchanged(name)
        # O_NONBLOCK for the one thing that keeps the opener of a regular file waiting: a lease.
        return os.open(path(place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def symlink(target: str | bytes, name: str | bytes, directory: int) -> int:
    """Make a symlink.

    Args:
        target: where it leads.
        name: its name.
        directory: descriptor of the directory to make it in.

    Returns:
        An O_PATH descriptor of it, which the caller owns; see ``path``.

    Raises:
        OSError: it cannot be made; ESTALE where something else is at the name by now.
    """
    os.symlink(target, name, dir_fd=directory)
    made = _made(name, directory, stat.S_IFLNK)
    if os.readlink(b"", dir_fd=made) != os.fsencode(target):
        os.close(made)
        raise exchanged(name)
    return made


def node(name: str | bytes, mode: int, device: int, directory: int) -> int:
    """Make a fifo or a device node.

    Args:
        name: its name.
        mode: kind and permission bits, less those of the umask.
        device: the device's number, 0 for a fifo.
        directory: descriptor of the directory to make it in.

    Returns:
        An O_PATH descriptor of it, which the caller owns; see ``path``.

    Raises:
        OSError: it cannot be made; ESTALE where something else is at the name by now.
    """
    os.mknod(name, mode, device, dir_fd=directory)
    return _made(name, directory, stat.S_IFMT(mode), device)


def directory(name: str | bytes, parent: int) -> int:
    """Make a directory that is closed to others, and open it.

    Args:
        name: its name.
        parent: descriptor of the directory to make it in.

    Returns:
        A descriptor for reading, which the caller owns.

    Raises:
        OSError: it cannot be made; ESTALE where something else is at the name by now.
    """
    os.mkdir(name, 0o700, dir_fd=parent)
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise exchanged(name) from error
        raise
    # Somebody's directory full of secrets may have been given this name.
    if os.listdir(descriptor):
        os.close(descriptor)
        raise exchanged(name)
    return descriptor


def path(descriptor: int) -> bytes:
    """Returns a path to a file by its descriptor, O_PATH or any other.

    For chown(2), chmod(2), utimensat(2) and setxattr(2), which take no O_PATH descriptor. They must
    follow it, and follow nothing else: a symlink that was opened itself is what they change.
    """
    return b"/proc/self/fd/%d" % descriptor


def exchanged(name: str | bytes) -> OSError:
    """Returns the error that says that somebody else was at work under a name."""
    return OSError(errno.ESTALE, "exchanged by somebody else meanwhile", os.fsdecode(name))


def _made(name: str | bytes, directory: int, kind: int, device: int = 0) -> int:
    try:
        descriptor = os.open(name, _PATH, dir_fd=directory)
    except FileNotFoundError as error:
        raise exchanged(name) from error
    status = os.fstat(descriptor)
    # What has just been made has one name; what was linked here has another one besides.
    if (stat.S_IFMT(status.st_mode), status.st_rdev) != (kind, device) or status.st_nlink > 1:
        os.close(descriptor)
        raise exchanged(name)
    return descriptor
