"""One object for what is one: vertices that differ in nothing but how they are shown."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from ketch.build.graph import ImageSource, Run, Vertex
from ketch.dataclass import fields

_SHOWN = {"name", "stage", "place"}

V = TypeVar("V", bound=Vertex)


class Vertices:
    """All vertices of a plan.

    Files are the same on every platform; images and what runs are not.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Vertex] = {}

    def one(self, vertex: V) -> V:
        """Returns the vertex that was made first of all that are the same as this one."""
        left_out = _SHOWN if isinstance(vertex, ImageSource | Run) else {*_SHOWN, "platform"}
        key: Hashable = (
            type(vertex),
            *(
                _hashable(getattr(vertex, field.name))
                for field in fields(vertex)
                if field.name not in left_out
            ),
        )
        made = self._made.setdefault(key, vertex)
        assert isinstance(made, type(vertex))  # its type is a part of the key
        return made


def _hashable(value: object) -> Hashable:
    # A vertex within a value is told apart by identity, which is right: it is one already.
    if isinstance(value, Mapping):
        return tuple(value.items())
    assert isinstance(value, Hashable)
    return value
