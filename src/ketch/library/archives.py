"""A tar archive that is made while it is read."""

import contextlib
from typing import TYPE_CHECKING

from ketch.images.pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class Archive:
    """A tar archive of a container's files: iterate over its pieces, or read as from a file.

    What it is made of is held until it has been read, or closed; as a context manager it is closed
    at the end.

    Args:
        source: what gives the pieces for the length of a block.
    """

    def __init__(self, source: "contextlib.AbstractContextManager[Iterator[bytes]]") -> None:
        with contextlib.ExitStack() as held:
            self._stream = Pieces(held.enter_context(source))
            held.callback(self._stream.close)
            self._held = held.pop_all()

    def __enter__(self) -> "Archive":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Close it."""
        self.close()

    def __iter__(self) -> "Iterator[bytes]":
        """Yield its pieces; it is closed at the end."""
        with self:
            while piece := self._stream.read(_PIECE_BYTES):
                yield piece

    def read(self, size: int = -1, /) -> bytes:
        """Returns ``size`` bytes, or all that is left where it is negative; fewer at the end."""
        gathered = []
        while size and (piece := self._stream.read(size if size > 0 else _PIECE_BYTES)):
            gathered.append(piece)
            size = max(size - len(piece), -1)
        return b"".join(gathered)

    def close(self) -> None:
        """Let go of what it is made of."""
        self._held.close()


_PIECE_BYTES = 64 * 1024
