"""``load``: images from archives that docker, podman, skopeo and umoci write.

What is loaded may be an OCI image layout or Docker's, and is checked against every digest that it
names.
"""

from typing import TYPE_CHECKING, NamedTuple

from ketch.engine.images.candidates import Candidate, Loaded, Search, of_layout
from ketch.engine.images.layout import NAME_ANNOTATION, REFERENCE_ANNOTATION
from ketch.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from ketch.images.registry.progress import Progress
from ketch.spec import digest as digests
from ketch.spec import docker_archive, platforms
from ketch.spec import image as documents
from ketch.spec import reference as references

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ketch.engine.images.images import Images
    from ketch.images.archive import Source
    from ketch.spec.image import Descriptor, Platform
    from ketch.spec.reference import Reference


_IMAGES_MAX = 1000
_DOCUMENTS_BYTES_MAX = 1 << 26  # of all images together: they are read before the first is stored


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
    by_hand: "Callable[[str], str] | None" = None,
) -> list[Loaded]:
    """Take images from an archive; those before one that is damaged stay.

    Args:
        images: where they go.
        source: the archive.
        platform: which of an image's platforms is taken; this machine's where empty.
        done: is told of each image once it is there, and of what was passed over.
        progress: is told how far each layer is that the store lacks.
        by_hand: returns a command that writes a member of the archive, by its name, for who asks
            how it is done by hand.

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
                stored = candidate.store(images, source, progress or Progress(), known, by_hand)
                loaded.append(stored)
                done(loaded[-1])
            _link(images, source, {one.id for one in loaded})
    finally:
        images.publish_index()
        images.collect_garbage()
    return loaded


# Reading


def _from_index(
    source: "Source", wanted: "Platform", *, strict: bool
) -> tuple[list[Candidate], list[UnsupportedError]]:
    """Read an OCI image layout, which the archive need not be.

    Returns:
        The images, and what there is beside them.
    """
    content = source.document("index.json")
    if content is None or "oci-layout" not in source:
        return [], []
    index = documents.parse_index(content)
    found: dict[str, Candidate] = {}
    search = Search(source, wanted)
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
            candidate = found[digest] = of_layout(source, digest)
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


def _name(source: "Source", candidates: "Collection[Candidate]") -> None:
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


def _from_manifest(source: "Source") -> list[Candidate]:
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
        found.append(Candidate(config, layers, _tags(entry)))
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


def _check_amount(found: "Collection[Candidate]") -> None:
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
