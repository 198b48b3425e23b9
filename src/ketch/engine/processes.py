"""Waiting for processes of others, named by pid and start time and held by descriptor."""

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
    poll = select.poll()
    if pidfd is not None:
        poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
