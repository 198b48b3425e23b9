"""What vertices come to: a stack of layers of the store, or files from elsewhere."""

from typing import TYPE_CHECKING

from ketch.dataclass import dataclass
from ketch.spec import image as documents

if TYPE_CHECKING:
    from ketch.spec.image import Descriptor


@dataclass(frozen=True)
class Layer:
    """One layer, which is unpacked in the store.

    Attributes:
        diff_id: digest of its uncompressed archive.
        chain_id: of it and those below it.
        size_bytes: bytes of its files' content.
        created_ns: when it was made, nanoseconds since the epoch; 0 for unknown.
        description: what made it.
        alone: whether it was made without regard to what it lies on (``COPY --link``).
        descriptor: of the blob that an image has of it; None for one that builds made.
    """

    diff_id: str
    chain_id: str
    size_bytes: int
    created_ns: int = 0
    description: str = ""
    alone: bool = False
    descriptor: "Descriptor | None" = None


@dataclass(frozen=True)
class State:
    """Files: layers on top of one another.

    Attributes:
        layers: the lowest first.
    """

    layers: tuple[Layer, ...] = ()

    @property
    def chain_id(self) -> str:
        """What names all of it; empty for no files."""
        return self.layers[-1].chain_id if self.layers else ""

    @property
    def chain_ids(self) -> list[str]:
        """Of each layer, the lowest first."""
        return [layer.chain_id for layer in self.layers]

    def over(self, diff_id: str) -> str:
        """Returns the chain ID of a layer on top of these."""
        return documents.next_chain_id(self.chain_id, diff_id)

    def plus(self, layer: Layer) -> "State":
        """Returns these with one more layer."""
        return State((*self.layers, layer))
