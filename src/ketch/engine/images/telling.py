"""What ``--explain`` tells of images and layers, and how a person gets hold of them by hand.

Loaded where somebody asks. By hand a layer is unpacked into a directory ``layer-N`` of the working
directory; what overlayfs needs of whiteouts no tar does, so they are named.
"""

import json
import os

from ketch.engine.images.layout import blob_path
from ketch.images import compression
from ketch.spec.digest import of, split
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.engine.images.images import Images
    from ketch.engine.images.layer import Layer
    from ketch.images.registry.repository import Repository
    from ketch.images.registry.resolve import Target
    from ketch.spec.image import Descriptor
    from ketch.spec.reference import Reference

    Archive = tuple[str, Descriptor | None, str]
    """A layer's file in an archive made by hand, the blob that it is, and its diff ID.

    There is no blob where ``committing_by_hand`` makes the file.
    """

_BYTES = "application/octet-stream"
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
    source: str, kind: str, by_hand: "Sequence[str]" = (),
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
        by_hand: commands that make the layer, where there is none such.
    """
    if source:
        pipe = source if kind not in _PROGRAMS else f"{source} | {_decompressing(kind)}"
        by_hand = _unpacking(pipe, number, layer.diff_id)
    words = f"store layer {number} and unpack it · write(2), mknod(2)"
    return Told("image", words, _of_layer(images, layer, hidden), began_ns=began_ns,
                outside=by_hand)  # fmt: skip


def committing_by_hand(upper: str, name: str) -> list[str]:
    """Commands that make a layer's archive of what was written to overlayfs.

    Args:
        upper: the tree that was written to.
        name: the layer's: the archive is ``image/NAME.tar``.
    """
    tree = f"tree-{name}"
    return [
        f"mkdir -p image && cp -a {quote(upper)} {tree}",
        "# what overlayfs has as a device 0, 0 archives have as a name, and so what is opaque",
        f"find {tree} -type c | while IFS= read -r path; do",
        '[ "$(stat -c %t,%T "$path")" = 0,0 ] || continue',
        'rm "$path"; : > "${path%/*}/.wh.${path##*/}"',
        "done",
        f"find {tree} -type d | while IFS= read -r path; do",
        '[ "$(getfattr --only-values -n trusted.overlay.opaque "$path" 2> /dev/null)" = y ]'
        " || continue",
        ': > "$path/.wh..wh..opq"',
        "done",
        "# what was only there to be mounted on",
        f"rm -rf {tree}/dev {tree}/proc {tree}/sys",
        f"for name in hosts hostname resolv.conf; do [ -s {tree}/etc/$name ] ||"
        f" rm -f {tree}/etc/$name; done",
        f"(cd {tree} && find . -mindepth 1 -maxdepth 1 -print0"
        f" | tar --numeric-owner --null -T - -cf ../image/{name}.tar)",
    ]


def of_documents(images: "Images", config: bytes, archives: "Sequence[Archive]", name: str) -> Told:
    """An image's configuration and manifest are written. By hand it is an archive to be loaded.

    Args:
        images: where it is.
        config: its configuration.
        archives: of its layers, the lowest first.
        name: the image's, or empty.
    """
    by_hand = ["mkdir -p image"]
    write = f"printf %s {quote(config.decode())}"
    for archive, blob, diff_id in archives:
        if blob is not None:
            by_hand.append(f"cp {quote(images.content.path(blob['digest']))} image/{archive}")
        else:
            made = f"$(sha256sum < image/{archive} | cut -d ' ' -f 1)"
            write += f' | sed "s/{split(diff_id)[1]}/{made}/"'
    names = [archive for archive, _, _ in archives]
    listed = [{"Config": "config.json", "RepoTags": [name] if name else None, "Layers": names}]
    by_hand += [
        f"{write} > image/config.json",
        _writing(json.dumps(listed).encode(), "image/manifest.json"),
        "tar -C image -cf image.tar .",
        "# ketch load -i image.tar, or docker load -i image.tar",
    ]
    values = [("configuration", of(config)), ("layers", len(names))]
    words = "write the image's configuration and manifest · write(2)"
    return Told("image", words, values, outside=by_hand)


def of_record(
    image_id: str, manifest_digest: str, size_bytes: int, names: "Sequence[Reference]"
) -> Told:
    """An image is on record from now on, and keeps its layers."""
    values: list[tuple[str, object]] = [
        ("id", image_id), ("manifest", manifest_digest), ("bytes", size_bytes),
    ]  # fmt: skip
    values += [("name", name.familiar) for name in names]
    return Told("record", "record the image", values)


def of_tag(image_id: str, name: "Reference", former_id: str) -> Told:
    """An image has one more name.

    Args:
        image_id: the image.
        name: its new name.
        former_id: the image that had it, or empty.
    """
    values = [("id", image_id), ("name", name.familiar)]
    if former_id not in {"", image_id}:
        values.append(("taken-from", former_id))
    return Told("record", "record a name of the image", values)


def of_removal(events: "Sequence[tuple[str, str]]") -> Told:
    """Names go from the records, and images with their last one."""
    values = [(what.lower(), name) for what, name in events]
    return Told("record", "take names and images out of the records", values)


def of_garbage(images: "Images", blobs: "Sequence[str]", chain_ids: "Sequence[str]") -> Told:
    """Content and layers that no image, container or build needs are deleted.

    Args:
        images: where they were.
        blobs: digests.
        chain_ids: of the layers.
    """
    files = [images.content.path(digest) for digest in blobs]
    trees = [images.snapshotter.path(chain_id) for chain_id in chain_ids]
    values = [("blob", path) for path in files] + [("layer", path) for path in trees]
    by_hand = [f"rm {quote(path)}" for path in files] + [f"rm -r {quote(path)}" for path in trees]
    return Told("image", "delete what nobody needs any more · unlinkat(2)", values,
                outside=by_hand)  # fmt: skip


def of_saving(
    images: "Images", place: str, image_id: str, blobs: "Sequence[str]", manifest: bytes,
    names: "Sequence[Reference]",
) -> Told:  # fmt: skip
    """An image's content goes into an archive, or a directory.

    Args:
        images: where it is.
        place: the directory in which a person collects it.
        image_id: digest of its configuration.
        blobs: digests of its layers and its configuration.
        manifest: what is written as its manifest.
        names: under which it is saved.
    """
    digest = of(manifest)
    values: list[tuple[str, object]] = [("manifest", digest), ("configuration", image_id)]
    values += [
        ("layer", f"{blob}, {images.content.size_bytes(blob)} bytes")
        for blob in blobs if blob != image_id
    ]  # fmt: skip
    algorithms = dict.fromkeys(split(one)[0] for one in (*blobs, digest))
    by_hand = [f"mkdir -p {quote(f'{place}/blobs/{algorithm}')}" for algorithm in algorithms]
    by_hand += [
        f"cp {quote(images.content.path(blob))} {quote(f'{place}/{blob_path(blob)}')}"
        for blob in dict.fromkeys(blobs)
    ]
    by_hand.append(_writing(manifest, f"{place}/{blob_path(digest)}"))
    shown = " ".join(name.familiar for name in names) or image_id
    words = f"write what the image {shown} is made of · read(2), write(2)"
    return Told("image", words, values, outside=by_hand)


def of_saved_index(place: str, files: "Mapping[str, bytes]", ending: "Sequence[str]") -> Told:
    """An archive's list of what is in it, and its end.

    Args:
        place: see ``of_saving``.
        files: the names of the files that it ends with, and what is in them.
        ending: commands that make the archive of that directory.
    """
    by_hand = [_writing(content, f"{place}/{name}") for name, content in files.items()]
    values = [(name, f"{len(content)} bytes") for name, content in files.items()]
    return Told("image", "write which images these are · write(2)", values,
                outside=[*by_hand, *ending])  # fmt: skip


def of_sending(
    images: "Images", repository: "Repository", kept: str, blob: "Descriptor", outcome: str, *,
    shown: str, began_ns: int,
) -> Told:  # fmt: skip
    """A blob is at a registry now. By hand it goes as it is kept, compressed or not.

    Args:
        images: where it is from.
        repository: where it is.
        kept: digest of the blob here.
        blob: what is there, which may be compressed where that is not.
        outcome: how it came to be there.
        shown: what it is.
        began_ns: when that was begun.
    """
    address = f"/v2/{repository.path}/blobs/"
    path = images.content.path(kept)
    begin = repository.by_hand(f"{address}uploads/", "-X POST -D - -o /dev/null -d ''")
    sending = repository.by_hand("", f"-H {quote(f'Content-Type: {_BYTES}')} -T {quote(path)}",
                                 place=f'"${{at}}digest={kept}"')  # fmt: skip
    by_hand = [
        f"if ! {repository.by_hand(f'{address}{kept}', '-I -o /dev/null 2> /dev/null')}; then",
        f"at=$({begin} | tr -d '\\r' | sed -n 's/^[Ll]ocation: //p' | tail -n 1)",
        f'case $at in /*) at={quote(repository.origin)}"$at" ;; esac',
        r'case $at in *\?*) at="$at&" ;; *) at="$at?" ;; esac',
        sending,
        "fi",
    ]
    values = [("blob", blob["digest"]), ("blob-bytes", blob["size"]), ("type", blob["mediaType"]),
              ("outcome", outcome)]  # fmt: skip
    words = f"have {shown} at the registry · HTTP HEAD, POST, PUT"
    return Told("image", words, values, outside=by_hand, began_ns=began_ns)


def of_sent_manifest(
    repository: "Repository", name: "Reference", digest: str, path: str, media_type: str
) -> Told:
    """A registry knows an image by a tag.

    Args:
        repository: where.
        name: the image's.
        digest: of its manifest there.
        path: the manifest's file here, which differs where layers were compressed on their way.
        media_type: its type.
    """
    options = f"-H {quote(f'Content-Type: {media_type}')} -T {quote(path)}"
    by_hand = repository.by_hand(f"/v2/{repository.path}/manifests/{name.tag}", options)
    values = [("manifest", digest), ("name", name.familiar), ("type", media_type)]
    return Told("image", "put the manifest under its tag · HTTP PUT", values, outside=[by_hand])


def _writing(content: bytes, path: str) -> str:
    return f"printf %s {quote(content.decode())} > {quote(path)}"


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
