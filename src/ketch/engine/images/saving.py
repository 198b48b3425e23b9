"""``save``: images into archives that docker, podman, skopeo and umoci read.

Docker's form is an OCI image layout with ``manifest.json`` beside it, as Docker 25 and later write
it, and manifests as they came, so that their digests stay. In OCI's own forms all are OCI's, since
umoci and skopeo take no others there. Blobs are those of the store in either.
"""

import contextlib
import json

from ketch.engine.images.layout import NAME_ANNOTATION, REFERENCE_ANNOTATION, blob_path
from ketch.errors import InvalidArgumentError
from ketch.linux.scopes import owned
from ketch.spec import digest as digests
from ketch.spec import docker_archive
from ketch.spec import image as documents
from ketch.spec import reference as references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.spec.image import Descriptor, Manifest
    from ketch.spec.reference import Reference

    class Sink(Protocol):
        """Where images are written to."""

        def add(self, name: str, content: bytes) -> None:
            """Write a file from memory."""
            ...

        def add_blob(self, name: str, descriptor: int) -> None:
            """Write a file from another."""
            ...

        def finish(self) -> None:
            """Write the end."""
            ...


def save(
    images: "Images", texts: "Sequence[str]", sink: "Sink", *, platform: str = "",
    docker: bool = True, by_hand: "tuple[str, Sequence[str]]" = ("saved", ()),
) -> None:  # fmt: skip
    """Write images, each once, whatever number of names lead to it.

    Args:
        images: where they are.
        texts: names and IDs; a name without tag and digest stands for all of its repository.
        sink: where they go.
        platform: the platform they must be of, or empty.
        docker: whether it is Docker's form, with ``manifest.json``.
        by_hand: the directory in which a person collects all that, and commands that make of it
            what the sink writes.

    Raises:
        NotFoundError: there is no such image, or not of that platform.
        OSError: it cannot be written.
    """
    chosen = _chosen(images, texts)
    there = {image.id for image, _ in chosen}
    if platform:
        for image, _ in chosen:
            images.check_platform(image, [documents.parse_platform(platform)])
    with contextlib.ExitStack() as stack:
        stack.callback(images.collect_garbage)  # what others could not while this went on
        stack.enter_context(images.adding())  # or another process might delete what is being read
        entries: list[Descriptor] = []
        listed: list[dict[str, Any]] = []
        written: set[str] = set()
        for image, names in chosen:
            content = images.content.read(image.manifest_digest)
            manifest = documents.parse_manifest(content)
            media_type = manifest.get("mediaType", documents.OCI_MANIFEST)
            if not docker and media_type != documents.OCI_MANIFEST:
                manifest, media_type = _as_oci(manifest), documents.OCI_MANIFEST
                content = documents.encode(manifest)
            blobs = [layer["digest"] for layer in manifest["layers"]]
            for digest in (*blobs, image.id):
                if digest not in written:
                    written.add(digest)
                    add_blob(images, sink, digest)
            manifest_digest = digests.of(content)
            if manifest_digest not in written:
                written.add(manifest_digest)
                sink.add(blob_path(manifest_digest), content)
            if images.settings.say:
                from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

                images.settings.tell(telling.of_saving, images, by_hand[0], image.id,
                                     [*blobs, image.id], content, names)  # fmt: skip
            document = image.document
            entry = documents.descriptor(media_type, manifest_digest, len(content))
            entry["platform"] = documents.platform_of(document)
            entries += [named(entry, name) for name in names] or [entry]
            listed.append(
                {
                    "Config": blob_path(image.id),
                    "RepoTags": [name.familiar for name in names] or None,
                    "Layers": list(map(blob_path, blobs)),
                    **({"Parent": image.parent_id} if image.parent_id in there else {}),
                    "LayerSources": {
                        diff_id: dict(layer)
                        for diff_id, layer in zip(
                            document["rootfs"]["diff_ids"], manifest["layers"], strict=True
                        )
                    },
                }
            )
        files = _ends(entries, listed if docker else None)
        if images.settings.say:
            from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

            images.settings.tell(telling.of_saved_index, by_hand[0], files, by_hand[1])
        _finish(sink, files)
        for image, _ in chosen:
            images.record_event("save", image)


def finish(
    sink: "Sink", entries: "Sequence[Descriptor]", listed: "list[dict[str, Any]] | None" = None
) -> None:
    """Write what says of an image layout's blobs which images they are, and end it.

    Args:
        sink: where its blobs have been written.
        entries: of its index.
        listed: what ``manifest.json`` says, in Docker's form; None for OCI's.
    """
    _finish(sink, _ends(entries, listed))


def _ends(
    entries: "Sequence[Descriptor]", listed: "list[dict[str, Any]] | None"
) -> dict[str, bytes]:
    """Returns the last files of an image layout, by their names."""
    index: documents.Index = {
        "schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": list(entries),
    }  # fmt: skip
    files = {"index.json": documents.encode(index)}
    if listed is not None:
        files[docker_archive.NAME] = json.dumps(listed, separators=(",", ":")).encode()
    return {**files, "oci-layout": documents.OCI_LAYOUT}


def _finish(sink: "Sink", files: dict[str, bytes]) -> None:
    for name, content in files.items():
        sink.add(name, content)
    sink.finish()


def named(entry: "Descriptor", name: "Reference") -> "Descriptor":
    """Returns an index's entry with an image's name, beside what it is annotated with."""
    said = {NAME_ANNOTATION: str(name), REFERENCE_ANNOTATION: name.tag}
    return {**entry, "annotations": {**entry.get("annotations", {}), **said}}


def _chosen(images: "Images", texts: "Sequence[str]") -> "list[tuple[Image, list[Reference]]]":
    """Returns the images to save, and by which names."""
    chosen: dict[str, tuple[Image, list[Reference]]] = {}
    for text in texts:
        target = references.parse_any(text)
        listed = [] if isinstance(target, str) else _repository(images, target)
        for image, name in listed or [_one(images, text)]:
            names = chosen.setdefault(image.id, (image, []))[1]
            if name is not None and name not in names:
                names.append(name)
    return list(chosen.values())


def _repository(images: "Images", target: "Reference") -> "list[tuple[Image, Reference | None]]":
    """Returns all tags of a repository that was named without one."""
    if target.tag or target.digest:
        return []
    found = []
    for image in images.list():
        names = map(references.parse, image.names)
        found += [(image, name) for name in names if name.tag and name.name == target.name]
    return list(found)


def _one(images: "Images", text: str) -> "tuple[Image, Reference | None]":
    image = images.resolve(text)
    names = list(map(references.parse, image.names))
    try:
        name = references.parse(text).tagged()
    except InvalidArgumentError:  # a whole ID
        return image, None
    return image, name if name in names and not name.digest else None


def _as_oci(manifest: "Manifest") -> "Manifest":
    """Returns a manifest in OCI's words; what it leads to is the same."""
    layers: list[Descriptor] = [
        {**layer, "mediaType": documents.oci_layer_type(layer["mediaType"])}
        for layer in manifest["layers"]
    ]
    return documents.manifest({**manifest["config"], "mediaType": documents.OCI_CONFIG}, layers)


def add_blob(images: "Images", sink: "Sink", digest: str) -> None:
    """Write one of the store's blobs to its place in an image layout."""
    with owned(images.content.open(digest)) as descriptor:
        sink.add_blob(blob_path(digest), descriptor)
