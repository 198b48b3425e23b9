"""The schedule: order, how much at once, what the first failure does, and that nothing is left."""

import os
import threading
import time

import pytest

from ketch.build.graph import Copy, CopyItem, Scratch, Vertex
from ketch.build.solving import CalledOffError, Calling, Solver, order, threads
from ketch.engine.processes import ENDLESS, Patience
from tests.support.descriptors import open_now


def leaf(name: str) -> Vertex:
    return Scratch(name=name)


def on(name: str, base: Vertex, *sources: Vertex) -> Vertex:
    items = tuple(CopyItem(one, ("/",)) for one in sources)
    return Copy(name=name, base=base, items=items, target="/")


def names(vertices: list[Vertex]) -> list[str]:
    return [vertex.name for vertex in vertices]


def test_what_is_needed_comes_first_once_and_nothing_else() -> None:
    base = leaf("base")
    left, right = on("left", base), on("right", base)
    on("unwanted", base)
    both = on("both", left, right, base)
    assert names(order([both, right])) == ["base", "left", "right", "both"]


def test_a_graph_may_be_deeper_than_python_recurses() -> None:
    vertex = leaf("0")
    for number in range(1, 5000):
        vertex = on(str(number), vertex)
    assert len(order([vertex])) == 5000


def solve(
    vertices: list[Vertex], work: "Work", patience: Patience = ENDLESS, count: int | None = None
) -> None:
    with Calling() as calling:
        work.calling = calling
        Solver(work, calling).solve(vertices, patience, count)


class Work:
    """Remembers what was made, and how much of it at once."""

    def __init__(self, failing: str = "", pause_seconds: float = 0) -> None:
        self.calling: Calling
        self.made: list[str] = []
        self.called_off: list[str] = []
        self.at_once = self.most = 0
        self._failing = failing
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()

    def __call__(self, vertex: Vertex) -> None:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            if vertex.name == self._failing:
                raise ValueError(vertex.name)
            if self._pause_seconds:
                try:
                    self.calling.wait(int(self._pause_seconds * 1000))
                except CalledOffError:
                    self.called_off.append(vertex.name)
                    raise
            self.made.append(vertex.name)
        finally:
            with self._lock:
                self.at_once -= 1


def test_each_is_made_once_after_what_it_needs() -> None:
    base = leaf("base")
    parts = [on(f"part {number}", base) for number in range(30)]
    whole = on("whole", base, *parts)
    work = Work()
    solve(order([whole]), work)
    assert work.made[0] == "base"
    assert work.made[-1] == "whole"
    assert sorted(work.made) == sorted(["base", "whole", *(part.name for part in parts)])


def test_independent_ones_are_made_at_once_and_no_more_than_there_are_threads() -> None:
    work = Work(pause_seconds=0.05)
    solve([leaf(str(number)) for number in range(12)], work, count=4)
    assert work.most == 4
    assert len(work.made) == 12


def test_there_are_few_threads_whatever_the_graph() -> None:
    before = threading.active_count()
    seen = []
    lock = threading.Lock()

    class Counting(Work):
        def __call__(self, vertex: Vertex) -> None:
            with lock:
                seen.append(threading.active_count() - before)
            super().__call__(vertex)

    solve([leaf(str(number)) for number in range(500)], Counting())
    assert max(seen) <= threads() <= 64


def test_the_first_failure_calls_the_others_off_and_no_thread_is_left() -> None:
    before = threading.active_count()
    work = Work("bad", pause_seconds=60)
    begun = time.monotonic()
    bad = leaf("bad")
    vertices = [leaf("slow"), leaf("slower"), bad, on("after", bad)]
    with pytest.raises(ValueError, match="bad"):
        solve(vertices, work, count=8)
    assert time.monotonic() - begun < 10
    assert not work.made
    assert threading.active_count() == before


class ImpatientError(BaseException):
    """A caller does not want to wait."""


class Impatient(Patience):
    """Waits once, for a moment."""

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        super().poll(50, *watched)
        raise ImpatientError


def test_whoever_waits_for_a_build_can_call_it_off() -> None:
    before = threading.active_count(), len(open_now())
    work = Work(pause_seconds=60)
    with pytest.raises(ImpatientError):
        solve([leaf("a"), leaf("b")], work, Impatient())
    assert sorted(work.called_off) == ["a", "b"]
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_a_scope_is_entered_and_left_once_in_each_thread() -> None:
    entered: list[int] = []
    left: list[int] = []

    class Scope:
        def __enter__(self) -> None:
            entered.append(threading.get_ident())

        def __exit__(self, *_: object) -> None:
            left.append(threading.get_ident())

    with Calling() as calling:
        work = Work(pause_seconds=0.02)
        work.calling = calling
        Solver(work, calling, Scope).solve([leaf(str(one)) for one in range(6)], ENDLESS, 3)
    assert len(entered) == 3
    assert sorted(entered) == sorted(left)
