"""Images of registries, for builds: found, and brought into the store.

An image for another platform than this machine's never takes a name away from one that is: it is
pulled, and found again, by its digest.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.build.contexts.interruption import broken_off_by
from ketch.build.reporting import Part
from ketch.engine.images.pulling import Puller
from ketch.errors import NotFoundError
from ketch.images.registry import resolve
from ketch.images.registry.progress import Progress
from ketch.images.registry.registries import Registries
from ketch.spec import image as documents
from ketch.spec import platforms
from ketch.spec import reference as references
from ketch.spec.reference import Reference

if TYPE_CHECKING:
    from ketch.build.graph import ImageSource
    from ketch.build.reporting import Track
    from ketch.build.request import Request
    from ketch.engine.images.images import Images
    from ketch.engine.processes import Patience
    from ketch.images.registry.resolve import Target
    from ketch.spec.image import Platform


@contextmanager
def registries(request: "Request", patience: "Patience") -> Iterator[Registries]:
    """Hold connections to registries, for a block, which whoever calls the build off breaks."""
    with (
        Registries(request.environment, credentials=request.credentials) as connected,
        broken_off_by(patience, connected.transport.abort),
    ):
        yield connected


def find(name: Reference, wanted: "Platform", request: "Request", patience: "Patience") -> "Target":
    """Returns what a registry has under a name.

    Args:
        name: with a tag or a digest.
        wanted: the platform.
        request: who asks.
        patience: how the caller waits.

    Raises:
        NotFoundError: it has none.
        KetchError: it cannot be asked, or what it has is no image.
    """
    with registries(request, patience) as connected:
        try:
            return resolve.resolve(connected.repository(name), name.digest or name.tag, wanted)
        except NotFoundError as error:
            raise type(error)(f"{name}: {error.message}", error.hint) from error


def pull(
    vertex: "ImageSource", request: "Request", images: "Images", patience: "Patience",
    track: "Track",
) -> None:  # fmt: skip
    """Bring an image into the store: by its name, as ``pull`` does it, where that is free.

    Args:
        vertex: what the planner found.
        request: who asks.
        images: where it goes.
        patience: how the caller waits.
        track: is told.

    Raises:
        KetchError: it cannot be had.
    """
    name = references.parse(vertex.reference).tagged()
    wanted = documents.parse_platform(vertex.platform)
    with registries(request, patience) as connected:
        told = Told(track)
        puller = Puller(images, connected, told, platform=vertex.platform)
        is_ours = platforms.matches(wanted, documents.host_platform())
        if not name.digest and not (is_ours and not images.holders([name])):
            target = resolve.resolve(connected.repository(name), name.tag, wanted)
            name = Reference(name.domain, name.path, digest=target.manifest_digest)
        puller.pull(str(name))
        told.finish()


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
