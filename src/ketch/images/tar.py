"""Reading tar archives that may be hostile: ustar, GNU and PAX, as a stream.

Why not ``tarfile``: it reads extended headers of any size into memory and follows chains of them by
recursion, decodes names (which are bytes), drops nanoseconds and takes several times as long a
header. Here a header yields an ``Entry`` or an InvalidArgumentError, and memory is bounded.

Sources: pax in POSIX.1-2017; "Basic Tar Format" and "Storing Sparse Files" in the GNU tar manual;
for doubtful cases what Go's archive/tar does, since that is what wrote and reads most images.
"""

import struct

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Stream(Protocol):
        """What an archive is read from."""

        def read(self, size: int, /) -> bytes:
            """Return up to ``size`` bytes, none at the end."""
            ...


BLOCK = 512
CHUNK_BYTES = 1 << 18
EXTENDED_HEADER_MAX = 1 << 20  # as Go's archive/tar
SPARSE_SEGMENTS_MAX = 1 << 20

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0123456"

_ZEROS = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_REGULAR_FLAGS = (b"0", b"\0", b"7")
_WITHOUT_DATA = (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_XATTR = b"SCHILY.xattr."


class Entry:
    """One member of an archive.

    Attributes:
        name: its path as the archive has it, any bytes but NUL.
        kind: one of this module's constants, the digit of the header.
        link: the target of a symlink, or the member that a hard link shares its file with.
        mode: permission bits with setuid, setgid and sticky.
        uid: owner.
        gid: group.
        mtime_ns: modification time in nanoseconds since the epoch.
        size_bytes: length of the file's content, holes included.
        major: device's major number.
        minor: device's minor number.
        xattrs: extended attributes.
        segments: where the content that the archive holds goes, as (offset, length) in ascending
            order; None for a file without holes.
    """

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "segments",
                 "size_bytes", "uid", "xattrs")  # fmt: skip

    def __init__(self, name: bytes, kind: str = REGULAR) -> None:
        self.name = name
        self.kind = kind
        self.link = b""
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.mtime_ns = 0
        self.size_bytes = 0
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.segments: list[tuple[int, int]] | None = None


def begins(head: bytes) -> bool:
    """Whether an archive begins like this; it may be damaged all the same.

    Args:
        head: the first BLOCK bytes of it, or all there are.
    """
    if len(head) < BLOCK:
        return False
    if head == _ZEROS or head[257:262] == b"ustar":
        return True
    try:
        _verify_checksum(head)  # of the oldest archives, which have no magic number
    except InvalidArgumentError:
        return False
    return True


