"""Sandboxes that are ready before they are wanted: who gets one, and what is left at the end."""

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.errors import ConflictError, InvalidArgumentError, UnavailableError
from ketch.sandbox import pool as pools
from ketch.sandbox.pool import Pool

PATIENCE_SECONDS = 10


class Made:
    """What stands for a sandbox: it counts what is done to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.killed = self.begun = 0
        self._attendance = self

    def begin(self) -> None:
        self.begun += 1

    def kill(self) -> None:
        self.killed += 1

    def __enter__(self) -> "Made":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Maker(Made):
    """In the place of the class of sandboxes."""

    made: list[Made]
    faults: "queue.SimpleQueue[BaseException]"
    held: threading.Event

    @classmethod
    def create(cls, image: str, **_: object) -> Made:
        assert image == "busybox"
        assert cls.held.wait(PATIENCE_SECONDS)
        if not cls.faults.empty():
            raise cls.faults.get()
        cls.made.append(cls(len(cls.made)))
        return cls.made[-1]


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Maker]]:
    Maker.made, Maker.faults, Maker.held = [], queue.SimpleQueue(), threading.Event()
    Maker.held.set()
    monkeypatch.setattr(pools, "Sandbox", Maker)
    yield Maker
    Maker.held.set()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_as_many_are_ready_as_were_asked_for(maker: type[Maker]) -> None:
    with Pool(3, "busybox") as pool:
        eventually(lambda: len(maker.made) == 3)
        time.sleep(0.05)
        assert len(maker.made) == 3
        taken = pool.acquire()
        eventually(lambda: len(maker.made) == 4)
    assert [one.killed for one in maker.made] == [int(id(one) != id(taken)) for one in maker.made]
    with pytest.raises(ConflictError, match="the pool is closed"):
        pool.acquire()
    pool.close()
    with pytest.raises(InvalidArgumentError, match="at least one"):
        Pool(0, "busybox")


def test_each_item_has_one_of_its_own(maker: type[Maker]) -> None:
    with Pool(2, "busybox") as pool:
        found = list(pool.map(lambda sandbox, item: (id(sandbox), item), range(6)))
    assert [item for _, item in found] == [*range(6)]
    assert len({sandbox for sandbox, _ in found}) == 6
    assert all(one.killed == 1 for one in maker.made)


def test_who_acquires_hears_why_there_is_none(maker: type[Maker]) -> None:
    maker.faults.put(UnavailableError("no image"))
    with Pool(1, "busybox") as pool:
        with pytest.raises(UnavailableError, match="no image"):
            pool.acquire()
        pool.acquire()  # the next one is tried all the same


@pytest.mark.parametrize("error", [UnavailableError("no attendant"), OSError("odd")])
def test_one_without_an_attendant_is_handed_out_or_killed(
    maker: type[Maker], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Made, "begin", lambda _: (_ for _ in ()).throw(error))
    with Pool(1, "busybox") as pool:
        if isinstance(error, UnavailableError):
            assert pool.acquire().killed == 0  # type: ignore[attr-defined]
        else:
            with pytest.raises(OSError, match="odd"):
                pool.acquire()
            assert maker.made[0].killed == 1


def test_those_who_wait_hear_of_the_end(maker: type[Maker]) -> None:
    maker.held.clear()
    pool = Pool(1, "busybox")
    told: list[object] = []

    def wait() -> None:
        try:
            told.append(pool.acquire())
        except ConflictError as error:
            told.append(error.message)

    waiting = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
    for one in waiting:
        one.start()
    eventually(lambda: pool._ready.empty() and all(one.is_alive() for one in waiting))
    closing = threading.Thread(target=pool.close)
    closing.start()
    maker.held.set()  # one is made that somebody takes or the end does
    for one in (closing, *waiting):
        one.join(PATIENCE_SECONDS)
        assert not one.is_alive()
    assert told.count("the pool is closed") >= 3
    taken = [one for one in told if isinstance(one, Made)]
    assert all(one.killed == int(one not in taken) for one in maker.made)
