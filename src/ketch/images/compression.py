"""Compressed layers: telling the formats apart, compressing, decompressing them as a stream.

The libraries are loaded with the first stream of their format, because a container's start imports
``ketch.images`` and unpacks nothing.
"""

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from zstandard import ZstdDecompressionObj

    from ketch.images.tar import Stream

    class _Packer(Protocol):
        """What compresses, of either library."""

        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...

    class _Decoder(Protocol):
        """One member's decoder, with the interface of bz2.BZ2Decompressor."""

        @property
        def needs_input(self) -> bool: ...
        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


PLAIN, GZIP, ZSTD, BZIP2, XZ = "plain", "gzip", "zstd", "bzip2", "xz"
GZIP_LEVEL = 2  # 3 takes 1.7 times as long for 2 % less, and on zeros 30 times

_MAGIC = (
    (b"\x1f\x8b\x08", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"BZh", BZIP2),
    (b"\xfd7zXZ\x00", XZ),
)
# Frames of zstd may begin with skippable ones: RFC 8878, 3.1.2.
_ZSTD_SKIPPABLE = (b"\x2a\x4d\x18", range(0x50, 0x60))
SNIFF_BYTES = 6

# What zstd's command line takes without --long: a window is memory that the input asks for.
_ZSTD_WINDOW_MAX = 1 << 27
_XZ_MEMORY_MAX = 1 << 28


def sniff(head: bytes) -> str:
    """Returns the format of a stream from its first SNIFF_BYTES bytes; PLAIN where unknown."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    tail, first = _ZSTD_SKIPPABLE
    if head[1:4] == tail and head[0] in first:
        return ZSTD
    return PLAIN


def decompressed(stream: "Stream", compression: str, limit_bytes: int) -> "Stream":
    """Returns a stream of the content of a compressed one.

    Args:
        stream: the compressed bytes.
        compression: one of this module's formats.
        limit_bytes: how much content is accepted. Two kilobytes of zstd can stand for as many
            gigabytes, so the caller says what it has room for.

    Reading the result raises InvalidArgumentError where the input is damaged, cut short or holds
    more than the limit.
    """
    if compression == PLAIN:
        return _Plain(stream, limit_bytes)
    return _Members(stream, compression, limit_bytes)


class Prefixed:
    """A stream whose first bytes were read already.

    Args:
        head: those bytes.
        stream: the rest.
    """

    __slots__ = ("_head", "_stream")

    def __init__(self, head: bytes, stream: "Stream") -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        if self._head:
            content, self._head = self._head[:size], self._head[size:]
            return content
        return self._stream.read(size)


def compressed(pieces: "Iterator[bytes]", kind: str, level: int) -> "Iterator[bytes]":
    """Yield pieces compressed: the same bytes always to the same bytes.

    Args:
        pieces: what is compressed.
        kind: GZIP or ZSTD.
        level: how hard it is tried.
    """
    packer: _Packer
    if kind == ZSTD:
        from zstandard import ZstdCompressor  # noqa: PLC0415 - wanted by few

        packer = ZstdCompressor(level=level).compressobj()
    else:
        try:
            from isal import isal_zlib  # noqa: PLC0415 - twice as fast, and rarely needed

            packer = isal_zlib.compressobj(level, wbits=31)
        except ImportError:  # Debian has no package of it
            import zlib  # noqa: PLC0415

            packer = zlib.compressobj(level, wbits=31)
    for piece in pieces:
        if content := packer.compress(piece):
            yield content
    yield packer.flush()


class Tee:
    """A stream that shows what is read from it to somebody else.

    Args:
        stream: what is read.
        sink: is called with each piece.
    """

    __slots__ = ("_sink", "_stream")

    def __init__(self, stream: "Stream", sink: "Callable[[bytes], object]") -> None:
        self._stream = stream
        self._sink = sink

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        content = self._stream.read(size)
        self._sink(content)
        return content


def sniffed(stream: "Stream") -> "tuple[str, Stream]":
    """Returns a stream's compression, and the stream with the bytes that told it put back."""
    head = b""
    while len(head) < SNIFF_BYTES and (more := stream.read(SNIFF_BYTES - len(head))):
        head += more
    return sniff(head), Prefixed(head, stream)


