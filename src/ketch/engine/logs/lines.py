"""Output cut into lines, and lines that are too long into pieces that know their place.

What Docker calls a partial message: a line of more than 16 KiB is logged in pieces, all but the
last of them without a newline; they share an identifier and are numbered. A line that the program
never ended is such a piece, and none is the last.
"""

import os

LINE_BYTES_MAX = 16 * 1024

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = tuple[bytes, "Part | None"]


class Part:
    """A piece's place in a line that was cut.

    Attributes:
        identifier: the line's, 64 hexadecimal digits.
        ordinal: the piece's number, from 1.
        last: whether the line ends with it.
    """

    __slots__ = ("identifier", "last", "ordinal")

    def __init__(self, identifier: str, ordinal: int, *, last: bool) -> None:
        self.identifier = identifier
        self.ordinal = ordinal
        self.last = last


class Lines:
    """Cuts the output of both streams into lines."""

    __slots__ = ("_begun", "_parts")

    def __init__(self) -> None:
        self._begun = {"stdout": b"", "stderr": b""}
        self._parts: dict[str, Part | None] = {"stdout": None, "stderr": None}

    def feed(self, stream: str, data: bytes) -> "list[Line]":
        """Take output; the start of a line is kept until its end arrives.

        Returns:
            The lines without their newlines, a part's place beside each piece of a long one.
        """
        data = self._begun[stream] + data
        *ended, rest = data.split(b"\n")
        found: list[Line] = []
        for line in ended:
            if self._parts[stream] is None and len(line) < LINE_BYTES_MAX:
                found.append((line, None))
            else:
                self._cut(stream, line, found, last=True)
        if len(rest) >= LINE_BYTES_MAX:
            rest = self._cut(stream, rest, found, last=False)
        self._begun[stream] = rest
        return found

    def finish(self) -> "Iterator[tuple[str, list[Line]]]":
        """Yield each stream with the line that was begun and never ended, if there is one."""
        for stream, line in self._begun.items():
            if line:
                self._begun[stream] = b""
                yield stream, [(line, self._next(self._parts[stream], last=False))]

    def _cut(self, stream: str, line: bytes, found: "list[Line]", *, last: bool) -> bytes:
        """Cut a long line, or one that goes on; returns what is kept of it."""
        before = self._parts[stream]
        while len(line) >= LINE_BYTES_MAX:
            before = self._next(before, last=False)
            found.append((line[:LINE_BYTES_MAX], before))
            line = line[LINE_BYTES_MAX:]
        if last:
            found.append((line, self._next(before, last=True)))
            before, line = None, b""
        self._parts[stream] = before
        return line

    @staticmethod
    def _next(before: Part | None, *, last: bool) -> Part:
        if before is None:
            return Part(os.urandom(32).hex(), 1, last=last)
        return Part(before.identifier, before.ordinal + 1, last=last)
