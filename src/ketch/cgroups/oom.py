"""Being told that a control group is out of memory, when it is.

On v1 an eventfd(2) is told, before the kernel chooses whom to kill. On v2 the file memory.events is
modified, which inotify(7) tells of, by other events too: its count of kills says whether one was.

Sources: Linux, Documentation/admin-guide/cgroup-v1/memory.rst, 10 "OOM Control"; cgroup-v2.rst,
"Memory Interface Files".
"""

import os

from ketch.cgroups.memory import keyed
from ketch.linux import inotify
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.filesystem import Manager

NO_COUNTER = -1


def watch(cgroup: "Manager") -> tuple[int, int] | None:
    """Ask to be told.

    Args:
        cgroup: a cgroup that is there.

    Returns:
        A descriptor that is readable when it happens, and one of the counter that ``kills`` reads,
        NO_COUNTER on v1: both close-on-exec and the caller's. None where memory is not counted.

    Raises:
        OSError: the kernel refused.
    """
    hierarchy = cgroup.layout.hierarchy_of("memory")
    if hierarchy is None:
        return None
    directory = cgroup.paths()["memory"]
    if hierarchy.version == 2:
        queue = inotify.Inotify()
        queue.watch(f"{directory}/memory.events", inotify.IN_MODIFY)
        return queue.fileno(), os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
    told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with (
        owned(os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)) as control,
        owned(os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)) as place,
    ):
        os.write(place, f"{told} {control}".encode())
    return told, NO_COUNTER


def kills(counter: int) -> int:
    """Returns how many processes were killed, by the counter's descriptor; 0 once all is gone."""
    try:
        return keyed(os.pread(counter, 4096, 0).decode()).get("oom_kill", 0)
    except OSError:
        return 0
