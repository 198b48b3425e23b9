"""Holes, as the kernel and its file systems have them."""

import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator

import pytest

from ketch.linux import sparse
from tests.support import trees

SIZE = (1 << 32) + 1_234_567
PARTS = {0: b"head" * 1000, (1 << 32) - 100_000: b"middle" * 30_000, SIZE - 5: b"tail\n"}


@pytest.fixture
def source(tmp_path: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    for offset, content in PARTS.items():
        os.pwrite(descriptor, content, offset)
    yield descriptor
    os.close(descriptor)


def copied(source: int, path: pathlib.Path, flags: int = 0) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    steps = list(sparse.copy(source, target, SIZE))
    os.close(target)
    assert steps[-1] == SIZE


def test_what_is_read_piece_by_piece_and_appended_is_the_same(
    source: int, tmp_path: pathlib.Path
) -> None:
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    offset = 0
    while piece := sparse.pread(source, 1 << 20, offset):
        sparse.append(target, memoryview(piece))
        offset += len(piece)
        assert os.fstat(target).st_size == offset
    os.close(target)
    assert offset == SIZE
    assert trees.content(tmp_path / "target") == trees.content(tmp_path / "source")
    assert (tmp_path / "target").stat().st_blocks * 512 < 2 << 20


def test_what_is_read_on_and_on_is_the_same(source: int, tmp_path: pathlib.Path) -> None:
    os.lseek(source, 1000, os.SEEK_SET)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    os.pwrite(target, os.pread(source, 1000, 0), 0)
    os.lseek(target, 1000, os.SEEK_SET)
    while piece := sparse.read(source, 1 << 20):
        sparse.append(target, piece)
        assert os.lseek(source, 0, os.SEEK_CUR) == os.fstat(target).st_size
    os.close(target)
    assert trees.content(tmp_path / "target") == trees.content(tmp_path / "source")


def test_a_pipe_is_read_as_ever() -> None:
    read, write = os.pipe()
    os.write(write, bytes(1000))
    os.close(write)
    assert [sparse.read(read, 1 << 17), sparse.read(read, 1 << 17)] == [bytes(1000), b""]
    os.close(read)


def test_zeros_that_were_written_become_a_hole(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "zeros").open("wb", buffering=0) as file:
        for content in (b"x", bytes(1 << 18), bytes(1 << 18) + b"x", bytes(1 << 16)):
            sparse.append(file.fileno(), content)
    content = (tmp_path / "zeros").read_bytes()
    assert content == b"x" + bytes(1 << 19) + b"x" + bytes(1 << 16)
    assert (tmp_path / "zeros").stat().st_blocks * 512 < 3 << 17


@pytest.mark.parametrize("place", ["here", "on another file system"])
def test_a_copy_has_its_holes_where_the_original_has(
    source: int, tmp_path: pathlib.Path, place: str
) -> None:
    where = tmp_path if place == "here" else "/dev/shm"
    with tempfile.TemporaryDirectory(dir=where) as directory:
        target = pathlib.Path(directory, "target")
        copied(source, target)
        assert trees.content(target) == trees.content(tmp_path / "source")
        assert target.stat().st_size == SIZE
        assert target.stat().st_blocks * 512 < 2 << 20


def test_a_copy_over_something_overwrites_it_with_zeros(tmp_path: pathlib.Path) -> None:
    (tmp_path / "target").write_bytes(b"x" * 400_000)
    (tmp_path / "short").write_bytes(b"ab")
    with (tmp_path / "short").open("rb") as read, (tmp_path / "target").open("r+b") as write:
        assert list(sparse.copy(read.fileno(), write.fileno(), 300_000))[-1] == 300_000
    assert (tmp_path / "target").read_bytes() == b"ab" + bytes(299_998) + b"x" * 100_000


def test_a_pipe_is_given_zeros(tmp_path: pathlib.Path) -> None:
    size = 3 << 20
    with (tmp_path / "source").open("w+b", buffering=0) as file:
        file.write(b"head")
        os.truncate(tmp_path / "source", size)
        read, write = os.pipe()
        arrived = bytearray()

        def drain() -> None:
            while piece := os.read(read, 1 << 16):
                arrived.extend(piece)

        reader = threading.Thread(target=drain)
        reader.start()
        try:
            assert list(sparse.copy(file.fileno(), write, size))[-1] == size
        finally:
            os.close(write)
            reader.join()
            os.close(read)
    assert arrived == b"head" + bytes(size - 4)


def test_what_can_only_be_appended_to_is_refused_before_anything_is_written(
    source: int, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "log").write_bytes(b"before")
    with pytest.raises(OSError, match="Invalid argument"):
        copied(source, tmp_path / "log", os.O_APPEND)
    assert (tmp_path / "log").read_bytes() == b"before"
