import io
import threading

import pytest

from ketch.images.unpacking import PIECE_BYTES, ReadAhead


def test_gives_what_the_stream_holds_in_any_step() -> None:
    content = bytes(range(256)) * (PIECE_BYTES // 64)
    for step in (1 << 12, PIECE_BYTES, PIECE_BYTES * 3):
        with ReadAhead(io.BytesIO(content)) as ahead:
            pieces = list(iter(lambda ahead=ahead, step=step: ahead.read(step), b""))  # type: ignore[misc]
            assert b"".join(pieces) == content
            assert ahead.read(1) == b""
            assert ahead.read(1) == b""


class Failing:
    def __init__(self) -> None:
        self.left = 3

    def read(self, size: int, /) -> bytes:
        self.left -= 1
        if not self.left:
            raise OSError("no more")
        return b"x" * size


def test_raises_where_the_stream_fails_and_not_before() -> None:
    with ReadAhead(Failing()) as ahead:
        assert len(ahead.read(PIECE_BYTES)) == PIECE_BYTES
        assert len(ahead.read(PIECE_BYTES)) == PIECE_BYTES
        for _ in range(2):
            with pytest.raises(OSError, match="no more"):
                ahead.read(1)


class Endless:
    def read(self, size: int, /) -> bytes:
        return bytes(size)


def test_a_reader_that_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with ReadAhead(Endless()) as ahead:
        assert ahead.read(10) == bytes(10)
    assert threading.active_count() == before
