"""From a tag or a digest to one image: the manifest for a platform, its configuration, its layers.

All of it comes from a stranger and is checked before a layer is asked for: each document against
its digest, its size and its type, the layers against the configuration that names their content.
"""

import json
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    RegistryError,
    UnsupportedError,
)
from ketch.images import compression
from ketch.spec import artifacts, platforms
from ketch.spec import image as documents

if TYPE_CHECKING:
    from ketch.images.registry.repository import Document, Repository
    from ketch.spec.image import Descriptor, ImageConfig, Manifest, Platform

_DEPTH_MAX = 4
_TRIES_MAX = 32  # of entries that do not say what they are for

# Layers' media types and the format that each promises.
LAYER_FORMATS = {
    documents.OCI_LAYER: compression.PLAIN,
    f"{documents.OCI_LAYER}+gzip": compression.GZIP,
    f"{documents.OCI_LAYER}+zstd": compression.ZSTD,
    documents.DOCKER_LAYER: compression.PLAIN,
    f"{documents.DOCKER_LAYER}.gzip": compression.GZIP,
    f"{documents.DOCKER_LAYER}.zstd": compression.ZSTD,
}
_FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)


class Target(NamedTuple):
    """An image that a registry has.

    Attributes:
        digest: of what the tag names: the manifest, or an index with it.
        manifest_digest: of the image's manifest.
        manifest_content: the manifest's bytes.
        manifest: the manifest.
        config_content: the configuration's bytes.
        config: the configuration.
    """

    digest: str
    manifest_digest: str
    manifest_content: bytes
    manifest: "Manifest"
    config_content: bytes
    config: "ImageConfig"

    @property
    def image_id(self) -> str:
        """The image's ID: the digest of its configuration."""
        return self.manifest["config"]["digest"]


def resolve(repository: "Repository", reference: str, platform: "Platform") -> Target:
    """Find one image.

    Args:
        repository: where.
        reference: tag or digest.
        platform: what it is to run on, where there are several.

    Raises:
        NotFoundError: there is no such reference, or nothing for the platform.
        UnsupportedError: it is no container image, or one with layers that may not be copied.
        DigestMismatchError: a document is not what it should be.
        InvalidArgumentError: a document is malformed.
        RegistryError: the registry's answers contradict each other.
    """
    document = repository.manifest(reference)
    if not is_index(document):
        return _target(repository, document.digest, document)
    found = _Search(repository, document.digest, platform)
    target = found.within(document, {document.digest})
    if target is None:
        index = documents.parse_index(document.content)
        raise found.refused or platforms.unmatched(index["manifests"], platform)
    return target


def _target(repository: "Repository", top: str, document: "Document") -> Target:
    manifest = documents.parse_manifest(document.content)
    _check_type(document, manifest)
    for layer in manifest["layers"]:
        layer_format(layer)
    config = manifest["config"]
    content = repository.blob(config["digest"], config["size"])
    image = documents.parse_config(content)
    if len(image["rootfs"].get("diff_ids") or ()) != len(manifest["layers"]):
        raise InvalidArgumentError(
            f"image configuration {config['digest']}: layers from manifest don't match image"
            " configuration"
        )
    return Target(top, document.digest, document.content, manifest, content, image)


class _Search:
    """The search for an image in an index and those that it leads on to.

    Args:
        repository: where.
        top: digest of the index that the search began with.
        platform: what the image is to run on.

    Attributes:
        refused: what the first thing was that is no image for this platform, by its configuration.
    """

    def __init__(self, repository: "Repository", top: str, platform: "Platform") -> None:
        self._repository = repository
        self._top = top
        self._platform = platform
        self._tries = 0
        self.refused: UnsupportedError | None = None

    def within(self, document: "Document", path: set[str]) -> Target | None:
        """Returns the best image of an index; ``path`` has the digests that led to it, and its."""
        shown = self._repository.shown
        if len(path) > _DEPTH_MAX:
            raise RegistryError(f"{shown}: indexes are nested more than {_DEPTH_MAX} deep")
        index = documents.parse_index(document.content)
        for entry in platforms.by_preference(index["manifests"], self._platform):
            if entry["digest"] in path:
                raise RegistryError(f"{shown}: the index {entry['digest']} leads to itself")
            if self._tries >= _TRIES_MAX:
                break
            self._tries += 1
            found = self._at(entry, path)
            if found is not None:
                return found
        return None

    def _at(self, entry: "Descriptor", path: set[str]) -> Target | None:
        """Returns the image that an entry leads to, if that runs on the platform."""
        document = self._repository.manifest(entry["digest"])
        size = documents.listed_size(entry)
        if size is not None and len(document.content) != size:
            raise DigestMismatchError(
                f"manifest {entry['digest']} has {len(document.content)} bytes, and not"
                f" {size} as the index says"
            )
        try:
            if is_index(document):
                return self.within(document, path | {entry["digest"]})
            target = _target(self._repository, self._top, document)
        except UnsupportedError as error:
            self.refused = self.refused or error
            return None
        fits = platforms.matches(documents.platform_of(target.config), self._platform)
        return target if fits or "platform" in entry else None


def is_index(document: "Document") -> bool:
    """Whether a document is an index; by what it says itself where the registry says nothing."""
    if document.media_type in documents.INDEX_TYPES:
        return True
    if document.media_type in documents.MANIFEST_TYPES:
        return False
    try:
        content = json.loads(document.content)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"manifest {document.digest}: not JSON: {error}") from error
    said = content.get("mediaType") if isinstance(content, dict) else None
    if said is None and isinstance(content, dict):
        return "manifests" in content
    if said not in (*documents.INDEX_TYPES, *documents.MANIFEST_TYPES):
        raise UnsupportedError(
            f"manifest {document.digest}: unsupported media type"
            f" {ascii(said or document.media_type)[:200]}"
        )
    return said in documents.INDEX_TYPES


def layer_format(layer: "Descriptor") -> str:
    """Returns the format that a layer's media type promises.

    Raises:
        UnsupportedError: it is foreign, encrypted, or no layer of a file system.
    """
    media_type = layer["mediaType"]
    kind = LAYER_FORMATS.get(media_type)
    if kind is not None:
        return kind
    if media_type.startswith(_FOREIGN):
        raise UnsupportedError(
            f"layer {layer['digest']} is foreign: it may not be copied from registries",
            "images with such layers, mostly for Windows, are not supported",
        )
    raise UnsupportedError(
        f"layer {layer['digest']}: unsupported media type {ascii(media_type)[:200]}"
    )


def _check_type(document: "Document", manifest: "Manifest") -> None:
    said = manifest.get("mediaType")
    known = document.media_type in documents.MANIFEST_TYPES
    if known and said is not None and said != document.media_type:
        raise RegistryError(
            f"manifest {document.digest} is said to be {document.media_type}, and says {said}"
        )
    artifacts.check(manifest, document.digest)
