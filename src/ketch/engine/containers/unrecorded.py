"""What a container ended with, kept elsewhere where the database could not take it.

The disk of ``--root`` may be full or broken; ``--state`` is another one, in memory as a rule.
Whoever next looks at the container records it from there.
"""

import os

from ketch.engine.records.rows import LOST_ERROR, LOST_EXIT_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.records.rows import Columns, Container
    from ketch.engine.settings import Settings


class End:
    """What a container ended with.

    Attributes:
        exit_status: 0 to 255; 128 + n for signal n.
        finished_ns: when, in nanoseconds since the epoch.
        oom_killed: whether the kernel killed one of its processes for want of memory.
        error: what is to be said besides.
    """

    __slots__ = ("error", "exit_status", "finished_ns", "oom_killed")

    def __init__(
        self, exit_status: int, finished_ns: int, *, oom_killed: bool = False, error: str = ""
    ) -> None:
        self.exit_status = exit_status
        self.finished_ns = finished_ns
        self.oom_killed = oom_killed
        self.error = error

    def columns(self) -> "Columns":
        """Returns it as a container's row has it."""
        columns: Columns = {
            "exit_status": self.exit_status, "finished_ns": self.finished_ns, "error": self.error,
        }  # fmt: skip
        return columns | ({"oom_killed": 1} if self.oom_killed else {})


def keep(settings: "Settings", container_id: str, end: End) -> None:
    """Keep an end that could not be recorded, among what is the container's while it runs.

    Raises:
        OSError: it cannot be kept either.
    """
    directory = settings.runtime_directory(container_id)
    os.makedirs(directory, 0o700, exist_ok=True)
    with open(f"{directory}/end", "w", encoding="ascii") as file:
        file.write(f"{end.exit_status} {end.finished_ns} {int(end.oom_killed)}\n")


def end(settings: "Settings", container: "Container") -> End:
    """Returns what a container whose monitor is gone ended with, as far as anybody knows.

    Args:
        settings: the engine's places.
        container: it was left behind while it ran.
    """
    path = f"{settings.runtime_directory(container.id)}/end"
    try:
        with open(path, encoding="ascii") as file:
            status, finished_ns, oom_killed = map(int, file.read().split())
    except (OSError, ValueError):  # nothing, or not all of it
        return End(LOST_EXIT_STATUS, container.finished_ns, error=LOST_ERROR)
    return End(status, finished_ns, oom_killed=bool(oom_killed))
