"""A container as the store has it, beside what is true of it now."""

import json

from ketch.engine import states
from ketch.linux import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from typing import Any


class Container:
    """One container at the moment it was read.

    Attributes:
        id: 64 hexadecimal digits.
        name: its name, without a slash.
        image_id: digest of its image's config, empty when it was made from none.
        image_reference: the image as the user wrote it.
        created_ns: when it was made, in nanoseconds since the epoch; so all ``_ns``.
        auto_remove: whether it goes as soon as it ends.
        state: outcome of the last recorded event, one of ``engine.states``.
        status: what it is now, derived from the state and from living processes.
        left_behind: whether the process in charge died before its work was done.
        init_pid: its first process, with ``init_start_time`` in clock ticks since boot; 0 for none.
        monitor_pid: the process in charge, with ``monitor_start_time``; 0 for none.
        started_ns: when it was last started, 0 for never.
        finished_ns: when it last ended, 0 for never.
        exit_status: what it last ended with.
        oom_killed: whether the kernel killed one of its processes for want of memory.
        error: why its last start failed, or its removal, or empty.
        restart_count: how often its restart policy started it again.
    """

    __slots__ = (
        "_record", "auto_remove", "created_ns", "error", "exit_status", "finished_ns", "id",
        "image_id", "image_reference", "init_pid", "init_start_time", "left_behind",
        "monitor_pid", "monitor_start_time", "name", "oom_killed", "restart_count", "started_ns",
        "state", "status",
    )  # fmt: skip

    def __init__(self, row: "sqlite3.Row", boot_id: str) -> None:
        self.id: str = row["id"]
        self.name: str = row["name"]
        self.image_id: str = row["image_id"]
        self.image_reference: str = row["image_reference"]
        self.created_ns: int = row["created_ns"]
        self.auto_remove = bool(row["auto_remove"])
        self.state: str = row["state"]
        self.init_pid: int = row["init_pid"]
        self.init_start_time: int = row["init_start_time"]
        self.monitor_pid: int = row["monitor_pid"]
        self.monitor_start_time: int = row["monitor_start_time"]
        self.started_ns: int = row["started_ns"]
        self.finished_ns: int = row["finished_ns"]
        self.exit_status: int = row["exit_status"]
        self.oom_killed = bool(row["oom_killed"])
        self.error: str = row["error"]
        self.restart_count: int = row["restart_count"]
        self._record: str | dict[str, Any] = row["record"]
        same_boot = row["boot_id"] == boot_id
        facts = states.Facts(
            init=same_boot and procfs.is_running(self.init_pid, self.init_start_time),
            keeper=(same_boot and procfs.is_running(self.monitor_pid, self.monitor_start_time))
            if self.monitor_pid
            else None,
        )
        self.status, self.left_behind = states.derive(self.state, facts)

    @property
    def record(self) -> "dict[str, Any]":
        """What was asked for: the lasting part of the document that ``inspect`` shows.

        Its keys are Docker's: ``Path``, ``Args``, ``Config``, ``HostConfig``, ``Mounts``, ...
        """
        if isinstance(self._record, str):
            self._record = json.loads(self._record)
        assert isinstance(self._record, dict)
        return self._record

    @property
    def is_active(self) -> bool:
        """Whether it has, or is about to have, a process."""
        return self.status in states.ACTIVE
