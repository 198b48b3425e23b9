"""Mount points that a step did not ask for: what its result is to be without.

Where something is mounted on a path that an image does not have, an empty file or directory is made
there, and its parents. When the step has ended they are removed where they are still empty, and the
directory above gets its times back, unless the step itself has changed it meanwhile. Source:
moby/buildkit, executor/stubs.go.
"""

import errno
import os
import stat

from ketch.linux.openat2 import RESOLVE_IN_ROOT, openat2
from ketch.linux.scopes import owned, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LINKS_MAX = 40  # path_resolution(7)
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ELOOP, errno.EBUSY}


class Stub:
    """Something that is not there before a step.

    Args:
        parent: path of the directory above, beneath the root.
        name: its name there.
        times: when that directory was read and changed, in nanoseconds; None where it is missing
            as well.
        made_ns: when it had been changed once all mount points were made.
    """

    __slots__ = ("made_ns", "name", "parent", "times")

    def __init__(self, parent: str, name: str, times: tuple[int, int] | None) -> None:
        self.parent = parent
        self.name = name
        self.times = times
        self.made_ns = 0


def missing(root: int, targets: "Iterable[str]") -> list[Stub]:
    """Find out which mount points will have to be made.

    Args:
        root: descriptor of the step's root, before anything is mounted there.
        targets: where something is going to be mounted, absolute paths.

    Returns:
        What is missing, in the order in which it is to be removed again.
    """
    found: dict[tuple[str, str], Stub] = {}
    for target in targets:
        for stub in _missing(root, target):
            found.setdefault((stub.parent, stub.name), stub)
    return sorted(found.values(), key=lambda stub: -stub.parent.rstrip("/").count("/"))


def made(root: int, stubs: "Iterable[Stub]") -> None:
    """Take down the times of directories that have got mount points, before the program runs.

    Args:
        root: descriptor of the step's root.
        stubs: from ``missing``.
    """
    for stub in stubs:
        with suppress(OSError):
            directory = openat2(root, stub.parent, os.O_PATH | os.O_DIRECTORY)
            with owned(directory):
                stub.made_ns = os.stat(f"/proc/self/fd/{directory}").st_mtime_ns


def _missing(root: int, target: str) -> "Iterable[Stub]":
    path = os.path.normpath("/" + target)
    for _ in range(_LINKS_MAX):
        parent, name = os.path.split(path)
        if not name:
            return
        try:
            directory = openat2(root, parent, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            yield Stub(parent, name, None)
            path = parent
            continue
        with owned(directory):
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                above = os.stat(f"/proc/self/fd/{directory}")
                yield Stub(parent, name, (above.st_atime_ns, above.st_mtime_ns))
                return
            if not stat.S_ISLNK(status.st_mode):
                return
            try:
                os.close(openat2(root, path, os.O_PATH))
            except FileNotFoundError:
                # A symlink to nowhere: what it names is made.
                link = os.readlink(name, dir_fd=directory)
                path = os.path.normpath(os.path.join("/", parent, link))
            except OSError:
                return
            else:
                return


def remove(root: int, stubs: "Iterable[Stub]") -> None:
    """Remove what was made and is still empty.

    Args:
        root: descriptor of the step's root, when nothing of the step lives any more.
        stubs: from ``missing``.
    """
    for stub in stubs:
        with suppress(OSError):
            directory = openat2(
                root, stub.parent, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT
            )
            with owned(directory):
                _remove(directory, stub)


def _remove(directory: int, stub: Stub) -> None:
    status = os.stat(stub.name, dir_fd=directory, follow_symlinks=False)
    above = os.fstat(directory)
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(stub.name, dir_fd=directory)
    elif stat.S_ISREG(status.st_mode) and not status.st_size:
        os.unlink(stub.name, dir_fd=directory)
    else:
        return
    times = (above.st_atime_ns, above.st_mtime_ns)
    if stub.times is not None and above.st_mtime_ns == stub.made_ns:
        times = stub.times
    os.utime(directory, ns=times)
