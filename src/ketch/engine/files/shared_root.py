"""One root of a container at rest, for all who work on its files at the same time.

What two overlays make of one writable layer is undefined, so there is one: whoever comes second has
a copy of the first one's mount, which is the same file system, in a mount namespace of its own. So
nobody waits for anybody, as in ``ketch cp c:/a - | ketch cp - c:/b``, and the file system lasts
until the last of them has gone. Who has it is written in a file beside the container's layer: each
a thread with a mount namespace, by its process, when that began, and its own number.
"""

import contextlib
import errno
import fcntl
import functools
import os
import threading

from ketch.engine.files import mounting
from ketch.linux import libc, locks, mount, namespaces, procfs
from ketch.linux.apart import apart
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.images.snapshots import Snapshotter

_FILE = "mounted-by"
_MOUNTING_SECONDS = 30
# Files are to be saved from a full disk as well; whoever comes second then has a mount of its own.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def mounted(snapshotter: "Snapshotter", directory: str) -> "Iterator[str]":
    """Have a container's root mounted for a block; ``at_rest.kept`` keeps it from being started.

    Args:
        snapshotter: what mounts it.
        directory: the container's.

    Returns:
        Where it is mounted, in the mount namespace that the calling thread has for itself.

    Raises:
        KetchError: it cannot be mounted.
        OSError: the container's directory is gone.
    """
    place = f"{directory}/rootfs"
    own = f"{os.getpid()} {procfs.process_start_time(os.getpid()) or 0} {threading.get_native_id()}"
    with _holders(directory) as holders:
        tree = mounting.copy_of(directory)
        if tree is None:
            tree = _copied(holders, directory, place)
        if tree is None:
            tree = snapshotter.mount(directory)
        with owned(tree):
            os.makedirs(place, 0o700, exist_ok=True)
            mount.move_mount(tree, libc.AT_FDCWD, place)
        holders.append(own)
    try:
        yield place
    finally:
        # Here and now, since a start may follow: a namespace ends a little later than its thread.
        with contextlib.suppress(OSError), _holders(directory) as holders:
            mount.umount2(place, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
            holders.remove(own)


def copy_or_mount(snapshotter: "Snapshotter", directory: str) -> int:
    """Returns the root of a container at rest, detached, for one who has it mounted for long.

    The arguments and failures are those of ``mounted``; the caller owns what is returned.
    """
    with _holders(directory) as holders:
        tree = _copied(holders, directory, f"{directory}/rootfs")
    return snapshotter.mount(directory) if tree is None else tree


@contextlib.contextmanager
def _holders(directory: str) -> "Iterator[list[str]]":
    """Read who has the root mounted, and write what the block makes of that; one at a time."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(f"{directory}/{_FILE}", flags, 0o600)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        yield []
        return
    with owned(file):
        locks.take(file, fcntl.LOCK_EX, f"{directory}/{_FILE}", _MOUNTING_SECONDS)
        before = os.read(file, os.fstat(file).st_size).decode("ascii", errors="replace")
        holders = [line for line in before.splitlines() if _is_alive(line)]
        yield holders
        try:
            os.pwrite(file, "".join(f"{line}\n" for line in holders).encode(), 0)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            holders.clear()
        os.ftruncate(file, sum(len(line) + 1 for line in holders))


def _is_alive(line: str) -> bool:
    pid, start_time, thread = _parsed(line)
    return procfs.is_running(pid, start_time) and os.path.exists(f"/proc/{pid}/task/{thread}")


def _parsed(line: str) -> tuple[int, int, int]:
    """Returns a holder's pid, start time and thread; what is no holder has none that runs."""
    try:
        pid, start_time, thread = map(int, line.split())
    except ValueError:
        return 0, 0, 0
    return pid, start_time, thread


def _copied(holders: list[str], directory: str, place: str) -> int | None:
    """Returns a detached copy of what one of them has mounted, None if there is none to be had."""

    def work(namespace: int) -> int | None:
        namespaces.unshare(namespaces.CLONE_FS)
        namespaces.setns(namespace, namespaces.CLONE_NEWNS)
        # A file system of its own; what is mounted as a part of the host's can be mounted twice.
        if os.stat(place).st_dev == os.stat(directory).st_dev:
            return None
        return mount.open_tree(libc.AT_FDCWD, place, mount.OPEN_TREE_CLONE)

    for line in holders:
        pid, _, thread = _parsed(line)
        # Who is in a user namespace that is not the caller's has its mounts for itself.
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC
            with owned(os.open(f"/proc/{pid}/task/{thread}/ns/mnt", flags)) as namespace:
                if (tree := apart(functools.partial(work, namespace))) is not None:
                    return tree
    return None
