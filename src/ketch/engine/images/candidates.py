"""Images that an archive or a layout holds: found and checked, before they are in the store.

Nothing is taken on trust: each document and layer must have the digest that led to it.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

from ketch.engine.images import ingest
from ketch.engine.images.layout import REFERENCE_ANNOTATION, blob_path
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from ketch.images.registry.progress import Progress, Watched
from ketch.spec import artifacts, platforms, timestamps
from ketch.spec import digest as digests
from ketch.spec import image as documents
from ketch.spec import reference as references

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.images.images import Images
    from ketch.engine.images.layer import Layer
    from ketch.images.archive import Source
    from ketch.spec.image import Descriptor, ImageConfig, Platform
    from ketch.spec.reference import Reference


_INDEX_DEPTH_MAX = 4


class Loaded(NamedTuple):
    """One image that ``load`` found.

    Attributes:
        id: its ID.
        names: the names it got, in familiar form.
        replaced: names that it took from others, and their IDs.
    """

    id: str
    names: list[str]
    replaced: list[tuple[str, str]]

    def lines(self) -> list[str]:
        """Returns what there is to say of it, in Docker's words."""
        told = [
            f"The image {name} already exists, renaming the old one with ID {image_id}"
            " to empty string"
            for name, image_id in self.replaced
        ]
        told += [f"Loaded image: {name}" for name in self.names]
        return told if self.names else [*told, f"Loaded image ID: {self.id}"]


class Candidate:
    """An image in an archive, its documents read and checked.

    Args:
        config: its configuration's bytes.
        layers: where its layers are, and what they were promised to be, if anything was.
        names: what it is called.
        manifest: its manifest's bytes, None for one that is yet to be made.
    """

    __slots__ = ("config", "layers", "manifest", "names")

    def __init__(
        self,
        config: bytes,
        layers: "list[tuple[str, Descriptor | None]]",
        names: "list[Reference]",
        manifest: bytes | None = None,
    ) -> None:
        self.config = config
        self.layers = layers
        self.names = names
        self.manifest = manifest
        diff_ids = self.document["rootfs"]["diff_ids"]
        if len(layers) != len(diff_ids):
            raise InvalidArgumentError(
                f"invalid manifest, layers length mismatch: expected {len(diff_ids)},"
                f" got {len(layers)}"
            )

    @property
    def document(self) -> "ImageConfig":
        """Its configuration, read anew each time: parsed it may take 30 times the room."""
        return documents.parse_config(self.config)

    @property
    def held_bytes(self) -> int:
        """How much memory its documents take."""
        return len(self.config) + len(self.manifest or b"")

    def store(
        self,
        images: "Images",
        source: "Source",
        progress: Progress,
        known: set[tuple[str, str]],
        by_hand: "Callable[[str], str] | None" = None,
    ) -> Loaded:
        """Store and record the image; adds to ``known``, of ``Images.pairs``, what it found.

        Args: as ``add_layers``.
        """
        document = self.document
        image_id = images.content.write(self.config)
        existing = images.known(image_id)
        if existing is not None and self.manifest is None:
            # Its layers may have come compressed; those are as good.
            manifest_digest, size_bytes = existing.manifest_digest, existing.size_bytes
        else:
            layers = self.add_layers(images, source, progress, known, by_hand)
            known |= {(layer.descriptor["digest"], layer.diff_id) for layer in layers}
            size_bytes = sum(layer.size_bytes for layer in layers)
            manifest_digest = images.content.write(self._manifest(image_id, layers))
        replaced = images.holders(self.names)
        names = [name.familiar for name in self.names]
        labels = (document.get("config") or {}).get("Labels") or {}
        images.record(
            image_id,
            manifest_digest,
            timestamps.created_ns(document.get("created") or ""),
            size_bytes,
            self.names,
            [("load", image_id, {**labels, "name": image_id})],
        )
        return Loaded(image_id, names, [pair for pair in replaced if pair[1] != image_id])

    def add_layers(
        self,
        images: "Images",
        source: "Source",
        progress: Progress,
        known: set[tuple[str, str]],
        by_hand: "Callable[[str], str] | None" = None,
    ) -> "list[Layer]":
        """Store the layers that are not there yet, within ``Images.adding``.

        Args:
            images: where they go.
            source: where they are read from.
            progress: is told how far each is.
            known: layers of the store, of ``Images.pairs``.
            by_hand: returns a command that writes a member of the source, by its name.

        Raises:
            KetchError: as ``ingest.add_layer`` raises.
        """
        below: list[str] = []
        layers: list[Layer] = []
        diff_ids = self.document["rootfs"]["diff_ids"]
        for (name, expected), diff_id in zip(self.layers, diff_ids, strict=True):
            layer = ingest.known_layer(images, below, diff_id, expected, known)
            if layer is None:
                part = source.open(name)
                tell = functools.partial(
                    progress.advance, digests.short(diff_id), "Loading layer",
                    total_bytes=part.size_bytes,
                )  # fmt: skip
                stream = Watched(part, part.size_bytes, tell)
                try:
                    layer = ingest.add_layer(
                        images, stream, below, expected=expected, diff_id=diff_id,
                        source=by_hand(name) if by_hand else "",
                    )  # fmt: skip
                finally:
                    part.close()
            layers.append(layer)
            below.append(layer.chain_id)
        return layers

    def _manifest(self, image_id: str, layers: "list[Layer]") -> bytes:
        if self.manifest is not None:
            return self.manifest
        config = documents.descriptor(documents.OCI_CONFIG, image_id, len(self.config))
        return documents.encode(documents.manifest(config, [layer.descriptor for layer in layers]))


