"""A layer of the store."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.image import Descriptor


class Layer:
    """A layer that is in the store, as a blob and unpacked.

    Attributes:
        descriptor: of its blob.
        diff_id: digest of its uncompressed archive.
        chain_id: of it and the layers below it; the name of its snapshot.
        size_bytes: bytes of its files' content.
    """

    __slots__ = ("chain_id", "descriptor", "diff_id", "size_bytes")

    def __init__(
        self, descriptor: "Descriptor", diff_id: str, chain_id: str, size_bytes: int
    ) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self.chain_id = chain_id
        self.size_bytes = size_bytes
