"""Lists of manifests in the making: one name for the images of several platforms.

They are kept beside ``config.json``, each in a directory of its own with a file for each image, in
the form that the docker command has for them: a list begun with one can be finished with the other.
"""

import base64
import binascii
import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)
from ketch.images.registry import resolve
from ketch.images.registry.credentials import docker_directory
from ketch.images.registry.repository import Document, verify
from ketch.spec import image as documents
from ketch.spec import reference as references
from ketch.spec.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.images.registry.registries import Registries
    from ketch.images.registry.repository import Repository
    from ketch.spec.image import Descriptor

_FILE_SIZE_MAX = 16 << 20
_LIST_BYTES_MAX = 32 << 20

# Which systems there are and what runs on each: Docker's list, cli/manifest/util.go.
_PLATFORMS = {
    "aix": "ppc64", "darwin": "386 amd64 arm arm64", "dragonfly": "amd64",
    "freebsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 ppc64le mips mips64 mips64le mipsle riscv64 s390x loong64",
    "netbsd": "386 amd64 arm", "openbsd": "386 amd64 arm", "plan9": "386 amd64",
    "solaris": "amd64", "windows": "386 amd64 arm arm64",
}  # fmt: skip
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant", "features")


class Entry(NamedTuple):
    """One image of a list.

    Attributes:
        name: the image, with tag or digest.
        descriptor: of its manifest, with its platform.
        content: the manifest.
    """

    name: Reference
    descriptor: "Descriptor"
    content: bytes

    @property
    def manifest(self) -> "dict[str, Any]":
        """The manifest's document."""
        found: dict[str, Any] = json.loads(self.content)
        return found

    def document(self) -> "dict[str, Any]":
        """Returns it in the form of the docker command."""
        kind = self.descriptor["mediaType"]
        key = "OCIManifest" if kind == documents.OCI_MANIFEST else "SchemaV2Manifest"
        return {
            "Ref": str(self.name),
            "Descriptor": self.descriptor,
            "Raw": base64.b64encode(self.content).decode(),
            key: self.manifest,
        }


class ManifestLists:
    """The lists of one user.

    Args:
        environment: says which ``docker_directory`` they are below.
    """

    __slots__ = ("_root",)

    def __init__(self, environment: "Mapping[str, str]") -> None:
        base = docker_directory(environment)
        self._root = f"{base}/manifests"

    def __contains__(self, name: Reference) -> bool:
        """Whether there is a list of that name."""
        return os.path.isdir(self._directory(name))

    def entries(self, name: Reference) -> list[Entry]:
        """Returns a list's images.

        Raises:
            NotFoundError: there is no such list.
            InvalidArgumentError: a file of it is damaged.
        """
        try:
            files = sorted(os.listdir(self._directory(name)))
        except FileNotFoundError as error:
            raise NotFoundError(f"No such manifest: {name}") from error
        return [self._read(f"{self._directory(name)}/{file}") for file in files]

    def entry(self, name: Reference, image: Reference) -> Entry | None:
        """Returns one of a list's images, None where it is not in the list."""
        path = f"{self._directory(name)}/{_file_name(image)}"
        return self._read(path) if os.path.exists(path) else None

    def put(self, name: Reference, entry: Entry) -> None:
        """Add an image to a list, or replace it there.

        Raises:
            UnavailableError: the file cannot be written.
        """
        path = f"{self._directory(name)}/{_file_name(entry.name)}"
        temporary = f"{self._root}/.{os.urandom(6).hex()}"
        try:
            os.makedirs(self._directory(name), 0o755, exist_ok=True)
            with open(temporary, "x", encoding="utf-8") as file:
                json.dump(entry.document(), file)
            os.rename(temporary, path)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise UnavailableError(f"cannot write {path}: {error.strerror}") from error

    def remove(self, name: Reference) -> None:
        """Forget a list.

        Raises:
            NotFoundError: there is no such list.
        """
        if name not in self:
            raise NotFoundError(f"No such manifest: {name}")
        shutil.rmtree(self._directory(name))

    def _directory(self, name: Reference) -> str:
        return f"{self._root}/{_file_name(name)}"

    def _read(self, path: str) -> Entry:
        try:
            with open(path, "rb") as file:
                document = json.loads(file.read(_FILE_SIZE_MAX))
            content = base64.b64decode(document["Raw"], validate=True)
            document["Descriptor"] = documents.parse_entry(document["Descriptor"], path)
            verify(content, document["Descriptor"]["digest"])
            document["Descriptor"].setdefault("size", len(content))
            documents.parse_manifest(content)
            if not isinstance(document["Ref"], str):
                raise TypeError("Ref")  # noqa: TRY301 - as everything that is of another type
            return Entry(references.parse(document["Ref"]), document["Descriptor"], content)
        except (OSError, ValueError, RecursionError, KeyError, TypeError, binascii.Error) as error:
            raise InvalidArgumentError(f"{path}: no manifest of a list") from error