class Reader:
    """The members of an archive, in order.

    Args:
        stream: where the archive is read from, in chunks.
    """

    __slots__ = ("_buffer", "_position", "_remaining", "_stream", "_unread_padding")

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream
        self._buffer = b""
        self._position = 0
        self._remaining = 0  # bytes of the current member's data that nobody has read yet
        self._unread_padding = 0

    def __iter__(self) -> "Iterator[Entry]":
        """Yield each member; its data must be read before the next one is asked for, or is skipped.

        Raises:
            InvalidArgumentError: the archive is malformed, cut short, or beyond this module's
                limits.
        """
        name: bytes | None = None
        link: bytes | None = None
        records: list[tuple[bytes, bytes]] = []
        while (header := self._next_header()) is not None:
            fields = _HEADER.unpack(header)
            flag = fields[7]
            size = _number(fields[4], "size")
            if size < 0:
                raise _malformed("a member has a negative size")
            if flag in {b"L", b"K"}:
                value = self._special(size).partition(b"\0")[0]
                name, link = (value, link) if flag == b"L" else (name, value)
                continue
            if flag == b"x":
                records = _records(self._special(size))
                continue
            if flag == b"g":  # git's commit ID; Go hands it on and Docker passes it over
                self._special(size)
                continue
            entry = self._member(fields, size)
            if name is not None:
                entry.name = name
            if link is not None:
                entry.link = link
            if flag == b"S":
                entry.segments = self._old_sparse_map(header)
                entry.size_bytes = _number(header[483:495], "real size")
            self._extend(entry, records)
            if entry.segments is not None:
                _check_segments(entry, self._remaining)
            name = link = None
            records = []
            yield entry

    def data(self) -> "Iterator[memoryview]":
        """Yield what the archive holds of the current member's content, piece by piece."""
        while self._remaining:
            piece = self._piece(self._remaining)
            self._remaining -= len(piece)
            yield piece

    @property
    def buffered(self) -> int:
        """How many bytes were read from the stream and not from here yet."""
        return len(self._buffer) - self._position

    def skip_data(self) -> int:
        """Pass over the current member's data.

        Returns:
            How many bytes of it the stream still has, which the caller must take from there.
        """
        ready = min(self._remaining, self.buffered)
        self._position += ready
        left = self._remaining - ready
        self._remaining = 0
        return left

    def drain(self) -> None:
        """Read what follows the archive's end mark: padding, or anything."""
        self._buffer, self._position = b"", 0
        while self._stream.read(CHUNK_BYTES):
            pass

    def _next_header(self) -> bytes | None:
        for _ in self.data():
            pass
        self._skip(self._unread_padding)
        self._unread_padding = 0
        header = self._exactly(BLOCK, may_end=True)
        if header == _ZEROS:
            # The end mark is two such blocks, and whatever follows them is no matter. As for Go, a
            # single one is an end as well where the archive ends there, but nowhere else: what
            # comes after it would be lost without a word.
            if self._exactly(BLOCK, may_end=True) not in {_ZEROS, b""}:
                raise _malformed(
                    "invalid tar header: a lone block of zeros is no end, and an invalid header"
                )
            return None
        if header:
            _verify_checksum(header)
        return header or None

    def _member(self, fields: tuple[bytes, ...], size: int) -> Entry:
        name, mode, uid, gid, _, mtime, _, flag, link, magic, _, _, major, minor, prefix = fields
        name = name.partition(b"\0")[0]
        if flag in _REGULAR_FLAGS or flag == b"S":
            # In the oldest archives a directory is a regular file with a slash at its name's end.
            kind = DIRECTORY if flag == b"\0" and name[-1:] == b"/" else REGULAR
        else:
            kind = flag.decode("latin-1")
            if kind not in _WITHOUT_DATA:
                raise _malformed(f"a member has the unknown type {kind!r}")
        if magic[:6] == b"ustar\0" and prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
        entry = Entry(name, kind)
        entry.link = link.partition(b"\0")[0]
        entry.mode = _number(mode, "mode") & 0o7777
        entry.uid = _number(uid, "uid")
        entry.gid = _number(gid, "gid")
        entry.mtime_ns = _number(mtime, "mtime") * 1_000_000_000
        if kind in {CHARACTER, BLOCK_DEVICE}:
            entry.major = _number(major, "major")
            entry.minor = _number(minor, "minor")
        self._expect(0 if kind in _WITHOUT_DATA else size)
        entry.size_bytes = self._remaining
        return entry

    def _extend(self, entry: Entry, records: list[tuple[bytes, bytes]]) -> None:
        """Apply the records of a member's extended header."""
        sparse: dict[bytes, bytes] = {}
        numbers: list[bytes] = []  # of the 0.0 format's map, whose records repeat
        for key, value in records:
            if key.startswith(_XATTR):
                if b"\0" in key:
                    raise _malformed("a name contains a NUL")
                entry.xattrs[key[len(_XATTR) :]] = value
            elif not value and not key.startswith(b"GNU.sparse."):
                continue  # an empty value takes a record back
            elif key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.link = value
            elif key == b"size":
                if entry.kind == REGULAR:
                    self._expect(_decimal(value, "size"))
                    if entry.segments is None:
                        entry.size_bytes = self._remaining
            elif key == b"uid":
                entry.uid = _decimal(value, "uid")
            elif key == b"gid":
                entry.gid = _decimal(value, "gid")
            elif key == b"mtime":
                entry.mtime_ns = _time_ns(value)
            elif key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
                numbers.append(value)
            elif key.startswith(b"GNU.sparse."):
                sparse[key[11:]] = value
        if sparse and entry.kind == REGULAR:
            self._new_sparse_map(entry, sparse, numbers)
        for text in (entry.name, entry.link):
            if b"\0" in text:
                raise _malformed("a name contains a NUL")

    def _new_sparse_map(
        self, entry: Entry, sparse: dict[bytes, bytes], numbers: list[bytes]
    ) -> None:
        """Take over the map of a sparse file in the formats that use extended headers."""
        entry.name = sparse.get(b"name", entry.name)
        real_size = sparse.get(b"realsize", sparse.get(b"size"))
        if real_size is not None:
            entry.size_bytes = _decimal(real_size, "real size")
        if sparse.get(b"major") == b"1":
            entry.segments = self._sparse_map_in_data()
        elif b"map" in sparse:
            entry.segments = _pairs(sparse[b"map"].split(b",") if sparse[b"map"] else [])
        elif numbers or b"numblocks" in sparse:
            entry.segments = _pairs(numbers)

    def _sparse_map_in_data(self) -> list[tuple[int, int]]:
        """Read the 1.0 format's map: numbers on lines, in whole blocks before the content."""
        text = b""
        wanted = -1
        while wanted < 0 or text.count(b"\n") < wanted:
            if self._remaining < BLOCK or len(text) > SPARSE_SEGMENTS_MAX * 16:
                raise _malformed("the map of a sparse file is cut short")
            text += self._exactly(BLOCK)
            self._remaining -= BLOCK
            if wanted < 0 and b"\n" in text:
                count = _decimal(text.partition(b"\n")[0], "sparse map")
                if count > SPARSE_SEGMENTS_MAX:
                    raise _malformed("a sparse file has too many segments")
                wanted = 1 + 2 * count
        return _pairs(text.split(b"\n")[1:wanted])

    def _old_sparse_map(self, header: bytes) -> list[tuple[int, int]]:
        """Read GNU tar's first format: four segments in the header, more in blocks after it."""
        segments: list[tuple[int, int]] = []
        area, count, more = header[386:482], 4, header[482]
        while True:
            for start in range(0, count * 24, 24):
                if not area[start]:
                    break
                offset = _number(area[start : start + 12], "sparse map")
                segments.append((offset, _number(area[start + 12 : start + 24], "sparse map")))
            if not more:
                return segments
            if len(segments) > SPARSE_SEGMENTS_MAX:
                raise _malformed("a sparse file has too many segments")
            area = self._exactly(BLOCK)
            count, more = 21, area[504]

    def _expect(self, size: int) -> None:
        """Note how much data follows, in whole blocks."""
        self._remaining = size
        self._unread_padding = -size % BLOCK

    def _special(self, size: int) -> bytes:
        if size > EXTENDED_HEADER_MAX:
            raise _malformed(f"an extended header of {size} bytes, at most 1 MiB is accepted")
        content = self._exactly(size)
        self._skip(-size % BLOCK)
        return content

    def _piece(self, limit: int) -> memoryview:
        """Returns one or more bytes, up to the limit, from what is buffered or read next."""
        if not self._fill():
            raise _malformed("it is cut short")
        piece = memoryview(self._buffer)[self._position : self._position + limit]
        self._position += len(piece)
        return piece

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        end = self._position + size
        if end <= len(self._buffer):
            content = self._buffer[self._position : end]
            self._position = end
            return content
        content = self._buffer[self._position :]
        self._position = len(self._buffer)
        pieces = [content]
        missing = size - len(content)
        while missing:
            if may_end and missing == size and not self._fill():
                return b""
            pieces.append(bytes(self._piece(missing)))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _fill(self) -> bool:
        """Read on where nothing is buffered; returns whether there is something now."""
        if self._position >= len(self._buffer):
            self._buffer, self._position = self._stream.read(CHUNK_BYTES), 0
        return bool(self._buffer)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._piece(size))


