"""Pages that forked processes write to are copied for those that are forked after them."""

import mmap
import os
import resource
from collections.abc import Callable

import pytest

from ketch.linux import memory

PAGES = 400


@pytest.fixture
def place() -> mmap.mmap:
    """Private pages, each written to."""
    found = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    touch(found, range(PAGES), 1)
    return found


def touch(place: mmap.mmap, pages: range, value: int) -> None:
    for page in pages:
        place[page * mmap.PAGESIZE] = value


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def forked(work: Callable[[], int]) -> int:
    """Return what a forked process finds, at most 65535."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, work().to_bytes(2, "big"))
        os._exit(0)
    os.close(writer)
    found = os.read(reader, 2)
    os.close(reader)
    assert os.waitpid(pid, 0)[1] == 0
    return int.from_bytes(found, "big")


def test_what_one_has_written_to_is_copied_for_the_next(place: mmap.mmap) -> None:
    written = memory.Written(1)

    def first() -> int:
        touch(place, range(100), 2)
        written.note()
        return 0

    def costs(pages: range) -> Callable[[], int]:
        def next_() -> int:
            written.copy()
            before = faults()
            touch(place, pages, 3)
            return faults() - before

        return next_

    everything = forked(costs(range(100)))
    assert everything >= 100, "nobody has said yet what is written to"
    forked(first)
    assert forked(costs(range(100))) < 20
    assert forked(costs(range(200, 300))) >= 100, "what nobody has written to stays shared"
    assert place[0] == 1


def test_no_more_look_than_are_wanted_and_all_that_they_find_counts(place: mmap.mmap) -> None:
    written = memory.Written(2)

    def writes(pages: range) -> Callable[[], int]:
        def one() -> int:
            touch(place, pages, 2)
            written.note()
            return 0

        return one

    def costs(pages: range) -> int:
        def next_() -> int:
            written.copy()
            before = faults()
            touch(place, pages, 3)
            return faults() - before

        return forked(next_)

    for first in (0, 100, 200):
        forked(writes(range(first, first + 100)))
    assert costs(range(100)) < 20
    assert costs(range(100, 200)) < 20
    assert costs(range(200, 300)) >= 100


@pytest.mark.parametrize(
    ("marks", "runs"),
    [
        (b"", []),
        (b"\0\0\0", []),
        (b"\1", [(0, 1)]),
        (b"\0\1\1\0", [(1, 2)]),
        (b"\1\0\1", [(0, 3)]),
        (b"\1\0\0\1", [(0, 1), (3, 1)]),
        (b"\1\0\0\0\1\0\1\1\0", [(0, 1), (4, 4)]),
    ],
)
def test_rows_of_pages(marks: bytes, runs: list[tuple[int, int]]) -> None:
    assert list(memory._runs(marks)) == runs
