"""An archive that comes in pieces, as a stream to read from."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGE_BYTES = 1 << 16  # from here on joining, which copies, costs more than another call


class Pieces:
    """What a generator yields, as a stream.

    Attributes:
        read_bytes: how much has been read.
    """

    __slots__ = ("_left", "_pieces", "read_bytes")

    def __init__(self, pieces: "Iterator[bytes]") -> None:
        self._pieces = pieces
        self._left = b""
        self.read_bytes = 0

    def starts_with(self, text: bytes) -> bool:
        """Whether what is still to be read begins with a text."""
        while len(self._left) < len(text) and (piece := next(self._pieces, b"")):
            self._left += piece
        return self._left.startswith(text)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end; a large piece as it is."""
        gathered: list[bytes] = []
        length = 0
        while length < size and (piece := self._left or next(self._pieces, b"")):
            self._left = b""
            if gathered and len(piece) >= _LARGE_BYTES:
                self._left = piece
                break
            gathered.append(piece)  # headers and small files come one by one
            length += len(piece)
        content = b"".join(gathered)
        if length > size:
            content, self._left = content[:size], content[size:]
        self.read_bytes += len(content)
        return content

    def close(self) -> None:
        """End the generator."""
        self._pieces.close()  # type: ignore[attr-defined] # a generator
