"""Which image a name stands for: one of the store, or one of a registry.

What is here is taken without asking anybody, unless the build wants to (``--pull``). An image for
another platform than this machine's never takes a name away from one that is: it is pulled, and
found again, by its digest.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.build.contexts.interruption import broken_off_by
from ketch.build.contexts.layouts import LayoutImage
from ketch.build.planning.resolver import ResolvedImage
from ketch.build.reporting import Part
from ketch.build.request import LayoutInput
from ketch.engine.images.pulling import Puller
from ketch.errors import ImageNotFoundError, KetchError, NotFoundError
from ketch.images.registry import resolve
from ketch.images.registry.progress import Progress
from ketch.images.registry.registries import Registries
from ketch.spec import image as documents
from ketch.spec import platforms
from ketch.spec import reference as references
from ketch.spec.reference import Reference

if TYPE_CHECKING:
    from ketch.build.graph import ImageSource
    from ketch.build.reporting import Reporter, Track
    from ketch.build.request import Request
    from ketch.engine.engine import Engine
    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.engine.processes import Patience
    from ketch.spec.image import ImageConfig, Platform


class Resolver:
    """Finds images for one build.

    Args:
        engine: whose store, in the thread that plans.
        request: who asks, and whether registries are always asked.
        reporter: is told of each image.
        patience: how the caller waits.

    Attributes:
        layouts: images of layouts that were found, by the digest of their configuration.
    """

    def __init__(
        self, engine: "Engine", request: "Request", reporter: "Reporter", patience: "Patience"
    ) -> None:
        self._images = engine.images
        self._request = request
        self._reporter = reporter
        self._patience = patience
        self._known: dict[tuple[str, str, str], ResolvedImage] = {}
        self.layouts: dict[str, LayoutImage] = {}

    def resolve(self, reference: str, platform: str, layout: str = "") -> ResolvedImage:
        """See ``ketch.build.planning.resolver``."""
        key = (reference, platform, layout)
        if key not in self._known:
            if layout:
                self._known[key] = self._layout(reference, platform, layout)
            else:
                with self._reporter.internal(f"load metadata for {reference}"):
                    self._known[key] = self._resolve(reference, platform)
        return self._known[key]

    def document(self, config_digest: str) -> "ImageConfig | None":
        """Returns the configuration of an image that was resolved."""
        for found in self._known.values():
            if found.config_digest == config_digest:
                return found.config
        return None

    def _resolve(self, reference: str, platform: str) -> ResolvedImage:
        name = references.parse(reference).tagged()
        wanted = documents.parse_platform(platform)
        if not self._request.pull or name.digest:
            found = local(self._images, name, wanted)
            if found is not None:
                return ResolvedImage(reference, digest_of(found, name), found.id, found.document)
        with registries(self._request, self._patience) as connected:
            try:
                target = resolve.resolve(
                    connected.repository(name), name.digest or name.tag, wanted
                )
            except NotFoundError as error:
                raise type(error)(f"{reference}: {error.message}", error.hint) from error
        return ResolvedImage(reference, target.digest, target.image_id, target.config)

    def _layout(self, reference: str, platform: str, layout: str) -> ResolvedImage:
        given = self._request.contexts[layout]
        assert isinstance(given, LayoutInput)  # the planner names no other
        found = LayoutImage(LayoutInput(given.path, reference or given.reference), platform)
        self.layouts[found.config_digest] = found
        return ResolvedImage(reference, found.digest, found.config_digest, found.document)


def local(images: "Images", name: Reference, wanted: "Platform") -> "Image | None":
    """Returns the image of the store that a name stands for on a platform, if there is one."""
    try:
        image = images.resolve(str(name))
    except NotFoundError:
        return None
    try:
        fits = platforms.matches(documents.platform_of(image.document), wanted)
    except KetchError:
        return None  # it is damaged
    return image if fits else None


def digest_of(image: "Image", name: Reference) -> str:
    """Returns the digest by which an image of the store is known at its registry, if any."""
    if name.digest:
        return name.digest
    for text in image.names:
        known = references.parse(text)
        if known.digest and known.name == name.name:
            return known.digest
    return ""


@contextmanager
def registries(request: "Request", patience: "Patience") -> Iterator[Registries]:
    """Hold connections to registries, for a block, which whoever calls the build off breaks."""
    with (
        Registries(request.environment, credentials=request.credentials) as connected,
        broken_off_by(patience, connected.transport.abort),
    ):
        yield connected


class Pulls:
    """Brings images into the store that steps begin with.

    Args:
        request: who asks.
        calling: how threads wait.
    """

    def __init__(self, request: "Request", calling: "Patience") -> None:
        self._request = request
        self._calling = calling
        self._lock = threading.Lock()
        self._at: dict[str, threading.Lock] = {}

    def image(
        self, vertex: "ImageSource", engine: "Engine", track: "Track"
    ) -> "tuple[Image, bool]":
        """Returns an image, whole, and whether it was here.

        Args:
            vertex: what the planner found.
            engine: the thread's.
            track: is told of what is fetched.

        Raises:
            KetchError: it cannot be had.
        """
        with self._lock:
            lock = self._at.setdefault(vertex.config_digest, threading.Lock())
        with lock:
            found = whole(engine.images, vertex.config_digest)
            if found is not None:
                return found, True
            self._pull(vertex, engine, track)
            found = whole(engine.images, vertex.config_digest)
        if found is None:
            raise ImageNotFoundError(
                f"{vertex.reference}: the registry has another image by now",
                "build again",
            )
        return found, False

    def _pull(self, vertex: "ImageSource", engine: "Engine", track: "Track") -> None:
        name = references.parse(vertex.reference).tagged()
        with registries(self._request, self._calling) as connected:
            progress = Told(track)
            wanted = documents.parse_platform(vertex.platform)
            puller = Puller(engine.images, connected, progress, platform=vertex.platform)
            if not name.digest and not self._may_be_named(engine.images, name, wanted):
                target = resolve.resolve(connected.repository(name), name.tag, wanted)
                name = Reference(name.domain, name.path, digest=target.manifest_digest)
            puller.pull(str(name))
            progress.finish()

    def _may_be_named(self, images: "Images", name: Reference, wanted: "Platform") -> bool:
        """Whether an image gets its name, as ``pull`` gives it: where no other image has that."""
        is_ours = platforms.matches(wanted, documents.host_platform())
        return is_ours and not images.holders([name])


class Told(Progress):
    """Tells what a pull does as parts of a vertex.

    Args:
        track: the vertex.
    """

    def __init__(self, track: "Track") -> None:
        self._track = track
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """See ``Progress``."""
        shown = f"sha256:{identifier}"
        if action == "Extracting":
            shown = f"extracting {shown}"
        with self._lock:
            part = self._parts.get(shown)
            if part is None:
                part = self._parts[shown] = Part(self._track, shown, total_bytes)
            part.advance(current_bytes, total_bytes)
            if current_bytes == total_bytes:
                part.end()

    def finish(self) -> None:
        """Tell that all is done."""
        with self._lock:
            for part in self._parts.values():
                part.end()


def whole(images: "Images", image_id: str) -> "Image | None":
    """Returns an image of the store where all that it needs is there."""
    image = images.known(image_id)
    if image is None:
        return None
    try:
        manifest = documents.parse_manifest(images.content.read(image.manifest_digest))
        blobs = all(layer["digest"] in images.content for layer in manifest["layers"])
        return image if blobs and all(map(images.snapshotter.exists, image.chain_ids)) else None
    except KetchError:
        return None
