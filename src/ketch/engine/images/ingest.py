"""How layers and images get into the store: as a stream, checked on the way, all or nothing."""

import hashlib
import os
import time

from ketch.engine.images.layer import Layer
from ketch.errors import DigestMismatchError, InvalidArgumentError
from ketch.images import changes as change
from ketch.images import compression, unpacking
from ketch.spec import image as documents
from ketch.spec import reference as references
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from ketch.engine.images.images import Images
    from ketch.images.tar import Stream
    from ketch.spec.image import ContainerConfig, Descriptor, ImageConfig, Platform

# The digest of no bytes at all: whoever was to write the archive has written nothing.
_EMPTY = f"sha256:{hashlib.sha256().hexdigest()}"


def add_layer(
    images: "Images",
    stream: "Stream",
    below: "Sequence[str]" = (),
    *,
    expected: "Descriptor | None" = None,
    diff_id: str = "",
    source: str = "",
    by_hand: "Sequence[str]" = (),
) -> Layer:
    """Store a layer's blob and unpack it, in one pass, within ``Images.adding``.

    Args:
        images: where.
        stream: the blob: an archive, plain or compressed; formats that layers cannot have are
            stored as what they hold.
        below: chain IDs of the layers below it, the lowest first.
        expected: what the blob was promised to be; nothing is kept that has another digest or
            size, and no more is read than that size and one byte.
        diff_id: the digest that its content was promised to have, or empty.
        source: a command that writes the blob, for who asks how it is done by hand; or empty.
        by_hand: commands that make the layer, where none writes this very blob.

    Raises:
        DigestMismatchError: it is not what was promised.
        InvalidArgumentError: the archive is malformed, or one layer too many.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: unpacking needs privileges that the caller lacks.
    """
    if len(below) >= documents.LAYERS_MAX:
        raise InvalidArgumentError(
            f"max depth exceeded: an image has at most {documents.LAYERS_MAX} layers",
            "make one layer of all: export a container of it, and import that",
        )
    began_ns = time.monotonic_ns()
    algorithm = expected["digest"].partition(":")[0] if expected else "sha256"
    if expected is not None:
        stream = _Limited(stream, expected["size"], expected["digest"])
    kind, stream = compression.sniffed(stream)
    with images.snapshotter.ingest(below) as ingest, images.content.writer(algorithm) as writer:
        ingest.hidden = [] if images.settings.say else None
        kept = expected is not None or kind in {compression.GZIP, compression.ZSTD}
        if not kept:
            stream = compression.decompressed(stream, kind, unpacking.room(ingest))
        stored = compression.Tee(stream, writer.write)
        found, size_bytes = unpacking.unpack(
            stored, kind if kept else compression.PLAIN, ingest,
            (lambda: writer.digest) if algorithm == "sha256" else None,
        )  # fmt: skip
        if diff_id and found != diff_id:
            raise DigestMismatchError(
                f"layer content has the digest {found}, and not {diff_id} as it should"
            )
        if expected is not None and writer.size_bytes != expected["size"]:
            raise DigestMismatchError(
                f"blob {expected['digest']} is {writer.size_bytes} bytes long, and not"
                f" {expected['size']} as it should"
            )
        digest = writer.commit(expected["digest"] if expected else "")
        chain_id = documents.next_chain_id(below[-1] if below else "", found)
        ingest.commit(chain_id, size_bytes)
    suffix = f"+{kind}" if kept and kind != compression.PLAIN else ""
    descriptor = documents.descriptor(f"{documents.OCI_LAYER}{suffix}", digest, writer.size_bytes)
    layer = Layer(descriptor, found, chain_id, size_bytes)
    if images.settings.say:
        from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

        images.settings.tell(
            telling.of_layer, images, len(below) + 1, layer, began_ns=began_ns,
            hidden=ingest.hidden or (), source=source, kind=kind, by_hand=by_hand,
        )  # fmt: skip
    return layer


def check_held(
    images: "Images", blob: "Descriptor", diff_id: str, known: "Container[tuple[str, str]]"
) -> None:
    """Check that a blob which the store holds is what a manifest and a configuration say of it.

    That both the blob and a layer of that diff ID are here does not mean that one is the other.
    What an image has already is known; else the blob is read through.

    Args:
        images: where.
        blob: the blob, as the manifest describes it.
        diff_id: digest of the content that the configuration promises.
        known: ``Images.pairs``.

    Raises:
        DigestMismatchError: it has another length, or other content.
        InvalidArgumentError: it cannot be decompressed, or holds more than there is room for.
    """
    digest = blob["digest"]
    size_bytes = images.content.size_bytes(digest)
    if size_bytes != blob["size"]:
        raise DigestMismatchError(
            f"blob {digest} has {size_bytes} bytes, and not {blob['size']} as its descriptor says"
        )
    if digest == diff_id or (digest, diff_id) in known:
        return
    found = hashlib.sha256()
    facts = os.statvfs(images.root)
    with open(images.content.path(digest), "rb", buffering=0) as file:
        kind, stream = compression.sniffed(file)
        content = compression.decompressed(stream, kind, facts.f_bavail * facts.f_frsize)
        while piece := content.read(unpacking.PIECE_BYTES):
            found.update(piece)
    if f"sha256:{found.hexdigest()}" != diff_id:
        raise DigestMismatchError(
            f"layer {digest} holds sha256:{found.hexdigest()}, where the image's configuration"
            f" promises {diff_id}"
        )


