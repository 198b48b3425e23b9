"""Where something stands in a Dockerfile, and errors that can show it."""

from typing import TYPE_CHECKING

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError, spelt_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RULER = "-" * 20


@dataclass(frozen=True, order=True)
class Place:
    """Lines of a Dockerfile, from the first to the last, counted from 1."""

    first: int
    last: int


@dataclass(frozen=True)
class Source:
    """A Dockerfile's text, and what it is called.

    Args:
        name: as errors show it: its name within its directory, or ``-``.
        text: its bytes, as they were read.
    """

    name: str
    text: bytes


class DockerfileError(InvalidArgumentError):
    """A Dockerfile is wrong, in BuildKit's words.

    Attributes:
        places: the lines that are to blame, none where they are not known.
        source: the file, where it is known.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        places: "Iterable[Place]" = (),
        source: Source | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.places = tuple(places)
        self.source = source

    def at(self, *places: Place, source: Source | None = None) -> "DockerfileError":
        """Says where the error is, unless that is known already, and returns it."""
        self.places = self.places or places
        self.source = self.source or source
        return self


def excerpt(source: Source, places: "Sequence[Place]") -> str:
    """Returns the lines around some places, those marked, as buildx prints them.

    Empty where there is no such line. Source: github.com/moby/buildkit, solver/errdefs/source.go.
    """
    lines = source.text.decode(errors="replace").split("\n")
    if not places:
        return ""
    start = shown_first = min(place.first for place in places)
    end = min(max(place.last for place in places), len(lines))
    if not 1 <= start <= len(lines):
        return ""
    wanted, added = 4 if end == start else 2, 0
    while added < wanted:
        if start > 1:
            start -= 1
            added += 1
        if end != len(lines):
            end += 1
            added += 1
        added += 1
    rows = [f"{source.name}:{shown_first}", _RULER]
    for number in range(start, end + 1):
        blamed = any(place.first <= number <= place.last for place in places)
        line = lines[number - 1].removesuffix("\r")
        rows.append(f" {number:3} | {'>>>' if blamed else '   '} {line}")
    return spelt_out("\n".join([*rows, _RULER]) + "\n")


def report(error: DockerfileError, prefix: str = "ERROR: ") -> str:
    """Returns an error as a client of BuildKit prints it: the lines, and what is wrong with them.

    Args:
        error: the error.
        prefix: what its words begin with.
    """
    shown = excerpt(error.source, error.places) if error.source else ""
    return f"{shown}{prefix}{error.message}\n"
