"""Writing tar archives: PAX where ustar's fields are too small, the same bytes for the same files.

What is written here, Go's archive/tar, GNU tar, libarchive and ``tar.Reader`` read alike. Names are
bytes; those that are not UTF-8 go into PAX records as they are, which POSIX calls
``hdrcharset=BINARY`` and every one of these readers takes. Times keep their nanoseconds.

Sources: pax in POSIX.1-2017; OCI image specification, layer.md.
"""

import struct

from ketch.images import tar
from ketch.linux import sparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

END = bytes(2 * tar.BLOCK)  # an archive's end mark

_HEADER = struct.Struct("100s48s8s1s100s8s64x16s155s12x")
_MAGIC = b"ustar\x0000"
_ZEROS = bytes(tar.BLOCK)
_OCTAL_7 = (1 << 21) - 1  # what seven octal digits hold
_OCTAL_11 = (1 << 33) - 1
_SECOND_NS = 1_000_000_000


def header(entry: tar.Entry) -> bytes:
    """Returns the blocks before a member's content: its header, and a PAX header where needed.

    Args:
        entry: the member; ``segments`` is not written, what a hole reads as is content.
    """
    name, link, size = entry.name, entry.link, entry.size_bytes
    if entry.kind == tar.DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    seconds, fraction_ns = divmod(entry.mtime_ns, _SECOND_NS)
    records = []
    prefix = b""
    if len(name) > 100 or not name.isascii():
        split = _split(name)
        if split is None:
            records.append((b"path", name))
            name = _ascii(name)
        else:
            prefix, name = split
    if len(link) > 100 or not link.isascii():
        records.append((b"linkpath", link))
        link = _ascii(link)
    if size > _OCTAL_11:
        records.append((b"size", b"%d" % size))
        size = 0
    uid, gid = entry.uid, entry.gid
    if uid > _OCTAL_7:
        records.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _OCTAL_7:
        records.append((b"gid", b"%d" % gid))
        gid = 0
    if fraction_ns or not 0 <= seconds <= _OCTAL_11:
        records.append((b"mtime", _time(entry.mtime_ns)))
        seconds = min(max(seconds, 0), _OCTAL_11)
    if entry.xattrs:
        records += [(b"SCHILY.xattr." + key, entry.xattrs[key]) for key in sorted(entry.xattrs)]
    block = _block(name, entry.kind.encode(), size, seconds, link, prefix, entry.mode, uid, gid,
                   entry.major, entry.minor)  # fmt: skip
    if not records:
        return block
    content = b"".join([_record(key, value) for key, value in records])
    extended = _block(_extended_name(name), b"x", len(content), 0, b"", b"", 0o644, 0, 0, 0, 0)
    return b"".join((extended, content, _ZEROS[: -len(content) % tar.BLOCK], block))


class Writer:
    """An archive being written.

    Args:
        write: takes its bytes, piece by piece.
        output: the descriptor that ``write`` writes to, where the kernel may copy files' content
            to it directly; -1 where ``write`` has to see all of it.
    """

    __slots__ = ("_output", "_write", "size_bytes")

    def __init__(self, write: "Callable[[bytes], object]", output: int = -1) -> None:
        self._write = write
        self._output = output
        self.size_bytes = 0

    def add(self, entry: tar.Entry, content: bytes = b"") -> None:
        """Write a member whose content, if it has any, is in memory."""
        self._put(header(entry))
        if content:
            self._put(content)
            self._pad(len(content))

    def add_file(self, entry: tar.Entry, descriptor: int) -> None:
        """Write a regular file; of one that shrinks meanwhile zeros stand for the rest.

        Args:
            entry: the member; its ``size_bytes`` is what is written, whatever the file does.
            descriptor: the file, read from its start; its position may change.
        """
        self._put(header(entry))
        offset = self._copy(descriptor, entry.size_bytes) if self._output >= 0 else 0
        while left := entry.size_bytes - offset:
            piece = sparse.pread(descriptor, left, offset) or sparse.ZEROS[:left]
            self._put(piece)
            offset += len(piece)
        self._pad(entry.size_bytes)

    def finish(self) -> None:
        """Write the end mark."""
        self._put(END)

    def _copy(self, descriptor: int, size: int) -> int:
        """Let the kernel copy as much as it will; returns how many bytes."""
        offset = 0
        try:
            for copied in sparse.copy(descriptor, self._output, size):
                offset = copied
        except BlockingIOError:
            raise
        except OSError:
            pass  # this kind of output cannot do it, or says why when it is written to
        self.size_bytes += offset
        return offset

    def _pad(self, size: int) -> None:
        if size % tar.BLOCK:
            self._put(_ZEROS[: -size % tar.BLOCK])

    def _put(self, content: bytes) -> None:
        self._write(content)
        self.size_bytes += len(content)


def _block(
    name: bytes, kind: bytes, size: int, seconds: int, link: bytes, prefix: bytes, mode: int,
    uid: int, gid: int, major: int, minor: int,
) -> bytes:  # fmt: skip
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, seconds)
    devices = b"%07o\0%07o\0" % (major, minor)
    # What the checksum counts as spaces is itself; the zeros between fields add nothing to it.
    counted = (name, numbers, b"        ", kind, link, _MAGIC, devices, prefix)
    checksum = b"%06o\0 " % sum(b"".join(counted))
    return _HEADER.pack(name, numbers, checksum, kind, link, _MAGIC, devices, prefix)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Returns a long name as ustar's prefix and name, None where it does not fit or is no ASCII."""
    if not name.isascii() or len(name) > 256:
        return None
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None
    return name[:cut], name[cut + 1 :]


def _ascii(name: bytes) -> bytes:
    """Returns what readers that know no PAX see of a name."""
    return name.decode("ascii", "ignore").encode()[:100]


def _extended_name(name: bytes) -> bytes:
    return b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:87]


def _record(key: bytes, value: bytes) -> bytes:
    """Returns a PAX record; its length counts its own digits too."""
    length = len(key) + len(value) + 3
    digits = len(b"%d" % length)
    length += digits
    if len(b"%d" % length) != digits:
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _time(moment_ns: int) -> bytes:
    seconds, fraction_ns = divmod(abs(moment_ns), _SECOND_NS)
    sign = b"-" if moment_ns < 0 else b""
    return (b"%b%d.%09d" % (sign, seconds, fraction_ns)).rstrip(b"0").rstrip(b".")
