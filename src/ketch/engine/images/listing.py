"""Which images ``images`` shows and ``image prune`` takes: Docker's filters.

Source: moby, daemon/images/images.go and image_prune.go.
"""

import contextlib
import time

from ketch.engine.images import inspection
from ketch.errors import ConflictError, InvalidArgumentError, KetchError, NotFoundError
from ketch.spec import image as documents
from ketch.spec import timestamps
from ketch.spec.filters import Filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.engine.images.removal import Events

LIST_FILTERS = ("before", "dangling", "label", "reference", "since", "until")
PRUNE_FILTERS = ("dangling", "label", "label!", "until")

_TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def select(
    images: "Images", pairs: "Iterable[str]" = (), *, every: bool = False, pattern: str = ""
) -> "list[Image]":
    """Returns the images to list, newest first; their names are those that are to be shown.

    Args:
        images: where.
        pairs: filters, ``name=value`` each.
        every: whether images without a name that others were committed on are shown too.
        pattern: one more ``reference`` filter, or empty.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
        NotFoundError: ``before`` or ``since`` names no image.
    """
    chosen = Filters(pairs, LIST_FILTERS)
    patterns = [*chosen.values("reference"), *([pattern] if pattern else [])]
    found = images.list(*patterns)
    parents = {image.parent_id for image in images.list()}
    dangling = _truth(chosen, "dangling")
    oldest, newest = _between(images, chosen)
    shown = []
    for image in found:
        if not (oldest < image.created_ns < newest) or not _labelled(image, chosen):
            continue
        if not image.names:
            if dangling is False or (image.id in parents and not every):
                continue
        elif dangling and inspection.repo_tags(image):
            continue
        shown.append(image)
    return shown


def prune(
    images: "Images", pairs: "Iterable[str]" = (), *, every: bool = False
) -> "tuple[Events, int]":
    """Remove images that nobody uses.

    Args:
        images: where.
        pairs: filters, ``name=value`` each.
        every: whether named ones go too if no container uses them; else only dangling ones.

    Returns:
        What happened, in order, as ``Images.remove`` tells it, and bytes of the deleted layers and
        of copies of layers that no container has.

    Raises:
        InvalidArgumentError: a filter is unknown or malformed.
    """
    chosen = Filters(pairs, PRUNE_FILTERS)
    dangling_only = _truth(chosen, "dangling")
    if dangling_only is None:
        dangling_only = not every
    until = _until(chosen)
    snapshotter = images.snapshotter
    sizes = {
        chain: snapshotter.size_bytes(chain) * (1 + len(snapshotter.copies(chain)))
        for chain in snapshotter.chain_ids()
    }
    users, found = images.users(), images.list()
    with images.removing() as removal:
        for image in found:
            if image.created_ns >= until or image.id in users or not _labelled(image, chosen):
                continue
            if dangling_only and inspection.repo_tags(image):
                continue
            for text in image.names or [image.id]:
                # It may be in use by now, have children, or be gone with its last tag.
                with contextlib.suppress(ConflictError, NotFoundError):
                    removal.remove(text)
    reclaimed = sum(sizes.get(name, 0) for what, name in removal.events if what == "Deleted")
    reclaimed += images.remove_unused_copies()
    images.record_prune(reclaimed)
    return removal.events, reclaimed


def _between(images: "Images", chosen: Filters) -> tuple[int, int]:
    """Returns the moments, themselves excluded, between which an image must have been made."""
    now_ns = time.time_ns()
    untils = [timestamps.moment(text, now_ns) for text in chosen.values("until")]
    oldest, newest = timestamps.UNKNOWN_NS - 1, min(untils, default=1 << 62)
    for text in chosen.values("since"):
        oldest = max(oldest, _resolved(images, text).created_ns)
    for text in chosen.values("before"):
        newest = min(newest, _resolved(images, text).created_ns)
    return oldest, newest


def _resolved(images: "Images", text: str) -> "Image":
    try:
        return images.resolve(text)
    except InvalidArgumentError as error:
        raise NotFoundError(f"No such image: {text}") from error


def _until(chosen: Filters) -> int:
    values = chosen.values("until")
    if len(values) > 1:
        raise InvalidArgumentError("more than one until filter specified")
    return timestamps.moment(values[0], time.time_ns()) if values else 1 << 62


def _truth(chosen: Filters, name: str) -> bool | None:
    values = chosen.values(name)
    if not values:
        return None
    truths = {_TRUTHS.get(value.lower()) for value in values}
    if None in truths or len(truths) > 1:
        raise InvalidArgumentError(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths.pop()


def _labelled(image: "Image", chosen: Filters) -> bool:
    if "label" not in chosen and "label!" not in chosen:
        return True
    try:
        labels = image.config.get("Labels") or {}
    except KetchError:  # its configuration is damaged
        return False
    return chosen.labels("label", labels) and not any(
        Filters([f"label={text}"], ["label"]).labels("label", labels)
        for text in chosen.values("label!")
    )


def summary(image: "Image", containers: int) -> "dict[str, object]":
    """Returns what ``GET /images/json`` tells of an image: ImageSummary in the API.

    Args:
        image: the image.
        containers: how many containers use it, -1 where that was not asked for.
    """
    try:
        labels = image.config.get("Labels")
    except KetchError:
        labels = None
    created = image.created_ns
    return {
        "Containers": containers,
        "Created": created // timestamps.SECOND_NS if created > timestamps.UNKNOWN_NS else 0,
        "Id": image.id,
        "Labels": labels,
        "ParentId": image.parent_id,
        "RepoDigests": inspection.repo_digests(image),
        "RepoTags": inspection.repo_tags(image),
        "SharedSize": -1,
        "Size": image.size_bytes,
    }


def manifest(images: "Images", image: "Image", users: "Sequence[str]") -> "dict[str, Any]":
    """Returns what is told of the one manifest that an image has: ImageManifestSummary in the API.

    Args:
        images: where.
        image: the image.
        users: the IDs of its containers.

    Raises:
        NotFoundError: the manifest, or the configuration, is missing.
    """
    content = images.content.read(image.manifest_digest)
    parsed = documents.parse_manifest(content)
    content_bytes = len(content) + sum(
        blob["size"] for blob in (parsed["config"], *parsed["layers"])
    )
    return {
        "ID": image.manifest_digest,
        "Descriptor": documents.descriptor(
            parsed.get("mediaType", documents.OCI_MANIFEST), image.manifest_digest, len(content)
        ),
        "Available": True,
        "Size": {"Total": content_bytes + image.size_bytes, "Content": content_bytes},
        "Kind": "image",
        "ImageData": {
            "Platform": documents.platform_of(image.document),
            "Containers": users,
            "Size": {"Unpacked": image.size_bytes},
        },
    }