class Search:
    """The search for images in the indexes of a layout.

    Args:
        source: the archive.
        wanted: the platform.

    Attributes:
        refused: what is no container image, by digest.
    """

    def __init__(self, source: "Source", wanted: "Platform") -> None:
        self._source = source
        self._wanted = wanted
        # Answers by index, so that each is read once, however many entries lead to it.
        self._known: dict[str, str | None] = {}
        self.refused: dict[str, UnsupportedError] = {}

    def image(self, entry: "Descriptor") -> str | None:
        """Returns the manifest that an entry of ``index.json`` leads to, if it is an image's."""
        digest = entry["digest"]
        kind = self._kind(entry)
        if kind in documents.INDEX_TYPES:
            return self._within(digest, 0)
        return digest if kind in documents.MANIFEST_TYPES and self._is_image(digest) else None

    def _within(self, digest: str, depth: int) -> str | None:
        """Returns the best manifest for the platform in an index and those that it leads on to."""
        if depth >= _INDEX_DEPTH_MAX:
            raise InvalidArgumentError(
                f"index {digest}: indexes are nested more than {_INDEX_DEPTH_MAX} deep"
            )
        if digest in self._known:
            return self._known[digest]
        self._known[digest] = None
        index = documents.parse_index(blob(self._source, digest))
        for entry in platforms.by_preference(index["manifests"], self._wanted):
            inner: str | None = entry["digest"]
            if blob_path(entry["digest"]) not in self._source:
                continue
            kind = self._kind(entry)
            if kind in documents.INDEX_TYPES:
                inner = self._within(entry["digest"], depth + 1)
            elif kind not in documents.MANIFEST_TYPES or not self._fits(entry):
                inner = None
            if inner is not None:
                self._known[digest] = inner
                return inner
        return None

    def _kind(self, entry: "Descriptor") -> str:
        """Returns the type of what an entry leads to, which is looked at where that is not said."""
        if entry["mediaType"]:
            return entry["mediaType"]
        content = blob(self._source, entry["digest"])
        return documents.OCI_INDEX if documents.is_index(content) else documents.OCI_MANIFEST

    def _is_image(self, digest: str) -> bool:
        """Whether a manifest is a container image's; what else it is of is noted."""
        try:
            artifacts.check(documents.parse_manifest(blob(self._source, digest)), digest)
        except UnsupportedError as error:
            self.refused[digest] = error
            return False
        return True

    def _fits(self, entry: "Descriptor") -> bool:
        """Whether an entry is of an image for the platform, by its configuration if need be."""
        if not self._is_image(entry["digest"]):
            return False
        if "platform" in entry:
            return True
        manifest = documents.parse_manifest(blob(self._source, entry["digest"]))
        config = documents.parse_config(blob(self._source, manifest["config"]["digest"]))
        return platforms.matches(documents.platform_of(config), self._wanted)


