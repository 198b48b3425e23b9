"""Filling new volumes with what the image has where they are mounted."""

import errno
import os
import stat

from ketch.engine.volumes import mounts, sources, telling, uses
from ketch.errors import InvalidArgumentError, UnavailableError, in_words
from ketch.linux import beneath
from ketch.linux.openat2 import RESOLVE_BENEATH, openat2
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned, suppress_absence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.engine import Engine
    from ketch.engine.volumes.records import Volume
    from ketch.spec.container import MountPoint

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def populate(engine: "Engine", container_id: str, points: "Sequence[MountPoint]") -> None:
    """Copy into each volume that is empty what the image has at its place.

    Args:
        engine: where the container is recorded.
        container_id: the container; its root is prepared.
        points: its volumes.

    Raises:
        InvalidArgumentError: a volume would cover a file.
        UnavailableError: a volume's data cannot be written.
    """
    wanted = []
    for point in points:
        if point["Spec"].get("VolumeOptions", {}).get("NoCopy"):
            continue
        volume = engine.volumes.find(point["Name"])
        # Whoever is filling it now has it locked: half a copy is not to be taken for content.
        with mounts.locked(engine.settings, volume):
            # What is not mounted yet shows nothing.
            if volume.options or _is_to_be_filled(volume, point):
                wanted.append((point, volume))
    if not wanted:
        return
    directory = engine.settings.container_directory(container_id)
    with owned(engine.images.snapshotter.mount(directory)) as root:
        for point, volume in wanted:
            place = _in_image(root, point["Destination"])
            if place is None:
                continue
            with owned(place):
                engine.settings.tell(telling.of_filling, volume, point["Destination"], "the image")
                try:
                    _fill(engine, place, volume, point)
                except OSError as error:
                    raise UnavailableError(
                        f"failed to copy {point['Destination']} of the image into volume "
                        f"{volume.name}: {in_words(error)}"
                    ) from error


def _fill(engine: "Engine", place: int, volume: "Volume", point: "MountPoint") -> None:
    with mounts.locked(engine.settings, volume):
        if volume.options.get("type") == "tmpfs":
            return  # what it held would be gone before the container starts
        is_unseen = not volume.options and not uses.is_in_use(engine.store, volume.name)
        if is_unseen and not sources.subpath(point):
            _fill_at_once(place, volume)
            return
        was_mounted = not volume.options or mounts.is_mounted(volume)
        mounts.mount_(engine.settings, volume)
        try:
            _copy(place, volume, point)
        finally:
            if not was_mounted and mounts.unmount(volume):
                engine.settings.tell(telling.of_unmounting, volume)


def _fill_at_once(place: int, volume: "Volume") -> None:
    """Fill a volume that nobody sees yet: whole or, when it is interrupted, not at all."""
    filling = f"{os.path.dirname(volume.mountpoint)}/filling"
    remove_tree(filling)
    os.mkdir(filling, 0o755)
    with owned(os.open(filling, _DIRECTORY)) as target:
        _copy_tree(place, target)
    try:
        os.rename(filling, volume.mountpoint)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        remove_tree(filling)  # somebody was quicker


def _copy(place: int, volume: "Volume", point: "MountPoint") -> None:
    target = _opened(volume, point)
    if target is not None:
        with owned(target):
            if not os.listdir(target):
                _copy_tree(place, target)


def _copy_tree(place: int, target: int) -> None:
    from ketch.linux.copytree import copy_tree  # noqa: PLC0415 - few starts fill a volume

    copy_tree(place, target)


def _is_to_be_filled(volume: "Volume", point: "MountPoint") -> bool:
    target = _opened(volume, point)
    if target is None:
        return False
    with owned(target):
        return not os.listdir(target)


def _opened(volume: "Volume", point: "MountPoint") -> int | None:
    """Open the directory that is mounted; None where the volume has no such part, or a file."""
    with owned(os.open(volume.mountpoint, _DIRECTORY)) as data:
        part = os.path.normpath(sources.subpath(point) or ".")
        with suppress_absence():
            return openat2(data, part, _DIRECTORY, resolve=RESOLVE_BENEATH)
    return None  # a start says so


def _in_image(root: int, path: str) -> int | None:
    """Open a directory of the image; None where there is nothing."""
    place = None
    with suppress_absence():
        place = beneath.open_path(root, path)
    if place is None:
        return None
    with owned(place):
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            raise InvalidArgumentError(
                f"cannot mount volume over existing file, file exists {path}",
                "mount a single file of the host with -v, or choose another target",
            )
        return os.open(f"/proc/self/fd/{place}", _DIRECTORY)
