"""The records of containers, and who may change them.

The process in charge of a container, its keeper, records what happens to it; every other process
reads that. The keeper is its monitor while it runs, and else whoever creates, starts or removes it:
one at a time, as their pid and start time in the record say. What a killed keeper left is finished
by whoever next looks at the container.
"""

import json
import os
import sqlite3
import time

from ketch.engine import user_namespaces
from ketch.engine.containers import telling, unrecorded
from ketch.engine.containers.releasing import release
from ketch.engine.processes import ENDLESS, Patience
from ketch.engine.records import events, links, names, rows, states
from ketch.engine.records.rows import Container
from ketch.engine.volumes.uses import forget_container
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    KetchError,
    NotFoundError,
    NotModifiedError,
    UnavailableError,
    in_words,
)
from ketch.linux import procfs
from ketch.linux.removetree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from ketch.engine.records.rows import Columns
    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings


# How long whoever has begun something with a container may take for it, clean-up included.
RECORD_TIMEOUT_SECONDS = 30

_CLAIM_PAUSE_SECONDS = 0.01


class Keeper:
    """The process in whose name a container is kept: a pid, and its start in clock ticks.

    Args:
        pid: the process; the calling one where 0.
    """

    __slots__ = ("pid", "start_time")

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid or os.getpid()
        self.start_time = procfs.process_start_time(self.pid) or 0

    @classmethod
    def parent(cls) -> "Self":
        """The process that forked the caller: a monitor."""
        return cls(os.getppid())


class StartedMeanwhileError(ConflictError):
    """A container that was to be removed runs."""


