import io

from ketch.images.registry.progress import Watched


def test_a_watched_stream_tells_now_and_then_and_at_its_end() -> None:
    content = bytes(range(256)) * 10_000
    told: list[int] = []
    stream = Watched(io.BytesIO(content), len(content), told.append)
    pieces = []
    while piece := stream.read(100_000):
        pieces.append(piece)
    assert b"".join(pieces) == content
    assert told == sorted(set(told))
    assert told[-1] == len(content)
    assert 3 <= len(told) <= 6  # every half MiB
    assert told[0] < len(content) / 2


def test_what_is_short_is_told_of_once() -> None:
    told: list[int] = []
    stream = Watched(io.BytesIO(b"short"), 5, told.append)
    assert [stream.read(3), stream.read(3), stream.read(3)] == [b"sho", b"rt", b""]
    assert told == [5]
    empty = Watched(io.BytesIO(b""), 0, told.append)
    assert empty.read(3) == b""
    assert told == [5]
