"""From a tag or a digest to one image: the manifest for a platform, its configuration, its layers.

All of it comes from a stranger and is checked before a layer is asked for: each document against
its digest, its size and its type, the layers against the configuration that names their content.
"""

import json
from typing import TYPE_CHECKING

from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
)
from ketch.images import compression
from ketch.spec import image as documents
from ketch.spec import platforms

if TYPE_CHECKING:
    from ketch.images.registry.repository import Document, Repository
    from ketch.spec.image import Descriptor, ImageConfig, Manifest, Platform

_DEPTH_MAX = 4

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


class Target:
    """An image that a registry has.

    Attributes:
        digest: of what the tag names: the manifest, or an index with it.
        manifest_digest: of the image's manifest.
        manifest_content: the manifest's bytes.
        manifest: the manifest.
        config_content: the configuration's bytes.
        config: the configuration.
    """

    __slots__ = ("config", "config_content", "digest", "manifest", "manifest_content",
                 "manifest_digest")  # fmt: skip

    def __init__(
        self, digest: str, found: "Document", manifest: "Manifest", config_content: bytes
    ) -> None:
        self.digest = digest
        self.manifest_digest = found.digest
        self.manifest_content = found.content
        self.manifest = manifest
        self.config_content = config_content
        self.config: ImageConfig = documents.parse_config(config_content)

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
    top = document.digest
    seen = {top}
    while is_index(document):
        if len(seen) > _DEPTH_MAX:
            raise RegistryError(
                f"{repository.shown}: indexes are nested more than {_DEPTH_MAX} deep"
            )
        index = documents.parse_index(document.content)
        chosen = _choose(index["manifests"], platform)
        if chosen["digest"] in seen:
            raise RegistryError(f"{repository.shown}: the index {chosen['digest']} leads to itself")
        seen.add(chosen["digest"])
        document = repository.manifest(chosen["digest"])
        if len(document.content) != chosen["size"]:
            raise DigestMismatchError(
                f"manifest {chosen['digest']} has {len(document.content)} bytes, and not"
                f" {chosen['size']} as the index says"
            )
    manifest = documents.parse_manifest(document.content)
    _check_type(document, manifest)
    for layer in manifest["layers"]:
        layer_format(layer)
    config = manifest["config"]
    target = Target(top, document, manifest, repository.blob(config["digest"], config["size"]))
    if len(target.config["rootfs"].get("diff_ids") or ()) != len(manifest["layers"]):
        raise InvalidArgumentError(
            f"image configuration {config['digest']}: layers from manifest don't match image"
            " configuration"
        )
    return target


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


def _choose(manifests: "list[Descriptor]", platform: "Platform") -> "Descriptor":
    try:
        return platforms.choose(manifests, platform)
    except NotFoundError:
        inner = [entry for entry in manifests if entry["mediaType"] in documents.INDEX_TYPES]
        if len(inner) == 1 and "platform" not in inner[0]:
            return inner[0]
        raise


def _check_type(document: "Document", manifest: "Manifest") -> None:
    said = manifest.get("mediaType")
    known = document.media_type in documents.MANIFEST_TYPES
    if known and said is not None and said != document.media_type:
        raise RegistryError(
            f"manifest {document.digest} is said to be {document.media_type}, and says {said}"
        )
    config_type = manifest["config"]["mediaType"]
    if config_type not in {documents.OCI_CONFIG, documents.DOCKER_CONFIG}:
        raise UnsupportedError(
            f"manifest {document.digest} is not of a container image: its configuration is of type"
            f" {ascii(config_type)[:200]}"
        )