def create(
    lists: ManifestLists,
    registries: "Registries",
    target: str,
    images: "list[str]",
    *,
    amend: bool = False,
    insecure: bool = False,
) -> Reference:
    """Begin a list, or add to one.

    Args:
        lists: where lists are kept.
        registries: where the images are.
        target: the list's name.
        images: the images' names.
        amend: whether the list may exist.
        insecure: whether the registries need not be secure.

    Returns:
        The list's name in normal form.

    Raises:
        ConflictError: the list exists.
        NotFoundError: an image does not.
    """
    name = references.parse(target).tagged()
    if name in lists and not amend:
        raise ConflictError("refusing to amend an existing manifest list with no --amend flag")
    for text in images:
        image = references.parse(text).tagged()
        if lists.entry(name, image) is None:
            lists.put(name, fetch(registries, image, insecure=insecure))
    return name


def document(
    registries: "Registries", image: Reference, *, insecure: bool = False
) -> "tuple[Repository, Document]":
    """Returns a repository, and the manifest or the list that it has for an image's name.

    Raises:
        NotFoundError: it has none.
    """
    repository = registries.repository(image, insecure=insecure)
    try:
        return repository, repository.manifest(image.digest or image.tag)
    except NotFoundError as error:
        raise NotFoundError(f"no such manifest: {image.familiar}") from error


def fetch(registries: "Registries", image: Reference, *, insecure: bool = False) -> Entry:
    """Fetch one image's manifest, and its platform from its configuration.

    Raises:
        InvalidArgumentError: the name is of several images.
        NotFoundError: there is none of that name.
    """
    repository, found = document(registries, image, insecure=insecure)
    if resolve.is_index(found):
        raise InvalidArgumentError(f"{image.familiar} is a manifest list")
    return _entry(repository, image, found)


def fetch_all(registries: "Registries", image: Reference, *, insecure: bool = False) -> list[Entry]:
    """Fetch the manifest, or all manifests of the list, that an image's name stands for.

    Raises:
        RegistryError: they are more than anybody would look at.
        DigestMismatchError: one has another length than the list says.
        InvalidArgumentError: one is malformed.
    """
    repository, found = document(registries, image, insecure=insecure)
    if not resolve.is_index(found):
        return [_entry(repository, image, found)]
    entries = []
    left_bytes = _LIST_BYTES_MAX
    for described in documents.parse_index(found.content)["manifests"]:
        if described["mediaType"] not in {"", *documents.MANIFEST_TYPES}:
            continue
        size = documents.listed_size(described)
        left_bytes -= size or 0
        if left_bytes < 0:
            raise RegistryError(f"{image.familiar}: more than {_LIST_BYTES_MAX} bytes of manifests")
        one = repository.manifest(described["digest"])
        if size is not None and len(one.content) != size:
            raise DigestMismatchError(
                f"manifest {described['digest']} has {len(one.content)} bytes, and not"
                f" {size} as the list says"
            )
        if not described["mediaType"] and resolve.is_index(one):
            continue
        left_bytes -= 0 if size else len(one.content)
        manifest = documents.parse_manifest(one.content)
        described["size"] = len(one.content)
        described["mediaType"] = manifest.get("mediaType") or one.media_type
        name = Reference(image.domain, image.path, digest=described["digest"])
        entries.append(Entry(name, described, one.content))
    return entries


