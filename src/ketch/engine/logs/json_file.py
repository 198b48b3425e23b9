r"""Docker's json-file format: one JSON object a line.

    {"log":"text of one line\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}

Before ``time`` there may be ``attrs``, an object of strings. A line of more than 16 KiB is cut
into entries without a newline. Bytes that are not UTF-8 are written as lone surrogates (U+DC80 and
on), which other readers show as U+FFFD, the same as Docker stores, and from which our reader gets
the exact bytes back.
"""

import time
from _json import encode_basestring_ascii

from ketch.engine.logs.files import Files
from ketch.spec.json_text import dumps
from ketch.spec.timestamps import SECOND_NS, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.spec.log_drivers import Rotation

LINE_BYTES_MAX = 16 * 1024

# What is encoded at once grows up to forty times where lines are short, and it should fit into the
# processor's cache and leave no hole in the heap of a process that is to stay small.
_SHORT_LINES = 256
_FEWER_BYTES = 4096

_HEAD = b'{"log":"'
# The backslash comes first, since the others bring new ones; newlines are dealt with at the end.
_COMMON = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"))
_RARE_CODES = bytes(code for code in range(32) if code not in b"\t\n\r")
_ALL = (*_COMMON, *((bytes([code]), b"\\u%04x" % code) for code in _RARE_CODES))


class Writer:
    """Writes a container's log; its only writer.

    Args:
        path: the current file; what it holds stays.
        rotation: how the files are bounded.
        attributes: what each entry tells besides.
    """

    __slots__ = ("_attributes", "_files", "_partial", "_second", "_second_text")

    def __init__(
        self, path: str, rotation: "Rotation", attributes: "Mapping[str, str] | None" = None
    ) -> None:
        self._attributes = f',"attrs":{dumps(dict(attributes))}' if attributes else ""
        self._partial = {"stdout": b"", "stderr": b""}
        self._second, self._second_text = -1, ""
        self._files = Files(path, rotation, self)
        if self._files.last not in {b"", b"\n"}:
            # The last writer was killed amid an entry: no good entry shall hang on to its half.
            self._files.append((b"\n",), 1)

    @property
    def lost_bytes(self) -> int:
        """How much of the log could not be written."""
        return self._files.lost_bytes

    def entry(self, text: bytes) -> bytes:
        """Returns an entry of our own; see ``files.Form``."""
        tail = self._tail("stderr", time.time_ns())
        return _HEAD + encode(text, b"\\n" + tail) + b"\\n" + tail

    def count(self, pieces: "Sequence[bytes]") -> int:
        """Returns how many entries some pieces are."""
        return sum(piece.count(b"\n") for piece in pieces)

    def write(self, stream: str, data: bytes, time_ns: int) -> None:
        """Log what a container wrote.

        The start of a line is kept until its end arrives.

        Args:
            stream: ``stdout`` or ``stderr``.
            data: the bytes as they were read.
            time_ns: when, in nanoseconds since the epoch.
        """
        if self._partial[stream]:
            data = self._partial[stream] + data
        tail = self._tail(stream, time_ns)
        line_end = b"\\n" + tail
        start, size = 0, len(data)
        while start < size:
            # Lines that end within the next 16 KiB cannot be too long themselves.
            end = data.rfind(b"\n", start, start + LINE_BYTES_MAX) + 1
            if end:
                if end - start > _FEWER_BYTES and data.count(b"\n", start, end) > _SHORT_LINES:
                    end = data.rfind(b"\n", start, start + _FEWER_BYTES) + 1 or end
                self._append(data[start : end - 1], line_end)
            elif size - start >= LINE_BYTES_MAX:
                end = start + LINE_BYTES_MAX
                self._append(data[start:end], tail)
            else:
                break
            start = end
        self._partial[stream] = data[start:] if start else data

    def suspend(self) -> tuple[bytes, bytes, int]:
        """Close the file; returns for ``resume`` the lines begun on the two streams, and losses."""
        self._files.close()
        return self._partial["stdout"], self._partial["stderr"], self._files.lost

    def resume(self, stdout: bytes, stderr: bytes, lost: int) -> None:
        """Go on with the lines that another writer had begun, and what it could not tell of."""
        self._partial = {"stdout": stdout, "stderr": stderr}
        self._files.lost += lost

    def flush(self) -> bool:
        """Nothing is ever kept back but the start of a line."""
        return True

    def close(self, time_ns: int) -> None:
        """Log the lines that were begun, and close the file."""
        for stream, data in self._partial.items():
            if data:
                self._append(data, self._tail(stream, time_ns))
        self._files.close()

    def _append(self, data: bytes, tail: bytes) -> None:
        encoded = encode(data, tail)
        self._files.append((_HEAD, encoded, tail), len(_HEAD) + len(encoded) + len(tail))

    def _tail(self, stream: str, time_ns: int) -> bytes:
        """Returns what ends an entry, its newline included."""
        second, nanosecond = divmod(time_ns, SECOND_NS)
        if second != self._second:
            self._second, self._second_text = second, rfc3339(second * SECOND_NS).removesuffix("Z")
        fraction = f".{nanosecond:09d}".rstrip("0") if nanosecond else ""
        time = f"{self._second_text}{fraction}Z"
        return f'","stream":"{stream}"{self._attributes},"time":"{time}"}}\n'.encode()


def encode(data: bytes, tail: bytes) -> bytes:
    """Encode bytes as JSON entries, a new one after each newline.

    A whole block at once, by replacing, runs ten times as fast as a call for each line.

    Args:
        data: what was read; its last newline, if any, is in the tail.
        tail: what ends an entry, from the text's closing quote on.

    Returns:
        The entries, less the head of the first and the tail of the last.
    """
    binary = b"\0" in data  # which tells of more bytes than one that are no text
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # Letters amid what is no text are not worth four times the time.
        text = data.decode("ascii" if binary else "utf-8", "surrogateescape")
        binary = True
    if not binary:
        # Looking for each of the rare codes is quick in a long text, for any in a short one.
        rare = len(data) > 2048 or len(data.translate(None, _RARE_CODES)) < len(data)
        for plain, escaped in _ALL if rare else _COMMON:
            data = data.replace(plain, escaped)
        return data.replace(b"\n", tail + _HEAD)
    between = tail.decode() + _HEAD.decode()
    return between.join([encode_basestring_ascii(line)[1:-1] for line in text.split("\n")]).encode()
