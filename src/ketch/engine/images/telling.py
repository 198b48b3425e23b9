"""What ``--explain`` tells of images and layers, and how a person gets hold of them by hand.

Loaded where somebody asks. By hand a layer is unpacked into a directory ``layer-N`` of the working
directory; what overlayfs needs of whiteouts no tar does, so they are named.
"""

import os

from ketch.images import compression
from ketch.spec.digest import split
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.images.images import Images
    from ketch.engine.images.layer import Layer
    from ketch.images.registry.repository import Repository
    from ketch.images.registry.resolve import Target
    from ketch.spec.reference import Reference

_PROGRAMS = {compression.GZIP: "gzip -dc", compression.ZSTD: "zstd -dc"}


def of_unchanged(repository: "Repository", name: "Reference", digest: str) -> Told:
    """A registry has under a tag what is here."""
    path = f"/v2/{repository.path}/manifests/{name.tag}"
    words = f"ask for the digest of {name.familiar}: it is that of the image here · HTTP HEAD"
    by_hand = repository.by_hand(path, f"-I {_accepting(repository)}")
    return Told("image", words, [("digest", digest)], outside=[by_hand])


def of_target(repository: "Repository", reference: str, target: "Target") -> Told:
    """Which image a tag or a digest means, by what the registry's documents say."""
    manifest, config = target.manifest, target.manifest["config"]
    values: list[tuple[str, object]] = [("registry", repository.address)]
    if target.digest != target.manifest_digest:
        values.append(("index", target.digest))
    values += [
        ("manifest", target.manifest_digest),
        ("configuration", f"{config['digest']}, {config['size']} bytes"),
        ("platform", f"{target.config['os']}/{target.config['architecture']}"),
    ]
    values += [("layer", one["digest"]) for one in manifest["layers"]]
    by_hand = []
    for digest in dict.fromkeys((target.digest, target.manifest_digest)):
        path = f"/v2/{repository.path}/manifests/{digest}"
        by_hand += [
            f"{repository.by_hand(path, _accepting(repository))} > {_file(digest)}",
            _checking(digest),
        ]
    by_hand += _fetching(repository, config["digest"])
    words = f"find out which image {reference} is · HTTP GET"
    return Told("image", words, values, outside=by_hand)


def of_download(
    repository: "Repository", number: int, layer: "Layer", *, images: "Images", kind: str,
    began_ns: int, hidden: "Sequence[bytes]",
) -> Told:  # fmt: skip
    """A layer that a registry has: its blob, and what was unpacked from it.

    Args:
        repository: where it comes from.
        number: its place among the image's, from 1 on.
        layer: the layer, as it is here now.
        images: where that is.
        kind: its blob's format, one of ``compression``'s.
        began_ns: when that was begun.
        hidden: paths that its whiteouts hide.
    """
    digest = layer.descriptor["digest"]
    unpacked = _unpacking(f"{_decompressing(kind)} {_file(digest)}", number, layer.diff_id)
    words = f"fetch layer {number} and unpack it as it arrives · HTTP GET, mknod(2)"
    return Told("image", words, _of_layer(images, layer, hidden), began_ns=began_ns,
                outside=[*_fetching(repository, digest), *unpacked])  # fmt: skip


def of_layer(
    images: "Images", number: int, layer: "Layer", *, began_ns: int, hidden: "Sequence[bytes]",
    source: str, kind: str,
) -> Told:  # fmt: skip
    """A layer that was stored and unpacked from a stream.

    Args:
        images: where it is.
        number: its place among the image's, from 1 on.
        layer: the layer.
        began_ns: when that was begun.
        hidden: paths that its whiteouts hide.
        kind: its blob's format, one of ``compression``'s.
        source: a command that writes its blob, or empty.
    """
    by_hand = []
    if source:
        pipe = source if kind not in _PROGRAMS else f"{source} | {_decompressing(kind)}"
        by_hand = _unpacking(pipe, number, layer.diff_id)
    words = f"store layer {number} and unpack it · write(2), mknod(2)"
    return Told("image", words, _of_layer(images, layer, hidden), began_ns=began_ns,
                outside=by_hand)  # fmt: skip


def of_record(
    image_id: str, manifest_digest: str, size_bytes: int, names: "Sequence[Reference]"
) -> Told:
    """An image is on record from now on, and keeps its layers."""
    values: list[tuple[str, object]] = [
        ("id", image_id), ("manifest", manifest_digest), ("bytes", size_bytes),
    ]  # fmt: skip
    values += [("name", name.familiar) for name in names]
    return Told("record", "record the image", values)


def _of_layer(
    images: "Images", layer: "Layer", hidden: "Sequence[bytes]"
) -> "list[tuple[str, object]]":
    blob = layer.descriptor
    place = images.snapshotter.path(layer.chain_id)
    values: list[tuple[str, object]] = [
        ("blob", blob["digest"]), ("blob-bytes", blob["size"]), ("type", blob["mediaType"]),
        ("diff-id", layer.diff_id), ("chain-id", layer.chain_id),
        ("files-bytes", layer.size_bytes), ("directory", f"{place}/diff"),
    ]  # fmt: skip
    return values + [("whiteout", f"/{os.fsdecode(path)}") for path in hidden]


def _accepting(repository: "Repository") -> str:
    return f"-H {quote(f'Accept: {repository.accepted}')}"


def _fetching(repository: "Repository", digest: str) -> list[str]:
    path = f"/v2/{repository.path}/blobs/{digest}"
    return [f"{repository.by_hand(path)} > {_file(digest)}", _checking(digest)]


def _unpacking(source: str, number: int, diff_id: str) -> list[str]:
    algorithm, digits = split(diff_id)
    return [
        f"test \"$({source} | {algorithm}sum)\" = '{digits}  -'",
        f"mkdir layer-{number}",
        f"{source} | tar -C layer-{number} --numeric-owner -xpf -",
    ]


def _decompressing(kind: str) -> str:
    return _PROGRAMS.get(kind, "cat")


def _checking(digest: str) -> str:
    algorithm, digits = split(digest)
    return f"echo '{digits}  {quote(_file(digest))}' | {algorithm}sum -c --quiet"


def _file(digest: str) -> str:
    return split(digest)[1]
