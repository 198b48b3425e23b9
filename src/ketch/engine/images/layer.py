"""A layer of the store."""

from ketch.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.image import Descriptor


@dataclass
class Layer:
    """A layer that is in the store, as a blob and unpacked.

    Attributes:
        descriptor: of its blob.
        diff_id: digest of its uncompressed archive.
        chain_id: of it and the layers below it; the name of its snapshot.
        size_bytes: bytes of its files' content.
    """

    descriptor: "Descriptor"
    diff_id: str
    chain_id: str
    size_bytes: int
