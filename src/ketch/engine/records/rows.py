"""A container as the store has it, beside what is true of it now."""

import json
import os
import time

from ketch.engine.records import events, links, states
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.linux import procfs
from ketch.linux.scopes import owned, suppress_absence

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from typing import Any

    Columns = dict[str, int | str]

# Docker's, for a container whose end nobody saw.
LOST_EXIT_STATUS = 255
LOST_ERROR = "the container's monitor ended before it could record the exit status"

_HEXADECIMAL = frozenset("0123456789abcdef")


class Container:
    """One container at the moment it was read.

    Args:
        row: all columns of the table ``container``, in its order.
        boot_id: of this boot, see ``procfs.boot_id``.

    Attributes:
        id: 64 hexadecimal digits.
        name: its name, without a slash.
        image_id: digest of its image's config, empty when it was made from none.
        image_reference: the image as the user wrote it.
        created_ns: when it was made, in nanoseconds since the epoch; so all ``_ns``.
        auto_remove: whether it goes as soon as it ends.
        state: outcome of the last recorded event, one of ``states``.
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
        stopped_by_hand: whether it was stopped or killed since it was last started by somebody.
        on_end: what whoever ends it wants to be left out then: empty for nothing, ``stay`` for a
            restart by its policy, ``keep`` for that and its automatic removal.
        health: what its health check has found, as ``inspect`` shows it; None without a check.
        ids: the first of the ids that are its own, and how many; zeros where it has the host's.
    """

    __slots__ = (
        "_health", "_record", "auto_remove", "created_ns", "error", "exit_status", "finished_ns",
        "id", "ids", "image_id", "image_reference", "init_pid", "init_start_time", "left_behind",
        "monitor_pid", "monitor_start_time", "name", "on_end", "oom_killed", "restart_count",
        "started_ns", "state", "status", "stopped_by_hand",
    )  # fmt: skip

    def __init__(self, row: "Iterable[Any]", boot_id: str) -> None:
        self.id: str
        self.name: str
        self.image_id: str
        self.image_reference: str
        self.created_ns: int
        self.state: str
        self.init_pid: int
        self.init_start_time: int
        self.monitor_pid: int
        self.monitor_start_time: int
        self.started_ns: int
        self.finished_ns: int
        self.exit_status: int
        self.error: str
        self.restart_count: int
        self.on_end: str
        self.ids: tuple[int, int]
        self._health: str
        self._record: str | dict[str, Any]
        # By their places, as a row looks each name up in all that it has: a third of a list's time.
        (
            self.id, self.name, self.image_id, self.image_reference, self.created_ns, self._record,
            auto_remove, self.state, booted, self.init_pid, self.init_start_time, self.monitor_pid,
            self.monitor_start_time, self.started_ns, self.finished_ns, self.exit_status,
            oom_killed, self.error, self.restart_count, stopped_by_hand, self.on_end, freezer,
            self._health, id_first, id_count, *_
        ) = row  # fmt: skip
        self.auto_remove = bool(auto_remove)
        self.oom_killed = bool(oom_killed)
        self.stopped_by_hand = bool(stopped_by_hand)
        self.ids = (id_first, id_count)
        same_boot = booted == boot_id
        init = same_boot and procfs.is_running(self.init_pid, self.init_start_time)
        facts = states.Facts(
            init=init,
            # Who lives has not been left behind, so nothing is looked up in vain for it.
            keeper=(same_boot and procfs.is_running(self.monitor_pid, self.monitor_start_time))
            if self.monitor_pid and not init
            else None,
            frozen=init and self.state == states.RUNNING and _is_frozen(freezer),
        )
        self.status, self.left_behind = states.derive(self.state, facts)
        if self.left_behind and self.state == states.RUNNING:
            # What is on record is of the run before, until somebody can put this one down.
            self.exit_status, self.error = LOST_EXIT_STATUS, LOST_ERROR
            self.finished_ns = time.time_ns()

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
    def health(self) -> "dict[str, Any] | None":
        """Its health as the API tells it: ``Status``, ``FailingStreak``, ``Log``."""
        return json.loads(self._health) if self._health else None

    @property
    def is_whole(self) -> bool:
        """Whether its creation was finished, so that others have seen it."""
        return self.state != states.CREATING

    @property
    def is_active(self) -> bool:
        """Whether it has, or is about to have, a process."""
        return self.status in states.ACTIVE


def every(connection: "sqlite3.Connection", boot_id: str) -> list[Container]:
    """Returns all containers, newest first, those that are still being made included.

    Args:
        connection: of the store.
        boot_id: of this boot, see ``procfs.boot_id``.
    """
    query = "SELECT * FROM container ORDER BY created_ns DESC, id"
    return [Container(row, boot_id) for row in connection.execute(query)]


