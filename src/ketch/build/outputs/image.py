"""A result as an image of the store: ``type=image``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError
from ketch.spec import image as documents
from ketch.spec import platforms, timestamps
from ketch.spec import reference as references

if TYPE_CHECKING:
    from ketch.build.outputs.manifests import Written
    from ketch.build.outputs.result import Built, Outcome
    from ketch.build.reporting import Track
    from ketch.engine.images.images import Images
    from ketch.spec.reference import Reference


def record(
    images: "Images", outcome: "Outcome", written: "Written", names: Sequence[str], track: "Track"
) -> str:
    """Record what was built, within ``Images.adding``; the index is the caller's to publish.

    Of several platforms each image is recorded, and this machine's has the names, or the first.

    Args:
        images: where its layers and documents are.
        outcome: what was built.
        written: its documents.
        names: what it is called.
        track: is told.

    Returns:
        The image's ID.

    Raises:
        InvalidArgumentError: a name is malformed.
    """
    given = [
        references.new_name(name, "refusing to create a tag with a digest reference")
        for name in names
    ]
    chosen = _chosen(outcome.images)
    for number, built in enumerate(outcome.images):
        image_id = written.configurations[number]
        with track.part(f"writing image {image_id}"):
            _record(images, built, image_id, written.manifests[number]["digest"],
                    given if number == chosen else [])  # fmt: skip
    for name in given:
        with track.part(f"naming to {name}"):
            pass
    return written.configurations[chosen]


def check_names(names: Sequence[str]) -> None:
    """Look whether a result can have its names, before it is built.

    Raises:
        InvalidArgumentError: one is malformed.
    """
    for name in names:
        try:
            references.new_name(name, "refusing to create a tag with a digest reference")
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f'invalid tag "{name}": {error.message}', error.hint
            ) from error


def _chosen(images: "Sequence[Built]") -> int:
    host = documents.host_platform()
    for number, built in enumerate(images):
        if platforms.matches(documents.platform_of(built.document), host):
            return number
    return 0


def _record(
    images: "Images",
    built: "Built",
    image_id: str,
    manifest_digest: str,
    names: "Sequence[Reference]",
) -> None:
    known = images.known(image_id)
    labels = (built.document.get("config") or {}).get("Labels") or {}
    had = set(known.names) if known is not None else set()
    told = [
        ("tag", image_id, {**labels, "name": name.familiar})
        for name in names
        if str(name) not in had
    ]
    images.record(
        image_id,
        manifest_digest,
        timestamps.created_ns(built.document.get("created") or ""),
        sum(layer.size_bytes for layer in built.layers),
        names,
        told,
    )
