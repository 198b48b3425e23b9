"""Exec sessions: other programs in running containers, each with an identifier and a record.

A session is created, then started once; its record stays for a while after its own end, even where
its container has ended as well, so that its exit status can be asked for.
"""

import json
import signal
import time
from contextlib import suppress

from ketch.engine.containers.ledger import Keeper
from ketch.engine.records import names, states
from ketch.engine.records.rows import Container, record_event
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.linux import process, procfs
from ketch.linux.scopes import owned
from ketch.spec import runtime_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from typing import Any

    from ketch.engine.containers.containers import Containers
    from ketch.engine.records.store import Store
    from ketch.spec.container import ExecConfig

# Docker's: how long an ended session can still be asked about.
_KEPT_NS = 5 * 60 * 10**9
_KEPT_MAX = 1000  # of one container, whoever asks for more within that time
_LOST_EXIT_STATUS = 255
_EVENT_WORDS_MAX = 1024


_ROUNDS_MAX = 100


class Exec:
    """One exec session at the moment it was read.

    Attributes:
        id: 64 hexadecimal digits.
        container_id: of its container.
        config: what was asked for, in the API's keys.
        pid: its program's, 0 before the start and after the end.
        is_started: whether it was started.
        is_running: whether its program is alive.
        exit_status: what it ended with, None before.
    """

    __slots__ = (
        "_last_pid", "config", "container_id", "exit_status", "id", "is_running", "is_started",
        "pid",
    )  # fmt: skip

    def __init__(self, row: "sqlite3.Row", boot_id: str) -> None:
        self.id: str = row["id"]
        self.container_id: str = row["container_id"]
        self.config: ExecConfig = json.loads(row["record"])
        self.is_started = bool(row["monitor_pid"])
        self.exit_status: int | None = row["exit_status"]
        same_boot = row["boot_id"] == boot_id
        monitored = same_boot and procfs.is_running(row["monitor_pid"], row["monitor_start_time"])
        alive = same_boot and procfs.is_running(row["pid"], row["start_time"])
        self.is_running = self.exit_status is None and (monitored or alive)
        self.pid: int = row["pid"] if self.is_running else 0
        self._last_pid: int = row["pid"]
        if self.is_started and not self.is_running and self.exit_status is None:
            self.exit_status = _LOST_EXIT_STATUS

    def document(self) -> "dict[str, Any]":
        """The session as the API tells it (``ExecInspectResponse``)."""
        config = self.config
        command = config.get("Cmd") or []
        return {
            "ID": self.id,
            "Running": self.is_running,
            "ExitCode": self.exit_status,
            "ProcessConfig": {
                "tty": config.get("Tty", False),
                "entrypoint": command[0] if command else "",
                "arguments": command[1:],
                "privileged": config.get("Privileged", False),
                **({"user": config["User"]} if config.get("User") else {}),
            },
            "OpenStdin": config.get("AttachStdin", False),
            "OpenStderr": config.get("AttachStderr", False),
            "OpenStdout": config.get("AttachStdout", False),
            "CanRemove": False,
            "ContainerID": self.container_id,
            "DetachKeys": config.get("DetachKeys", ""),
            "Pid": self._last_pid,  # as dockerd's, after the end as well
        }


