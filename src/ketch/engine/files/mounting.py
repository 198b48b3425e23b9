"""Roots that are mounted for whoever asks, until somebody says otherwise: ``ketch mount``.

What two overlays make of one writable layer is undefined, so there is one: a start, and whoever
works on a container's files at rest, takes a copy of this mount, which is the same file system; and
of a running container this is a copy of what that has. A file beside the layer says in which mount
namespace, since which boot, and how often it was asked for; whether it is mounted, the kernel
knows.
"""

import contextlib
import fcntl
import os

from ketch.engine.files import telling
from ketch.errors import ConflictError
from ketch.linux import libc, locks, mount, procfs
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.settings import Settings

RECORD = "mounted"
PLACE = "merged"
_LOCK_SECONDS = 30
_RECORD_BYTES_MAX = 256


def attach(settings: "Settings", directory: str, make: "Callable[[], int]") -> str:
    """Have a root mounted, once more where it is.

    Args:
        settings: the engine's, which may be told of it.
        directory: of the container, or the image.
        make: returns a detached tree of it, which is this function's then.

    Returns:
        Where it is.

    Raises:
        ConflictError: it is mounted in another mount namespace.
        KetchError, OSError: it cannot be mounted.
    """
    place = f"{directory}/{PLACE}"
    with _record(directory) as record:
        if record.count and not record.is_here(place):
            record.check_elsewhere(directory)
            record.count = 0
        if not record.count:
            with owned(make()) as tree:
                os.makedirs(place, 0o700, exist_ok=True)
                mount.move_mount(tree, libc.AT_FDCWD, place)
                settings.tell(telling.of_attaching, directory, place)
        record.count += 1
        settings.tell(telling.of_claims, directory, place, record.count)
    return place


def detach(settings: "Settings", directory: str, what: str, *, force: bool = False) -> None:
    """Undo one ``attach``; the last one unmounts.

    Args:
        settings: the engine's, which may be told of it.
        directory: as given to ``attach``.
        what: its name, for errors.
        force: whether all of them are undone, the record of one in another namespace too.

    Raises:
        ConflictError: it is not mounted, or in another mount namespace.
    """
    if not os.path.exists(f"{directory}/{RECORD}"):
        raise ConflictError(f"{what} is not mounted")
    place = f"{directory}/{PLACE}"
    with _record(directory) as record:
        here = record.is_here(place)
        if not here and not force:
            record.check_elsewhere(directory)
        if here and (force or record.count <= 1):
            mount.umount2(place, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
            settings.tell(telling.of_detaching, place)
        record.count = record.count - 1 if here and not force else 0
        settings.tell(telling.of_claims, directory, place, record.count)
        if not record.count:
            os.unlink(f"{directory}/{RECORD}")
    if not here and not force:
        raise ConflictError(f"{what} is not mounted")


def place_of(directory: str) -> str:
    """Where a root is mounted for the caller's mount namespace; empty where it is not."""
    place = f"{directory}/{PLACE}"
    return place if os.path.exists(f"{directory}/{RECORD}") and procfs.is_mount_point(place) else ""


def copy_of(directory: str) -> int | None:
    """Returns a detached copy of what is mounted, the caller's; None where nothing is.

    Raises:
        ConflictError: it is mounted in another mount namespace, from which there is none.
    """
    place = place_of(directory)
    if place:
        return mount.open_tree(libc.AT_FDCWD, place, mount.OPEN_TREE_CLONE)
    if os.path.exists(f"{directory}/{RECORD}"):
        with _record(directory) as record:
            record.check_elsewhere(directory)
    return None


def take_away(directory: str) -> None:
    """Unmount what is about to be removed, however often it was asked for; nothing will do."""
    while place_of(directory):
        mount.umount2(f"{directory}/{PLACE}", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)


class _Record:
    """What is known of a mount.

    Args:
        text: the record, empty for none.

    Attributes:
        count: how often it was asked for, and not given back.
    """

    def __init__(self, text: str) -> None:
        words = text.split()
        self._boot, self._namespace, self.count = "", 0, 0
        with contextlib.suppress(ValueError, IndexError):
            self._boot, self._namespace, self.count = words[0], int(words[1]), int(words[2])
        if self._boot != procfs.boot_id():
            self.count = 0

    def text(self) -> str:
        """The record, of a mount in the caller's namespace."""
        return f"{procfs.boot_id()} {_own_namespace()} {self.count}\n"

    def is_here(self, place: str) -> bool:
        """Whether it is mounted for the caller."""
        return bool(self.count) and procfs.is_mount_point(place)

    def check_elsewhere(self, directory: str) -> None:
        """Refuse one that is mounted in a namespace in which somebody is, and the caller is not."""
        place = f"{directory}/{PLACE}"
        elsewhere = self.count and self._namespace != _own_namespace()
        if elsewhere and _is_mounted_in(self._namespace, place):
            raise ConflictError(
                f"{place} is mounted in another mount namespace",
                "unmount it there, by ketch umount",
            )


@contextlib.contextmanager
def _record(directory: str) -> "Iterator[_Record]":
    """Read the record, and write what the block makes of it; one at a time."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with owned(os.open(f"{directory}/{RECORD}", flags, 0o600)) as file:
        locks.take(file, fcntl.LOCK_EX, f"{directory}/{RECORD}", _LOCK_SECONDS)
        record = _Record(os.pread(file, _RECORD_BYTES_MAX, 0).decode("ascii", "replace"))
        before = record.count
        yield record
        if record.count != before:
            os.ftruncate(file, 0)
            os.pwrite(file, record.text().encode(), 0)


def _own_namespace() -> int:
    return os.stat("/proc/thread-self/ns/mnt").st_ino


def _is_mounted_in(namespace: int, place: str) -> bool:
    """Whether a process that the caller can see is in a mount namespace, and has a mount there.

    The kernel gives the number of a namespace that has gone to the next that is made.
    """
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/mnt").st_ino == namespace:
                    return procfs.is_mount_point(place, entry)
    return False
