"""Containers: their records, and what can be done to them from outside.

The process in charge of a container, its monitor, records what happens to it; every other process
reads that, signals the container's first process, and waits for the monitor to record the rest.
What a killed monitor left is finished by whoever next looks at the container.
"""

import json
import os
import sqlite3
import time
from signal import SIGKILL, pidfd_send_signal

from ketch.engine import events, names, states
from ketch.engine.processes import await_readable, open_process
from ketch.engine.records import Container
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnavailableError,
)
from ketch.linux import procfs
from ketch.linux.removetree import remove_tree
from ketch.spec import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings
    from ketch.engine.store import Store

STOP_TIMEOUT_SECONDS = 10

# Docker's, for a container whose end nobody saw.
LOST_EXIT_STATUS = 255
LOST_ERROR = "the container's monitor ended before it could record the exit status"

# How long a monitor may take from the end of init to its record, cgroup and network included.
RECORD_TIMEOUT_SECONDS = 30


class Containers:
    """The containers of one engine.

    Args:
        settings: the engine's places.
        store: the engine's database.
    """

    __slots__ = ("_boot_id", "_settings", "_store")

    def __init__(self, settings: "Settings", store: "Store") -> None:
        self._settings = settings
        self._store = store
        self._boot_id = procfs.boot_id()

    # What is there

    def find(self, reference: str) -> Container:
        """Returns the container with this identifier, name or unique start of an identifier.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: the start fits several.
        """
        container = self._settle(self._look_up(reference))
        if container is None:
            raise _no_such(reference)
        return container

    def list(self, *, all: bool = False) -> list[Container]:  # noqa: A002 - Docker's word
        """Returns the containers, newest first: all, or those that are active."""
        with self._store.reading() as connection:
            query = "SELECT * FROM container ORDER BY created_ns DESC, id"
            found = [Container(row, self._boot_id) for row in connection.execute(query)]
        settled = []
        for container in found:
            try:
                current = self._settle(container)
            except (KetchError, OSError):
                # It is shown as what it is; releasing what it held is tried again next time.
                current = container
            if current is not None and (all or current.is_active):
                settled.append(current)
        return settled

    # What its monitor says

    def create_record(
        self,
        container_id: str,
        *,
        name: str,
        image_id: str,
        image_reference: str,
        record: "dict[str, Any]",
        auto_remove: bool = False,
        in_charge: bool = False,
    ) -> Container:
        """Record a new container and make its directory.

        Args:
            container_id: from ``names.new_id``.
            name: what the user calls it; one is made up where this is empty.
            image_id: digest of its image's config, or empty.
            image_reference: the image as the user wrote it.
            record: see ``Container.record``.
            auto_remove: whether it goes as soon as it ends.
            in_charge: whether the calling process is its monitor, so that the container is known
                to be left behind should that die before the start.

        Raises:
            InvalidArgumentError: that is not a name.
            AlreadyExistsError: the name is taken.
        """
        pid, start_time, boot_id = self._myself() if in_charge else (0, 0, "")
        with self._store.transaction() as connection:
            if name:
                name = names.check_name(name)
                holder = _holder(connection, name)
                if holder:
                    raise AlreadyExistsError(
                        f'Conflict. The container name "/{name}" is already in use by container '
                        f'"{holder}". You have to remove (or rename) that container to be able '
                        "to reuse that name."
                    )
            else:
                attempt = 0
                while not name or _holder(connection, name):
                    name = names.new_name(attempt)
                    attempt += 1
            connection.execute(
                "INSERT INTO container (id, name, image_id, image_reference, created_ns, record,"
                " auto_remove, state, monitor_pid, monitor_start_time, boot_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (container_id, name, image_id, image_reference, time.time_ns(),
                 json.dumps(record, separators=(",", ":")), auto_remove, states.CREATED,
                 pid, start_time, boot_id),
            )  # fmt: skip
            container = self._row(connection, container_id)
            _record_event(connection, "create", container)
        # Not before: a directory without a record would never be found again.
        os.makedirs(self._settings.container_directory(container_id), 0o700)
        return container

    def mark_started(
        self, container_id: str, init_pid: int, init_start_time: int, started_ns: int
    ) -> None:
        """Record that the container's program runs, and that the calling process is in charge.

        Args:
            container_id: the container.
            init_pid: its first process, as the caller sees it.
            init_start_time: that process's start, in clock ticks since boot.
            started_ns: when, in nanoseconds since the epoch.

        Raises:
            NotFoundError: the container is gone.
            ConflictError: it is running already, or is being removed.
        """
        pid, start_time, boot_id = self._myself()
        self._mark(
            container_id, "start", init_pid=init_pid, init_start_time=init_start_time,
            monitor_pid=pid, monitor_start_time=start_time, boot_id=boot_id,
            started_ns=started_ns, exit_status=0, oom_killed=0, error="",
        )  # fmt: skip

    def mark_start_failed(self, container_id: str, exit_status: int, error: str) -> None:
        """Record why the program could not be started, and that nobody is in charge any more."""
        self._mark(
            container_id, "start-failed", exit_status=exit_status, error=error, **_NO_PROCESS
        )

    def mark_exited(
        self,
        container_id: str,
        exit_status: int,
        *,
        oom_killed: bool,
        finished_ns: int,
        restarting: bool = False,
    ) -> None:
        """Record that the program ended.

        Whatever the container held at run time (log, cgroup, network, sockets) must be released
        before: from now on it may be started or removed by others. With ``restarting`` the caller
        stays in charge.

        Args:
            container_id: the container.
            exit_status: 0 to 255; 128 + n for signal n.
            oom_killed: whether the kernel killed one of its processes for want of memory.
            finished_ns: when it ended, in nanoseconds since the epoch.
            restarting: whether the caller is going to start it again.

        Raises:
            NotFoundError: the container is gone.
            ConflictError: it was not running.
        """
        event = "exit-to-restart" if restarting else "exit"
        processes = {"init_pid": 0, "init_start_time": 0} if restarting else _NO_PROCESS
        self._mark(
            container_id, event, exit_status=exit_status, oom_killed=int(oom_killed),
            finished_ns=finished_ns, **processes,
        )  # fmt: skip

    # What others do to it

    def kill(self, reference: str, signal: str = "KILL") -> None:
        """Send a signal to a container's first process; with SIGKILL, wait for its end.

        Raises:
            NotFoundError: no such container.
            ConflictError: it is not running.
            InvalidArgumentError: no such signal.
        """
        number = signals.number(signal)
        container = self.find(reference)
        if not self._send(container, number):
            raise ConflictError(
                f"cannot kill container: {reference}: container {container.id} is not running"
            )
        if number == SIGKILL:
            self._await_end(container, RECORD_TIMEOUT_SECONDS)

    def stop(self, reference: str, timeout_seconds: int | None = None, signal: str = "") -> None:
        """Ask a container's program to end, kill it when it does not, wait for its end.

        Args:
            reference: the container; one that does not run is left alone.
            timeout_seconds: how long to wait before SIGKILL, -1 for ever; None for the
                container's own, or ten seconds.
            signal: what to ask with; the container's own, or SIGTERM, where empty.

        Raises:
            NotFoundError: no such container.
            InvalidArgumentError: no such signal.
            UnavailableError: the container's monitor did not record the end.
        """
        container = self.find(reference)
        config = container.record.get("Config", {})
        number = signals.number(signal or config.get("StopSignal") or "TERM")
        if timeout_seconds is None:
            timeout_seconds = config.get("StopTimeout")
        if timeout_seconds is None:
            timeout_seconds = STOP_TIMEOUT_SECONDS
        if not container.is_active:
            return
        patience = None if timeout_seconds < 0 else float(timeout_seconds)
        if self._send(container, number) and not _await_init(container, patience):
            self._send(container, SIGKILL)
        self._await_end(container, RECORD_TIMEOUT_SECONDS)

    def wait(self, reference: str) -> int:
        """Wait until a container is no longer active; returns its exit status.

        Raises:
            NotFoundError: no such container.
        """
        container = self.find(reference)
        if not container.is_active:
            return container.exit_status
        _await_init(container, None)
        ended = self._await_end(container, None)
        return self._last_exit_status(container.id) if ended is None else ended.exit_status

    def remove(self, reference: str, *, force: bool = False) -> None:
        """Remove a container: its writable layer, its log, its record.

        Args:
            reference: the container.
            force: whether to kill it first if it is active.

        Raises:
            NotFoundError: no such container.
            ConflictError: it is active, or somebody else is removing it.
            UnavailableError: its directory cannot be removed; the container is then ``dead``.
        """
        container = self.find(reference)
        if container.is_active:
            if not force:
                raise ConflictError(
                    f'cannot remove container "/{container.name}": container is '
                    f"{container.status}: {_FIRST_STEP[container.status]}"
                )
            self._send(container, SIGKILL)
            ended = self._await_end(container, RECORD_TIMEOUT_SECONDS)
            if ended is None or ended.auto_remove:
                # Its monitor removes it, or has done so.
                self._await_removal(container)
                return
        self._begin_removal(container.id)
        self._finish_removal(container.id)

    # Records

    def _myself(self) -> tuple[int, int, str]:
        pid = os.getpid()
        start_time = procfs.process_start_time(pid)
        assert start_time is not None
        return pid, start_time, self._boot_id

    def _row(self, connection: sqlite3.Connection, container_id: str) -> Container:
        query = "SELECT * FROM container WHERE id = ?"
        row = connection.execute(query, (container_id,)).fetchone()
        if row is None:
            raise _no_such(container_id)
        return Container(row, self._boot_id)

    def _read(self, container_id: str) -> Container | None:
        try:
            with self._store.reading() as connection:
                return self._row(connection, container_id)
        except NotFoundError:
            return None

    def _look_up(self, reference: str) -> Container:
        if not reference:
            raise InvalidArgumentError("invalid container name or ID: value is empty")
        name = reference.removeprefix("/")
        with self._store.reading() as connection:
            rows = (
                connection.execute("SELECT * FROM container WHERE id = ?", (reference,)).fetchall()
                or connection.execute("SELECT * FROM container WHERE name = ?", (name,)).fetchall()
            )
            if not rows and _HEXADECIMAL.issuperset(reference):
                rows = connection.execute(
                    "SELECT * FROM container WHERE id >= ? AND id < ? LIMIT 2",
                    (reference, reference + "g"),
                ).fetchall()
        if not rows:
            raise _no_such(reference)
        if len(rows) > 1:
            raise InvalidArgumentError(f"multiple IDs found with provided prefix: {reference}")
        return Container(rows[0], self._boot_id)

    def _mark(self, container_id: str, event: str, **columns: int | str) -> None:
        with self._store.transaction() as connection:
            container = self._row(connection, container_id)
            columns["state"] = states.next_state(container.state, event)
            _update(connection, container_id, columns)
            if event in _EVENT_NAMES:
                _record_event(
                    connection, _EVENT_NAMES[event], container,
                    **({"exitCode": str(columns["exit_status"])} if event != "start" else {}),
                )  # fmt: skip

    # Ends and left-overs

    def _settle(self, container: Container) -> Container | None:
        """Finish what a process that died had begun with a container.

        Returns:
            The container as it then is, or None where nothing is left of it.
        """
        if not container.left_behind:
            return container
        with self._store.transaction() as connection:
            try:
                container = self._row(connection, container.id)
            except NotFoundError:
                return None
            if not container.left_behind:
                return container  # it was only ending, or somebody else was quicker
            pid, start_time, boot_id = self._myself()
            columns: dict[str, int | str] = {
                "monitor_pid": pid, "monitor_start_time": start_time, "boot_id": boot_id,
                "init_pid": 0, "init_start_time": 0, "state": container.status,
            }  # fmt: skip
            if container.state in {states.RUNNING, states.PAUSED}:
                columns |= {
                    "exit_status": LOST_EXIT_STATUS, "error": LOST_ERROR,
                    "finished_ns": time.time_ns(),
                }  # fmt: skip
                _record_event(connection, "die", container, exitCode=str(LOST_EXIT_STATUS))
            _update(connection, container.id, columns)
        self._release(container.id)
        if container.auto_remove or container.state == states.REMOVING:
            self._begin_removal(container.id)
            self._finish_removal(container.id)
            return None
        with self._store.transaction() as connection:
            _update(connection, container.id, dict(_NO_PROCESS))
            return self._row(connection, container.id)

    def _release(self, container_id: str) -> None:
        """Release what a dead monitor held for its container."""
        from ketch import cgroups  # noqa: PLC0415 - only for what was left behind

        try:
            path = f"{self._settings.container_directory(container_id)}/config.json"
            with open(path, encoding="utf-8") as file:
                cgroup = cgroups.manager(json.load(file)["linux"]["cgroupsPath"], cgroups.detect())
        except (FileNotFoundError, ValueError, KeyError):
            pass  # written before the cgroup is made
        else:
            cgroup.kill()
            cgroup.delete(empty_parents=1)
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM lease WHERE container_id = ?", (container_id,))
        remove_tree(self._settings.runtime_directory(container_id))

    def _begin_removal(self, container_id: str) -> None:
        with self._store.transaction() as connection:
            container = self._row(connection, container_id)
            pid, start_time, boot_id = self._myself()
            if container.status == states.REMOVING and container.monitor_pid not in {0, pid}:
                raise ConflictError(f"removal of container {container.name} is already in progress")
            columns: dict[str, int | str] = {
                "state": states.next_state(container.status, "remove"), "boot_id": boot_id,
                "monitor_pid": pid, "monitor_start_time": start_time,
            }  # fmt: skip
            _update(connection, container_id, columns)

    def _finish_removal(self, container_id: str) -> None:
        # The record goes last, so that whatever remains when this is interrupted is found again.
        try:
            remove_tree(self._settings.container_directory(container_id))
        except OSError as error:
            message = f"container {container_id}: cannot remove its directory: {error}"
            self._mark(container_id, "remove-failed", error=message, **_NO_PROCESS)
            raise UnavailableError(
                message, "remove what is mounted there, then try again"
            ) from error
        with self._store.transaction() as connection:
            container = self._row(connection, container_id)
            connection.execute("DELETE FROM container WHERE id = ?", (container_id,))
            _record_event(connection, "destroy", container)

    def _last_exit_status(self, container_id: str) -> int:
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT attributes FROM event WHERE actor_id = ? AND action = 'die'"
                " ORDER BY id DESC LIMIT 1",
                (container_id,),
            ).fetchone()
        return int(json.loads(row["attributes"])["exitCode"]) if row else LOST_EXIT_STATUS

    # Processes

    def _send(self, container: Container, number: int) -> bool:
        """Send a signal to a container's first process; returns whether there was one."""
        with open_process(container.init_pid, container.init_start_time) as pidfd:
            if pidfd is None:
                return False
            try:
                pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return False
            return True

    def _await_end(self, container: Container, timeout_seconds: float | None) -> Container | None:
        """Wait until the end of a container is on record, so that ``ps`` shows it.

        Returns:
            The container, or None when it is gone altogether.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause_ms = 1
        with open_process(container.monitor_pid, container.monitor_start_time) as pidfd:
            while True:
                current = self._read(container.id)
                if current is not None:
                    current = self._settle(current)
                if current is None or not current.is_active:
                    return current
                if deadline is not None and time.monotonic() > deadline:
                    raise UnavailableError(
                        f"container {container.id} has not ended within "
                        f"{timeout_seconds:.0f} seconds",
                        f"look at its monitor, process {current.monitor_pid}",
                    )
                await_readable(pidfd, pause_ms)
                pause_ms = min(pause_ms * 2, 100)

    def _await_removal(self, container: Container) -> None:
        deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
        with open_process(container.monitor_pid, container.monitor_start_time) as pidfd:
            while (current := self._read(container.id)) and self._settle(current):
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"container {container.id} is not removed by its monitor, "
                        f"process {container.monitor_pid}"
                    )
                await_readable(pidfd, 5)


_HEXADECIMAL = frozenset("0123456789abcdef")
_NO_PROCESS: "dict[str, int]" = {
    "init_pid": 0, "init_start_time": 0, "monitor_pid": 0, "monitor_start_time": 0,
}  # fmt: skip
_EVENT_NAMES = {"start": "start", "exit": "die", "exit-to-restart": "die"}
_FIRST_STEP = {
    states.RUNNING: "stop the container before removing or force remove",
    states.RESTARTING: "stop the container before removing or force remove",
    states.PAUSED: "unpause the container before removing or force remove",
}


def _no_such(reference: str) -> NotFoundError:
    return NotFoundError(f"No such container: {reference}")


def _holder(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute("SELECT id FROM container WHERE name = ?", (name,)).fetchone()
    return row["id"] if row else ""


def _update(
    connection: sqlite3.Connection, container_id: str, columns: "dict[str, int | str]"
) -> None:
    assignments = ", ".join(f"{column} = ?" for column in columns)
    connection.execute(
        f"UPDATE container SET {assignments} WHERE id = ?", (*columns.values(), container_id)
    )


def _record_event(
    connection: sqlite3.Connection, action: str, container: Container, **attributes: str
) -> None:
    labels = container.record.get("Config", {}).get("Labels") or {}
    named = {**labels, "image": container.image_reference, "name": container.name, **attributes}
    events.record(connection, "container", action, container.id, named)


def _await_init(container: Container, timeout_seconds: float | None) -> bool:
    """Wait for the end of a container's first process; returns whether it came in time."""
    with open_process(container.init_pid, container.init_start_time) as pidfd:
        if pidfd is None:
            return True
        milliseconds = None if timeout_seconds is None else int(timeout_seconds * 1000)
        return await_readable(pidfd, milliseconds)
