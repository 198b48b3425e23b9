import bz2
import gzip
import io
import lzma
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.images import compression

if TYPE_CHECKING:
    from ketch.images.tar import Stream

CONTENT = b"".join(b"line %d of some content\n" % number for number in range(20_000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    compression.PLAIN: bytes,
    compression.GZIP: gzip.compress,
    compression.ZSTD: zstandard.ZstdCompressor(write_checksum=True).compress,
    compression.BZIP2: bz2.compress,
    compression.XZ: lzma.compress,
}
LIMIT = 1 << 30


def everything(stream: "Stream", step: int = 1 << 16) -> bytes:
    pieces = []
    while piece := stream.read(step):
        assert len(piece) <= step
        pieces.append(piece)
    return b"".join(pieces)


def unpacked(content: bytes, limit: int = LIMIT, step: int = 1 << 16) -> bytes:
    kind, stream = compression.sniffed(io.BytesIO(content))
    return everything(compression.decompressed(stream, kind, limit), step)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("step", [7, 1 << 16, 1 << 22])
def test_each_format_is_told_and_decompressed(kind: str, step: int) -> None:
    content = CONTENT[:20_000] if step == 7 else CONTENT
    compressed = COMPRESS[kind](content)
    assert compression.sniff(compressed[: compression.SNIFF_BYTES]) == kind
    assert unpacked(compressed, step=step) == content


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind != compression.PLAIN])
def test_members_are_joined_and_zeros_after_them_ignored(kind: str) -> None:
    compress = COMPRESS[kind]
    assert unpacked(compress(b"one") + compress(b"") + compress(b"two") + bytes(70_000)) == (
        b"onetwo"
    )


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind != compression.PLAIN])
def test_a_stream_that_is_cut_short_anywhere_is_refused(kind: str) -> None:
    compressed = COMPRESS[kind](CONTENT)
    for length in (len(compressed) - 1, len(compressed) // 2, compression.SNIFF_BYTES):
        with pytest.raises(InvalidArgumentError, match=f"damaged {kind} stream.*cut short"):
            unpacked(compressed[:length])


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind != compression.PLAIN])
def test_a_damaged_stream_is_refused(kind: str) -> None:
    compressed = bytearray(COMPRESS[kind](CONTENT))
    compressed[len(compressed) // 2 : len(compressed) // 2 + 40] = b"\xa5" * 40
    with pytest.raises(InvalidArgumentError, match=f"damaged {kind} stream"):
        unpacked(bytes(compressed))


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind != compression.PLAIN])
def test_what_follows_the_last_member_must_be_one(kind: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"damaged {kind} stream"):
        unpacked(COMPRESS[kind](CONTENT) + b"something else entirely")


@pytest.mark.parametrize("kind", COMPRESS)
def test_content_beyond_the_limit_is_refused_before_it_is_all_there(kind: str) -> None:
    compressed = COMPRESS[kind](bytes(50_000_000))
    sizes: list[int] = []
    kind, stream = compression.sniffed(io.BytesIO(compressed))
    content = compression.decompressed(stream, kind, 1_000_000)
    noted = compression.Tee(content, lambda piece: sizes.append(len(piece)))
    with pytest.raises(InvalidArgumentError, match="more than 1000000 bytes"):
        everything(noted)
    assert sum(sizes) <= 1_000_000


def test_a_zstd_window_that_would_take_all_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    compressed = compressor.compress(CONTENT) + compressor.flush()
    with pytest.raises(InvalidArgumentError, match="damaged zstd stream"):
        unpacked(compressed)


def test_skippable_zstd_frames_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    frame = COMPRESS[compression.ZSTD](CONTENT)
    assert unpacked(skippable + frame + skippable) == CONTENT


@given(st.binary(max_size=64))
def test_what_is_no_known_format_comes_through_as_it_is(content: bytes) -> None:
    kind, stream = compression.sniffed(io.BytesIO(content))
    if kind == compression.PLAIN:
        assert everything(compression.decompressed(stream, kind, LIMIT)) == content


@given(st.sampled_from([kind for kind in COMPRESS if kind != compression.PLAIN]), st.data())
def test_any_change_is_content_or_a_clear_error(kind: str, data: st.DataObject) -> None:
    compressed = bytearray(COMPRESS[kind](CONTENT[:2000]))
    for _ in range(3):
        position = data.draw(st.integers(compression.SNIFF_BYTES, len(compressed) - 1))
        compressed[position] = data.draw(st.integers(0, 255))
    try:
        content = unpacked(bytes(compressed))
    except InvalidArgumentError:
        return
    assert len(content) < 10_000_000


def test_a_tee_shows_all_that_is_read() -> None:
    seen: list[bytes] = []
    stream = compression.Tee(io.BytesIO(CONTENT), seen.append)
    assert everything(stream, 1000) == b"".join(seen) == CONTENT


def test_nothing_is_loaded_before_it_is_needed() -> None:
    program = (
        "import sys, ketch.engine.images.images, ketch.images.compression;"
        "print([m for m in ('isal', 'zstandard', 'bz2', 'lzma', 'tarfile', 'zlib',"
        " 'dataclasses', 'pathlib', 'subprocess', 'logging', 'ketch.images.layers',"
        " 'ketch.images.tar') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {program}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_gzip_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian has no package of it, and what comes of a stream is the same."""
    monkeypatch.setitem(sys.modules, "isal", None)
    for step in (7, 1 << 16, 1 << 22):
        test_each_format_is_told_and_decompressed(compression.GZIP, step)
    test_members_are_joined_and_zeros_after_them_ignored(compression.GZIP)
    test_a_stream_that_is_cut_short_anywhere_is_refused(compression.GZIP)
    test_a_damaged_stream_is_refused(compression.GZIP)
    test_what_follows_the_last_member_must_be_one(compression.GZIP)
    test_content_beyond_the_limit_is_refused_before_it_is_all_there(compression.GZIP)
    packed = b"".join(compression.compressed(iter([CONTENT, b"end"]), compression.GZIP, 2))
    assert gzip.decompress(packed) == CONTENT + b"end"
