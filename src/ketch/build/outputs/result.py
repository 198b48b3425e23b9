"""What a build has come to, before it goes anywhere."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ketch.build.outputs.provenance import PREDICATE_TYPE
from ketch.dataclass import dataclass, field

if TYPE_CHECKING:
    from ketch.engine.images.layer import Layer
    from ketch.spec.image import ImageConfig


@dataclass(frozen=True)
class Built:
    """One platform's image; its layers are in the store, and kept there meanwhile.

    Attributes:
        platform: ``os/architecture[/variant]``.
        document: its whole configuration.
        layers: the lowest first.
        base_layers: how many of them are the base image's.
        open: opens its files: a context manager that gives a descriptor of their root.
        predicate: what its provenance says; None where none is wanted.
        scanned: what a scanner says of it: kinds of predicates, and these.
    """

    platform: str
    document: "ImageConfig"
    layers: "Sequence[Layer]"
    base_layers: int
    open: Callable[[], AbstractContextManager[int]]
    predicate: Mapping[str, Any] | None = None
    scanned: Sequence[tuple[str, Mapping[str, Any]]] = ()

    @property
    def predicates(self) -> "list[tuple[str, Mapping[str, Any]]]":
        """All that is attested of it: what a scanner says, then its provenance."""
        said = [] if self.predicate is None else [(PREDICATE_TYPE, self.predicate)]
        return [*self.scanned, *said]


@dataclass(frozen=True)
class Outcome:
    """All of it.

    Attributes:
        images: one a platform, in the order that they were asked for.
        is_list: whether an index is made of them, also where there is one alone.
        epoch_ns: SOURCE_DATE_EPOCH, None where it is not set.
        annotations: ``type[platform]:key`` and values.
        names: the image's names, in familiar form.
    """

    images: Sequence[Built]
    is_list: bool = False
    epoch_ns: int | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()