class Ledger:
    """The records of one engine's containers.

    Args:
        settings: the engine's places.
        store: the engine's database.
        keeper: in whose name the caller works; its own where None.
        patience: how the caller waits for what may take long.
    """

    __slots__ = ("_boot_id", "_keeper", "_patience", "_settings", "_store")

    def __init__(
        self,
        settings: "Settings",
        store: "Store",
        keeper: Keeper | None = None,
        patience: Patience = ENDLESS,
    ) -> None:
        self._settings = settings
        self._store = store
        self._keeper = keeper
        self._patience = patience
        self._boot_id = procfs.boot_id()

    # What is there

    def find(self, reference: str) -> Container:
        """Returns the container with this identifier, name or unique start of an identifier.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: the start fits several.
        """
        with self._store.reading() as connection:
            found = rows.find(connection, reference, self._boot_id)
        container = self._settle(found)
        if container is None or container.state == states.CREATING:
            raise rows.no_such(reference)
        return container

    def read(self, container_id: str) -> Container:
        """Returns a container by its whole identifier, as it is recorded.

        Raises:
            NotFoundError: there is none.
        """
        with self._store.reading() as connection:
            return rows.select(connection, container_id, self._boot_id)

    def list(self, *, all: bool = False) -> "list[Container]":  # noqa: A002 - Docker's word
        """Returns the containers, newest first: all, or those that are active."""
        with self._store.reading() as connection:
            found = rows.every(connection, self._boot_id)
        settled = []
        for container in found:
            try:
                current = self._settle(container)
            except (KetchError, OSError):
                # It is shown as what it is; releasing what it held is tried again next time.
                current = container
            if current is None or current.state == states.CREATING:
                continue
            if all or current.is_active:
                settled.append(current)
        return settled

    # What its keeper says

    def require_free(self, name: str) -> None:
        """Make sure that no container is called so.

        Raises:
            InvalidArgumentError: that is not a name.
            AlreadyExistsError: it is taken.
        """
        with self._store.reading() as connection:
            _free_name(connection, name)

    def create_record(
        self,
        container_id: str,
        *,
        name: str,
        image_id: str,
        image_reference: str,
        record: "dict[str, Any]",
        auto_remove: bool = False,
        ids: int = 0,
    ) -> Container:
        """Record a new container and make its directory; it is not there for others yet.

        Args:
            container_id: from ``names.new_id``.
            name: what the user calls it; one is made up where this is empty.
            image_id: digest of its image's config, or empty.
            image_reference: the image as the user wrote it.
            record: see ``Container.record``.
            auto_remove: whether it goes as soon as it ends.
            ids: how many user and group ids are to be its own.

        Raises:
            InvalidArgumentError: that is not a name.
            AlreadyExistsError: the name is taken.
            UnavailableError: there are no so many ids left.
        """
        with self._store.transaction(begins=True) as connection:
            if name:
                name = _free_name(connection, name)
            else:
                attempt = 0
                while not name or _holder(connection, name):
                    name = names.new_name(attempt)
                    attempt += 1
            keeper = self._myself()
            connection.execute(
                "INSERT INTO container (id, name, image_id, image_reference, created_ns, record,"
                " auto_remove, state, monitor_pid, monitor_start_time, boot_id, id_first, id_count)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (container_id, name, image_id, image_reference, time.time_ns(),
                 json.dumps(record, separators=(",", ":")), auto_remove, states.CREATING,
                 keeper.pid, keeper.start_time, self._boot_id,
                 user_namespaces.choose(connection, ids), ids),
            )  # fmt: skip
            container = rows.select(connection, container_id, self._boot_id)
        # Not before: a directory without a record would never be found again.
        directory = self._settings.container_directory(container_id)
        try:
            os.mkdir(directory, 0o700)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
            os.mkdir(directory, 0o700)
        return container

    def mark_created(
        self, container_id: str, *, keep: bool = False, attached: bool = False
    ) -> Container:
        """Record that a container is whole; returns it as it then is.

        Args:
            container_id: the container.
            keep: whether its keeper goes on to start it.
            attached: whether somebody is attached to it from its start on.
        """
        with self._store.transaction() as connection:
            container = rows.select(connection, container_id, self._boot_id)
            columns: Columns = {"state": states.next_state(container.state, "create")}
            rows.update(connection, container_id, columns if keep else columns | _NO_PROCESS)
            rows.record_event(connection, "create", container)
            if attached:
                rows.record_event(connection, "attach", container)
            return rows.select(connection, container_id, self._boot_id)

    def discard(self, container_id: str) -> None:
        """Take away a container whose creation has failed."""
        self._begin_removal(container_id)
        self._finish_removal(container_id, volumes=True)

    def claim(self, reference: str, *, attached: bool = False) -> Container:
        """Become the keeper of a container that does not run, to start it.

        Whoever has begun something else with it is waited for.

        Args:
            reference: the container's identifier or name.
            attached: whether somebody is attached to it from its start on.

        Raises:
            NotFoundError: no such container.
            NotModifiedError: it is running.
            ConflictError: it is paused or being removed.
            UnavailableError: somebody else does not come to an end with it.
        """
        deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
        while True:
            container = self.find(reference)
            with self._store.transaction() as connection:
                current = rows.select(connection, container.id, self._boot_id)
                _check_startable(current)
                if not self._is_kept(current):
                    keeper = self._myself()
                    columns: Columns = {
                        "monitor_pid": keeper.pid, "monitor_start_time": keeper.start_time,
                        "boot_id": self._boot_id, "stopped_by_hand": 0, "on_end": "",
                        "restart_count": 0,
                    }  # fmt: skip
                    rows.update(connection, container.id, columns)
                    if attached:
                        rows.record_event(connection, "attach", current)
                    return rows.select(connection, container.id, self._boot_id)
            self._wait_for_keeper(current, deadline)

    def resume(self, container_id: str) -> Container:
        """Returns a container that its keeper is about to start again.

        Raises:
            NotFoundError: it is gone.
            ConflictError: somebody has stopped it meanwhile.
        """
        container = self.read(container_id)
        if container.state != states.RESTARTING or not self._is_mine(container):
            raise ConflictError(f"container {container.name} is no longer to be restarted")
        return container

    def mark_started(
        self,
        container_id: str,
        init_pid: int,
        init_start_time: int,
        started_ns: int,
        *,
        freezer: str = "",
        health: str = "",
    ) -> None:
        """Record that the container's program runs.

        Args:
            container_id: the container.
            init_pid: its first process, as the caller sees it.
            init_start_time: that process's start, in clock ticks since boot.
            started_ns: when, in nanoseconds since the epoch.
            freezer: the file that says whether it is paused, or empty.
            health: what is known of its health, as JSON; empty where nobody looks.

        Raises:
            NotFoundError: the container is gone.
            ConflictError: it is running already, was stopped meanwhile, or is being removed.
        """
        self._mark(
            container_id, "start", init_pid=init_pid, init_start_time=init_start_time,
            started_ns=started_ns, exit_status=0, oom_killed=0, error="", freezer=freezer,
            health=health,
        )  # fmt: skip

    def mark_start_failed(self, container_id: str, exit_status: int, error: str) -> None:
        """Record why the program could not be started, and that nobody is in charge any more."""
        self._mark(
            container_id, "start-failed", exit_status=exit_status, error=error, **_NO_PROCESS
        )

    def mark_out_of_memory(self, container_id: str) -> None:
        """Record that a running container is out of memory, for which a process of it is killed.

        Its end says so as well: there, what was told before is not told again.

        Raises:
            NotFoundError: the container is gone.
        """
        with self._store.transaction() as connection:
            container = rows.select(connection, container_id, self._boot_id)
            if container.init_pid:
                rows.update(connection, container_id, {"oom_killed": 1})
                rows.record_event(connection, "oom", container)

    def mark_exited(
        self,
        container_id: str,
        exit_status: int,
        *,
        oom_killed: bool,
        finished_ns: int,
        restarting: bool = False,
        log_entries_lost: int = 0,
    ) -> None:
        """Record that the program ended.

        Whatever the container held at run time (log, cgroup, network, sockets) must be released
        before: from now on it may be started or removed by others. With ``restarting`` the keeper
        stays in charge.

        Args:
            container_id: the container.
            exit_status: 0 to 255; 128 + n for signal n.
            oom_killed: whether the kernel killed one of its processes for want of memory.
            finished_ns: when it ended, in nanoseconds since the epoch.
            restarting: whether the keeper is going to start it again.
            log_entries_lost: how many its log has lost for want of room, told where there are any.

        Raises:
            NotFoundError: the container is gone.
            ConflictError: it was not running.
        """
        with self._store.transaction() as connection:
            container = rows.select(connection, container_id, self._boot_id)
            if oom_killed and not container.oom_killed:
                rows.record_event(connection, "oom", container)
            event = "exit-to-restart" if restarting else "exit"
            columns: Columns = {
                "state": states.next_state(container.state, event),
                "exit_status": exit_status, "oom_killed": int(oom_killed or container.oom_killed),
                "finished_ns": finished_ns, "freezer": "",
                "restart_count": container.restart_count + restarting,
            }  # fmt: skip
            columns |= {"init_pid": 0, "init_start_time": 0} if restarting else _NO_PROCESS
            rows.update(connection, container_id, columns)
            rows.end_sessions(connection, container_id)
            ran_seconds = max(0, finished_ns - container.started_ns) // 10**9
            losses = {"logEntriesLost": str(log_entries_lost)} if log_entries_lost else {}
            rows.record_event(
                connection, "die", container,
                exitCode=str(exit_status), execDuration=str(ran_seconds), **losses,
            )  # fmt: skip

    def note_health(
        self, container: Container, judge: "Callable[[dict[str, Any]], dict[str, Any]]"
    ) -> tuple[str, str] | None:
        """Record what a health check found.

        Args:
            container: the container as it was when the check began.
            judge: makes of what is known of its health what is to be known.

        Returns:
            The status now and before; None where it has ended meanwhile.
        """
        with self._store.transaction() as connection:
            try:
                current = rows.select(connection, container.id, self._boot_id)
            except NotFoundError:
                return None
            known = current.health
            if (
                known is None
                or current.state != states.RUNNING
                or current.started_ns != container.started_ns
            ):
                return None
            found = judge(known)
            rows.update(connection, container.id, {"health": json.dumps(found)})
            if found["Status"] != known["Status"]:
                rows.record_event(connection, f"health_status: {found['Status']}", current)
            return found["Status"], known["Status"]

    def note(self, container_id: str, action: str = "", /, *, columns: "Columns | None" = None,
             **attributes: str) -> None:  # fmt: skip
        """Record an event about a container, or a fact, or both in one transaction."""
        with self._store.transaction() as connection:
            container = rows.select(connection, container_id, self._boot_id)
            if columns:
                rows.update(connection, container_id, columns)
            if action:
                rows.record_event(connection, action, container, **attributes)

    # Records

    def _myself(self) -> Keeper:
        return self._keeper or Keeper()

    def _is_mine(self, container: Container) -> bool:
        keeper = self._myself()
        return (
            container.monitor_pid == keeper.pid
            and container.monitor_start_time == keeper.start_time
        )

    def _is_kept(self, container: Container) -> bool:
        """Whether somebody else is in charge of it."""
        return (
            container.monitor_pid != 0
            and not container.left_behind
            and not self._is_mine(container)
        )

    def _wait_for_keeper(self, container: Container, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"container {container.id} is in the hands of process {container.monitor_pid}",
                "look what that is doing, or end it",
            )
        time.sleep(_CLAIM_PAUSE_SECONDS)

    def _read(self, container_id: str) -> Container | None:
        try:
            with self._store.reading() as connection:
                return rows.select(connection, container_id, self._boot_id)
        except NotFoundError:
            return None

    def _mark(self, container_id: str, event: str, **columns: int | str) -> None:
        """Change a container's state in the name of its keeper."""
        with self._store.transaction() as connection:
            container = rows.select(connection, container_id, self._boot_id)
            columns["state"] = states.next_state(container.state, event)
            if not self._is_mine(container):
                raise ConflictError(f"container {container.name} has got into other hands")
            rows.update(connection, container_id, columns)
            if event == "start":
                rows.record_event(connection, "start", container)

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
                container = rows.select(connection, container.id, self._boot_id)
            except NotFoundError:
                return None
            if not container.left_behind:
                return container  # it was only ending, or somebody else was quicker
            keeper = self._myself()
            columns: Columns = {
                "monitor_pid": keeper.pid, "monitor_start_time": keeper.start_time,
                "boot_id": self._boot_id, "init_pid": 0, "init_start_time": 0, "freezer": "",
                "state": container.status,
            }  # fmt: skip
            if container.state == states.RUNNING:
                end = unrecorded.end(self._settings, container)
                columns |= end.columns()
                rows.record_event(connection, "die", container, exitCode=str(end.exit_status))
            rows.update(connection, container.id, columns)
        release(self._settings, self._store, container, left_behind=True)
        if container.auto_remove or container.state in {states.REMOVING, states.CREATING}:
            self._begin_removal(container.id)
            self._finish_removal(container.id)
            return None
        with self._store.transaction() as connection:
            rows.update(connection, container.id, dict(_NO_PROCESS))
            rows.end_sessions(connection, container.id)
            return rows.select(connection, container.id, self._boot_id)

    def _begin_removal(self, container_id: str) -> None:
        """Become the keeper of a container that does not run, to remove it.

        Raises:
            StartedMeanwhileError: it runs by now.
            ConflictError: somebody else removes it.
        """
        deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
        while True:
            with self._store.transaction() as connection:
                container = rows.select(connection, container_id, self._boot_id)
                if not self._is_kept(container):
                    self._claim_removal(connection, container)
                    return
                if container.status == states.REMOVING:
                    raise ConflictError(
                        f"removal of container {container.name} is already in progress"
                    )
            if container.is_active:
                raise StartedMeanwhileError(f"container {container.name} was started meanwhile")
            self._wait_for_keeper(container, deadline)

    def _claim_removal(self, connection: sqlite3.Connection, container: Container) -> None:
        keeper = self._myself()
        columns: Columns = {
            "state": states.next_state(container.status, "remove"), "boot_id": self._boot_id,
            "monitor_pid": keeper.pid, "monitor_start_time": keeper.start_time,
        }  # fmt: skip
        rows.update(connection, container.id, columns)

    def _finish_removal(self, container_id: str, *, volumes: bool = False) -> None:
        self._clear(container_id)
        with self._store.transaction() as connection:
            container = self._forget(connection, container_id)
        self._forget_volumes(container, volumes=volumes)

    def _clear(self, container_id: str) -> None:
        """Remove the directory of a container that is being removed.

        Its record goes last, so that whatever remains when this is interrupted is found again.
        """
        directory = self._settings.container_directory(container_id)
        mounted = os.path.exists(f"{directory}/mounted")
        if self._settings.say:
            container = self.read(container_id)
            self._settings.tell(telling.of_removal, container, directory, mounted=mounted)
        try:
            if mounted:
                from ketch.engine.files import mounting  # noqa: PLC0415 wanted by few

                mounting.take_away(directory)
            remove_tree(directory)
        except OSError as error:
            message = f"container {container_id}: cannot remove its directory: {in_words(error)}"
            self._mark(container_id, "remove-failed", error=message, **_NO_PROCESS)
            raise UnavailableError(
                message, "remove what is mounted there, then try again"
            ) from error

    def _forget(self, connection: sqlite3.Connection, container_id: str) -> Container:
        container = rows.select(connection, container_id, self._boot_id)
        connection.execute("DELETE FROM container WHERE id = ?", (container_id,))
        connection.execute("DELETE FROM endpoint WHERE container_id = ?", (container_id,))
        connection.execute("DELETE FROM exec WHERE container_id = ?", (container_id,))
        links.forget(connection, container_id)
        if container.is_whole:
            ended = {events.EXIT_STATUS: str(container.exit_status)}
            rows.record_event(connection, "destroy", container, **ended)
        return container

    def _forget_volumes(self, container: Container, *, volumes: bool) -> None:
        anonymous = volumes or container.auto_remove
        forget_container(self._settings, self._store, container.id, anonymous=anonymous)


_NO_PROCESS: "Columns" = {
    "init_pid": 0, "init_start_time": 0, "monitor_pid": 0, "monitor_start_time": 0,
}  # fmt: skip


def _check_startable(container: Container) -> None:
    if container.status == states.PAUSED:
        raise ConflictError("cannot start a paused container, try unpause instead")
    if container.is_active:
        raise NotModifiedError(f"container {container.name} is already running")
    if container.status in {states.REMOVING, states.DEAD}:
        raise ConflictError("container is marked for removal and cannot be started")


def _free_name(connection: sqlite3.Connection, name: str) -> str:
    """A container's name in its normal form, which no other one has."""
    name = names.check_name(name)
    if holder := _holder(connection, name):
        raise AlreadyExistsError(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )
    return name


def _holder(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute("SELECT id FROM container WHERE name = ?", (name,)).fetchone()
    return row["id"] if row else ""