def find(source: "Source", reference: str, wanted: "Platform") -> tuple[str, Candidate]:
    """Find one image of an OCI image layout.

    Args:
        source: the layout.
        reference: a tag or a digest; empty for ``latest``, or else the only one that there is.
        wanted: the platform.

    Returns:
        The digest of its manifest, and the image.

    Raises:
        InvalidArgumentError: this is no layout, or a document in it is malformed.
        NotFoundError: there is no such image, none of that platform, or something is missing.
        DigestMismatchError: content is not what its digest promised.
        UnsupportedError: it is no container image, or its layers are elsewhere.
    """
    content = source.document("index.json")
    if content is None or "oci-layout" not in source:
        raise InvalidArgumentError("not an OCI image layout: it lacks index.json or oci-layout")
    entries = documents.parse_index(content)["manifests"]
    if digests.valid(reference):
        found = [documents.descriptor("", reference, 0)]
    else:
        tag = reference or references.DEFAULT_TAG
        found = [entry for entry in entries if tag in _tags(entry)]
        found = found or (entries if len(entries) == 1 or not reference else [])
    if not found:
        tags = sorted({tag for entry in entries for tag in _tags(entry)})
        raise NotFoundError(
            f"the OCI image layout has no image {reference!r}",
            f"there are: {', '.join(tags[:20])}" if tags else "",
        )
    if len({entry["digest"] for entry in found}) > 1 and not reference:
        raise InvalidArgumentError(
            "the OCI image layout has several images", "name one by its tag or digest"
        )
    search = Search(source, wanted)
    for entry in found:
        digest = search.image(entry)
        if digest is not None:
            candidate = of_layout(source, digest)
            if not platforms.matches(documents.platform_of(candidate.document), wanted):
                break
            return digest, candidate
    for error in search.refused.values():
        raise error
    raise NotFoundError(f"the OCI image layout has no image for {platforms.shown(wanted)}")


def _tags(entry: "Descriptor") -> set[str]:
    """Returns by which tags an index calls an image."""
    annotations = entry.get("annotations") or {}
    name = annotations.get(REFERENCE_ANNOTATION) or ""
    # The tag alone, as the specification's examples have it, or a whole name that ends with it.
    return {name, name.rpartition(":")[2]} - {""}


def of_layout(source: "Source", digest: str) -> Candidate:
    """Returns the image that a manifest of an OCI image layout describes.

    Raises:
        KetchError: as for ``find``.
    """
    content = blob(source, digest)
    manifest = documents.parse_manifest(content)
    for layer in manifest["layers"]:
        if layer.get("urls") or "foreign" in layer["mediaType"]:
            raise UnsupportedError(f"layer {layer['digest']} is foreign: it is kept elsewhere")
    config = blob(source, manifest["config"]["digest"])
    layers = [(blob_path(layer["digest"]), layer) for layer in manifest["layers"]]
    return Candidate(config, list(layers), [], content)


def blob(source: "Source", digest: str) -> bytes:
    """Read a document of an OCI image layout and verify it."""
    content = source.document(blob_path(digest))
    if content is None:
        raise NotFoundError(f"the archive lacks blob {digest}, which it refers to")
    if not digests.matches(content, digest):
        raise DigestMismatchError(f"the archive's blob {digest} has another digest")
    return content
