"""Which image a name stands for: one of the store, or one of a registry.

What is here is taken without asking anybody, unless the build wants to (``--pull``). An image for
another platform than this machine's never takes a name away from one that is: it is pulled, and
found again, by its digest.
"""

import threading
from typing import TYPE_CHECKING

from ketch.build.planning.resolver import ResolvedImage
from ketch.build.request import LayoutInput
from ketch.errors import ImageNotFoundError, KetchError, NotFoundError
from ketch.spec import image as documents
from ketch.spec import platforms
from ketch.spec import reference as references

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.contexts.layouts import LayoutImage
    from ketch.build.graph import ImageSource
    from ketch.build.reporting import Reporter, Track
    from ketch.build.request import Request
    from ketch.engine.engine import Engine
    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.engine.processes import Patience
    from ketch.spec.image import ImageConfig, Platform
    from ketch.spec.reference import Reference

_TOGETHER_MAX = 8
"""How many images registries are asked for at once."""


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
        self._failed: dict[tuple[str, str, str], KetchError] = {}
        self.layouts: dict[str, LayoutImage] = {}

    def expect(self, wanted: "Sequence[tuple[str, str]]") -> None:
        """See ``ketch.build.planning.resolver``: registries are asked at once."""
        remote = [
            (name, platform)
            for name, platform in wanted
            if (name, platform, "") not in self._known and self._local(name, platform) is None
        ]
        if len(remote) < 2:
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - few need it

        with ThreadPoolExecutor(min(len(remote), _TOGETHER_MAX)) as pool:
            for key, found in zip(remote, pool.map(self._tried, remote), strict=True):
                if isinstance(found, KetchError):
                    self._failed[*key, ""] = found
                else:
                    self._known[*key, ""] = found

    def resolve(self, reference: str, platform: str, layout: str = "") -> ResolvedImage:
        """See ``ketch.build.planning.resolver``."""
        key = (reference, platform, layout)
        if key in self._failed:
            raise self._failed[key]
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
        return self._local(reference, platform) or self._remote(reference, platform)

    def _tried(self, key: tuple[str, str]) -> ResolvedImage | KetchError:
        """Asks a registry, in a thread of its own."""
        try:
            with self._reporter.internal(f"load metadata for {key[0]}"):
                return self._remote(*key)
        except KetchError as error:
            return error

    def _local(self, reference: str, platform: str) -> ResolvedImage | None:
        """Returns an image of the store, None where a registry is to be asked."""
        name = references.parse(reference).tagged()
        if self._request.pull and not name.digest:
            return None
        found = local(self._images, name, documents.parse_platform(platform))
        if found is None:
            return None
        return ResolvedImage(reference, digest_of(found, name), found.id, found.document)

    def _remote(self, reference: str, platform: str) -> ResolvedImage:
        name = references.parse(reference).tagged()
        wanted = documents.parse_platform(platform)
        from ketch.build import pulling  # noqa: PLC0415 - the image is here, mostly

        target = pulling.find(name, wanted, self._request, self._patience)
        return ResolvedImage(reference, target.digest, target.image_id, target.config)

    def _layout(self, reference: str, platform: str, layout: str) -> ResolvedImage:
        from ketch.build.contexts.layouts import LayoutImage  # noqa: PLC0415 - few have one

        given = self._request.contexts[layout]
        assert isinstance(given, LayoutInput)  # the planner names no other
        found = LayoutImage(LayoutInput(given.path, reference or given.reference), platform)
        self.layouts[found.config_digest] = found
        return ResolvedImage(reference, found.digest, found.config_digest, found.document)


def local(images: "Images", name: "Reference", wanted: "Platform") -> "Image | None":
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


def digest_of(image: "Image", name: "Reference") -> str:
    """Returns the digest by which an image of the store is known at its registry, if any."""
    if name.digest:
        return name.digest
    for text in image.names:
        known = references.parse(text)
        if known.digest and known.name == name.name:
            return known.digest
    return ""


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
            from ketch.build import pulling  # noqa: PLC0415 - the image is here, mostly

            pulling.pull(vertex, self._request, engine.images, self._calling, track)
            found = whole(engine.images, vertex.config_digest)
        if found is None:
            raise ImageNotFoundError(
                f"{vertex.reference}: the registry has another image by now",
                "build again",
            )
        return found, False


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
