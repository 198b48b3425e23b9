"""What is asked about a Dockerfile instead of building it: what is wrong with it, what it takes."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.build import failures, place
from ketch.build.contexts import reading
from ketch.build.contexts.contexts import Contexts
from ketch.build.graph import HttpSource
from ketch.build.planning import outline
from ketch.build.reporting import Reporter
from ketch.build.resolving import Resolver
from ketch.build.solving import CalledOffError
from ketch.build.sources import Told
from ketch.engine.processes import ENDLESS, Patience
from ketch.errors import InvalidArgumentError, KetchError, UnavailableError
from ketch.spec.dockerfile.errors import Source
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from ketch.build.planning.outline import Answer
    from ketch.build.progress import Progress
    from ketch.build.request import Request
    from ketch.engine.engine import Engine

CHECK, OUTLINE, TARGETS = "check", "outline", "targets"
QUESTIONS = (CHECK, OUTLINE, TARGETS)

_DOWNLOADED = "download"


def answer(
    engine: "Engine",
    request: "Request",
    question: str,
    progress: "Progress" = lambda _: None,
    patience: Patience = ENDLESS,
) -> "Answer":
    """Answer a question about a Dockerfile.

    Args:
        engine: where; the calling thread's.
        request: what would be built.
        question: one of QUESTIONS.
        progress: is told of what is read for it.
        patience: how the caller waits; what it raises calls it off.

    Raises:
        BuildError: the Dockerfile cannot be read, or, but for CHECK, not be built.
    """
    if question not in QUESTIONS:
        raise InvalidArgumentError(
            f"unsupported request {quoted(question)}", f"there is {', '.join(QUESTIONS)}"
        )
    return _Asking(engine, request, Reporter(progress), patience).answer(question)


def text(
    engine: "Engine",
    request: "Request",
    progress: "Progress" = lambda _: None,
    patience: Patience = ENDLESS,
) -> bytes:
    """Returns the Dockerfile itself; or another file that is named in its place.

    Args:
        engine: where; the calling thread's.
        request: says where it is.
        progress: is told of what is read for it.
        patience: as above.

    Raises:
        BuildError: it cannot be read.
    """
    return _Asking(engine, request, Reporter(progress), patience).text()


def download(engine: "Engine", request: "Request", url: str, patience: Patience = ENDLESS) -> bytes:
    """Returns what a URL answers, as it is: an archive is not unpacked.

    Args:
        engine: where.
        request: as whom it is asked.
        url: of the file.
        patience: as above.

    Raises:
        BuildError: it cannot be had, or is larger than anybody reads.
    """
    return _Asking(engine, request, Reporter(lambda _: None), patience).download(url)


class _Asking:
    """One question's circumstances.

    Args:
        engine: where.
        request: what would be built.
        reporter: is told.
        patience: how the caller waits.
    """

    def __init__(
        self, engine: "Engine", request: "Request", reporter: Reporter, patience: Patience
    ) -> None:
        self._source: Source | None = None
        self._engine = engine
        self._request = request
        self._reporter = reporter
        self._patience = patience

    def answer(self, question: str) -> "Answer":
        """Read the Dockerfile, and say what is asked about it; see ``answer``."""
        with self._contexts() as contexts:
            found = self._dockerfile(contexts)
            resolver = Resolver(self._engine, self._request, self._reporter, self._patience)
            if question == TARGETS:
                return outline.targets(found.text, found.name)
            if question == OUTLINE:
                return outline.outline(found.text, found.name, self._request, resolver)
            with self._reporter.internal("load .dockerignore") as track:
                told = Told(track)
                ignored = contexts.ignored(told)
                told.finish()
            return outline.check(found.text, found.name, self._request, resolver, lambda: ignored)

    def text(self) -> bytes:
        """Read the Dockerfile; see ``text``."""
        with self._contexts() as contexts:
            return self._dockerfile(contexts).text

    def download(self, url: str) -> bytes:
        """Read what a URL answers; see ``download``."""
        with self._contexts() as contexts:
            tree = contexts.http(HttpSource(name=url, url=url, filename=_DOWNLOADED))
            found = reading.read(tree.directory, _DOWNLOADED)
            assert found is not None
            return found

    @contextlib.contextmanager
    def _contexts(self) -> Iterator[Contexts]:
        """Hold the contexts for a block, whose failure is the Dockerfile's."""
        kept = f"{self._engine.settings.root}/build-cache"
        try:
            with (
                place.opened(self._engine.images.root) as at,
                Contexts(self._request, at.contexts, kept, patience=self._patience) as contexts,
            ):
                yield contexts
        except CalledOffError as error:
            raise failures.unsolved(UnavailableError("context canceled"), self._source) from error
        except KetchError as error:
            raise failures.unsolved(error, self._source) from error

    def _dockerfile(self, contexts: Contexts) -> Source:
        name = os.path.basename(self._request.dockerfile or "Dockerfile")
        with self._reporter.internal(f"load build definition from {name}") as track:
            told = Told(track)
            found = contexts.dockerfile(told)
            told.finish()
        self._source = Source(found.filename, found.text)
        return self._source
