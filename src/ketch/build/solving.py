"""What a target needs, made: each vertex once, after those that it needs, many at a time.

Who schedules knows nothing of what vertices are. Threads are few, whatever the graph: those of one
build, and they end with it. The first failure calls off all others, as does whoever waits for the
build: what waits in a thread waits by a ``Patience`` that hears of it.
"""

import contextlib
import os
import queue
import select
import threading
from typing import TYPE_CHECKING

from ketch.engine.processes import Patience
from ketch.errors import UnavailableError
from ketch.linux import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ketch.build.graph import Vertex

    Work = Callable[[Vertex], object]

_THREADS_A_PROCESSOR = 4
_THREADS_MIN = 16
_THREADS_MAX = 64


class CalledOffError(BaseException):
    """The build is not wanted any more, or cannot come to anything; no failure by itself."""


class Calling(Patience):
    """How the threads of a build wait: until somebody calls it off.

    A context manager, since it has a descriptor.
    """

    __slots__ = ("_called_off", "_event")

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._called_off = False

    def __enter__(self) -> "Calling":
        """Returns this one."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it; nobody waits by it any more."""
        os.close(self._event)

    def call_off(self) -> None:
        """Call everything off that waits by this, from any thread."""
        self._called_off = True
        os.eventfd_write(self._event, 1)

    def check(self) -> None:
        """Look whether the build is still wanted.

        Raises:
            CalledOffError: it is not.
        """
        if self._called_off:
            raise CalledOffError

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        """Wait as poll(2) does.

        Raises:
            CalledOffError: the build is not wanted any more.
        """
        found = super().poll(milliseconds, *watched, (self._event, select.POLLIN))
        self.check()
        return found


def order(wanted: "Iterable[Vertex]") -> "list[Vertex]":
    """Returns some vertices and all that they need, those before that others need.

    Raises:
        RecursionError: never: it goes as deep as the graph without a stack of calls.
    """
    found: dict[Vertex, None] = {}
    waiting = [(vertex, False) for vertex in reversed(list(wanted))]
    while waiting:
        vertex, is_ready = waiting.pop()
        if vertex in found:
            continue
        if is_ready:
            found[vertex] = None
            continue
        waiting.append((vertex, True))
        waiting += [(one, False) for one in reversed(vertex.inputs) if one not in found]
    return list(found)


def threads() -> int:
    """Returns how many vertices of a build are made at a time on this machine."""
    processors = len(os.sched_getaffinity(0))
    return min(max(processors * _THREADS_A_PROCESSOR, _THREADS_MIN), _THREADS_MAX)


class Solver:
    """Makes vertices.

    Args:
        work: makes one; all that it needs has been made. It is called in any thread, and raises
            what it failed of.
        calling: by which the threads wait.
        scope: what each thread is within.
    """

    def __init__(
        self,
        work: "Work",
        calling: Calling,
        scope: "Callable[[], AbstractContextManager[object]]" = contextlib.nullcontext,
    ) -> None:
        self._work = work
        self._calling = calling
        self._scope = scope
        self._tasks: queue.SimpleQueue[Vertex | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Vertex | None, BaseException | None]] = (
            queue.SimpleQueue()
        )
        self._event = -1

    def solve(
        self, vertices: "Sequence[Vertex]", patience: Patience, count: int | None = None
    ) -> None:
        """Make vertices, and return when all of them are there.

        Args:
            vertices: which, with all that they need: see ``order``.
            patience: how the caller waits.
            count: how many threads there may be, None for what suits this machine.

        Raises:
            BaseException: what the first that failed raised, or what waiting did. All threads
                have ended then.
        """
        missing = {vertex: set(vertex.inputs) for vertex in vertices}
        users: dict[Vertex, list[Vertex]] = {vertex: [] for vertex in vertices}
        for vertex, inputs in missing.items():
            for one in inputs:
                users[one].append(vertex)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        workers: list[threading.Thread] = []
        try:
            self._follow(missing, users, patience, workers, count or threads())
        except BaseException as error:
            self._calling.call_off()
            if isinstance(error, RuntimeError) and "start new thread" in str(error):
                raise UnavailableError(f"cannot start a thread: {error}") from error
            raise
        finally:
            for _ in workers:
                self._tasks.put(None)
            for worker in workers:
                worker.join()
            os.close(self._event)

    def _follow(
        self,
        missing: "dict[Vertex, set[Vertex]]",
        users: "Mapping[Vertex, Sequence[Vertex]]",
        patience: Patience,
        workers: "list[threading.Thread]",
        count: int,
    ) -> None:
        left = len(missing)
        begun = 0  # and not ended: a chain of steps has one thread
        ready = [vertex for vertex, inputs in missing.items() if not inputs]
        while left:
            for vertex in ready:
                self._tasks.put(vertex)
            begun += len(ready)
            while len(workers) < min(begun, count):
                worker = threading.Thread(target=self._run, name="build", daemon=True)
                worker.start()
                workers.append(worker)
            made, error = self._next(patience)
            if error is not None:
                raise error
            assert made is not None
            left -= 1
            begun -= 1
            for user in users[made]:
                missing[user].discard(made)
            ready = [user for user in users[made] if not missing[user]]

    def _next(self, patience: Patience) -> "tuple[Vertex | None, BaseException | None]":
        while True:
            with contextlib.suppress(queue.Empty):
                return self._done.get_nowait()
            patience.wait(None, self._event)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)

    def _run(self) -> None:
        vertex: Vertex | None = None
        try:
            # Drivers of old kernels change the working directory for a moment.
            namespaces.unshare(namespaces.CLONE_FS)
            with self._scope():
                while (vertex := self._tasks.get()) is not None:
                    self._calling.check()
                    self._work(vertex)
                    self._tell(vertex, None)
        except BaseException as error:  # noqa: BLE001 - raised where the build is waited for
            self._tell(vertex, error)

    def _tell(self, vertex: "Vertex | None", error: BaseException | None) -> None:
        self._done.put((vertex, error))
        os.eventfd_write(self._event, 1)
