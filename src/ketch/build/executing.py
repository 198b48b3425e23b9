"""One vertex made: taken from the cache, or done.

All that was made of a build's vertices is held here, by vertex, while the build goes on.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ketch.build import copying, failures, sources
from ketch.build.cache import keys, locks
from ketch.build.cache.made import Made
from ketch.build.cache.records import Records
from ketch.build.graph import Copy, CopyItem, ImageSource, MakeDirectory, Run, Scratch, Vertex
from ketch.build.states import Layer, State
from ketch.build.trees import Tree
from ketch.dataclass import dataclass
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.build.cache.importing import Imports
    from ketch.build.graph import Mount
    from ketch.build.layering import Layering
    from ketch.build.outputs.result import Built
    from ketch.build.reporting import Reporter, Track
    from ketch.build.request import Request
    from ketch.build.solving import Calling
    from ketch.build.steps import Prepared, Steps
    from ketch.build.telling import Steps as ToldSteps
    from ketch.engine.engine import Engine

    Write = Callable[[str], bool]

# What is said of a vertex to whoever asks why it was made anew.
CACHED = "cached"
ASKED = "not looked for: it was asked to be made anew"
UNKNOWN = "not cached: nothing was made of the same files by the same instruction"
ALWAYS = "looked at each time"

_NOTHING = Scratch(name="nothing")
_CHANGED = "files of a context were changed while they were copied: this is made anew next time"


@dataclass(frozen=True)
class Explained:
    """Why a vertex was, or was not, taken from the cache.

    Attributes:
        name: the vertex's.
        reason: why.
        key: its cache key, empty where it has none.
    """

    name: str
    reason: str
    key: str = ""

    @property
    def line(self) -> str:
        """All of it, for people."""
        return f"{self.name}: {self.reason}{f' ({self.key})' if self.key else ''}"


class Running:
    """What runs programs, loaded with the first: a build that finds all of its steps needs none.

    Args:
        engine: the engine's places.
        request: what is built.
    """

    def __init__(self, engine: "Engine", request: "Request") -> None:
        self._engine = engine
        self._request = request
        self._lock = threading.Lock()
        self._steps: Steps | None = None

    def __enter__(self) -> "Running":
        """Returns this one."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what steps have had; none runs any more."""
        if self._steps is not None:
            self._steps.close()

    def steps(self) -> "Steps":
        """Returns what runs them."""
        from ketch.build import steps  # noqa: PLC0415 - see above

        with self._lock:
            if self._steps is None:
                own = type(self._engine)(self._engine.settings)
                try:
                    steps.clean(own)  # what those of killed builds have left
                finally:
                    own.store.close()
                self._steps = steps.Steps(self._engine, self._request)
            return self._steps

    def prepared(self, directory: str, digest: str = "") -> "Prepared":
        """Returns what a mount comes from that is a prepared root of its own.

        Args:
            directory: the root's.
            digest: of its content, empty where its layers say that.
        """
        from ketch.build.steps import Prepared  # noqa: PLC0415 - see above

        return Prepared(directory, digest)


