"""``commit``: an image from what a container changed.

Source of the rules: moby, daemon/commit.go (``merge``) and image/image.go (``NewChildImage``).
"""

import contextlib
import os
import time

from ketch.engine.images import ingest
from ketch.engine.records import events, states
from ketch.errors import ConflictError, NotFoundError
from ketch.images import changes as change
from ketch.images import tar_writer
from ketch.images.pieces import Pieces
from ketch.spec import image as documents
from ketch.spec import reference as references
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.images.image import Image
    from ketch.engine.images.layer import Layer
    from ketch.engine.records.rows import Container
    from ketch.spec.image import ContainerConfig, Descriptor, History, ImageConfig

_UNIONS = ("ExposedPorts", "Volumes", "Labels")
_FALLBACKS = ("User", "WorkingDir", "Healthcheck", "StopSignal", "Shell", "OnBuild")
_KEPT = (*_UNIONS, *_FALLBACKS, "Cmd", "Entrypoint", "Env")


def commit(
    engine: "Engine",
    reference: str,
    name: str = "",
    *,
    config: "ContainerConfig | None" = None,
    changes: "Sequence[str]" = (),
    author: str = "",
    message: str = "",
    pause: bool = True,
) -> str:
    """Make an image from a container's files and configuration.

    Args:
        engine: where.
        reference: the container, running or not.
        name: the image's name, or empty for one without.
        config: what goes before the container's own configuration.
        changes: Dockerfile instructions that go before it as well.
        author: who made it.
        message: a comment, kept in its history.
        pause: whether a running container stands still while its files are read.

    Returns:
        The new image's ID.

    Raises:
        NotFoundError: no such container, or its image is gone.
        InvalidArgumentError: the name or a change is malformed.
        ConflictError: the container is being removed.
        UnavailableError: the disk is full or failing.
    """
    target = (
        references.new_name(name, "refusing to create a tag with a digest reference")
        if name
        else None
    )
    container = engine.containers.find(reference)
    if container.status in {states.REMOVING, states.DEAD}:
        raise ConflictError(
            f"You cannot commit container {container.id} which is {container.status}"
        )
    own: dict[str, Any] = container.record.get("Config", {})
    # What is given replaces the container's own, which changes build on otherwise.
    given = config or {key: own[key] for key in _KEPT if own.get(key)}
    merged: ContainerConfig = given.copy()  # type: ignore[assignment] # keys are computed here
    change.apply(merged, changes)
    _merge(merged, own)
    images = engine.images
    try:
        with images.adding():
            parent = _parent(engine, container)
            with _standing_still(engine, container) if pause else contextlib.nullcontext():
                layer = _layer(engine, container, parent)
            created_ns = time.time_ns()
            document = _document(parent, merged, layer, created_ns, author, message)
            document["history"][-1]["created_by"] = " ".join(own.get("Cmd") or ())
            content = documents.encode(document)
            documents.parse_config(content)  # what could not be read again is not written
            image_id = images.content.write(content)
            below = _layers(engine, parent)
            if engine.settings.say:
                from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

                archives: list[telling.Archive] = [
                    (f"layer-{number}.tar", blob, "") for number, blob in enumerate(below, 1)
                ]
                if layer is not None:
                    archives.append((f"layer-{len(below) + 1}.tar", None, layer.diff_id))
                engine.settings.tell(telling.of_documents, images, content, archives,
                                     target.familiar if target else "")  # fmt: skip
            manifest = documents.manifest(
                documents.descriptor(
                    documents.OCI_CONFIG, image_id, images.content.size_bytes(image_id)
                ),
                [*below, *([layer.descriptor] if layer else [])],
            )
            tagged = []
            if target is not None:
                labels = merged.get("Labels") or {}
                tagged.append(("tag", image_id, {**labels, "name": target.familiar}))
            images.record(
                image_id,
                images.content.write(documents.encode(manifest)),
                created_ns,
                (parent.size_bytes if parent else 0) + (layer.size_bytes if layer else 0),
                [target] if target else [],
                tagged,
                parent_id=parent.id if parent else "",
            )
        images.publish_index()
    finally:
        images.collect_garbage()
    attributes = {
        "comment": message,
        "imageID": image_id,
        "imageRef": target.familiar if target else "",
        "image": container.image_reference,
        "name": container.name,
    }
    with engine.store.transaction() as connection:
        events.record(connection, "container", "commit", container.id, attributes)
    return image_id