def _malformed(reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"malformed tar archive: {reason}")


def _verify_checksum(header: bytes) -> None:
    total = 256 + sum(header) - sum(header[148:156])  # the field itself counts as blanks
    # Some old writers summed signed characters: 256 less for each byte above 127.
    signed = total - (0 if header.isascii() else 256 * sum(byte > 127 for byte in header))
    stored = header[148:156].strip(b" \0").lstrip(b"0")
    if stored not in {b"%o" % total, b"%o" % max(signed, 0)}:
        raise InvalidArgumentError(
            "malformed tar archive: a header has a wrong checksum",
            "the input must be a tar archive, plain or compressed (gzip, zstd, bzip2, xz)",
        )


def _number(field: bytes, what: str) -> int:
    """Read a number of a header: octal digits, or a base-256 integer marked by the top bit."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (len(field) * 8 - 1)) - 1)
        if first & 0x40:
            value -= 1 << (len(field) * 8 - 1)
        if not -(1 << 62) < value < 1 << 62:
            raise _malformed(f"{what} out of range")
        return value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    digits = digits.partition(b"\0")[0]
    if not digits.isdigit():
        raise _malformed(f"{what} is not a number")
    try:
        return int(digits, 8)
    except ValueError as error:
        raise _malformed(f"{what} is not an octal number") from error


def _decimal(digits: bytes, what: str) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise _malformed(f"{what} is not a number")
    value = int(digits)
    if value >= 1 << 62:
        raise _malformed(f"{what} out of range")
    return value


def _time_ns(text: bytes) -> int:
    """Read a time of an extended header: seconds, perhaps negative, perhaps with a fraction."""
    whole, _, fraction = text.partition(b".")
    negative = whole[:1] == b"-"
    seconds = _decimal(whole[1:] if negative else whole, "mtime")
    if fraction and not fraction.isdigit():
        raise _malformed("mtime is not a number")
    total = seconds * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -total if negative else total


def _records(content: bytes) -> list[tuple[bytes, bytes]]:
    """Read the records of an extended header: LENGTH, blank, KEY=VALUE, newline.

    The length counts the whole record, its own digits included.
    """
    records = []
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 8)
        digits = content[position : max(space, position)]
        end = position + int(digits) if digits.isdigit() else 0
        equals = content.find(b"=", space, end - 1) if end else -1
        if equals <= space + 1 or end > len(content) or content[end - 1] != 0x0A:
            raise _malformed("an extended header has a malformed record")
        records.append((content[space + 1 : equals], content[equals + 1 : end - 1]))
        position = end
    return records


def _pairs(numbers: list[bytes]) -> list[tuple[int, int]]:
    values = [_decimal(number, "sparse map") for number in numbers]
    if len(values) % 2:
        raise _malformed("the map of a sparse file has an odd number of numbers")
    return list(zip(values[::2], values[1::2], strict=True))


def _check_segments(entry: Entry, stored: int) -> None:
    end = total = 0
    for offset, length in entry.segments or ():
        if offset < end or length < 0:
            raise _malformed("the segments of a sparse file overlap")
        end = offset + length
        total += length
    if end > entry.size_bytes or total != stored:
        raise _malformed("the map of a sparse file does not fit its content")
