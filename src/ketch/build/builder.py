"""A build from beginning to end: read, planned, made, put together, sent to where it is wanted."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ketch.build import failures, place
from ketch.build.blobs import Blobs
from ketch.build.cache import due
from ketch.build.cache.records import Records
from ketch.build.contexts.contexts import Contexts
from ketch.build.executing import Executor, Running
from ketch.build.exporting import Exporter
from ketch.build.files.hashes import Hashes
from ketch.build.graph import ImageSource
from ketch.build.layering import Layering
from ketch.build.outputs import image as image_output
from ketch.build.planning.description import describe
from ketch.build.planning.planner import plan as make_plan
from ketch.build.reporting import Reporter
from ketch.build.request import MAIN_CONTEXT, LocalDirectory, Result
from ketch.build.resolving import Pulls, Resolver
from ketch.build.solving import CalledOffError, Calling, Solver, order
from ketch.build.sources import Sources, Told
from ketch.dataclass import replace
from ketch.engine.processes import ENDLESS, Patience
from ketch.errors import KetchError, UnavailableError
from ketch.linux.scopes import owned
from ketch.spec.build_options import is_true
from ketch.spec.dockerfile.errors import Source

if TYPE_CHECKING:
    from ketch.build.cache.importing import Imports
    from ketch.build.graph import Plan, Run, Target, Vertex
    from ketch.build.place import Place
    from ketch.build.progress import Progress
    from ketch.build.request import Request
    from ketch.engine.engine import Engine


def build(
    engine: "Engine",
    request: "Request",
    progress: "Progress" = lambda _: None,
    patience: Patience = ENDLESS,
    *,
    explain: Callable[[str], object] | None = None,
) -> Result:
    """Build.

    Args:
        engine: where; the calling thread's.
        request: what.
        progress: is told of all that goes on, from any thread, one event at a time.
        patience: how the caller waits; what it raises calls the build off.
        explain: is told, a line at a time, the plan, and then why each step was or was not taken
            from the cache.

    Returns:
        What came of it.

    Raises:
        BuildError: it came to nothing; ``excerpt`` has the lines that are to blame.
        BaseException: what ``patience``, or a signal, raised. Nothing is left but cache.
    """
    return _Build(engine, request, Reporter(progress), patience).run(explain)


class _Build:
    """One build.

    Args:
        engine: where.
        request: what.
        reporter: is told of everything.
        patience: how the caller waits.
    """

    def __init__(
        self, engine: "Engine", request: "Request", reporter: Reporter, patience: Patience
    ) -> None:
        self._engine = engine
        self._request = request
        self._reporter = reporter
        self._patience = patience
        self._started_ns = time.time_ns()
        self._source: Source | None = None
        self._is_tidy = False

    def run(self, explain: Callable[[str], object] | None) -> Result:
        """Build; see ``build``."""
        images = self._engine.images
        for output in self._request.outputs:
            image_output.check_names(_names(output.attributes.get("name", "")))
        image_output.check_names(self._request.tags)
        try:
            with images.adding(), place.opened(images.root) as at:
                if at.follows:
                    images.expect_garbage()
                try:
                    return self._within(at, explain)
                finally:
                    # On record while the place is: whoever finds that later knows as well.
                    if not self._is_tidy:
                        images.expect_garbage()
        except CalledOffError as error:
            raise failures.unsolved(UnavailableError("context canceled"), self._source) from error
        except KetchError as error:
            raise failures.unsolved(error, self._source) from error
        finally:
            with contextlib.suppress(KetchError):
                images.publish_index()
                self._clear_away()

    def _clear_away(self) -> None:
        """Remove what nobody uses, where there may be such, and of the cache what is too much.

        It is read what each image needs, which is nothing to do at the end of every build.
        """
        is_turn = due.take_turn(self._engine.settings.root)
        if is_turn or self._engine.images.may_have_garbage():
            self._engine.images.collect_garbage()
        if is_turn:
            from ketch.build.cache import pruning  # noqa: PLC0415 - once an hour

            pruning.collect(self._engine)

    def _within(self, at: "Place", explain: Callable[[str], object] | None) -> Result:
        engine, request = self._engine, self._request
        with contextlib.ExitStack() as held:
            calling = held.enter_context(Calling())
            contexts = held.enter_context(
                Contexts(
                    request, at.contexts, f"{engine.settings.root}/build-cache", patience=calling
                )
            )
            with self._followed(calling):
                resolver = Resolver(engine, request, self._reporter, calling)
                plan = self._planned(contexts, resolver)
                scans = self._scans(plan, resolver)
                vertices = order(
                    root for target in plan.targets for root in [*_wanted(target), *scans.values()]
                )
                imports = self._imports(calling)
            blobs = Blobs(engine.images.content, at.blobs)
            layering = Layering(engine.images, at, blobs, calling.check)
            held.callback(layering.close)
            known = held.enter_context(_hashes(engine.settings.root, request))
            executor = Executor(
                engine,
                request,
                layering,
                Sources(
                    contexts,
                    Pulls(request, calling),
                    resolver.layouts,
                    at.contexts,
                    held,
                    vertices,
                    known,
                ),
                held.enter_context(Running(engine, request)),
                self._reporter,
                calling,
                imports,
            )
            executor.exported.update(*(_chain(target) for target in plan.targets))
            executor.announce(vertices)
            try:
                Solver(executor.make, calling, executor.scope).solve(vertices, self._patience)
            finally:
                self._settle(executor, plan, explain)
            exporter = Exporter(
                engine, request, plan, executor, layering, blobs, self._reporter, calling,
                started_ns=self._started_ns, source=self._source, vertices=vertices,
                document=resolver.document, scans=scans,
            )  # fmt: skip
            with self._followed(calling):
                result = exporter.export()
            # What is exported elsewhere lies in the store for the moment.
            self._is_tidy = not executor.leaves_garbage and _is_kept(request)
            return replace(result, unused_arguments=plan.unused_arguments)

    def _imports(self, calling: Calling) -> "Imports | None":
        """Returns what other builders have, where any are asked."""
        if not self._request.cache_from:
            return None
        from ketch.build.cache.importing import Imports  # noqa: PLC0415 - few have one

        found = Imports(self._engine.images)
        found.load(self._request.cache_from, self._request, self._reporter, calling)
        return found

    def _scans(self, plan: "Plan", resolver: Resolver) -> "dict[str, Run]":
        """Returns the steps that scan results, by their platform."""
        scanner = self._request.sbom
        if not scanner:
            return {}
        from ketch.build import scanning  # noqa: PLC0415 - few ask

        return {
            target.platform: scanning.scan(target, scanner, resolver) for target in plan.targets
        }

    def _planned(self, contexts: Contexts, resolver: Resolver) -> "Plan":
        """Read the Dockerfile, and find out what is to be made."""
        reporter, request = self._reporter, self._request
        name = request.dockerfile or "Dockerfile"
        with reporter.internal(f"load build definition from {os.path.basename(name)}") as track:
            told = Told(track)
            found = contexts.dockerfile(told)
            told.finish()
        self._source = Source(found.filename, found.text)
        with reporter.internal("load .dockerignore") as ignore:
            told = Told(ignore)
            ignored = contexts.ignored(told)
            told.finish()
        plan = make_plan(
            found.text, found.filename, request, resolver, lambda: ignored, contexts.time_s
        )
        for warning in plan.warnings:
            track.warn(warning, found.filename, found.text)
        return plan

    @contextlib.contextmanager
    def _followed(self, calling: Calling) -> Iterator[None]:
        """Do in a block, in this thread, what is called off as the caller wants it."""
        done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        raised: list[BaseException] = []

        def watch() -> None:
            try:
                self._patience.wait(None, done)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                raised.append(error)
                calling.call_off()

        thread = None
        if self._patience is not ENDLESS:
            thread = threading.Thread(target=watch, name="build", daemon=True)
            thread.start()
        try:
            yield
        except CalledOffError:
            if raised:
                raise raised[0] from None
            raise
        finally:
            os.eventfd_write(done, 1)
            if thread is not None:
                thread.join()
            os.close(done)

    def _settle(
        self, executor: Executor, plan: "Plan", explain: Callable[[str], object] | None
    ) -> None:
        """Have on the disk and on record what was made and used, whatever became of the build."""
        images = self._engine.images
        Records(self._engine.store, images.snapshotter).touch(executor.used)
        images.snapshotter.settle(executor.chain_ids())
        if explain is not None:
            for line in (*describe(plan).splitlines(), *(one.line for one in executor.explained)):
                explain(line)


@contextlib.contextmanager
def _hashes(root: str, request: "Request") -> "Iterator[Hashes | None]":
    """Hold what is known of the files of the main context, where it is a directory of this machine.

    Of two builds of one context at once, what the one that ends last has found out is kept.
    """
    given = request.contexts.get(MAIN_CONTEXT)
    if not isinstance(given, LocalDirectory):
        yield None
        return
    path = f"{root}/build-cache/hashes"
    name = hashlib.sha256(os.fsencode(os.path.abspath(given.path))).hexdigest()
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(
            f"cannot write to {path}: {os.strerror(error.errno or 0)}"
        ) from error
    with owned(directory):
        known = Hashes(directory, name)
        with contextlib.suppress(OSError):
            os.utime(name, dir_fd=directory)  # when it was used, for who takes what nobody uses
        try:
            yield known
        finally:
            with contextlib.suppress(OSError):
                known.save()


def _is_kept(request: "Request") -> bool:
    """Whether all that a build brings into the store belongs to a step or an image."""
    elsewhere = request.cache_from or request.cache_to or request.squash
    return not elsewhere and all(
        output.type in {"image", "cacheonly"}
        and not is_true(output.attributes.get("push", "false"))
        and is_true(output.attributes.get("store", "true"))
        for output in request.outputs
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _wanted(target: "Target") -> "list[Vertex]":
    """Returns what an image is made of: its files, and what its base brings along."""
    roots: list[Vertex] = [target.root]
    if isinstance(target.base, ImageSource):
        roots.append(target.base)
    return [*roots, *target.scanned.values()]


def _chain(target: "Target") -> "list[Vertex]":
    """Returns the vertices whose layers are an image's."""
    found: list[Vertex] = []
    vertex: Vertex | None = target.root
    while vertex is not None:
        found.append(vertex)
        vertex = getattr(vertex, "base", None)
    return found
