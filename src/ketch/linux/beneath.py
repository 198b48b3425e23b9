"""Making things beneath a directory that a hostile container may have prepared.

Every name is looked up with openat2(2) under RESOLVE_IN_ROOT and then used by descriptor, so a
symlink put in the way leads to another place inside the root and never out of it. What is made
has its mode from the call that makes it: a chmod(2) afterwards might meet another file. So the
umask is changed for the moment, which must not be shared with other threads.
"""

import os
import stat

from ketch.errors import SyscallError
from ketch.linux.openat2 import RESOLVE_IN_ROOT as IN_ROOT
from ketch.linux.openat2 import RESOLVE_NO_SYMLINKS, openat2
from ketch.linux.scopes import owned, suppress, suppress_absence, umask

_LINKS_MAX = 40  # as many symlinks as the kernel itself follows in one path: path_resolution(7)


def open_path(root: int, path: str, *, follow: bool = True) -> int:
    """Open whatever is at a path as an O_PATH descriptor.

    Args:
        root: descriptor of the root directory.
        path: path inside the root.
        follow: whether symlinks, kept beneath the root, may be followed at all.

    Raises:
        SyscallError: there is no such path, or a symlink is in the way and may not be followed.
    """
    resolve = IN_ROOT if follow else IN_ROOT | RESOLVE_NO_SYMLINKS
    return openat2(root, path, os.O_PATH, resolve=resolve)


def exists(root: int, path: str) -> bool:
    """Whether there is something at a path that can be reached."""
    try:
        os.close(open_path(root, path))
    except OSError:
        return False
    return True


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Open a directory, making it and its parents where they are missing.

    Args:
        root: descriptor of the root directory.
        path: path inside the root; symlinks in it are followed beneath the root, dangling ones
            to the place that they name.
        mode: permission bits of what is made, whatever the umask; a setgid bit comes from above.

    Returns:
        An O_PATH descriptor of the directory, which the caller owns.

    Raises:
        SyscallError: something on the way is not a directory, or cannot be made.
    """
    try:
        return openat2(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    parent, name = _open_parent(root, path, mode)
    with owned(parent):
        with suppress(FileExistsError), umask(0):
            os.mkdir(name, mode, dir_fd=parent)
        # The name was made in this very directory: a symlink there now was put in the way.
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Open a file, making an empty one, and its parents, where it is missing.

    Args:
        root: descriptor of the root directory.
        path: path inside the root, followed as by ``make_directories``.
        mode: permission bits of a file that is made, whatever the umask.

    Returns:
        An O_PATH descriptor of the file, which the caller owns.

    Raises:
        SyscallError: a directory is on the path where a file should be, or it cannot be made.
    """
    try:
        return openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent, name = _open_parent(root, path, 0o755)
    with owned(parent):
        # A file of our own or none: a fifo in the way would keep us waiting, and a device act.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(FileExistsError), umask(0):
            os.close(os.open(name, flags, mode, dir_fd=parent))
        return openat2(parent, name, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)


def read_file(root: int, path: str, bytes_max: int) -> bytes:
    """Read a regular file, whoever put it there.

    Anything else is left unopened: a fifo makes its reader wait, a terminal may become its
    opener's, and a device acts (a watchdog that is opened and closed restarts the machine).

    Args:
        root: descriptor of the root directory; the caller's own procfs must be at ``/proc``.
        path: path inside the root; symlinks in it are followed beneath the root.
        bytes_max: how much to read at most.

    Returns:
        The file's content, empty where there is no regular file.
    """
    place = None
    with suppress_absence():
        place = open_path(root, path)
    if place is None:
        return b""
    with owned(place):
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return b""
        # This very file, whatever its name means by now.
        file = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    with owned(file):
        parts = []
        while bytes_max > 0 and (part := os.read(file, bytes_max)):
            parts.append(part)
            bytes_max -= len(part)
        return b"".join(parts)


def _open_parent(root: int, path: str, mode: int) -> tuple[int, str]:
    """Open, or make, the directory in which a missing path is to be made.

    Returns:
        Its descriptor and the name to make there; dangling symlinks are followed first.
    """
    for _ in range(_LINKS_MAX):
        parent_path, name = os.path.split(os.path.normpath("/" + path))
        parent = make_directories(root, parent_path, mode)
        try:
            if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return parent, name
            target = os.readlink(name, dir_fd=parent)
        except FileNotFoundError:
            return parent, name
        os.close(parent)
        path = os.path.join(parent_path, target)
    raise SyscallError(40, "openat2", path)
