"""What is asked about a Dockerfile instead of building it: what is wrong with it, what it takes."""

import os
from typing import TYPE_CHECKING

from ketch.build import failures, place
from ketch.build.contexts.contexts import Contexts
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
    from ketch.build.place import Place
    from ketch.build.planning.outline import Answer
    from ketch.build.progress import Progress
    from ketch.build.request import Request
    from ketch.engine.engine import Engine

CHECK, OUTLINE, TARGETS = "check", "outline", "targets"
QUESTIONS = (CHECK, OUTLINE, TARGETS)


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
    asking = _Asking(engine, request, Reporter(progress), patience)
    try:
        with place.opened(engine.images.root) as at:
            return asking.answer(question, at)
    except CalledOffError as error:
        raise failures.unsolved(UnavailableError("context canceled"), asking.source) from error
    except KetchError as error:
        raise failures.unsolved(error, asking.source) from error


class _Asking:
    """One question's circumstances.

    Args:
        engine: where.
        request: what would be built.
        reporter: is told.
        patience: how the caller waits.

    Attributes:
        source: the Dockerfile, once it is read.
    """

    def __init__(
        self, engine: "Engine", request: "Request", reporter: Reporter, patience: Patience
    ) -> None:
        self.source: Source | None = None
        self._engine = engine
        self._request = request
        self._reporter = reporter
        self._patience = patience

    def answer(self, question: str, at: "Place") -> "Answer":
        """Read the Dockerfile, and say what is asked about it."""
        request, reporter = self._request, self._reporter
        kept = f"{self._engine.settings.root}/build-cache"
        with Contexts(request, at.contexts, kept, patience=self._patience) as contexts:
            name = os.path.basename(request.dockerfile or "Dockerfile")
            with reporter.internal(f"load build definition from {name}") as track:
                told = Told(track)
                found = contexts.dockerfile(told)
                told.finish()
            self.source = Source(found.filename, found.text)
            resolver = Resolver(self._engine, request, reporter, self._patience)
            if question == TARGETS:
                return outline.targets(found.text, found.filename)
            if question == OUTLINE:
                return outline.outline(found.text, found.filename, request, resolver)
            with reporter.internal("load .dockerignore") as track:
                told = Told(track)
                ignored = contexts.ignored(told)
                told.finish()
            return outline.check(found.text, found.filename, request, resolver, lambda: ignored)
