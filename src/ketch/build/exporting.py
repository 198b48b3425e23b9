"""What was made, put together as images, and sent to where they are wanted."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from ketch.build import assembling
from ketch.build.cache.records import Records
from ketch.build.graph import ContextSource, GitSource, HttpSource, ImageSource, Run, Vertex
from ketch.build.layering import ChangedError
from ketch.build.outputs import files as file_output
from ketch.build.outputs import image as image_output
from ketch.build.outputs import layouts, manifests, provenance
from ketch.build.outputs.result import Built, Outcome
from ketch.build.request import Output, Result
from ketch.build.states import State
from ketch.engine.images.layer import Layer as Stored
from ketch.errors import InvalidArgumentError
from ketch.spec import image as documents
from ketch.spec import reference as references
from ketch.spec.build_options import is_true

if TYPE_CHECKING:
    from ketch.build.blobs import Blobs
    from ketch.build.executing import Executor
    from ketch.build.graph import Plan, Target
    from ketch.build.layering import Layering
    from ketch.build.outputs.manifests import Written
    from ketch.build.reporting import Reporter, Track
    from ketch.build.request import CachePlace, Request
    from ketch.engine.engine import Engine
    from ketch.engine.processes import Patience
    from ketch.spec.dockerfile.errors import Source
    from ketch.spec.image import ImageConfig

_SECOND_NS = 1_000_000_000
_INLINE_CACHE = "BUILDKIT_INLINE_CACHE"


class Exporter:
    """Sends one build's result.

    Args:
        engine: where.
        request: what was asked for.
        plan: what was planned.
        executor: what was made.
        layering: its layers.
        blobs: their archives.
        reporter: is told.
        patience: how the caller waits.
        started_ns: when the build began.
        source: the Dockerfile.
        vertices: all of them.
        document: gives the configuration of an image that was resolved.
        scans: the steps that have scanned results, by their platform.
    """

    def __init__(
        self,
        engine: "Engine",
        request: "Request",
        plan: "Plan",
        executor: "Executor",
        layering: "Layering",
        blobs: "Blobs",
        reporter: "Reporter",
        patience: "Patience",
        *,
        started_ns: int,
        source: "Source | None",
        vertices: "Sequence[Vertex]",
        document: "Callable[[str], ImageConfig | None]",
        scans: "Mapping[str, Run]",
    ) -> None:
        self._engine = engine
        self._images = engine.images
        self._request = request
        self._plan = plan
        self._executor = executor
        self._layering = layering
        self._blobs = blobs
        self._reporter = reporter
        self._patience = patience
        self._started_ns = started_ns
        self._source = source
        self._vertices = vertices
        self._document = document
        self._scans = scans
        self._built: dict[bool, list[Built]] = {}

    def export(self) -> Result:
        """Send it everywhere.

        Raises:
            KetchError: it cannot be had there.
        """
        outputs = self._request.outputs or [Output()]
        image_id, metadata = "", dict[str, Any]()
        for output in outputs:
            found, more = _OUTPUTS[output.type](self, output)
            image_id = image_id or found
            metadata |= more
        for place in self._request.cache_to:
            if place.type != "inline":
                self._export_cache(place)
        return Result(image_id, str(metadata.get("containerimage.digest", "")), metadata)

    def _export_cache(self, place: "CachePlace") -> None:
        from ketch.build.cache import exporting  # noqa: PLC0415 - few are written

        mode = place.attributes.get("mode", "min")
        if mode not in {"min", "max"}:
            raise InvalidArgumentError(f"invalid mode {mode!r} of a cache", "modes: min, max")
        with self._told("exporting cache") as track:
            exporting.write(
                self._images, self._layering, place, self._executor.steps(all=mode == "max"),
                self._request, self._patience, track,
            )  # fmt: skip

    # The kinds

    def image(self, output: Output) -> tuple[str, dict[str, Any]]:
        """Into the store, and perhaps to a registry."""
        with self._told("exporting to image") as track:
            attributes = output.attributes
            names = self._names(output)
            outcome = self._outcome(output, track, names)
            is_pushed = is_true(attributes.get("push", "false"))
            stored = is_true(attributes.get("store", "true"))
            image_id, written = "", None
            if stored:
                if len(outcome.images) == 1:
                    self._executor.tell_image(outcome.images[0], names)
                written = manifests.write(
                    self._images, outcome, manifests.Form.read(attributes, "uncompressed")
                )
                image_id = image_output.record(self._images, outcome, written, names, track)
            if is_pushed:
                written = manifests.write(self._images, outcome, manifests.Form.read(attributes))
                self._push(output, written, names, track)
            return image_id, self._metadata(outcome, written, names) if written else {}

    def registry(self, output: Output) -> tuple[str, dict[str, Any]]:
        """To a registry alone."""
        with self._told("exporting to image") as track:
            names = self._names(output)
            outcome = self._outcome(output, track, names)
            written = manifests.write(self._images, outcome, manifests.Form.read(output.attributes))
            self._push(output, written, names, track)
            return "", self._metadata(outcome, written, names)

    def layout(self, output: Output) -> tuple[str, dict[str, Any]]:
        """As an archive or a directory that other tools load."""
        kind = "docker" if output.type == "docker" else "oci"
        with self._told(f"exporting to {kind} image format") as track:
            names = self._names(output)
            outcome = self._outcome(output, track, names)
            form = manifests.Form.read(output.attributes)
            written = manifests.write(self._images, outcome, form)
            with track.part("sending tarball"):
                layouts.write(self._images, outcome, written, output)
            return "", self._metadata(outcome, written, names)

    def files(self, output: Output) -> tuple[str, dict[str, Any]]:
        """The files by themselves."""
        is_archive = output.type == "tar"
        with self._told(
            "exporting to client tarball" if is_archive else "exporting to client directory"
        ) as track:
            targets = self._plan.targets
            results = [
                (target.platform, self._executor.tree(target.root).directory) for target in targets
            ]
            epoch_s = self._plan.epoch_s
            epoch_ns = None if epoch_s is None else epoch_s * _SECOND_NS
            split = is_true(output.attributes.get("platform-split", "true")) and self._plan.index
            with track.part("sending tarball" if is_archive else "copying files"):
                if is_archive:
                    assert output.stream is not None
                    file_output.write_archive(
                        results, output.stream, split=split, epoch_ns=epoch_ns
                    )
                else:
                    file_output.write_directory(
                        results, output.directory, split=split, epoch_ns=epoch_ns
                    )
            return "", {}

    def nothing(self, _output: Output) -> tuple[str, dict[str, Any]]:
        """Nowhere: what was made is cached."""
        return "", {}

    # What they are made of

    def _outcome(self, output: Output, track: "Track", names: Sequence[str]) -> Outcome:
        """Put images together, once for all outputs; their archives are in the store then."""
        epoch_s = self._plan.epoch_s
        rewrites = is_true(output.attributes.get("rewrite-timestamp", "false"))
        if rewrites and epoch_s is None:
            raise InvalidArgumentError(
                "rewrite-timestamp needs to know which time: SOURCE_DATE_EPOCH is not set",
                "set it in the environment, or as a build argument",
            )
        if rewrites not in self._built:
            with track.part("exporting layers"):
                self._built[rewrites] = [
                    self._image(target, rewrites=rewrites) for target in self._plan.targets
                ]
        return Outcome(
            self._built[rewrites],
            self._plan.index,
            None if epoch_s is None else epoch_s * _SECOND_NS,
            self._request.annotations,
            names,
        )

    def _image(self, target: "Target", *, rewrites: bool) -> Built:
        base = None
        base_state = State()
        if target.base is not None:
            base_state = self._executor.state(target.base)
            base = self._document(target.base.config_digest)
        state = self._executor.state(target.root)
        if rewrites and self._plan.epoch_s is not None:
            state = self._layering.rewritten(state, base_state, self._plan.epoch_s * _SECOND_NS)
        document = assembling.document(target, state.layers, base, self._plan.epoch_s)
        asked = self._request.build_args.get(_INLINE_CACHE) or "false"
        if is_true(asked) or any(place.type == "inline" for place in self._request.cache_to):
            document = self._with_cache(document)
        if self._request.squash:
            state, document = self._squashed(state, base_state, document)
        wanted = [layer.diff_id for layer in state.layers if layer.descriptor is None]
        for number, layer in enumerate(state.layers):
            if layer.descriptor is None:
                try:
                    self._layering.write_archive(state, number)
                except ChangedError as error:
                    # What nobody can have any more is not to be found again.
                    records = Records(self._engine.store, self._images.snapshotter)
                    records.remove(
                        one.id for one in records.list() if one.chain_id == error.chain_id
                    )
                    raise
        self._blobs.publish(wanted)
        layers = [
            Stored(
                layer.descriptor
                or documents.descriptor(
                    documents.OCI_LAYER, layer.diff_id,
                    self._images.content.size_bytes(layer.diff_id),
                ),
                layer.diff_id, layer.chain_id, layer.size_bytes,
            )
            for layer in state.layers
        ]  # fmt: skip
        predicate = self._predicate(target) if self._request.provenance else None
        return Built(
            target.platform, document, layers, len(base_state.layers),
            _opener(lambda: self._executor.tree(target.root).directory), predicate,
            self._scanned(target),
        )  # fmt: skip

    def _with_cache(self, document: "ImageConfig") -> "ImageConfig":
        """Returns a configuration that tells which steps its layers came of."""
        from ketch.build.cache import document as written  # noqa: PLC0415 - few are asked to
        from ketch.build.cache import exporting  # noqa: PLC0415

        diff_ids = set(document["rootfs"]["diff_ids"])
        entries = [exporting.entry(made) for made in self._executor.steps(all=False)]
        told = written.plain(entry for entry in entries if entry.diff_id in diff_ids)
        return cast("ImageConfig", {**document, written.ATTRIBUTE: told})

    def _squashed(
        self, state: State, base: State, document: "ImageConfig"
    ) -> "tuple[State, ImageConfig]":
        """Returns an image of which all that is new is one layer, as Docker squashes it."""
        created_ns = time.time_ns()
        if state.layers[len(base.layers) :]:
            created_ns = state.layers[-1].created_ns
        made = self._layering.squash(state, base, "squashed", created_ns)
        return made, assembling.squashed(document, made.layers, len(base.layers))

    def _predicate(self, target: "Target") -> Mapping[str, Any]:
        source = self._source
        runs = [one for one in self._vertices if isinstance(one, Run)]
        local = any(isinstance(one, ContextSource) for one in self._vertices)
        facts = provenance.Facts(
            target.platform,
            self._reporter.build_id,
            self._started_ns,
            time.time_ns(),
            list(self._materials()),
            source.name if source else "Dockerfile",
            source.text if source else b"",
            not local and all(one.network == "none" for one in runs),
            [one.name for one in self._vertices],
        )
        return provenance.predicate(facts, self._request, self._request.provenance)

    def _scanned(self, target: "Target") -> list[tuple[str, Mapping[str, Any]]]:
        if target.platform not in self._scans:
            return []
        from ketch.build import scanning  # noqa: PLC0415 - few ask

        return scanning.predicates(self._executor.tree(self._scans[target.platform]))

    def _materials(self) -> Iterator[provenance.Material]:
        for vertex in self._vertices:
            if isinstance(vertex, ImageSource):
                uri = provenance.image_uri(vertex.reference, vertex.platform)
                yield provenance.Material(uri, vertex.digest)
            elif isinstance(vertex, HttpSource | GitSource):
                yield provenance.Material(vertex.url, self._executor.identity(vertex))

    def _push(
        self, output: Output, written: "Written", names: Sequence[str], track: "Track"
    ) -> None:
        # Few builds speak to a registry.
        from ketch.build.outputs import registries as registry_output  # noqa: PLC0415
        from ketch.build.pulling import Told, registries  # noqa: PLC0415

        by_digest = is_true(output.attributes.get("push-by-digest", "false"))
        insecure = is_true(output.attributes.get("registry.insecure", "false"))
        with registries(self._request, self._patience) as connected:
            told = Told(track)
            with track.part("pushing layers"):
                registry_output.push(
                    self._images, written, names, connected, told,
                    by_digest=by_digest, insecure=insecure,
                )  # fmt: skip
            told.finish()

    def _metadata(
        self, outcome: Outcome, written: "Written", names: Sequence[str]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            "containerimage.digest": written.root["digest"],
            "containerimage.descriptor": dict(written.root),
        }
        if len(written.configurations) == 1:
            found["containerimage.config.digest"] = written.configurations[0]
        if names:
            found["image.name"] = ",".join(_whole(name) for name in names)
        for built in outcome.images:
            if built.predicate is not None:
                suffix = f"/{built.platform}" if len(outcome.images) > 1 else ""
                found[f"buildx.build.provenance{suffix}"] = dict(built.predicate)
        return found

    def _names(self, output: Output) -> list[str]:
        given = [name for name in output.attributes.get("name", "").split(",") if name]
        return given or list(self._request.tags)

    @contextlib.contextmanager
    def _told(self, what: str) -> "Iterator[Track]":
        track = self._reporter.vertex(what)
        with track.made():
            yield track


def _opener(directory: Callable[[], int]) -> Callable[[], AbstractContextManager[int]]:
    @contextlib.contextmanager
    def opened() -> Iterator[int]:
        yield directory()  # it is the build's, and holds until its end

    return opened


def _whole(name: str) -> str:
    return str(references.parse(name).tagged())


_OUTPUTS: Mapping[str, Callable[[Exporter, Output], tuple[str, dict[str, Any]]]] = {
    "image": Exporter.image,
    "registry": Exporter.registry,
    "docker": Exporter.layout,
    "oci": Exporter.layout,
    "tar": Exporter.files,
    "local": Exporter.files,
    "cacheonly": Exporter.nothing,
}
