"""Manifests and indexes of what was built: layers compressed as asked, annotations, attestations.

All of it is written to the content store, from where archives and registries take it. What no
record refers to afterwards goes with the next collection of garbage.

Sources: OCI image specification; moby/buildkit, exporter/containerimage (attributes, annotations)
and docs/attestations/attestation-storage.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ketch.build.outputs.provenance import statement
from ketch.dataclass import dataclass, field
from ketch.errors import InvalidArgumentError
from ketch.images import compression as formats
from ketch.linux import sparse
from ketch.spec import image as documents
from ketch.spec.build_options import is_true

if TYPE_CHECKING:
    from ketch.build.outputs.result import Built, Outcome
    from ketch.engine.images.images import Images
    from ketch.spec.image import Descriptor, Manifest

COMPRESSIONS = (formats.GZIP, formats.ZSTD, "uncompressed")
_LEVELS = {formats.GZIP: (0, 3, formats.GZIP_LEVEL), formats.ZSTD: (0, 22, 3)}  # least, most, usual
_ANNOTATION = re.compile(r"([a-z-]+)(?:\[([^\]]*)\])?:(.*)", re.DOTALL)
_STATEMENT = "application/vnd.in-toto+json"
_PREDICATE = "in-toto.io/predicate-type"
_SUBJECT = "vnd.docker.reference.digest"
_SUBJECT_TYPE = "vnd.docker.reference.type"


@dataclass(frozen=True)
class Form:
    """How manifests are to be.

    Attributes:
        compression: of new layers.
        level: how hard it tries.
        forced: whether layers of the base are compressed anew as well.
        is_oci: whether media types are OCI's; else Docker's.
    """

    compression: str = formats.GZIP
    level: int = _LEVELS[formats.GZIP][2]
    forced: bool = False
    is_oci: bool = True

    @classmethod
    def read(cls, attributes: Mapping[str, str], usual: str = formats.GZIP) -> "Form":
        """Read an output's attributes.

        Args:
            attributes: as ``--output`` has them.
            usual: the compression where none is named.

        Raises:
            InvalidArgumentError: one of them is malformed.
        """
        kind = attributes.get("compression") or usual
        if kind not in COMPRESSIONS:
            raise InvalidArgumentError(
                f"unsupported layer compression type {kind!r}", f"types: {', '.join(COMPRESSIONS)}"
            )
        least, most, level = _LEVELS.get(kind, (0, 0, 0))
        if text := attributes.get("compression-level"):
            try:
                level = int(text)
            except ValueError as error:
                raise InvalidArgumentError(f"invalid compression-level {text!r}") from error
            level = min(max(level, least), most)
        return cls(
            kind, level,
            is_true(attributes.get("force-compression", "false")),
            is_true(attributes.get("oci-mediatypes", "true")),
        )  # fmt: skip


@dataclass(frozen=True)
class Written:
    """Documents that are in the store.

    Attributes:
        root: the index, or the only manifest.
        manifests: of each platform's image.
        attestations: manifests beside these.
        configurations: digest of each image's configuration.
        blobs: everything that these refer to, each once, in the order in which it is to be sent:
            what is referred to before what refers, the root last.
    """

    root: "Descriptor"
    manifests: "Sequence[Descriptor]"
    configurations: Sequence[str]
    attestations: "Sequence[Descriptor]" = ()
    blobs: "Sequence[Descriptor]" = ()


@dataclass
class _Blobs:
    """What has been written, each once."""

    found: "dict[str, Descriptor]" = field(default_factory=dict)

    def add(self, *blobs: "Descriptor") -> None:
        for blob in blobs:
            self.found.setdefault(blob["digest"], blob)


def write(images: "Images", outcome: "Outcome", form: Form) -> Written:
    """Write the documents of what was built, within ``Images.adding``.

    Args:
        images: where its layers are, and these go.
        outcome: what was built.
        form: how they are to be.

    Raises:
        InvalidArgumentError: an annotation is for what is not there.
        UnavailableError: the disk is full or failing.
    """
    blobs = _Blobs()
    has_attestations = any(built.predicates for built in outcome.images)
    is_list = outcome.is_list or len(outcome.images) > 1 or has_attestations
    _check_annotations(outcome, is_list=is_list)
    manifests, configurations, attestations = [], [], []
    for built in outcome.images:
        layers = [_layer(images, built, number, form) for number in range(len(built.layers))]
        content = documents.encode(built.document)
        documents.parse_config(content)  # what could not be read again is not written
        config = _document(images, documents.OCI_CONFIG, content)
        manifest = documents.manifest(config, layers)
        if annotations := _annotations(outcome, "manifest", built.platform):
            manifest["annotations"] = annotations
        if not form.is_oci:
            manifest = _as_docker(manifest)
        described = _manifest(images, manifest)
        if is_list:
            described["platform"] = documents.platform_of(built.document)
        if annotations := _annotations(outcome, "manifest-descriptor", built.platform):
            described["annotations"] = annotations
        blobs.add(*manifest["layers"], manifest["config"], described)
        manifests.append(described)
        configurations.append(config["digest"])
        if built.predicates:
            attestations.append(_attestation(images, outcome, built, described, blobs))
    if not is_list:
        return Written(manifests[0], manifests, configurations, (), list(blobs.found.values()))
    root = _index(images, outcome, [*manifests, *attestations], form)
    blobs.add(root)
    return Written(root, manifests, configurations, attestations, list(blobs.found.values()))


def _index(
    images: "Images", outcome: "Outcome", entries: "list[Descriptor]", form: Form
) -> "Descriptor":
    kind = documents.OCI_INDEX if form.is_oci else documents.DOCKER_INDEX
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    if annotations := _annotations(outcome, "index", ""):
        index["annotations"] = annotations
    described = _document(images, kind, documents.encode(index))
    if annotations := _annotations(outcome, "index-descriptor", ""):
        described["annotations"] = annotations
    return described


def _document(images: "Images", media_type: str, content: bytes) -> "Descriptor":
    return documents.descriptor(media_type, images.content.write(content), len(content))


def _manifest(images: "Images", manifest: "Manifest") -> "Descriptor":
    content = documents.encode(manifest)
    documents.parse_manifest(content)
    return _document(images, manifest["mediaType"], content)


def _as_docker(manifest: "Manifest") -> "Manifest":
    kinds = {
        documents.OCI_LAYER: documents.DOCKER_LAYER,
        f"{documents.OCI_LAYER}+gzip": f"{documents.DOCKER_LAYER}.gzip",
        f"{documents.OCI_LAYER}+zstd": f"{documents.DOCKER_LAYER}.zstd",
    }
    return {
        **manifest,
        "mediaType": documents.DOCKER_MANIFEST,
        "config": {**manifest["config"], "mediaType": documents.DOCKER_CONFIG},
        "layers": [
            {**layer, "mediaType": kinds.get(layer["mediaType"], layer["mediaType"])}
            for layer in manifest["layers"]
        ],
    }


# Layers


def _layer(images: "Images", built: "Built", number: int, form: Form) -> "Descriptor":
    """Returns a layer as it is to be, made so where it is not."""
    layer = built.layers[number]
    kind = documents.oci_layer_type(layer.descriptor["mediaType"])
    found: Descriptor = {**layer.descriptor, "mediaType": kind}
    suffix = "" if form.compression == "uncompressed" else f"+{form.compression}"
    wanted = f"{documents.OCI_LAYER}{suffix}"
    inherited = number < built.base_layers and not form.forced
    if kind == wanted or (inherited and kind != documents.OCI_LAYER):
        return found
    with images.content.writer() as writer:
        for piece in compressed(_plain(images, layer.descriptor), form):
            writer.write(piece)
        digest = writer.commit()
    return documents.descriptor(wanted, digest, images.content.size_bytes(digest))


def _plain(images: "Images", layer: "Descriptor") -> Iterator[bytes]:
    """Yield a layer's archive without compression."""
    with open(images.content.path(layer["digest"]), "rb", buffering=0) as file:
        kind, stream = formats.sniffed(file)
        if kind == formats.PLAIN:
            yield from sparse.pieces(images.content.path(layer["digest"]))
            return
        content = formats.decompressed(stream, kind, documents.BLOB_SIZE_MAX)
        while piece := content.read(sparse.PIECE_BYTES):
            yield piece