class _Members:
    """The content of a compressed stream, which may be several members one after the other."""

    __slots__ = ("_compression", "_decoder", "_format", "_input", "_limit_bytes", "_output",
                 "_position", "_read_bytes", "_started", "_stream")  # fmt: skip

    def __init__(self, stream: "Stream", compression: str, limit_bytes: int) -> None:
        self._stream = stream
        self._compression = compression
        self._limit_bytes = limit_bytes
        self._format = _FORMATS[compression]()
        self._decoder: _Decoder | None = None
        self._started = False
        self._input = b""
        self._output = b""
        self._position = 0  # of what of it has been read
        self._read_bytes = 0

    def read(self, size: int, /) -> bytes:
        # A format that cannot stop may have given a lot: what of it is left stays where it is.
        ready = self._output[self._position : self._position + size]
        self._position += len(ready)
        pieces = [ready] if ready else []  # of one piece join makes no copy
        missing = size - len(ready)
        while missing > 0 and (piece := self._more(missing)):
            if len(piece) > missing:
                self._output, self._position = piece, missing
                piece = piece[:missing]
            pieces.append(piece)
            missing -= len(piece)
        if self._position == len(self._output):
            self._output, self._position = b"", 0
        return b"".join(pieces)

    def _more(self, wanted: int) -> bytes:
        """Returns some content, perhaps more than wanted where a format cannot stop there."""
        content = b""
        while not content and (decoder := self._member()):
            if not self._input and decoder.needs_input:
                self._input = self._stream.read(self._format.input_bytes)
                if not self._input:
                    raise self._damaged("it is cut short")
            try:
                content = decoder.decompress(self._input, wanted)
            except self._format.errors as error:
                raise self._damaged(str(error)) from error
            self._input = b""
            if decoder.eof:
                self._input = decoder.unused_data
                self._decoder = None
        self._read_bytes += len(content)
        if self._read_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        return content

    def _member(self) -> "_Decoder | None":
        """Returns the decoder of the member being read, None after the last."""
        if self._decoder is None:
            if self._started:  # zeros may pad the end, on tapes and elsewhere
                self._input = self._input.lstrip(b"\0")
            while not self._input:
                self._input = self._stream.read(self._format.input_bytes)
                if not self._input:
                    return None
                if self._started:
                    self._input = self._input.lstrip(b"\0")
            self._decoder = self._format.decoder()
            self._started = True
        return self._decoder

    def _damaged(self, reason: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"damaged {self._compression} stream, {self._read_bytes} bytes into its content:"
            f" {reason}"
        )


class _Plain:
    """An uncompressed stream, within the limit."""

    __slots__ = ("_left_bytes", "_limit_bytes", "_stream")

    def __init__(self, stream: "Stream", limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def read(self, size: int, /) -> bytes:
        content = self._stream.read(size)
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise _too_large(self._limit_bytes)
        return content


def _too_large(limit_bytes: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the archive holds more than {limit_bytes} bytes, for which there is no room"
    )


@dataclass
class _Format:
    """How one format is decoded.

    Args:
        decoder: makes the decoder of one member.
        errors: what it raises on damage.
        input_bytes: how much input it may be given at once.
    """

    decoder: "Callable[[], _Decoder]"
    errors: type[Exception]
    input_bytes: int = 1 << 16


class _ZstdMember:
    """A decoder of one frame, which cannot be told when to stop."""

    __slots__ = ("_decoder",)

    needs_input = True

    def __init__(self, decoder: "ZstdDecompressionObj") -> None:
        self._decoder = decoder

    def decompress(self, data: bytes, _max_length: int = -1) -> bytes:
        return self._decoder.decompress(data)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


class _ZlibMember:
    """A decoder of one gzip member, by the standard library."""

    __slots__ = ("_decoder", "_held")

    def __init__(self) -> None:
        import zlib  # noqa: PLC0415

        self._decoder = zlib.decompressobj(31)
        self._held = False

    @property
    def needs_input(self) -> bool:
        return not self._held

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        pending = self._decoder.unconsumed_tail
        content = self._decoder.decompress(pending + data, max(max_length, 0))
        # As much as was wanted: there may be more of it in there, though all input is taken.
        self._held = len(content) == max_length
        return content

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


def _gzip() -> _Format:
    try:
        from isal import igzip_lib  # noqa: PLC0415
    except ImportError:
        import zlib  # noqa: PLC0415

        return _Format(_ZlibMember, zlib.error)
    return _Format(
        lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
        igzip_lib.IsalError,  # type: ignore[arg-type] # its stub says: an instance
    )


def _zstd() -> _Format:
    import zstandard  # noqa: PLC0415

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    # Four bytes of input can mean a block of 128 KiB: this much of it is 64 MiB at the most, and
    # costs no measurable time over larger pieces.
    return _Format(
        lambda: _ZstdMember(decompressor.decompressobj()), zstandard.ZstdError, input_bytes=1 << 11
    )


def _bzip2() -> _Format:
    import bz2  # noqa: PLC0415

    return _Format(bz2.BZ2Decompressor, OSError)


def _xz() -> _Format:
    import lzma  # noqa: PLC0415

    return _Format(
        lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX),
        lzma.LZMAError,
    )


_FORMATS: "dict[str, Callable[[], _Format]]" = {
    GZIP: _gzip,
    ZSTD: _zstd,
    BZIP2: _bzip2,
    XZ: _xz,
}
