"""Volumes with options of the local driver: mounted where their data is while they are in use."""

import contextlib
import fcntl
import os

from ketch.engine.volumes import telling
from ketch.engine.volumes.records import make_data_directory
from ketch.errors import InvalidArgumentError, KetchError, in_words
from ketch.linux import locks, mount, procfs
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.settings import Settings
    from ketch.engine.volumes.records import Volume

# Of a large image's files, on a slow disk.
_FILLING_SECONDS = 1800


def locked(settings: "Settings", volume: "Volume") -> "contextlib.AbstractContextManager[None]":
    """Keep other processes from filling, mounting or removing a volume meanwhile.

    Args:
        settings: the engine's places.
        volume: the volume; its directory is made if it is missing.
    """
    return locked_name(settings, volume.name)


@contextlib.contextmanager
def locked_name(settings: "Settings", name: str) -> "Iterator[None]":
    """The same for a volume by its name."""
    while True:
        directory = os.path.dirname(make_data_directory(settings, name))
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed since the line above
        with owned(descriptor):
            locks.take(descriptor, fcntl.LOCK_EX, f"volume {name}", _FILLING_SECONDS)
            # Whoever had the lock may have removed the volume, and its directory with it.
            if _is_at(descriptor, directory):
                yield
                return


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def is_mounted(volume: "Volume") -> bool:
    """Whether anything is mounted where a volume's data is."""
    return procfs.is_mount_point(volume.mountpoint)


def mount_(settings: "Settings", volume: "Volume") -> None:
    """Mount what a volume's options name, unless it is mounted; the volume must be locked.

    Args:
        settings: the engine's places, and who is told.
        volume: the volume.

    Raises:
        InvalidArgumentError: the kernel refuses.
    """
    if not volume.options or is_mounted(volume):
        return
    settings.tell(telling.of_mounting, volume)
    from ketch.runtime.mounts import MountOperation  # noqa: PLC0415 - few volumes have options

    options = volume.options
    device, kind = options["device"], options["type"]
    words = [word for word in options.get("o", "").split(",") if word]
    if kind.startswith("nfs") or kind == "cifs":
        words = [_resolved(word) for word in words]
    bound = kind in {"none", "bind"} and ("bind" in words or "rbind" in words)
    directory, name = os.path.split(volume.mountpoint)
    with owned(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        try:
            MountOperation(
                {
                    "destination": f"/{name}",
                    "source": device,
                    "type": "bind" if bound else kind,
                    "options": words,
                },
                volume.name,
            ).execute(root)
        except (KetchError, OSError) as error:
            reason = error.message if isinstance(error, KetchError) else in_words(error)
            reason = reason.removeprefix(f"{volume.name}.source: ")
            data = f", data: {options['o']}" if options.get("o") else ""
            raise InvalidArgumentError(
                f"error while mounting volume '{volume.mountpoint}': failed to mount local volume: "
                f"mount {device}:{volume.mountpoint}{data}: {reason}"
            ) from error


def unmount(volume: "Volume") -> bool:
    """Take away what is mounted where a volume's data is; the volume must be locked.

    Returns:
        Whether anything was.
    """
    was_mounted = bool(volume.options) and is_mounted(volume)
    if was_mounted:
        mount.umount2(volume.mountpoint, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
    return was_mounted


def _resolved(word: str) -> str:
    """``addr=NAME`` with the name's address, which the kernel cannot look up."""
    key, _, name = word.partition("=")
    if key != "addr" or not name:
        return word
    import socket  # noqa: PLC0415 - network file systems alone need it

    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidArgumentError(
            f"error resolving passed in network volume address: {name}: {in_words(error)}"
        ) from error
    return f"addr={found[0][4][0]}"
