"""Results of other builders: looked for where ``--cache-from`` says, taken where a step wants one.

Only what is wanted is fetched. A cache that cannot be had is no failure: then steps are executed.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ketch.build.cache import document
from ketch.build.cache.document import Entry
from ketch.build.states import Layer, State
from ketch.engine.images import ingest
from ketch.engine.images.layout import REFERENCE_ANNOTATION, blob_path
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.images.archive import DirectorySource
from ketch.spec import image as documents
from ketch.spec import reference as references

if TYPE_CHECKING:
    from ketch.build.reporting import Reporter
    from ketch.build.request import CachePlace, Request
    from ketch.engine.images.images import Images
    from ketch.engine.processes import Patience
    from ketch.images.tar import Stream
    from ketch.spec.image import Descriptor

_MANIFESTS_MAX = 32


class Blobs(Protocol):
    """Where layers of a cache are."""

    def opened(self, digest: str) -> "contextlib.AbstractContextManager[Stream]":
        """Open a blob."""


class Found(NamedTuple):
    """A step's result somewhere else.

    Attributes:
        entry: what it is.
        blob: of its layer.
        place: where that is.
    """

    entry: Entry
    blob: "Descriptor"
    place: Blobs


class Imports:
    """What is to be had from elsewhere, for one build.

    Args:
        images: where layers go.
    """

    def __init__(self, images: "Images") -> None:
        self._images = images
        self._found: dict[str, list[Found]] = {}
        self._lock = threading.Lock()

    def load(
        self, places: "Sequence[CachePlace]", request: "Request", reporter: "Reporter",
        patience: "Patience",
    ) -> None:  # fmt: skip
        """Look what there is.

        Args:
            places: where to look.
            request: who asks.
            reporter: is told of each place; also where one cannot be had.
            patience: how the caller waits.
        """
        for place in places:
            shown = place.attributes.get("ref") or place.attributes.get("src", "")
            track = reporter.vertex(f"importing cache manifest from {shown}")
            # It has been told of; the build goes on without.
            with contextlib.suppress(KetchError), track.made():
                for found in _read(place, request, patience):
                    self._found.setdefault(found.entry.key, []).append(found)

    def take(self, key: str, base: State) -> Layer | None:
        """Bring a step's result here, within ``Images.adding``; None where nobody has it.

        Args:
            key: the step's.
            base: what it would be made on.
        """
        for found in self._found.get(key, ()):
            entry = found.entry
            if entry.below != base.chain_id and not entry.alone:
                continue
            with contextlib.suppress(KetchError):  # then the step is executed
                return self._fetch(found, base)
        return None

    def _fetch(self, found: Found, base: State) -> Layer:
        entry = found.entry
        below: Sequence[str] = () if entry.alone else base.chain_ids
        snapshotter = self._images.snapshotter
        chain_id = documents.next_chain_id(below[-1] if below else "", entry.diff_id)
        if not snapshotter.exists(chain_id):
            with found.place.opened(found.blob["digest"]) as stream:
                ingest.add_layer(
                    self._images, stream, below, expected=found.blob, diff_id=entry.diff_id
                )
        return Layer(
            entry.diff_id, base.over(entry.diff_id), snapshotter.size_bytes(chain_id),
            entry.created_ns, entry.description, alone=entry.alone,
        )  # fmt: skip


def _read(place: "CachePlace", request: "Request", patience: "Patience") -> Iterator[Found]:
    if place.type == "local":
        yield from _in_directory(place)
    elif place.type == "registry":
        yield from _at_registry(place, request, patience)
    else:
        raise InvalidArgumentError(f"nothing can be imported from a cache of type {place.type}")


def _found(config: bytes, manifest: "documents.Manifest", place: Blobs) -> Iterator[Found]:
    """Yield what a manifest's configuration tells of: a cache's, or an image's."""
    if manifest["config"]["mediaType"] == document.MEDIA_TYPE:
        entries, diff_ids = document.parse(config)
    else:
        image = documents.parse_config(config)
        told = image.get(document.ATTRIBUTE)
        if told is None:
            return
        entries, diff_ids = document.entries_of(told), image["rootfs"]["diff_ids"]
    blobs = document.blobs(diff_ids, manifest["layers"])
    for entry in entries:
        if entry.diff_id in blobs:
            yield Found(entry, blobs[entry.diff_id], place)


class _Directory:
    """The blobs of an OCI layout."""

    def __init__(self, source: DirectorySource) -> None:
        self._source = source

    @contextlib.contextmanager
    def opened(self, digest: str) -> "Iterator[Stream]":
        stream = self._source.open(blob_path(digest))
        try:
            yield stream
        finally:
            stream.close()


def _in_directory(place: "CachePlace") -> Iterator[Found]:
    path, tag = place.attributes["src"], place.attributes.get("tag", "latest")
    source = DirectorySource(path)
    content = source.document("index.json")
    if content is None:
        raise NotFoundError(f"there is no build cache in {path}: it has no index.json")
    wanted = place.attributes.get("digest", "")
    for entry in documents.parse_index(content)["manifests"][:_MANIFESTS_MAX]:
        named = entry.get("annotations", {}).get(REFERENCE_ANNOTATION, tag)
        if entry["digest"] == wanted if wanted else named == tag:
            manifest = documents.parse_manifest(_document(source, entry["digest"]))
            config = _document(source, manifest["config"]["digest"])
            yield from _found(config, manifest, _Directory(source))


def _document(source: DirectorySource, digest: str) -> bytes:
    from ketch.images.registry.repository import verify  # noqa: PLC0415 - it loads HTTP

    content = source.document(blob_path(digest))
    if content is None:
        raise NotFoundError(f"build cache: {digest} is missing")
    verify(content, digest)
    return content


class _Registry:
    """The blobs of a repository."""

    def __init__(
        self, name: references.Reference, request: "Request", patience: "Patience"
    ) -> None:
        self._name = name
        self._request = request
        self._patience = patience

    @contextlib.contextmanager
    def opened(self, digest: str) -> "Iterator[Stream]":
        from ketch.build.pulling import registries  # noqa: PLC0415 - it loads HTTP

        with registries(self._request, self._patience) as connected:
            answer, _ = connected.repository(self._name).open_blob(digest)
            with answer:
                yield answer


def _at_registry(place: "CachePlace", request: "Request", patience: "Patience") -> Iterator[Found]:
    from ketch.build.pulling import registries  # noqa: PLC0415 - it loads HTTP

    name = references.parse(place.attributes["ref"]).tagged()
    blobs = _Registry(name, request, patience)
    with registries(request, patience) as connected:
        repository = connected.repository(name)
        top = repository.manifest(name.digest or name.tag)
        contents = [top.content]
        if documents.is_index(top.content):
            index = documents.parse_index(top.content)
            contents = [
                repository.manifest(entry["digest"]).content
                for entry in index["manifests"][:_MANIFESTS_MAX]
            ]
        for content in contents:
            if documents.is_index(content):
                continue
            manifest = documents.parse_manifest(content)
            config = manifest["config"]
            yield from _found(repository.blob(config["digest"], config["size"]), manifest, blobs)
