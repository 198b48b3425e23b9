"""Why a build came to nothing: in BuildKit's words, with the lines that are to blame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError, KetchError, StartError
from ketch.spec.dockerfile.errors import DockerfileError, Place, Source, excerpt
from ketch.spec.template_functions import quote

if TYPE_CHECKING:
    from ketch.build.graph import Run, Vertex
    from ketch.build.steps import Outcome

_SOLVE = "failed to solve: "


class BuildError(KetchError):
    """A build failed.

    Args:
        message: why.
        hint: what to do about it.
        places: the lines that are to blame, none where they are not known.
        source: the Dockerfile, where it is known.
        exit_status: of the program that failed, 0 where none did.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        places: Sequence[Place] = (),
        source: Source | None = None,
        exit_status: int = 0,
    ) -> None:
        super().__init__(message, hint)
        self.places = places
        self.source = source
        self.exit_status = exit_status

    @property
    def excerpt(self) -> str:
        """The lines around those that are to blame, as buildx prints them; may be empty."""
        return excerpt(self.source, self.places) if self.source else ""


def check(vertex: "Run", outcome: "Outcome") -> None:
    """Look how a step's program has ended.

    Raises:
        BuildError: with another status than 0.
    """
    if not outcome.status:
        return
    reason = "cannot allocate memory" if outcome.oom else f"exit code: {outcome.status}"
    hint = "it was killed for want of memory" if outcome.oom else ""
    raise BuildError(_incomplete(vertex, reason), hint, exit_status=outcome.status)


def not_run(vertex: "Run", error: "StartError | InvalidArgumentError") -> KetchError:
    """Returns an error of the same class that says which program could not be run."""
    message = _incomplete(vertex, error.message)
    if isinstance(error, StartError):
        return StartError(message, error.hint, exit_status=error.exit_status)
    return InvalidArgumentError(message, error.hint)


def _incomplete(vertex: "Run", reason: str) -> str:
    words = quote(" ".join(vertex.arguments))
    return f"process {words} did not complete successfully: {reason}"


def located(error: KetchError, vertex: "Vertex") -> BuildError:
    """Returns an error as one of a vertex."""
    place = vertex.place
    places = [Place(place.first, place.last)] if place is not None else []
    status = error.exit_status if isinstance(error, BuildError | StartError) else 0
    return BuildError(error.message, error.hint, places, exit_status=status)


def unsolved(error: KetchError, source: Source | None) -> BuildError:
    """Returns an error as what a build failed of.

    Args:
        error: what went wrong.
        source: the Dockerfile, as far as it was read.
    """
    places: Sequence[Place] = ()
    if isinstance(error, BuildError | DockerfileError):
        places = error.places
        source = error.source or source
    status = error.exit_status if isinstance(error, BuildError) else 0
    message = error.message if error.message.startswith(_SOLVE) else f"{_SOLVE}{error.message}"
    return BuildError(message, error.hint, places, source, status)
