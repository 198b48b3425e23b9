"""Locks that others hold: waited for, but not without end."""

import fcntl
import os
import pathlib
import threading
import time
from collections.abc import Iterator

import pytest

from ketch.errors import UnavailableError
from ketch.linux import locks


@pytest.fixture
def two(tmp_path: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Return two descriptors of one directory that know nothing of each other."""
    opened = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]
    yield opened[0], opened[1]
    for descriptor in opened:
        os.close(descriptor)


def test_who_holds_a_lock_for_too_long_is_complained_of(two: tuple[int, int]) -> None:
    locks.take(two[0], fcntl.LOCK_EX, "a thing", 1)
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        locks.take(two[1], fcntl.LOCK_SH, "a thing", 0.2)
    assert 0.2 <= time.monotonic() - began < 10
    assert "a thing: locked by another process" in caught.value.message


def test_a_lock_is_had_when_others_let_go_of_it(two: tuple[int, int]) -> None:
    locks.take(two[0], fcntl.LOCK_EX, "a thing", 1)
    threading.Timer(0.1, fcntl.flock, (two[0], fcntl.LOCK_UN)).start()
    locks.take(two[1], fcntl.LOCK_EX, "a thing", 10)
    with pytest.raises(BlockingIOError):
        fcntl.flock(two[0], fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_several_may_share_a_lock(two: tuple[int, int]) -> None:
    locks.take(two[0], fcntl.LOCK_SH, "a thing", 1)
    locks.take(two[1], fcntl.LOCK_SH, "a thing", 0)
