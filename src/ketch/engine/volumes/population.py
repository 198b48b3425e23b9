"""Filling new volumes with what the image has where they are mounted."""

import errno
import os
import stat

from ketch.engine.volumes import mounts, uses
from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux import beneath
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

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
        options = point["Spec"].get("VolumeOptions", {})
        if options.get("NoCopy") or options.get("Subpath"):
            continue
        volume = engine.volumes.find(point["Name"])
        # Whoever is filling it now has it locked: half a copy is not to be taken for content.
        with mounts.locked(engine.settings, volume):
            if not os.listdir(volume.mountpoint):
                wanted.append((point, volume))
    if not wanted:
        return
    directory = engine.settings.container_directory(container_id)
    with owned(engine.images.snapshotter.mount(directory)) as root:
        for point, volume in wanted:
            place = _in_image(root, point["Destination"])
            if place is not None:
                try:
                    _fill(engine, place, volume)
                except OSError as error:
                    raise UnavailableError(
                        f"failed to copy {point['Destination']} of the image into volume "
                        f"{volume.name}: {error}"
                    ) from error
                finally:
                    os.close(place)


def _fill(engine: "Engine", place: int, volume: "Volume") -> None:
    with mounts.locked(engine.settings, volume):
        if volume.options.get("type") == "tmpfs":
            return  # what it held would be gone before the container starts
        if not volume.options and not uses.is_in_use(engine.store, volume.name):
            _fill_at_once(place, volume)
            return
        was_mounted = not volume.options or mounts.is_mounted(volume)
        mounts.mount_(volume)
        try:
            _copy(place, volume.mountpoint)
        finally:
            if not was_mounted:
                mounts.unmount(volume)


def _fill_at_once(place: int, volume: "Volume") -> None:
    """Fill a volume that nobody sees yet: whole or, when it is interrupted, not at all."""
    filling = f"{os.path.dirname(volume.mountpoint)}/filling"
    remove_tree(filling)
    os.mkdir(filling, 0o755)
    _copy(place, filling)
    try:
        os.rename(filling, volume.mountpoint)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        remove_tree(filling)  # somebody was quicker


def _copy(place: int, path: str) -> None:
    with owned(os.open(path, _DIRECTORY)) as target:
        if not os.listdir(target):
            from ketch.linux.copytree import copy_tree  # noqa: PLC0415 - few starts fill a volume

            copy_tree(place, target)


def _in_image(root: int, path: str) -> int | None:
    """Open a directory of the image; None where there is nothing."""
    try:
        place = beneath.open_path(root, path)
    except OSError:
        return None
    with owned(place):
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            raise InvalidArgumentError(
                f"cannot mount volume over existing file, file exists {path}",
                "mount a single file of the host with -v, or choose another target",
            )
        return os.open(f"/proc/self/fd/{place}", _DIRECTORY)
