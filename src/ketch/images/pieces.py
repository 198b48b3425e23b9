"""An archive that comes in pieces, as a stream to read from."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


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

    def read(self, size: int = -1, /) -> bytes:
        """Returns ``size`` bytes, or all where it is negative; fewer at the end alone."""
        if size < 0 or len(self._left) < size:
            # Headers and small files come one by one.
            gathered, length = [self._left], len(self._left)
            while (size < 0 or length < size) and (piece := next(self._pieces, b"")):
                gathered.append(piece)
                length += len(piece)
            self._left = b"".join(gathered)
        if size < 0:
            size = len(self._left)
        content, self._left = self._left[:size], self._left[size:]
        self.read_bytes += len(content)
        return content

    def close(self) -> None:
        """End the generator."""
        self._pieces.close()  # type: ignore[attr-defined] # a generator