def compressed(pieces: Iterator[bytes], form: Form) -> Iterator[bytes]:
    """Returns pieces compressed as a form wants it."""
    if form.compression == "uncompressed":
        return pieces
    return formats.compressed(pieces, form.compression, form.level)


# Annotations


def _annotations(outcome: "Outcome", kind: str, platform: str) -> dict[str, str]:
    """Returns the annotations of one document: those for all platforms, then those for its own."""
    found: list[tuple[bool, str, str]] = []
    for text, value in outcome.annotations.items():
        match = _ANNOTATION.fullmatch(text)
        if match is None or match[1] != kind:
            continue
        if match[2] and match[2] != platform:
            continue
        found.append((bool(match[2]), match[3], value))
    return {key: value for _, key, value in sorted(found, key=lambda one: one[0])}


def _check_annotations(outcome: "Outcome", *, is_list: bool) -> None:
    for text in outcome.annotations:
        if text.startswith("index") and not is_list:
            raise InvalidArgumentError(
                "index annotations not supported for single platform export",
                "annotate the manifest, or build for several platforms",
            )


# Attestations


def _attestation(
    images: "Images", outcome: "Outcome", built: "Built", subject: "Descriptor", blobs: _Blobs
) -> "Descriptor":
    """Write the manifest beside an image's that holds what is attested of it."""
    layers = []
    for kind, predicate in built.predicates:
        said = statement(kind, predicate, outcome.names, built.platform, subject["digest"])
        layer = _document(images, _STATEMENT, documents.encode(said))
        layer["annotations"] = {_PREDICATE: kind}
        layers.append(layer)
    empty = {
        "architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }  # fmt: skip
    config = _document(images, documents.OCI_CONFIG, documents.encode(empty))
    manifest = documents.manifest(config, layers)
    described = _document(images, documents.OCI_MANIFEST, documents.encode(manifest))
    described["platform"] = {"architecture": "unknown", "os": "unknown"}
    described["annotations"] = {
        _SUBJECT: subject["digest"], _SUBJECT_TYPE: "attestation-manifest",
    }  # fmt: skip
    blobs.add(*layers, config, described)
    return described