class Executor:
    """Makes the vertices of one build; its methods may be called from any thread.

    Args:
        engine: the engine's places.
        request: what is built.
        layering: makes layers.
        files: where files come from.
        running: runs programs.
        reporter: is told of everything.
        calling: by which threads wait.
        imports: results of other builders.

    Attributes:
        exported: vertices whose layers an image is to have.
        used: keys of what was taken from the cache.
        explained: why each vertex was, or was not.
        leaves_garbage: whether layers may have got out of use, or never come into it.
    """

    def __init__(
        self,
        engine: "Engine",
        request: "Request",
        layering: "Layering",
        files: "sources.Sources",
        running: "Running",
        reporter: "Reporter",
        calling: "Calling",
        imports: "Imports | None" = None,
    ) -> None:
        self._imports = imports
        self._engine = engine
        self._request = request
        self._layering = layering
        self._files = files
        self._running = running
        self._reporter = reporter
        self._calling = calling
        self._thread = threading.local()
        self._results: dict[Vertex, State | Tree] = {}
        self._tracks: dict[Vertex, Track] = {}
        self.exported: set[Vertex] = set()
        self._bases: set[Vertex] = set()
        self.used: set[str] = set()
        self.explained: list[Explained] = []
        self.leaves_garbage = False
        self._made_of: dict[Vertex, Made] = {}
        self._told: ToldSteps | None = None
        if engine.settings.say is not None:
            from ketch.build.telling import Steps  # noqa: PLC0415 - seldom wanted

            self._told = Steps(
                engine.images, request.contexts, self._results.__getitem__, self.tree,
                request.network,
            )  # fmt: skip

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Hold what a thread has of its own, for its life."""
        engine = type(self._engine)(self._engine.settings, patience=self._calling)
        self._thread.engine = engine
        self._thread.records = Records(engine.store, engine.images.snapshotter)
        try:
            yield
        finally:
            engine.store.close()

    def announce(self, vertices: "Sequence[Vertex]") -> None:
        """Tell of all vertices before the first is made; ``vertices`` is in an order to do so."""
        self._bases = {base for one in vertices if (base := getattr(one, "base", None)) is not None}
        for vertex in vertices:
            if isinstance(vertex, Scratch):
                continue
            inputs = [self._tracks[one].id for one in vertex.inputs if one in self._tracks]
            self._tracks[vertex] = self._reporter.vertex(vertex.name, inputs, vertex.stage)

    def tell_image(self, built: "Built", names: "Sequence[str]") -> None:
        """Tell of the documents of an image that is made of these vertices, where somebody asks."""
        if self._told is not None:
            self._engine.settings.tell(self._told.of_image, built, names)

    def state(self, vertex: Vertex) -> State:
        """Returns the layers that a vertex has come to."""
        found = self._results[vertex]
        assert isinstance(found, State)
        return found

    def tree(self, vertex: Vertex) -> Tree:
        """Returns the files that a vertex has come to, to be read."""
        found = self._results[vertex]
        return Tree(self._layering.view(found)) if isinstance(found, State) else found

    def identity(self, vertex: Vertex) -> str:
        """Returns what the files of a repository or a download follow from, without its kind."""
        found = self._results[vertex]
        return found.identity.partition(":")[2] if isinstance(found, Tree) else ""

    def steps(self, *, all: bool) -> "list[Made]":  # noqa: A002 - the counterpart of min
        """Returns what steps have come to: all of them, or those that the image consists of."""
        return [made for vertex, made in self._made_of.items() if all or vertex in self.exported]

    def chain_ids(self) -> list[str]:
        """Returns the chain IDs of all layers that vertices have come to by now."""
        found = [one for one in self._results.values() if isinstance(one, State)]
        return list(dict.fromkeys(chain_id for state in found for chain_id in state.chain_ids))

    def make(self, vertex: Vertex) -> None:
        """Make a vertex.

        Raises:
            KetchError: it cannot be made; the message says which it is.
        """
        if isinstance(vertex, Scratch):
            self._results[vertex] = State()
            return
        track = self._tracks[vertex]
        try:
            self._results[vertex] = self._made(vertex, track)
        except KetchError as error:
            track.end(error=error.message)
            raise failures.located(error, vertex) from error
        except Exception as error:
            track.end(error=str(error))
            raise
        except BaseException:
            track.end(error="context canceled")
            raise

    def _made(self, vertex: Vertex, track: "Track") -> State | Tree:
        if isinstance(vertex, Copy):
            return self._copy(vertex, track)
        if isinstance(vertex, Run):
            return self._run(vertex, track)
        if isinstance(vertex, MakeDirectory):
            return self._make_directory(vertex, track)
        track.begin()
        if isinstance(vertex, ImageSource):
            found, is_cached = self._files.image(vertex, track, self._thread.engine)
            self._explain(vertex, CACHED if is_cached else ALWAYS)
            track.end(cached=is_cached)
            return found
        tree = self._files.tree(vertex, track)
        if vertex in self._bases or vertex in self.exported:
            return self._whole(vertex, tree, track)
        self._explain(vertex, ALWAYS)
        track.end()
        return tree

    def _whole(self, vertex: Vertex, tree: Tree, track: "Track") -> State:
        """Returns all of a context as a layer, for what is built on it (``FROM context``)."""
        all_of_it = (CopyItem(vertex, ("/",)),)
        copied = Copy(
            name=vertex.name, base=_NOTHING, items=all_of_it, target="/",
            ignore_cache=vertex.ignore_cache,
        )  # fmt: skip
        chosen = copying.choose(copied, lambda _: tree, self._calling.check)
        key = keys.of_copy(copied, "", chosen.digest(self._files.known))

        def write(directory: str) -> bool:
            with self._layering.mounted(directory) as root:
                return copying.write(copied, chosen, root)[1]

        if vertex in self.exported:
            self.exported.add(copied)
        return self._layer(copied, track, key, State(), write)

    # What makes a layer

    def _copy(self, vertex: Copy, track: "Track") -> State:
        base = self.state(vertex.base)
        chosen = copying.choose(vertex, self.tree, self._calling.check)
        digest = self._digest_of(vertex, chosen)
        key = keys.of_copy(vertex, "" if vertex.link else base.chain_id, digest)

        def write(directory: str) -> bool:
            with self._layering.mounted(directory) as root:
                remarks, is_exact = copying.write(vertex, chosen, root)
            _remark(track, remarks)
            return is_exact

        return self._layer(vertex, track, key, base, write, alone=vertex.link)

    def _make_directory(self, vertex: MakeDirectory, track: "Track") -> State:
        base = self.state(vertex.base)

        def write(directory: str) -> bool:
            with self._layering.mounted(directory) as root:
                _remark(track, copying.make_directory(vertex, root.descriptor))
            return True

        return self._layer(vertex, track, keys.of_directory(vertex, base.chain_id), base, write)

    def _run(self, vertex: Run, track: "Track") -> State:
        base = self.state(vertex.base)
        digests = [self._mount_digest(one) for one in vertex.mounts]
        key = keys.of_run(vertex, base.chain_id, digests, self._request)

        def write(directory: str) -> bool:
            with contextlib.ExitStack() as held:
                found = {
                    one: self._bound(one, digest, held)
                    for one, digest in zip(vertex.mounts, digests, strict=True)
                    if one.source is not None
                }
                bound = {one: prepared for one, (prepared, _) in found.items()}
                outcome = self._running.steps().run(
                    vertex, directory, track.log, sources=bound, patience=self._calling
                )
            failures.check(vertex, outcome)
            return all(is_exact for _, is_exact in found.values())

        return self._layer(vertex, track, key, base, write)

    def _layer(
        self,
        vertex: Vertex,
        track: "Track",
        key: str,
        base: State,
        write: "Write",
        *,
        alone: bool = False,
    ) -> State:
        """Returns what a step comes to: what is on record of it, or what it writes now."""
        records: Records = self._thread.records
        if not vertex.ignore_cache and (found := self._found(records, key, base)):
            return self._cached(vertex, track, key, base, found)
        with locks.held(self._engine.settings.root, key, self._calling):
            # Somebody else may have made it meanwhile.
            if not vertex.ignore_cache and (found := self._found(records, key, base)):
                return self._cached(vertex, track, key, base, found)
            self._calling.check()
            if not vertex.ignore_cache and (taken := self._taken(key, base, track)):
                records.add(key, taken, base)
                return self._cached(vertex, track, key, base, taken)
            track.begin()
            self._explain(vertex, ASKED if vertex.ignore_cache else UNKNOWN, key)
            with self._layering.root(State() if alone else base) as directory:
                is_exact = write(directory)
                layer = self._layering.commit(
                    directory, base, vertex.name, alone=alone, created_ns=time.time_ns(),
                    kept=vertex in self.exported,
                )  # fmt: skip
            if self._told is not None:
                exported = vertex in self.exported
                self._engine.settings.tell(
                    self._told.of_layer, vertex, base, layer, exported=exported
                )
            if is_exact:
                self.leaves_garbage |= records.add(key, layer, base)
            else:  # nobody else could come to this
                self.leaves_garbage = True
                key = f"sha256:{os.urandom(32).hex()}"
                _remark(track, [_CHANGED])
        track.end()
        return self._remembered(vertex, key, base.plus(layer))

    def _remembered(self, vertex: Vertex, key: str, state: State) -> State:
        self._made_of[vertex] = Made(key, state)
        return state

    def _taken(self, key: str, base: State, track: "Track") -> Layer | None:
        """Returns what another builder has made of a step."""
        layer = self._imports.take(key, base) if self._imports is not None else None
        if layer is not None:
            track.begin()
            self._layering.place_on(base, layer)
        return layer

    def _found(self, records: Records, key: str, base: State) -> Layer | None:
        layer = records.find(key, base)
        if layer is not None:
            self._layering.place_on(base, layer)
        return layer

    def _cached(self, vertex: Vertex, track: "Track", key: str, base: State, layer: Layer) -> State:
        self.used.add(key)
        self._explain(vertex, CACHED, key)
        track.end(cached=True)
        return self._remembered(vertex, key, base.plus(layer))

    def _explain(self, vertex: Vertex, reason: str, key: str = "") -> None:
        self.explained.append(Explained(vertex.name, reason, key))

    # What files are worth

    def _digest_of(self, vertex: Copy, chosen: "copying.Chosen") -> str:
        """Returns the digest of what is copied, which is on record where it never changes."""
        records: Records = self._thread.records
        fixed = [self._results[item.source] for item in vertex.items]
        stacks = [found for found in fixed if isinstance(found, State)]
        if len(stacks) < len(fixed):
            return chosen.digest(self._files.known)
        chain_id = "+".join(stack.chain_id for stack in stacks)
        key = keys.of_selection(chain_id, copying.description(vertex))
        if known := records.digest(key):
            return known
        digest = chosen.digest(None)
        records.add_digest(key, stacks[0].chain_id, digest)
        return digest

    def _mount_digest(self, mount: "Mount") -> str:
        if mount.source is None:
            return ""
        found = self._results[mount.source]
        if not isinstance(found, State):
            return self._shown(mount, found).digest(self._files.known)
        records: Records = self._thread.records
        key = keys.of_selection(found.chain_id, ["mount", mount.source_path])
        if known := records.digest(key):
            return known
        digest = self._shown(mount, self.tree(mount.source)).digest(None)
        records.add_digest(key, found.chain_id, digest)
        return digest

    def _shown(self, mount: "Mount", tree: Tree) -> "copying.Chosen":
        return copying.choose_mount(mount, tree, self._calling.check)

    def _bound(
        self, mount: "Mount", digest: str, held: contextlib.ExitStack
    ) -> "tuple[Prepared, bool]":
        """Returns what a mount's source is bound from, and whether that has the digest."""
        assert mount.source is not None
        found = self._results[mount.source]
        if isinstance(found, State):
            return self._running.prepared(held.enter_context(self._layering.root(found))), True
        # Of a context what is wanted, and never the caller's own files.
        directory = held.enter_context(self._layering.root(State()))
        chosen = self._shown(mount, found)
        is_same = chosen.digest(self._files.known) == digest
        with self._layering.mounted(directory) as root:
            is_exact = copying.write_mount(chosen, root.descriptor) and is_same
        return self._running.prepared(directory, digest), is_exact


def _remark(track: "Track", lines: "Sequence[str]") -> None:
    """Tell something of a step as if its program had said it."""
    for line in lines:
        track.log(2, f"{line}\n".encode())
