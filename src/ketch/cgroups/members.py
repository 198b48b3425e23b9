"""The processes of a cgroup: signalled without a chance of meeting another's, and named.

Source: pidfd_open(2), pidfd_send_signal(2), proc_pid_comm(5).
"""

import errno
import os

from ketch.cgroups.group import read
from ketch.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN = 5


def signal(members: "Callable[[], list[int]]", number: int) -> None:
    """Send a signal to all who are members now.

    Args:
        members: lists the pids of the cgroup; asked twice. Who is a member still after its pidfd
            was opened is who was meant: a pid that was reused in between is not among them, or is
            a member itself.
        number: the signal.
    """
    opened: dict[int, int] = {}
    try:
        for pid in members():
            try:
                opened[pid] = os.pidfd_open(pid)
            except OSError as error:
                # EINVAL: it is about to be gone, and no process any more but still a thread.
                if error.errno not in {errno.ESRCH, errno.EINVAL}:
                    raise
        for pid in members():
            if pid in opened:
                try:
                    signals.pidfd_send_signal(opened[pid], number)
                except ProcessLookupError:
                    continue
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def names(pids: list[int]) -> str:
    """Processes in words: ``processes 12 (sleep), 13 (sh)``."""
    if not pids:
        return "dying processes"
    shown = [f"{pid} ({(read(f'/proc/{pid}/comm') or '?').strip()})" for pid in pids[:_SHOWN]]
    more = f" and {len(pids) - _SHOWN} more" if len(pids) > _SHOWN else ""
    return f"{'process' if len(pids) == 1 else 'processes'} {', '.join(shown)}{more}"
