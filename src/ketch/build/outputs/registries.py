"""A result sent to registries: ``type=registry``, and ``type=image,push=true``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError
from ketch.images.registry import push as blobs
from ketch.images.registry.progress import Progress
from ketch.spec import reference as references
from ketch.spec.digest import short

if TYPE_CHECKING:
    from ketch.build.outputs.manifests import Written
    from ketch.engine.images.images import Images
    from ketch.images.registry.registries import Registries
    from ketch.images.registry.repository import Repository
    from ketch.spec.image import Descriptor


def push(
    images: "Images",
    written: "Written",
    names: Sequence[str],
    registries: "Registries",
    progress: Progress,
    *,
    by_digest: bool = False,
    insecure: bool = False,
) -> None:
    """Send all of it, what is referred to before what refers, to each of some names.

    Args:
        images: where the blobs are.
        written: what is sent.
        names: where to.
        registries: how these are reached, and who asks.
        progress: who is told.
        by_digest: whether it gets no tag there.
        insecure: whether HTTP, and a certificate of nobody's, will do.

    Raises:
        InvalidArgumentError: there is no name.
        KetchError: a registry refuses something, or cannot be reached.
    """
    if not names:
        raise InvalidArgumentError("tag is needed when pushing to registry", "name it with -t")
    for text in names:
        name = references.parse(text).tagged()
        repository = registries.repository(name, push=True, insecure=insecure)
        manifests = {one["digest"] for one in (*written.manifests, *written.attestations)}
        manifests.add(written.root["digest"])
        for blob in written.blobs:
            if blob["digest"] not in manifests:
                _send(images, repository, blob, registries, progress)
        for one in (*written.manifests, *written.attestations):
            _put(images, repository, one, one["digest"])
        _put(images, repository, written.root, written.root["digest"] if by_digest else name.tag)
        progress.say("", f"pushing manifest for {name}@{written.root['digest']}")


def _put(
    images: "Images", repository: "Repository", manifest: "Descriptor", reference: str
) -> None:
    content = images.content.read(manifest["digest"])
    repository.put_manifest(reference, manifest["mediaType"], content)


def _send(
    images: "Images",
    repository: "Repository",
    blob: "Descriptor",
    registries: "Registries",
    progress: Progress,
) -> None:
    shown = f"pushing {short(blob['digest'])}"
    blobs.send_missing(
        repository, images.content, blob["digest"],
        attempts=registries.configuration.attempts,
        sent=lambda position: progress.advance(shown, "pushing", position, blob["size"]),
    )  # fmt: skip
