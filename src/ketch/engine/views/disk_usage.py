"""What takes up room: the document of ``system df``, in the API's keys (``SystemDiskUsage``).

The build cache is told of by ``ketch.build.cache.listing``.
"""

from ketch.engine.images import listing as image_listing
from ketch.engine.views import inspection, sizes
from ketch.engine.volumes import listing as volume_listing
from ketch.spec.template_functions import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ketch.engine.engine import Engine

KINDS = ("container", "image", "volume")


def document(engine: "Engine", kinds: "Collection[str]" = KINDS) -> "dict[str, Any]":
    """Returns what images, containers and volumes take.

    Args:
        engine: where.
        kinds: which of KINDS to look at.
    """
    found: dict[str, Any] = {}
    if "image" in kinds:
        images = engine.images.list()
        layers = sizes.Layers(engine.images, images)
        users = engine.images.users()
        found["LayersSize"] = sizes.store(engine.images)
        found["Images"] = [
            {
                **image_listing.summary(image, len(users.get(image.id, ()))),
                "SharedSize": layers.shared_bytes(image),
            }
            for image in images
        ]
    if "container" in kinds:
        containers = engine.containers.list(all=True)
        found["Containers"] = [
            {**summary, "SizeRw": own, "SizeRootFs": whole}
            for container, summary in zip(
                containers, inspection.summaries(engine, containers), strict=True
            )
            for own, whole in [sizes.container(engine, container)]
        ]
    if "volume" in kinds:
        found["Volumes"] = [plain(volume_listing.usage(one)) for one in engine.volumes.list()]
    return found
