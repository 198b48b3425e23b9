"""A few threads for transfers, which nobody has to wait for once what they do is of no use.

Why not ``ThreadPoolExecutor``: its threads hold the process up at its end, for as long as a
registry stalls; who presses Ctrl-C has waited long enough.
"""

import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ketch.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_PARTING_SECONDS = 2.0


class AbandonedError(UnavailableError):
    """The work was given up, since another part of the same transfer failed or was interrupted."""


class Workers:
    """Threads in a ``with`` block, whose end takes work back that has not begun.

    Args:
        at_once: how many threads there are at most.

    Attributes:
        leaving: whether the block has ended; work in progress looks at it now and then.
    """

    __slots__ = ("_at_once", "_jobs", "_threads", "leaving")

    def __init__(self, at_once: int) -> None:
        self.leaving = False
        self._at_once = at_once
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Workers":
        """Nothing more than these."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take back what has not begun; wait a moment for what has."""
        self.leaving = True
        for _thread in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + _PARTING_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def submit(self, work: "Callable[[], T]") -> "Future[T]":
        """Have a thread do something; its result, or what it raised, is the future's.

        Raises:
            UnavailableError: no thread can be started.
        """
        future: Future[T] = Future()

        def job() -> None:
            if self.leaving:
                future.set_exception(AbandonedError("the transfer was given up"))
                return
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        if len(self._threads) < self._at_once:
            thread = threading.Thread(target=self._run, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise UnavailableError(f"cannot start a thread: {error}") from error
            self._threads.append(thread)
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