def _parent(engine: "Engine", container: "Container") -> "Image | None":
    """Returns the image that a container was made of, None where it was made of none.

    Raises:
        NotFoundError: it was removed since.
    """
    if not container.image_id:
        return None
    image = engine.images.known(container.image_id)
    if image is None:
        raise NotFoundError(
            f"No such image: {container.image_id}, which container {container.name} was made of",
            f"its files alone can be kept: ketch export {container.name} | ketch import -",
        )
    return image


@contextlib.contextmanager
def _standing_still(engine: "Engine", container: "Container") -> "Iterator[None]":
    """Pause a container that runs, for a block."""
    if container.status != states.RUNNING:
        yield
        return
    try:
        engine.containers.pause(container.id)
    except ConflictError:  # it ended, or somebody else paused it, meanwhile
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(ConflictError):
            engine.containers.unpause(container.id)


def _layer(engine: "Engine", container: "Container", parent: "Image | None") -> "Layer | None":
    """Store what a container changed; None where that is nothing."""
    directory = engine.settings.container_directory(container.id)
    below = parent.chain_ids if parent else ()
    by_hand: Sequence[str] = ()
    upper = f"{directory}/upper"
    if engine.settings.say and os.path.isdir(upper):  # where layers are copied there is none
        from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

        by_hand = telling.committing_by_hand(upper, f"layer-{len(below) + 1}")
    stream = Pieces(engine.images.snapshotter.diff(directory))
    try:
        if stream.starts_with(tar_writer.END):
            return None
        return ingest.add_layer(engine.images, stream, below, by_hand=by_hand)
    finally:
        stream.close()


def _layers(engine: "Engine", parent: "Image | None") -> "list[Descriptor]":
    """Returns the layers of the image below, in OCI's words; the bytes are the same."""
    if parent is None:
        return []
    manifest = documents.parse_manifest(engine.images.content.read(parent.manifest_digest))
    return [
        {**layer, "mediaType": documents.oci_layer_type(layer["mediaType"])}
        for layer in manifest["layers"]
    ]


def _merge(config: "ContainerConfig", below: "dict[str, Any]") -> None:
    """Fill in what a configuration leaves open, in place."""
    wide: dict[str, Any] = config  # type: ignore[assignment] # keys are computed here
    for key in _FALLBACKS:
        if not wide.get(key) and below.get(key):
            wide[key] = below[key]
    for key in _UNIONS:
        if below.get(key):
            wide[key] = {**below[key], **(wide.get(key) or {})}
    environment = list(wide.get("Env") or ())
    known = {entry.partition("=")[0] for entry in environment}
    environment += [
        entry for entry in below.get("Env") or () if entry.partition("=")[0] not in known
    ]
    if environment:
        wide["Env"] = environment
    if not wide.get("Entrypoint"):
        if not wide.get("Cmd") and below.get("Cmd"):
            wide["Cmd"] = below["Cmd"]
        if below.get("Entrypoint"):
            wide["Entrypoint"] = below["Entrypoint"]


def _document(
    parent: "Image | None",
    config: "ContainerConfig",
    layer: "Layer | None",
    created_ns: int,
    author: str,
    message: str,
) -> "ImageConfig":
    created = timestamps.rfc3339(created_ns)
    below = parent.document if parent else None
    entry: History = {"created": created, "created_by": ""}
    if author:
        entry["author"] = author
    if message:
        entry["comment"] = message
    if layer is None:
        entry["empty_layer"] = True
    platform = documents.platform_of(below) if below else documents.host_platform()
    document: ImageConfig = {
        **platform,  # type: ignore[typeddict-item] # its keys are among the document's
        "created": created,
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [
                *(below["rootfs"]["diff_ids"] if below else ()),
                *([layer.diff_id] if layer else ()),
            ],
        },
        "history": [*((below.get("history") or ()) if below else ()), entry],
    }
    if author:
        document["author"] = author
    if message:
        document["comment"] = message
    return document
