"""Where a mount comes from that is more than a path: a part of a volume, an image, a part of it."""

import os

from ketch.engine import user_namespaces
from ketch.errors import InvalidArgumentError, SyscallError
from ketch.linux import mount, openat2
from ketch.linux.libc import AT_RECURSIVE
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.images.snapshots import Snapshotter
    from ketch.spec.container import MountPoint

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def subpath(point: "MountPoint") -> str:
    """Which part of a volume is mounted; empty for all of it."""
    return point["Spec"].get("VolumeOptions", {}).get("Subpath", "")


def part_of_volume(point: "MountPoint") -> int:
    """Returns the part of a volume that is mounted, as a detached tree; the caller owns it.

    Raises:
        InvalidArgumentError: there is no such part.
    """
    with owned(os.open(point["Source"], _DIRECTORY)) as data:
        return _part(data, subpath(point), f"volume {point['Name']}")


def image_directory(
    engine: "Engine", container: "Container", number: int, point: "MountPoint"
) -> str:
    """Returns the directory of an image that is mounted in a container, prepared for it.

    Args:
        engine: where the image is.
        container: the container.
        number: of this mount among the container's.
        point: the mount.

    Raises:
        NotFoundError: the image is gone.
    """
    directory = f"{engine.settings.container_directory(container.id)}/image-{number}"
    if not os.path.isdir(directory):
        image = engine.images.resolve(point["Source"])
        os.mkdir(directory, 0o700)
        ids = user_namespaces.shift_of(engine, container)
        engine.images.snapshotter.prepare(directory, image.chain_ids, ids=ids)
    return directory


def of_image(
    snapshotter: "Snapshotter",
    directory: str,
    point: "MountPoint",
    user_namespace: int | None = None,
) -> int:
    """Returns an image's file system, with a layer for what the container writes there.

    Args:
        snapshotter: the engine's.
        directory: ``image_directory``.
        point: the mount.
        user_namespace: descriptor of the one whose ids the container has, if it has its own.

    Returns:
        A detached tree, which the caller owns.

    Raises:
        InvalidArgumentError: it has no such part as is to be mounted.
    """
    tree = snapshotter.mount(directory, user_namespace)
    inner = point["Spec"].get("ImageOptions", {}).get("Subpath", "")
    if not inner:
        return tree
    whose = f"image {point['Spec']['Source']}"
    with owned(tree):
        try:
            return _part(tree, inner, whose)
        except SyscallError:
            # Before Linux 6.15 a detached tree cannot be cloned: it needs a place for the moment.
            return _part_of_attached(tree, directory, inner, whose)


def _part(tree: int, inner: str, whose: str) -> int:
    """A directory or file in a tree, which others may write to, as a detached tree of its own."""
    try:
        place = openat2.openat2(
            tree, os.path.normpath(inner), os.O_PATH, resolve=openat2.RESOLVE_BENEATH
        )
    except SyscallError as error:
        raise InvalidArgumentError(
            f"cannot access path {inner} of {whose}: {os.strerror(error.errno or 0).lower()}",
            "a subpath must exist when the container starts, and no symlink may lead out of it",
        ) from error
    with owned(place):
        return mount.open_tree(place, "", mount.OPEN_TREE_CLONE | AT_RECURSIVE)


def _part_of_attached(tree: int, directory: str, inner: str, whose: str) -> int:
    place = f"{directory}/mounted"
    os.makedirs(place, 0o700, exist_ok=True)
    with owned(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as target:
        mount.move_mount(tree, target)
    try:
        return _part(tree, inner, whose)
    finally:
        mount.umount2(place, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
