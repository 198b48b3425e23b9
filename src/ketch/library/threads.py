"""Threads in which asynchronous calls do their work: as many as there are calls, then a few.

What waits for others keeps nobody waiting, since each call has a thread to itself. Why not
``ThreadPoolExecutor``: it has a limit, keeps all the threads it ever had, and holds the process
up at its end for as long as any of them waits.
"""

import contextvars
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ketch.errors import UnavailableError
from ketch.library.interruption import CalledOffError, Interruption

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.library.places import Places

_IDLE_MAX = 4
_IDLE_SECONDS = 10.0


class Call:
    """One call: what is done in a thread, and what came of it.

    Args:
        function: what is done.
        ended: is called in the thread once it has been, or has been given up.
        wake: is called when it is called off, from any thread.
        certain: whether it is done even where it is called off.

    Attributes:
        result: what was returned.
        error: what was raised; CalledOffError where it was called off, whatever came of it.
    """

    def __init__(
        self,
        function: "Callable[[], Any]",
        ended: "Callable[[Call], object]",
        wake: "Callable[[], object] | None" = None,
        *,
        certain: bool = False,
    ) -> None:
        self.certain = certain
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._ended = ended
        self._wake = wake
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._interruption: Interruption | None = None
        self._unwanted = False
        self._undo: Callable[[], object] | None = None

    def call_off(self) -> "Callable[[], object] | None":
        """Have it end soon, and what it has made put away; from any thread.

        Returns:
            What puts that away, where the call has ended already and the caller is to do it.
        """
        if self.certain:
            return None
        with self._lock:
            self._unwanted = True
            if self._interruption is not None:
                self._interruption.call_off()
            undo, self._undo = self._undo, None
        if self._wake is not None:
            self._wake()
        return undo

    @property
    def is_attended_to(self) -> bool:
        """Whether it has heard that it was called off, or does what is to be done whole."""
        interruption = self._interruption
        return self.certain or (interruption is not None and interruption.is_attended_to)

    def fail(self, error: BaseException) -> None:
        """Have it end with an error instead of doing it."""
        self.error = error
        self._ended(self)

    def run(self, places: "Places", interruption: Interruption) -> None:
        """Do it, in a thread that waits as ``interruption`` says."""
        places.take_undo()
        with self._lock:
            interruption.begin()
            if self._unwanted:
                interruption.call_off()
            self._interruption = interruption
        try:
            interruption.check()
            self.result = self._context.run(self._function)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            self.error = error
        undo = places.take_undo() if self.error is None else None
        with self._lock:
            self._interruption = None
            unwanted = self._unwanted
            if not unwanted:
                self._undo = undo
        try:
            if unwanted:
                interruption.begin()
                self.result, self.error = None, CalledOffError()
                if undo is not None:
                    undo()
        finally:
            self._ended(self)


class Threads:
    """The threads of one engine's asynchronous calls.

    Args:
        places: the engine's.
    """

    def __init__(self, places: "Places") -> None:
        self._places = places
        self._condition = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._idle = 0
        self._calls: set[Call] = set()
        self._closed = False

    def submit(self, call: Call) -> None:
        """Have a call done.

        Raises:
            UnavailableError: these threads were let go of, or no more can be started.
        """
        with self._condition:
            if self._closed and not call.certain:
                raise UnavailableError("the engine was closed", "make another ketch.aio.Engine")
            self._calls.add(call)
            if self._idle > len(self._waiting):
                self._waiting.append(call)
                self._condition.notify()
                return
        # Not waited for when the process ends: what it does by then nobody wants.
        thread = threading.Thread(target=self._work, args=(call,), name="ketch", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            with self._condition:
                self._calls.discard(call)
            raise UnavailableError(f"cannot start a thread: {error}") from error

    def close(self) -> None:
        """Call off what is being done, and let go of the threads."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for call in self.calls():
            call.call_off()

    def calls(self) -> list[Call]:
        """Returns those that have not ended."""
        with self._condition:
            return list(self._calls)

    def _work(self, first: Call) -> None:
        try:
            interruption = Interruption()
        except OSError as error:  # too many open files
            with self._condition:
                self._calls.discard(first)
            first.fail(error)
            return
        self._places.adopt(interruption)
        call: Call | None = first
        try:
            while call is not None:
                call.run(self._places, interruption)
                with self._condition:
                    self._calls.discard(call)
                    call = self._next()
        finally:
            self._places.close()
            interruption.close()

    def _next(self) -> Call | None:
        """Wait a while for another call, unless enough others do."""
        if not self._waiting and (self._idle >= _IDLE_MAX or self._closed):
            return None
        if not self._waiting:
            self._idle += 1
            self._condition.wait_for(lambda: self._waiting or self._closed, _IDLE_SECONDS)
            self._idle -= 1
        return self._waiting.popleft() if self._waiting else None