def known_layer(
    images: "Images",
    below: "Sequence[str]",
    diff_id: str,
    expected: "Descriptor | None" = None,
    known: "Container[tuple[str, str]]" = (),
) -> Layer | None:
    """Returns a layer that is in the store already, as a blob and unpacked, else None.

    Args:
        images: where.
        below: chain IDs of the layers below it, the lowest first.
        diff_id: digest of its content.
        expected: its blob; the uncompressed one where that is not said.
        known: ``Images.pairs``, where ``expected`` is given.

    Raises:
        DigestMismatchError: the blob is not what was promised.
    """
    chain_id = documents.next_chain_id(below[-1] if below else "", diff_id)
    digest = expected["digest"] if expected else diff_id
    if not images.snapshotter.exists(chain_id) or digest not in images.content:
        return None
    if expected is not None:
        check_held(images, expected, diff_id, known)
    descriptor = expected or documents.descriptor(
        documents.OCI_LAYER, digest, images.content.size_bytes(digest)
    )
    return Layer(descriptor, diff_id, chain_id, images.snapshotter.size_bytes(chain_id))


def import_image(
    images: "Images",
    stream: "Stream",
    reference: str = "",
    *,
    changes: "Sequence[str]" = (),
    message: str = "",
    platform: str = "",
) -> str:
    """Make an image of one layer from a root file system's tar archive.

    Args:
        images: where.
        stream: the archive, plain or compressed.
        reference: its name, or empty for an image without one.
        changes: Dockerfile instructions that change its configuration.
        message: a comment, kept in its history.
        platform: ``os[/architecture[/variant]]``; this machine's where empty.

    Returns:
        The new image's ID.

    Raises:
        InvalidArgumentError: an argument or the archive is malformed, or there is no archive.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: unpacking needs privileges that the caller lacks.
    """
    name = references.new_name(reference, "cannot import digest reference") if reference else None
    machine = documents.parse_platform(platform) if platform else documents.host_platform()
    if machine["os"] != "linux":
        raise InvalidArgumentError(
            f"operating system {machine['os']!r} is not supported: only linux is"
        )
    config: ContainerConfig = {}
    change.apply(config, changes)
    labels = config.get("Labels") or {}
    created_ns = time.time_ns()
    try:
        with images.adding():
            layer = add_layer(images, stream)
            if layer.diff_id == _EMPTY:
                raise InvalidArgumentError(
                    "the archive is empty: not even the end of one is in it",
                    "look at what was to write it; an image without files is imported from an "
                    "archive without any: tar -cT /dev/null | ketch import -",
                )
            document = _new_document(machine, config, layer.diff_id, created_ns, message)
            content = documents.encode(document)
            documents.parse_config(content)  # what could not be read again is not written
            image_id = images.content.write(content)
            configuration = documents.descriptor(
                documents.OCI_CONFIG, image_id, images.content.size_bytes(image_id)
            )
            manifest = documents.manifest(configuration, [layer.descriptor])
            images.record(
                image_id,
                images.content.write(documents.encode(manifest)),
                created_ns,
                layer.size_bytes,
                [name] if name else [],
                [
                    *([("tag", image_id, {**labels, "name": name.familiar})] if name else []),
                    ("import", image_id, {**labels, "name": image_id}),
                ],
            )
        images.publish_index()
    finally:
        images.collect_garbage()
    return image_id


class _Limited:
    """A stream that may be so long and no longer.

    Args:
        stream: what is read.
        size_bytes: its length.
        digest: what it is called in errors.
    """

    __slots__ = ("_digest", "_left_bytes", "_stream")

    def __init__(self, stream: "Stream", size_bytes: int, digest: str) -> None:
        self._stream = stream
        self._left_bytes = size_bytes
        self._digest = digest

    def read(self, size: int, /) -> bytes:
        content = self._stream.read(size)
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise DigestMismatchError(f"blob {self._digest} is longer than it should be")
        return content


def _new_document(
    platform: "Platform",
    config: "ContainerConfig",
    diff_id: str,
    created_ns: int,
    message: str,
) -> "ImageConfig":
    created = timestamps.rfc3339(created_ns)
    document: ImageConfig = {
        **platform,  # type: ignore[typeddict-item] # its keys are among the document's
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": message}],
    }
    if message:
        document["comment"] = message
    return document