def annotate(lists: ManifestLists, target: str, image: str, platform: "Mapping[str, Any]") -> None:
    """Say more of an image of a list.

    Args:
        lists: where lists are kept.
        target: the list's name.
        image: the image's name.
        platform: what to set, by the keys of a descriptor's platform.

    Raises:
        NotFoundError: there is no such list, or no such image in it.
        InvalidArgumentError: the system does not run on that architecture.
    """
    name, image_name = references.parse(target).tagged(), references.parse(image).tagged()
    entry = lists.entry(name, image_name)
    if entry is None:
        raise NotFoundError(f"manifest for image {image} does not exist in {target}")
    entry.descriptor["platform"] = {**entry.descriptor.get("platform", {}), **platform}  # type: ignore[typeddict-item]
    _check_platform(entry)
    lists.put(name, entry)


def index(name: Reference, entries: "list[Entry]") -> "dict[str, Any]":
    """Returns the index of some images: OCI's where the first of them is, else Docker's.

    Raises:
        InvalidArgumentError: an image is at another registry, or its platform is none.
    """
    manifests = []
    for entry in entries:
        if entry.name.domain != name.domain:
            raise InvalidArgumentError(
                "cannot use source images from a different registry than the target image:"
                f" {entry.name.domain} != {name.domain}"
            )
        _check_platform(entry)
        described = entry.descriptor
        manifests.append({
            "mediaType": described["mediaType"],
            "size": described["size"],
            "digest": described["digest"],
            "platform": _in_order(described.get("platform", {})),
        })  # fmt: skip
    first = manifests[0]["mediaType"] if manifests else documents.DOCKER_MANIFEST
    kind = documents.OCI_INDEX if first == documents.OCI_MANIFEST else documents.DOCKER_INDEX
    return {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}


def push(
    lists: ManifestLists,
    registries: "Registries",
    target: str,
    *,
    insecure: bool = False,
) -> tuple[list[tuple[str, str]], str]:
    """Push a list, and into its repository what it leads to.

    Returns:
        The images that were put there, as name and digest, and the list's digest.

    Raises:
        NotFoundError: there is no such list.
        InvalidArgumentError: an image is at another registry.
    """
    name = references.parse(target).tagged()
    entries = lists.entries(name)
    listed = index(name, entries)
    repository = registries.repository(name, push=True, insecure=insecure)
    moved = []
    for entry in entries:
        digest = entry.descriptor["digest"]
        if entry.name.path != name.path:
            source = registries.repository(entry.name, insecure=insecure)
            _copy(source, repository, entry)
            repository.put_manifest(digest, entry.descriptor["mediaType"], entry.content)
            moved.append((str(Reference(name.domain, name.path, digest=digest)), digest))
    content = json.dumps(listed, indent=3).encode()
    return moved, repository.put_manifest(name.tag, listed["mediaType"], content)


def _copy(source: "Repository", target: "Repository", entry: Entry) -> None:
    """Have the registry take an image's blobs over from another repository."""
    manifest = documents.parse_manifest(entry.content)
    for blob in (manifest["config"], *manifest["layers"]):
        if target.has_blob(blob["digest"]):
            continue
        upload = target.mount_blob(blob["digest"], source.path)
        if upload is not None:
            target.cancel_upload(upload)
            raise UnavailableError(
                f"the registry does not take {blob['digest']} over from {source.shown}",
                f"push the image to {target.shown} first",
            )


def _entry(repository: "Repository", image: Reference, document: Document) -> Entry:
    manifest = documents.parse_manifest(document.content)
    media_type = manifest.get("mediaType") or document.media_type
    described = documents.descriptor(media_type, document.digest, len(document.content))
    config = manifest["config"]
    if config["mediaType"] in {documents.OCI_CONFIG, documents.DOCKER_CONFIG}:
        content = repository.blob(config["digest"], config["size"])
        described["platform"] = documents.platform_of(documents.parse_config(content))
    return Entry(image, described, document.content)


def _check_platform(entry: Entry) -> None:
    platform: Mapping[str, Any] = entry.descriptor.get("platform") or {}
    system, architecture = platform.get("os", ""), platform.get("architecture", "")
    if architecture not in _PLATFORMS.get(str(system), "").split():
        raise InvalidArgumentError(
            f"manifest entry for image has unsupported os/arch combination: {system}/{architecture}"
        )


def _in_order(platform: "Mapping[str, Any]") -> "dict[str, Any]":
    """Returns a platform with its keys in Docker's order, so that a list has the same digest."""
    return {key: platform[key] for key in _PLATFORM_KEYS if key in platform}


def _file_name(name: Reference) -> str:
    """Returns the name of a list's directory or an image's file: Docker's."""
    return str(name).replace(":", "-").replace("/", "_")
