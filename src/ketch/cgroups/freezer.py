"""Stopping and continuing all processes of a cgroup: v1's freezer, v2's cgroup.freeze.

Both hold beneath the cgroup too. On v1 frozen processes do not even die; on v2 they do.

Source: cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst "cgroup.freeze" (Linux 5.2).
"""

import select
import time

from ketch.cgroups.memory import keyed
from ketch.errors import ConflictError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.cgroups.group import Group

_SHORTEST_WAIT_SECONDS = 0.0005
_LONGEST_WAIT_SECONDS = 0.02


def freezer(groups: "Sequence[Group]") -> "V1Freezer | V2Freezer":
    """The freezer of a cgroup: v1's where it is mounted, else v2's.

    Raises:
        UnavailableError: there is neither.
    """
    for group in groups:
        if "freezer" in group.hierarchy.controllers:
            return V1Freezer(group)
    for group in groups:
        if group.hierarchy.version == 2 and group.has("cgroup.freeze"):
            return V2Freezer(group)
    raise UnavailableError(
        "this machine has no freezer for cgroups", "mount the v1 freezer hierarchy"
    )


class V1Freezer:
    """The freezer controller."""

    __slots__ = ("_group",)

    def __init__(self, group: "Group") -> None:
        self._group = group

    @property
    def file(self) -> str:
        """The file that holds its state."""
        return f"{self._group.directory}/freezer.state"

    def thaw(self) -> None:
        """Let all run again."""
        self._group.write("freezer.state", "THAWED")

    def frozen(self) -> bool:
        """Whether it is frozen, or freezing, by itself or by a cgroup above."""
        return self._state() not in {"THAWED", ""}

    def _state(self) -> str:
        return (self._group.read("freezer.state") or "").strip()

    def freeze(self, deadline: float) -> bool:
        """Freeze, and wait until ``time.monotonic()`` passes the deadline; whether all froze."""
        wait_seconds = _SHORTEST_WAIT_SECONDS
        while True:
            # It may remain in FREEZING where a process forks at the same moment: asking anew
            # catches the child.
            self._group.write("freezer.state", "FROZEN")
            if self._state() == "FROZEN":
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)


class V2Freezer:
    """The core file cgroup.freeze."""

    __slots__ = ("_group",)

    def __init__(self, group: "Group") -> None:
        self._group = group

    @property
    def file(self) -> str:
        """The file that holds its state."""
        return f"{self._group.directory}/cgroup.freeze"

    def thaw(self) -> None:
        """Let all run again."""
        self._group.write("cgroup.freeze", "0")

    def frozen(self) -> bool:
        """Whether it is frozen, or freezing, by itself or by a cgroup above."""
        if (self._group.read("cgroup.freeze") or "").strip() == "1":
            return True
        return keyed(self._group.read("cgroup.events") or "").get("frozen") == 1

    def freeze(self, deadline: float) -> bool:
        """Freeze, and wait until ``time.monotonic()`` passes the deadline; whether all froze."""
        self._group.write("cgroup.freeze", "1")
        with open(f"{self._group.directory}/cgroup.events", encoding="ascii") as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while keyed(events.read()).get("frozen") != 1:
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0:
                    return False
                poll.poll(1000 * left_seconds)
                events.seek(0)
        return True


def freeze(groups: "Sequence[Group]", timeout_seconds: float) -> None:
    """Freeze a cgroup for good, or not at all.

    Raises:
        ConflictError: a process would not stop in time (it hangs in the kernel); all run again.
        UnavailableError: there is no freezer.
    """
    found = freezer(groups)
    done = False
    try:
        done = found.freeze(time.monotonic() + timeout_seconds)
    finally:
        if not done:
            found.thaw()
    if not done:
        raise ConflictError(
            f"cgroup {groups[0].directory} did not freeze within {timeout_seconds:g} seconds",
            "a process of it hangs in the kernel: see /proc/PID/stack of each",
        )
