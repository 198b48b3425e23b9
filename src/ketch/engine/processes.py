"""Waiting: for processes of others, named by pid and start time and held by descriptor."""

import contextlib
import os
import select

from ketch.linux import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator


@contextlib.contextmanager
def open_process(pid: int, start_time: int) -> "Generator[int | None, None, None]":
    """Open exactly this process, close-on-exec; None when it is no more.

    Args:
        pid: its pid, 0 for none.
        start_time: when it started, in clock ticks since boot.
    """
    pidfd = None
    try:
        if pid > 0:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
        # Only now does the pid stay what it is.
        yield pidfd if pidfd is not None and procfs.is_running(pid, start_time) else None
    finally:
        if pidfd is not None:
            os.close(pidfd)


def await_readable(pidfd: int | None, milliseconds: int | None) -> bool:
    """Wait for the end of a process, or just wait where there is none to wait for.

    Args:
        pidfd: of the process.
        milliseconds: how long at most, None for ever.

    Returns:
        Whether it has ended.
    """
    return ENDLESS.wait(milliseconds, pidfd)


class Patience:
    """How a caller waits for what may take long: to the end.

    One whose call may be called off by another thread has a kind of its own, by which all that
    waits for others without limit waits.
    """

    __slots__ = ()

    def wait(self, milliseconds: int | None, *descriptors: int | None) -> bool:
        """Wait until one of some descriptors can be read.

        Args:
            milliseconds: how long at most, None for ever.
            descriptors: which; None is none.

        Returns:
            Whether one can.
        """
        watched = [(one, select.POLLIN) for one in descriptors if one is not None]
        return bool(self.poll(milliseconds, *watched))

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        """Wait as poll(2) does: descriptors, and events of each, to what has come of these."""
        poll = select.poll()
        for descriptor, events in watched:
            poll.register(descriptor, events)
        return poll.poll(milliseconds)


ENDLESS = Patience()
