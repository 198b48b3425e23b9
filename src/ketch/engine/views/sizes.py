"""How much room things take: containers' writable layers, images' layers, shared and not."""

import contextlib
import os
import stat

from ketch.errors import KetchError
from ketch.images.snapshots import BASE
from ketch.linux import descent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.engine import Engine
    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.engine.records.rows import Container


def store(images: "Images") -> int:
    """Returns what the images of an engine take on the disk, in bytes of whole blocks, as du(1).

    Blobs and unpacked layers are counted, those that nothing refers to any more as well, but for
    layers that the build cache alone has.

    Args:
        images: the engine's.
    """
    root = images.root
    places = [f"{root}/blobs", f"{root}/snapshots"]
    found = [entry for place in places for entry in _entries(place)]
    kinds = [entry for entry in found if os.path.basename(entry).partition("-")[0] != BASE]
    left_out: set[str] = set()
    if cached := images.cached():
        with contextlib.suppress(KetchError):  # a damaged image does not tell what it has
            others = cached - images.referred(images.list())[1]
            left_out = set(map(images.snapshotter.path, others))
    return _on_disk([path for entry in kinds for path in _entries(entry) if path not in left_out])


def in_use(engine: "Engine") -> int:
    """Returns how much of ``store`` would be left if all images were removed that can be.

    That is what containers need: their images, those these were committed on, and the layers of
    images that are gone; not the copies of layers that no container has, which are pruned as well.
    """
    images = engine.images
    every = {image.id: image for image in images.list()}
    used: dict[str, Image] = {}
    for image_id in images.users():
        image = every.get(image_id)
        while image is not None and image.id not in used:
            used[image.id] = image
            image = every.get(image.parent_id)
    blobs, layers = images.referred(used.values())
    paths = [*map(images.content.path, blobs), *map(images.snapshotter.path, layers)]
    idle = [path for chain, copies in images.unused_copies().items() if chain in layers
            for path in copies]  # fmt: skip
    return _on_disk(paths) - _on_disk(idle)


def _on_disk(paths: list[str]) -> int:
    """Returns the bytes of the blocks of some files and directories and all that is in them."""
    total = 0
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            continue
        total += status.st_blocks * descent.BLOCK_BYTES
        if stat.S_ISDIR(status.st_mode):
            total += descent.usage(path)[1]
    return total


def _entries(directory: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in os.listdir(directory)]
    except OSError:
        return []


def container(engine: "Engine", found: "Container") -> tuple[int, int]:
    """Returns the bytes of what a container has written, and of all its files together."""
    own, _ = descent.usage(f"{engine.settings.container_directory(found.id)}/upper")
    return own, own + layers(engine, found)


def layers(engine: "Engine", found: "Container") -> int:
    """Returns the bytes of the layers that a container stands on."""
    image = engine.images.known(found.image_id)
    return 0 if image is None else image.size_bytes


class Layers:
    """The layers of all images: what they take, and how much of an image others share.

    Args:
        images: the engine's.
        every: all images.
    """

    __slots__ = ("_images", "_sizes", "_uses")

    def __init__(self, images: "Images", every: "Iterable[Image]") -> None:
        self._images = images
        self._uses: dict[str, int] = {}
        for image in every:
            for chain_id in image.chain_ids:
                self._uses[chain_id] = self._uses.get(chain_id, 0) + 1
        self._sizes = {
            chain_id: images.snapshotter.size_bytes(chain_id)
            for chain_id in self._uses
            if images.snapshotter.exists(chain_id)
        }

    def shared_bytes(self, image: "Image") -> int:
        """What layers of an image take that other images have as well."""
        return sum(
            self._sizes.get(chain_id, 0)
            for chain_id in image.chain_ids
            if self._uses.get(chain_id, 0) > 1
        )
