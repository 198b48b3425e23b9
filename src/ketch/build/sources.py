"""Where a build's files come from: images, contexts, repositories, URLs, the Dockerfile's text."""

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ketch.build.files import inline
from ketch.build.graph import (
    ContextSource,
    Copy,
    GitSource,
    HttpSource,
    ImageSource,
    InlineSource,
    Run,
    Vertex,
)
from ketch.build.reporting import Part
from ketch.build.states import Layer, State
from ketch.build.trees import Tree
from ketch.engine.images.layer import Layer as Stored
from ketch.spec import image as documents
from ketch.spec import timestamps

if TYPE_CHECKING:
    from ketch.build.contexts.contexts import Contexts
    from ketch.build.contexts.layouts import LayoutImage
    from ketch.build.files.digests import Known
    from ketch.build.reporting import Track
    from ketch.build.resolving import Pulls
    from ketch.engine.engine import Engine
    from ketch.engine.images.image import Image
    from ketch.spec.image import History, ImageConfig


class Sources:
    """Gives the files of vertices that need no others.

    Args:
        contexts: those of the build.
        pulls: brings images.
        layouts: images of layouts, by the digest of their configuration.
        place: directory of the build's own, for files of its Dockerfile.
        scope: how long these are held.
        vertices: all of the build's.
        known: what is known of contexts' files that were read before.
    """

    def __init__(
        self,
        contexts: "Contexts",
        pulls: "Pulls",
        layouts: "Mapping[str, LayoutImage]",
        place: str,
        scope: contextlib.ExitStack,
        vertices: Iterable[Vertex],
        known: "Known | None" = None,
    ) -> None:
        self.known = known
        self._contexts = contexts
        self._pulls = pulls
        self._layouts = layouts
        self._place = place
        self._scope = scope
        self._lock = threading.Lock()
        self._wanted = _wanted(vertices)

    def image(self, vertex: ImageSource, track: "Track", engine: "Engine") -> tuple[State, bool]:
        """Returns an image's layers, and whether they were here.

        Raises:
            KetchError: they cannot be had.
        """
        if vertex.layout:
            return self._layout(vertex, track, engine), False
        image, is_here = self._pulls.image(vertex, engine, track)
        return layers(image, engine), is_here

    def _layout(self, vertex: ImageSource, track: "Track", engine: "Engine") -> State:
        found = self._layouts[vertex.config_digest]
        told = Told(track)
        try:
            made = found.add_layers(engine.images, told)
        finally:
            told.finish()
        return _described(made, found.document)

    def tree(self, vertex: Vertex, track: "Track") -> Tree:
        """Returns the files of a vertex that is no image.

        Raises:
            KetchError: they cannot be had.
        """
        if isinstance(vertex, InlineSource):
            return self._enter(inline.tree(vertex.files, self._place))
        told = Told(track)
        try:
            if isinstance(vertex, ContextSource):
                wanted = sorted(self._wanted.get(vertex.context, ()))
                return self._contexts.tree(vertex.context, wanted, told)
            if isinstance(vertex, GitSource):
                return self._contexts.git(vertex, told)
            assert isinstance(vertex, HttpSource)
            return self._contexts.http(vertex, told)
        finally:
            told.finish()

    def _enter(self, made: AbstractContextManager[Tree]) -> Tree:
        with self._lock:
            return self._scope.enter_context(made)


class Told:
    """Tells what is fetched as parts of a vertex.

    Args:
        track: the vertex.
    """

    def __init__(self, track: "Track") -> None:
        self._track = track
        self._parts: dict[str, Part] = {}

    def __call__(self, what: str, current: int, total: int) -> None:
        """Tell how far something is."""
        shown = f"{what}:"
        if shown not in self._parts:
            self._parts[shown] = Part(self._track, shown, total)
        self._parts[shown].advance(current, total)

    def finish(self) -> None:
        """Tell that all is done."""
        for part in self._parts.values():
            part.end()


def layers(image: "Image", engine: "Engine") -> State:
    """Returns the layers of an image of the store."""
    images = engine.images
    manifest = documents.parse_manifest(images.content.read(image.manifest_digest))
    document = image.document
    facts = zip(
        manifest["layers"], document["rootfs"]["diff_ids"], image.chain_ids, strict=True
    )  # fmt: skip
    return _described(
        [
            Stored(descriptor, diff_id, chain_id, images.snapshotter.size_bytes(chain_id))
            for descriptor, diff_id, chain_id in facts
        ],
        document,
    )


def _described(layers: Sequence[Stored], document: "ImageConfig") -> State:
    """Returns an image's layers, with what its history says of each."""
    made = [entry for entry in document.get("history") or () if not entry.get("empty_layer")]
    entries: list[History] = made if len(made) == len(layers) else [{} for _ in layers]
    return State(
        tuple(
            Layer(
                one.diff_id, one.chain_id, one.size_bytes,
                timestamps.created_ns(entry.get("created") or ""),
                entry.get("created_by") or "", descriptor=one.descriptor,
            )
            for one, entry in zip(layers, entries, strict=True)
        )
    )  # fmt: skip


def _wanted(vertices: Iterable[Vertex]) -> dict[str, set[str]]:
    """Returns which paths of each context are used."""
    found: dict[str, set[str]] = {}
    for vertex in vertices:
        if isinstance(vertex, Copy):
            for item in vertex.items:
                if isinstance(item.source, ContextSource):
                    found.setdefault(item.source.context, set()).update(item.paths)
        elif isinstance(vertex, Run):
            for mount in vertex.mounts:
                if isinstance(mount.source, ContextSource):
                    found.setdefault(mount.source.context, set()).add(mount.source_path)
        for one in vertex.inputs:
            # One that something is built on is wanted whole.
            if isinstance(one, ContextSource) and one is getattr(vertex, "base", None):
                found.setdefault(one.context, set()).add("/")
    return found
