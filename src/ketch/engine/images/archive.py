"""``load``: images from archives that docker, podman, skopeo and umoci write.

What is loaded may be an OCI image layout or Docker's, and is checked against every digest that it
names.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

from ketch.engine.images import ingest
from ketch.engine.images.layout import NAME_ANNOTATION, REFERENCE_ANNOTATION, blob_path
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from ketch.images.registry.progress import Progress, Watched
from ketch.spec import artifacts, docker_archive, platforms, timestamps
from ketch.spec import digest as digests
from ketch.spec import image as documents
from ketch.spec import reference as references

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ketch.engine.images.images import Images
    from ketch.engine.images.ingest import Layer
    from ketch.images.archive import Source
    from ketch.spec.image import Descriptor, ImageConfig, Platform
    from ketch.spec.reference import Reference


_INDEX_DEPTH_MAX = 4
_IMAGES_MAX = 1000
_DOCUMENTS_BYTES_MAX = 1 << 26  # of all images together: they are read before the first is stored


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


class PassedOver(NamedTuple):
    """Something in an archive that is no container image, beside images that were loaded.

    Attributes:
        error: says what it is.
    """

    error: UnsupportedError

    def lines(self) -> list[str]:
        """Returns what there is to say of it."""
        return [f"Passed over: {self.error.message}"]


def load(
    images: "Images",
    source: "Source",
    *,
    platform: str = "",
    done: "Callable[[Loaded | PassedOver], object]" = lambda _: None,
    progress: Progress | None = None,
) -> list[Loaded]:
    """Take images from an archive; those before one that is damaged stay.

    Args:
        images: where they go.
        source: the archive.
        platform: which of an image's platforms is taken; this machine's where empty.
        done: is told of each image once it is there, and of what was passed over.
        progress: is told how far each layer is that the store lacks.

    Raises:
        InvalidArgumentError: the archive, or a document in it, is malformed.
        NotFoundError: it lacks something, or has no image of that platform.
        DigestMismatchError: content is not what its digest promised.
        UnsupportedError: an image's layers are elsewhere, or there are only charts, signatures and
            the like.
        UnavailableError: the disk is full or failing.
    """
    wanted = documents.parse_platform(platform) if platform else documents.host_platform()
    loaded = []
    try:
        with images.adding():
            found, refused = _from_index(source, wanted, strict=bool(platform))
            if not found and refused:
                raise refused[0]
            found = found or _from_manifest(source)
            for error in refused:
                done(PassedOver(error))
            known = images.pairs()
            for candidate in found:
                if platform and not platforms.matches(
                    documents.platform_of(candidate.document), wanted
                ):
                    raise NotFoundError(
                        f"requested platform ({platform}) not found: image might not be loaded"
                    )
                loaded.append(candidate.store(images, source, progress or Progress(), known))
                done(loaded[-1])
            _link(images, source, {one.id for one in loaded})
    finally:
        images.publish_index()
        images.collect_garbage()
    return loaded


class _Candidate:
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
        self, images: "Images", source: "Source", progress: Progress, known: set[tuple[str, str]]
    ) -> Loaded:
        """Store and record the image; adds to ``known``, of ``Images.pairs``, what it found."""
        document = self.document
        image_id = images.content.write(self.config)
        existing = images.known(image_id)
        if existing is not None and self.manifest is None:
            # Its layers may have come compressed; those are as good.
            manifest_digest, size_bytes = existing.manifest_digest, existing.size_bytes
        else:
            layers = self._layers(images, source, document, progress, known)
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

    def _layers(
        self,
        images: "Images",
        source: "Source",
        document: "ImageConfig",
        progress: Progress,
        known: set[tuple[str, str]],
    ) -> "list[Layer]":
        below: list[str] = []
        layers: list[Layer] = []
        diff_ids = document["rootfs"]["diff_ids"]
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
                        images, stream, below, expected=expected, diff_id=diff_id
                    )
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


# Reading


def _from_index(
    source: "Source", wanted: "Platform", *, strict: bool
) -> tuple[list[_Candidate], list[UnsupportedError]]:
    """Read an OCI image layout, which the archive need not be.

    Returns:
        The images, and what there is beside them.
    """
    content = source.document("index.json")
    if content is None or "oci-layout" not in source:
        return [], []
    index = documents.parse_index(content)
    found: dict[str, _Candidate] = {}
    search = _Search(source, wanted)
    others = False
    named: set[tuple[str, Reference]] = set()
    for entry in index["manifests"]:
        platform = entry.get("platform")
        unfit = platform is not None and not platforms.matches(platform, wanted)
        if unfit and (strict or len(index["manifests"]) > 1):
            others = True
            continue
        digest = search.image(entry)
        if digest is None:
            others = True
            continue
        candidate = found.get(digest)
        if candidate is None:
            candidate = found[digest] = _oci_candidate(source, digest)
            _check_amount(found.values())
        name = _annotated_name(entry.get("annotations") or {})
        if name is not None and (digest, name) not in named:
            named.add((digest, name))
            candidate.names.append(name)
    if not found and others and not search.refused:
        raise NotFoundError(
            f"the archive has no image for {wanted['os']}/{wanted['architecture']}",
            "choose one of its platforms with --platform",
        )
    _name(source, found.values())
    return list(found.values()), list(search.refused.values())


def _name(source: "Source", candidates: "Collection[_Candidate]") -> None:
    """Give images the names that Docker's list has for them, where an archive is in both forms."""
    content = source.document(docker_archive.NAME)
    if content is None or not candidates:
        return
    by_config = {digests.of(candidate.config): candidate for candidate in candidates}
    for entry in docker_archive.parse(content):
        if not entry["RepoTags"]:
            continue
        candidate = by_config.get(digests.of(source.document(entry["Config"]) or b""))
        if candidate is not None:
            candidate.names += [one for one in _tags(entry) if one not in candidate.names]


