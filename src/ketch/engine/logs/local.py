"""Docker's local format: records of a protocol buffer each, with its size before and after it.

    size (4 bytes, big-endian) | LogEntry | size

    message LogEntry {
        string source = 1;                   // stdout, stderr
        int64 time_nano = 2;
        bytes line = 3;                      // without its newline
        bool partial = 4;
        PartialLogEntryMetadata partial_log_metadata = 5;
    }
    message PartialLogEntryMetadata { bool last = 1; string id = 2; int32 ordinal = 3; }

Source: moby, api/types/plugins/logdriver/entry.proto and daemon/logger/local.
"""

import time

from ketch.engine.logs.files import Files
from ketch.engine.logs.lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.logs.lines import Line
    from ketch.spec.log_drivers import Rotation

_SIZE_BYTES = 4
_BATCH_BYTES = 64 * 1024


class Writer:
    """Writes a container's log; its only writer.

    Args:
        path: the current file; what it holds stays.
        rotation: how the files are bounded.
    """

    __slots__ = ("_files", "_lines")

    def __init__(self, path: str, rotation: "Rotation") -> None:
        self._lines = Lines()
        self._files = Files(path, rotation, self)
        if self._files.last:
            self._files.truncate(_whole(path))

    @property
    def lost_bytes(self) -> int:
        """How much of the log could not be written."""
        return self._files.lost_bytes

    def entry(self, text: bytes) -> bytes:
        """Returns an entry of our own; see ``files.Form``."""
        head = b"\n\x06stderr\x10%s\x1a" % varint(time.time_ns())
        record = b"%s%s%s" % (head, varint(len(text)), text)
        framing = len(record).to_bytes(_SIZE_BYTES, "big")
        return framing + record + framing

    def count(self, pieces: "Sequence[bytes]") -> int:
        """Returns how many entries some pieces are."""
        return sum(len(split(piece)[0]) for piece in pieces)

    def write(self, stream: str, data: bytes, time_ns: int) -> None:
        """Log what a container wrote; see ``json_file.Writer.write``."""
        self._append(stream, self._lines.feed(stream, data), time_ns)

    def flush(self) -> bool:
        """Nothing is ever kept back but the start of a line."""
        return True

    def close(self, time_ns: int) -> None:
        """Log the lines that were begun, and close the file."""
        for stream, lines in self._lines.finish():
            self._append(stream, lines, time_ns)
        self._files.close()

    def _append(self, stream: str, lines: "list[Line]", time_ns: int) -> None:
        head = b"\n\x06%s\x10%s\x1a" % (stream.encode(), varint(time_ns))
        batch: list[bytes] = []
        batch_bytes = 0
        for data, partial in lines:
            tail = b""
            if partial is not None:
                tail = b" \x01" if not partial.last else b""
                identifier = partial.identifier.encode()
                metadata = b"\x08\x01" if partial.last else b""
                metadata += b"\x12%s%s\x18%s" % (
                    varint(len(identifier)), identifier, varint(partial.ordinal),
                )  # fmt: skip
                tail += b"*%s%s" % (varint(len(metadata)), metadata)
            length = varint(len(data))
            size = len(head) + len(length) + len(data) + len(tail)
            framing = size.to_bytes(_SIZE_BYTES, "big")
            batch.append(b"%s%s%s%s%s%s" % (framing, head, length, data, tail, framing))
            batch_bytes += size + 2 * _SIZE_BYTES
            if batch_bytes > _BATCH_BYTES:
                self._files.append((b"".join(batch),), batch_bytes)
                batch, batch_bytes = [], 0
        if batch:
            self._files.append((b"".join(batch),), batch_bytes)


def varint(number: int) -> bytes:
    """Returns a number as protocol buffers write it: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode(entry: bytes) -> tuple[str, bytes, int]:
    """Read one record.

    Returns:
        Stream; data, with a newline unless its line goes on; nanoseconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    stream, time_ns, data, partial = "", 0, b"", False
    position = 0
    try:
        while position < len(entry):
            tag, position = _number(entry, position)
            field, kind = tag >> 3, tag & 7
            if kind == 0:
                number, position = _number(entry, position)
                if field == 2:
                    time_ns = number
                elif field == 4:
                    partial = bool(number)
                continue
            if kind != 2:
                raise ValueError(f"wire type {kind}")
            length, position = _number(entry, position)
            content = entry[position : position + length]
            position += length
            if field == 1:
                stream = content.decode()
            elif field == 3:
                data = content
    except IndexError:
        raise ValueError("a record ends too early") from None
    return stream, data if partial else data + b"\n", time_ns


def _number(entry: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = entry[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7


def split(block: bytes) -> tuple[list[bytes], int]:
    """Take the records from the start of a block.

    Returns:
        The records, and how many bytes they take up; what follows is the start of another.

    Raises:
        ValueError: what follows is no record.
    """
    found = []
    position = 0
    while position + _SIZE_BYTES <= len(block):
        size = int.from_bytes(block[position : position + _SIZE_BYTES], "big")
        end = position + _SIZE_BYTES + size
        if end + _SIZE_BYTES > len(block):
            break
        if block[end : end + _SIZE_BYTES] != block[position : position + _SIZE_BYTES]:
            raise ValueError("sizes before and after a record differ")
        found.append(block[position + _SIZE_BYTES : end])
        position = end + _SIZE_BYTES
    return found, position


def tail_start(file: int, size_bytes: int, count: int) -> tuple[int, int]:
    """Find where the last records of a file begin.

    Args:
        file: its descriptor.
        size_bytes: how much of it counts.
        count: how many records are wanted.

    Returns:
        The offset of the first of them, and how many there are.
    """
    import os  # noqa: PLC0415 - reading is not for monitors

    found, end = 0, size_bytes
    while found < count and end > 2 * _SIZE_BYTES:
        size = int.from_bytes(os.pread(file, _SIZE_BYTES, end - _SIZE_BYTES), "big")
        start = end - size - 2 * _SIZE_BYTES
        if start < 0 or os.pread(file, _SIZE_BYTES, start) != size.to_bytes(_SIZE_BYTES, "big"):
            return 0, found  # a damaged file: all of it, then
        found, end = found + 1, start
    return end, found


def _whole(path: str) -> int:
    """How many bytes of a file are whole records."""
    position = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            try:
                taken = split(block)[1]
            except ValueError:
                break
            if not taken:
                break
            position += taken
            file.seek(position)
    return position