class Execs:
    """The exec sessions of one engine.

    Args:
        store: its database.
        containers: its containers.
    """

    __slots__ = ("_boot_id", "_containers", "_store")

    def __init__(self, store: "Store", containers: "Containers") -> None:
        self._store = store
        self._containers = containers
        self._boot_id = procfs.boot_id()

    def create(self, reference: str, config: "ExecConfig", keeper: Keeper | None = None) -> Exec:
        """Record what is to be run in a container.

        Args:
            reference: the container.
            config: what to run.
            keeper: who starts it and watches over its program, as by ``claim``; None where that is
                not known yet.

        Raises:
            NotFoundError: no such container.
            ConflictError: it does not run, or is paused.
            InvalidArgumentError: there is nothing to run.
        """
        if not config.get("Cmd"):
            raise InvalidArgumentError("No exec command specified")
        container = self._containers.find(reference)
        check_running(container)
        now_ns, exec_id = time.time_ns(), names.new_id()
        with self._store.transaction() as connection:
            connection.execute(
                "DELETE FROM exec WHERE ended_ns > 0 AND (ended_ns < ? OR id IN"
                " (SELECT id FROM exec WHERE container_id = ? AND ended_ns > 0"
                "  ORDER BY ended_ns DESC LIMIT -1 OFFSET ?))",
                (now_ns - _KEPT_NS, container.id, _KEPT_MAX),
            )
            connection.execute(
                "INSERT INTO exec (id, container_id, created_ns, record) VALUES (?, ?, ?, ?)",
                (exec_id, container.id, now_ns, json.dumps(config, separators=(",", ":"))),
            )
            if keeper is not None:
                self._claim(connection, exec_id, keeper)
            record_event(connection, _action("exec_create", config), container, execID=exec_id)
        return self.find(exec_id)

    def find(self, reference: str) -> Exec:
        """Returns the session with this identifier, or unique start of one.

        Raises:
            NotFoundError: there is none.
        """
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM exec WHERE id >= ? AND id < ? LIMIT 2",
                (reference, reference + "g"),
            ).fetchall()
        if not reference or len(rows) != 1:
            raise NotFoundError(f"No such exec instance: {reference}")
        return Exec(rows[0], self._boot_id)

    def running(self, container_id: str) -> list[str]:
        """Returns the identifiers of the sessions of a container whose programs run."""
        with self._store.reading() as connection:
            query = "SELECT * FROM exec WHERE container_id = ? ORDER BY created_ns"
            rows = connection.execute(query, (container_id,)).fetchall()
        sessions = [Exec(row, self._boot_id) for row in rows]
        return [session.id for session in sessions if session.is_running]

    def kill(self, reference: str) -> None:
        """Kill a session's program and what it has started, unless that has gone its own way.

        That is what belongs to its session, of setsid(2): which each session's program leads.

        Raises:
            NotFoundError: there is no such session, or its container is gone.
        """
        found = self.find(reference)
        container = self._containers.find(found.container_id)
        cgroup = self._containers.cgroup(container)
        leader = found._last_pid
        if runtime_names.is_other(container.record):  # in that of who has made it, maybe
            leader = procfs.process_session(leader) or leader
        for _ in range(_ROUNDS_MAX):  # they may fork meanwhile
            members = [pid for pid in cgroup.processes() if _belongs(pid, leader)]
            if not members:
                return
            for pid in members:
                with suppress(ProcessLookupError), owned(process.pidfd_open(pid)) as descriptor:
                    if _belongs(pid, leader):  # and is not another one's pid by now
                        process.pidfd_send_signal(descriptor, signal.SIGKILL)

    def claim(self, reference: str, keeper: Keeper | None = None) -> Exec:
        """Become the one who starts a session.

        Args:
            reference: the session.
            keeper: who watches over its program; the caller where None.

        Raises:
            NotFoundError: there is none.
            ConflictError: it was started already.
        """
        found = self.find(reference)
        keeper = keeper or Keeper()
        with self._store.transaction() as connection:
            if not self._claim(connection, found.id, keeper):
                raise ConflictError(f"Error: Exec command {found.id} has already run")
        return found

    def _claim(self, connection: "sqlite3.Connection", exec_id: str, keeper: Keeper) -> bool:
        changed = connection.execute(
            "UPDATE exec SET monitor_pid = ?, monitor_start_time = ?, boot_id = ?"
            " WHERE id = ? AND monitor_pid = 0",
            (keeper.pid, keeper.start_time, self._boot_id, exec_id),
        ).rowcount
        return bool(changed)

    def mark_started(self, session: Exec, container: Container, pid: int) -> None:
        """Record that a session's program runs."""
        start_time = procfs.process_start_time(pid) or 0
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE exec SET pid = ?, start_time = ? WHERE id = ?",
                (pid, start_time, session.id),
            )
            action = _action("exec_start", session.config)
            record_event(connection, action, container, execID=session.id)

    def mark_ended(
        self, session: Exec, container: Container, exit_status: int, *, keep: bool = True
    ) -> None:
        """Record what a session's program ended with; with its container the record may be gone.

        Args:
            session: the session.
            container: its container.
            exit_status: what it ended with.
            keep: whether anybody is going to ask about it.
        """
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE exec SET exit_status = ?, ended_ns = ? WHERE id = ?",
                (exit_status, time.time_ns(), session.id),
            )
            if not keep:
                connection.execute("DELETE FROM exec WHERE id = ?", (session.id,))
            # Its name may be another by now.
            row = connection.execute(
                "SELECT * FROM container WHERE id = ?", (container.id,)
            ).fetchone()
            current = Container(row, self._boot_id) if row else container
            record_event(
                connection, "exec_die", current, execID=session.id, exitCode=str(exit_status)
            )


def _action(name: str, config: "ExecConfig") -> str:
    """What an event says of a session: an image's health check may be a megabyte long."""
    words = " ".join(config["Cmd"])
    if len(words) > _EVENT_WORDS_MAX:
        words = f"{words[:_EVENT_WORDS_MAX]}..."
    return f"{name}: {words}"


def check_running(container: Container) -> None:
    """Make sure that a program can be run in a container.

    Raises:
        ConflictError: it does not run, is paused or restarts.
    """
    if container.status == states.PAUSED:
        raise ConflictError(
            f"Container {container.name} is paused, unpause the container before exec"
        )
    if container.status == states.RESTARTING:
        raise ConflictError(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if container.status != states.RUNNING:
        raise ConflictError(f"container {container.id} is not running", "ketch start starts it")


def _belongs(pid: int, leader: int) -> bool:
    return procfs.process_session(pid) == leader
