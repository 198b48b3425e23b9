"""clone3(2) by a process with threads, as a test's worker is and ketch's own starters are not."""

import ctypes
import functools
from collections.abc import Callable
from typing import TypeVar

_Made = tuple[int, int]
_Clone = TypeVar("_Clone", bound=Callable[..., _Made])


def as_fork_does(clone: _Clone) -> _Clone:
    """Have the interpreter do around ``clone`` what it does around its own fork.

    Where a thread was waiting for the interpreter's lock, the child else waits for it to take it,
    for ever: there is no such thread in the child.
    """

    @functools.wraps(clone)
    def cloned(*arguments: int, **named: int | None) -> _Made:
        ctypes.pythonapi.PyOS_BeforeFork()
        pid = -1
        try:
            pid, pidfd = clone(*arguments, **named)
            return pid, pidfd
        finally:
            if pid == 0:
                ctypes.pythonapi.PyOS_AfterFork_Child()
            else:
                ctypes.pythonapi.PyOS_AfterFork_Parent()

    return cloned  # type: ignore[return-value]