def read_records(containers: "list[Container]") -> None:
    """Read what was asked for of many containers at once, which takes half of the time."""
    packed = [one for one in containers if isinstance(one._record, str)]
    texts = ",".join(str(one._record) for one in packed)
    for one, record in zip(packed, json.loads(f"[{texts}]"), strict=True):
        one._record = record


def select(connection: "sqlite3.Connection", container_id: str, boot_id: str) -> Container:
    """A container by its whole identifier.

    Args:
        connection: of the store.
        container_id: the container's.
        boot_id: of this boot, see ``procfs.boot_id``.

    Raises:
        NotFoundError: there is none.
    """
    query = "SELECT * FROM container WHERE id = ?"
    row = connection.execute(query, (container_id,)).fetchone()
    if row is None:
        raise no_such(container_id)
    return Container(row, boot_id)


def find(connection: "sqlite3.Connection", reference: str, boot_id: str) -> Container:
    """A container by its identifier, name, unique start of an identifier or a link's name.

    Args:
        connection: of the store.
        reference: what the user calls it.
        boot_id: of this boot, see ``procfs.boot_id``.

    Raises:
        NotFoundError: there is none.
        InvalidArgumentError: the start fits several, or is empty.
    """
    if not reference:
        raise InvalidArgumentError("invalid container name or ID: value is empty")
    name = reference.removeprefix("/")
    rows = (
        connection.execute("SELECT * FROM container WHERE id = ?", (reference,)).fetchall()
        or connection.execute("SELECT * FROM container WHERE name = ?", (name,)).fetchall()
    )
    if not rows and _HEXADECIMAL.issuperset(reference):
        rows = connection.execute(
            "SELECT * FROM container WHERE id >= ? AND id < ? LIMIT 2",
            (reference, reference + "g"),
        ).fetchall()
    if not rows and (linked := links.find(connection, name)):
        rows = connection.execute("SELECT * FROM container WHERE id = ?", (linked,)).fetchall()
    if not rows:
        raise no_such(reference)
    if len(rows) > 1:
        raise InvalidArgumentError(f"multiple IDs found with provided prefix: {reference}")
    return Container(rows[0], boot_id)


def update(connection: "sqlite3.Connection", container_id: str, columns: "Columns") -> None:
    """Change columns of a container's row, in a transaction."""
    assignments = ", ".join(f"{column} = ?" for column in columns)
    connection.execute(
        f"UPDATE container SET {assignments} WHERE id = ?", (*columns.values(), container_id)
    )


def record_event(
    connection: "sqlite3.Connection", action: str, container: Container, **attributes: str
) -> None:
    """Record what happened to a container, in the transaction that makes it true."""
    labels = container.record.get("Config", {}).get("Labels") or {}
    named = {**labels, "image": container.image_reference, "name": container.name, **attributes}
    events.record(connection, "container", action, container.id, named)


def end_sessions(connection: "sqlite3.Connection", container_id: str) -> None:
    """Let go of the exec sessions of a container that has ended, but for those that were started.

    These can still be asked about for a while: see ``Execs``.
    """
    connection.execute(
        "DELETE FROM exec WHERE container_id = ? AND monitor_pid = 0", (container_id,)
    )
    connection.execute(
        "UPDATE exec SET ended_ns = ? WHERE container_id = ? AND exit_status IS NULL",
        (time.time_ns(), container_id),
    )


def last_use_ns(connection: "sqlite3.Connection", container_id: str) -> int:
    """When somebody last did something with a container, in nanoseconds since the epoch, or 0.

    Its health checks are nobody's use, and what happened long ago may be forgotten.
    """
    (used_ns,) = connection.execute(
        "SELECT max((SELECT coalesce(max(ended_ns), 0) FROM exec WHERE container_id = :id),"
        " (SELECT coalesce(max(time_ns), 0) FROM event WHERE actor_id = :id"
        "  AND action NOT LIKE 'exec_%' AND action NOT LIKE 'health_%'))",
        {"id": container_id},
    ).fetchone()
    return int(used_ns)


def no_such(reference: str) -> NotFoundError:
    """The error for a container that is not there."""
    return NotFoundError(
        f"No such container: {reference}", "ketch ps -a lists containers, and ketch images images"
    )


def _is_frozen(file: str) -> bool:
    """Whether a freezer's file says that it holds: v1's freezer.state, v2's cgroup.freeze."""
    if not file:
        return False
    with suppress_absence(), owned(os.open(file, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        return os.read(descriptor, 16).strip() in {b"FROZEN", b"FREEZING", b"1"}
    return False
