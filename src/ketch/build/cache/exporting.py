"""Results for other builders: written where ``--cache-to`` says.

``mode=min`` writes what led to the image, ``mode=max`` all steps of the build. Layers are written
compressed, as images' are for registries, each once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ketch.build.cache import document
from ketch.build.cache.document import Entry
from ketch.build.cache.made import Made
from ketch.build.outputs import manifests
from ketch.engine.images import saving
from ketch.engine.images.layout import REFERENCE_ANNOTATION
from ketch.errors import InvalidArgumentError
from ketch.images.archive import DirectorySink
from ketch.spec import image as documents
from ketch.spec import reference as references
from ketch.spec.build_options import is_true

if TYPE_CHECKING:
    from ketch.build.layering import Layering
    from ketch.build.reporting import Track
    from ketch.build.request import CachePlace, Request
    from ketch.build.states import State
    from ketch.engine.images.images import Images
    from ketch.engine.processes import Patience
    from ketch.spec.image import Descriptor


def entry(made: Made) -> Entry:
    """Returns what is told of a step."""
    layer = made.state.layers[-1]
    below = "" if layer.alone or len(made.state.layers) < 2 else made.state.layers[-2].chain_id
    return Entry(made.key, layer.diff_id, below, layer.alone, layer.description, layer.created_ns)


def write(
    images: "Images", layering: "Layering", place: "CachePlace", steps: Sequence[Made],
    request: "Request", patience: "Patience", track: "Track",
) -> None:  # fmt: skip
    """Write a cache, within ``Images.adding``.

    Args:
        images: where its layers are.
        layering: makes their archives.
        place: where it goes.
        steps: what it has.
        request: who asks.
        patience: how the caller waits.
        track: is told.

    Raises:
        InvalidArgumentError: an attribute is malformed.
        KetchError: it cannot be written there.
    """
    form = manifests.Form.read(place.attributes)
    layers: dict[str, Descriptor] = {}
    for made in steps:
        diff_id = made.state.layers[-1].diff_id
        if diff_id not in layers:
            with track.part(f"writing layer {diff_id}"):
                layers[diff_id] = _layer(images, layering, made.state, form)
    content = document.encode(map(entry, steps), layers)
    document.parse(content)  # what could not be read again is not written
    config = documents.descriptor(document.MEDIA_TYPE, images.content.write(content), len(content))
    manifest = documents.manifest(config, layers.values())
    text = documents.encode(manifest)
    root = documents.descriptor(documents.OCI_MANIFEST, images.content.write(text), len(text))
    written = manifests.Written(
        root, [root], [config["digest"]], (), [*manifest["layers"], config, root]
    )
    with track.part("writing cache manifest"):
        if place.type == "local":
            _to_directory(images, written, place)
        elif place.type == "registry":
            _to_registry(images, written, place, request, patience, track)
        else:
            raise InvalidArgumentError(f"nothing can be exported to a cache of type {place.type}")


def _layer(
    images: "Images", layering: "Layering", state: "State", form: manifests.Form
) -> "Descriptor":
    """Write the blob of the topmost of some layers."""
    layer = state.layers[-1]
    with images.content.writer() as writer:
        pieces = layering.archive(state, len(state.layers) - 1)
        for piece in manifests.compressed(pieces, form):
            writer.write(piece)
        digest = writer.commit()
    suffix = "" if form.compression == "uncompressed" else f"+{form.compression}"
    if not suffix and digest != layer.diff_id:
        raise InvalidArgumentError(f"layer {layer.diff_id} has changed on the disk")
    return documents.descriptor(
        f"{documents.OCI_LAYER}{suffix}", digest, images.content.size_bytes(digest)
    )


def _to_directory(images: "Images", written: manifests.Written, place: "CachePlace") -> None:
    sink = DirectorySink(place.attributes["dest"])
    for blob in written.blobs:
        saving.add_blob(images, sink, blob["digest"])
    tag = place.attributes.get("tag", "latest")
    named: Descriptor = {**written.root, "annotations": {REFERENCE_ANNOTATION: tag}}
    saving.finish(sink, [named])


def _to_registry(
    images: "Images", written: manifests.Written, place: "CachePlace", request: "Request",
    patience: "Patience", track: "Track",
) -> None:  # fmt: skip
    # Few builds speak to a registry.
    from ketch.build.outputs import registries as output  # noqa: PLC0415
    from ketch.build.pulling import Told, registries  # noqa: PLC0415

    name = references.parse(place.attributes["ref"]).tagged()
    insecure = is_true(place.attributes.get("registry.insecure", "false"))
    with registries(request, patience) as connected:
        told = Told(track)
        output.push(images, written, [str(name)], connected, told, insecure=insecure)
        told.finish()
