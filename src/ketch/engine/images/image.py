"""One image, as it is on record."""

import sqlite3

from ketch.errors import KetchError
from ketch.images.content import ContentStore
from ketch.spec import image as documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.spec.image import ContainerConfig, ImageConfig


class Image:
    """One image at the moment it was read.

    Attributes:
        id: digest of its configuration.
        manifest_digest: digest of its manifest.
        created_ns: when it was made, in nanoseconds since the epoch.
        size_bytes: bytes of the files in its layers.
        parent_id: the image that it was committed on, or empty.
        tagged_ns: when it was last given a name, 0 for never.
        names: its names in normal form, sorted.
    """

    __slots__ = ("_content", "_document", "created_ns", "id", "manifest_digest", "names",
                 "parent_id", "size_bytes", "tagged_ns")  # fmt: skip

    def __init__(self, content: ContentStore, row: sqlite3.Row, names: "Sequence[str]") -> None:
        self.id: str = row["id"]
        self.manifest_digest: str = row["manifest_digest"]
        self.created_ns: int = row["created_ns"]
        self.size_bytes: int = row["size_bytes"]
        self.parent_id: str = row["parent_id"]
        self.tagged_ns: int = row["tagged_ns"]
        self.names = names
        self._content = content
        self._document: ImageConfig | None = None

    @property
    def short_id(self) -> str:
        """The start of its ID that people are shown."""
        return self.id.partition(":")[2][:12]

    @property
    def document(self) -> "ImageConfig":
        """Its whole configuration; the first access reads it."""
        if self._document is None:
            self._document = documents.parse_config(self._content.read(self.id))
        return self._document

    @property
    def config(self) -> "ContainerConfig":
        """What its containers run with unless told otherwise."""
        return self.document.get("config") or {}

    @property
    def labels(self) -> dict[str, str]:
        """The labels that it carries; none where its configuration is damaged."""
        try:
            return self.config.get("Labels") or {}
        except KetchError:
            return {}

    @property
    def chain_ids(self) -> list[str]:
        """The chain IDs of its layers, the lowest first."""
        return documents.chain_ids(self.document["rootfs"]["diff_ids"])