class _Search:
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
        index = documents.parse_index(_blob(self._source, digest))
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
        content = _blob(self._source, entry["digest"])
        return documents.OCI_INDEX if documents.is_index(content) else documents.OCI_MANIFEST

    def _is_image(self, digest: str) -> bool:
        """Whether a manifest is a container image's; what else it is of is noted."""
        try:
            artifacts.check(documents.parse_manifest(_blob(self._source, digest)), digest)
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
        manifest = documents.parse_manifest(_blob(self._source, entry["digest"]))
        config = documents.parse_config(_blob(self._source, manifest["config"]["digest"]))
        return platforms.matches(documents.platform_of(config), self._wanted)


def _oci_candidate(source: "Source", digest: str) -> _Candidate:
    content = _blob(source, digest)
    manifest = documents.parse_manifest(content)
    for layer in manifest["layers"]:
        if layer.get("urls") or "foreign" in layer["mediaType"]:
            raise UnsupportedError(f"layer {layer['digest']} is foreign: it is kept elsewhere")
    config = _blob(source, manifest["config"]["digest"])
    layers = [(blob_path(layer["digest"]), layer) for layer in manifest["layers"]]
    return _Candidate(config, list(layers), [], content)


def _from_manifest(source: "Source") -> list[_Candidate]:
    """Read Docker's layout.

    Raises:
        InvalidArgumentError: the archive is neither this nor an OCI image layout.
    """
    content = source.document(docker_archive.NAME)
    if content is None:
        raise InvalidArgumentError(
            "the archive has neither a manifest.json nor an OCI image layout",
            "ketch import takes root filesystems",
        )
    found = []
    for entry in docker_archive.parse(content):
        config = source.document(entry["Config"])
        if config is None:
            raise NotFoundError(f"the archive lacks {entry['Config'][:200]!a}, which it refers to")
        layers: list[tuple[str, Descriptor | None]] = [(path, None) for path in entry["Layers"]]
        found.append(_Candidate(config, layers, _tags(entry)))
        _check_amount(found)
    return found


def _tags(entry: "docker_archive.Item") -> "list[Reference]":
    names = []
    for text in entry["RepoTags"]:
        name = references.parse(text)
        if name.digest or not name.tag:
            raise InvalidArgumentError(f"invalid tag {text!r}")
        names.append(name)
    return names


def _check_amount(found: "Collection[_Candidate]") -> None:
    if len(found) > _IMAGES_MAX:
        raise InvalidArgumentError(f"the archive has more than {_IMAGES_MAX} images")
    if sum(candidate.held_bytes for candidate in found) > _DOCUMENTS_BYTES_MAX:
        raise InvalidArgumentError(
            f"the documents of the archive's images take more than {_DOCUMENTS_BYTES_MAX >> 20} MiB"
        )


def _link(images: "Images", source: "Source", loaded: set[str]) -> None:
    """Record which of some images others were committed on, as Docker's list says.

    Source: moby, image/tarexport/load.go, ``setParentID``.

    Raises:
        InvalidArgumentError: the list is wrong about it.
    """
    content = source.document(docker_archive.NAME) or b""
    if b'"Parent"' not in content:
        return
    for entry in docker_archive.parse(content):
        parent_id = entry["Parent"]
        image_id = digests.of(source.document(entry["Config"]) or b"")
        if not {image_id, parent_id} <= loaded:
            continue
        image, parent = images.resolve(image_id).document, images.resolve(parent_id).document
        above, below = image["rootfs"]["diff_ids"], parent["rootfs"]["diff_ids"]
        steps, known = list(image.get("history") or ()), list(parent.get("history") or ())
        # One more step, or without a history one more layer: so none is its own ancestor.
        if above[: len(below)] != below or (
            steps[:-1] != known if steps else known or len(above) <= len(below)
        ):
            raise InvalidArgumentError(f"image {parent_id} is not a valid parent for {image_id}")
        images.set_parent(image_id, parent_id)


def _blob(source: "Source", digest: str) -> bytes:
    """Read a document of an OCI image layout and verify it."""
    content = source.document(blob_path(digest))
    if content is None:
        raise NotFoundError(f"the archive lacks blob {digest}, which it refers to")
    if not digests.matches(content, digest):
        raise DigestMismatchError(f"the archive's blob {digest} has another digest")
    return content


def _annotated_name(annotations: "dict[str, str]") -> "Reference | None":
    """Returns the name that an index gives an image, None where there is none to go by."""
    whole, short = annotations.get(NAME_ANNOTATION), annotations.get(REFERENCE_ANNOTATION)
    text = whole or short or ""
    if not text or text == references.DEFAULT_TAG:
        return None  # the mere tag, as umoci has it, does not tell of which repository
    try:
        name = references.parse(text)
        if whole and short and short not in {name.tag, name.familiar, str(name)}:
            # umoci gives an image that it changed a new tag, and leaves the rest as it was.
            name = references.parse(f"{name.name}:{short}")
    except InvalidArgumentError:
        return None  # the annotation's grammar allows more than a reference's
    return None if name.digest else name.tagged()
