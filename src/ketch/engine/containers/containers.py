"""What can be done to containers from outside, by anybody.

What their monitors record is read, their first process is signalled, and then it is waited until
the monitor has recorded the rest. Nothing here needs the monitor to be alive.
"""

import json
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from signal import SIGKILL, SIGTERM, pidfd_send_signal

from ketch.cgroups import telling as cgroup_telling
from ketch.engine.containers import telling
from ketch.engine.containers.ledger import (
    RECORD_TIMEOUT_SECONDS,
    Ledger,
    StartedMeanwhileError,
)
from ketch.engine.containers.releasing import release
from ketch.engine.processes import await_readable, open_process
from ketch.engine.records import rows, states
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnavailableError,
)
from ketch.spec import runtime_names, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from ketch import cgroups
    from ketch.engine.records.rows import Columns, Container

STOP_TIMEOUT_SECONDS = 10
WAIT_CONDITIONS = ("not-running", "next-exit", "removed")
_LONGEST_PAUSE_MS = 100
# Of the time that a removal has been waited for, how long until it is looked for again.
_REMOVAL_PART = 8
# Each that runs is finished by a process of some megabytes.
_REMOVED_AT_ONCE = 16
_FORCED_AT_ONCE = (states.RUNNING, states.PAUSED)


class Containers(Ledger):
    """The containers of one engine."""

    __slots__ = ()

    def kill(self, reference: str, signal: str = "KILL") -> None:
        """Send a signal to a container's first process; with SIGKILL, wait for its end.

        A signal that is meant to end it lets a paused container go on, and keeps its restart policy
        from starting it again.

        Raises:
            NotFoundError: no such container.
            ConflictError: it is not running.
            InvalidArgumentError: no such signal.
        """
        try:
            number = signals.number(signal)
        except InvalidArgumentError as error:
            message = f"cannot kill container: {reference}: {error.message}"
            raise InvalidArgumentError(message, error.hint) from error
        container = self.find(reference)
        config = container.record.get("Config", {})
        ends = number == SIGKILL or number == signals.number(config.get("StopSignal") or "KILL")
        ends |= not config.get("StopSignal")
        with self._ends_told([container] if number == SIGKILL else []):
            if container.status not in {states.RUNNING, states.PAUSED} or not self._signal(
                container, number, on_end="stay" if ends else "", thaw=ends
            ):
                raise ConflictError(
                    f"cannot kill container: {reference}: container {container.id} is not running",
                    "there is nothing to send a signal to; ketch start starts it",
                )
            if number == SIGKILL:
                self._await_end(container, RECORD_TIMEOUT_SECONDS)

    def stop(
        self,
        reference: str,
        timeout_seconds: int | None = None,
        signal: str = "",
        *,
        on_end: str = "stay",
    ) -> None:
        """Ask a container's program to end, kill it when it does not, wait for its end.

        Args:
            reference: the container; one that does not run is left alone.
            timeout_seconds: how long to wait before SIGKILL, -1 for ever; None for the
                container's own, or ten seconds.
            signal: what to ask with; the container's own, or SIGTERM, where empty.
            on_end: see ``Container.on_end``.

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
        if not container.is_active or self._call_off(container):
            return
        if container.status == states.RESTARTING:
            container = self.find(container.id)  # it runs by now
        limit = None if timeout_seconds < 0 else float(timeout_seconds)
        with self._ends_told([container]):
            if self._signal(container, number, on_end=on_end, thaw=True):
                self._settings.tell(telling.of_waiting, container, timeout_seconds)
                if not self._await_init(container, limit):
                    self._signal(container, SIGKILL, on_end=on_end, thaw=True)
            self._await_end(container, RECORD_TIMEOUT_SECONDS, on_end)
        with suppress(NotFoundError):
            self.note(container.id, "stop")
            self._settings.tell(telling.of_note, container, "stop", {})

    def pause(self, reference: str) -> None:
        """Hold all processes of a running container.

        Raises:
            NotFoundError: no such container.
            ConflictError: it does not run, or is paused already.
        """
        container = self.find(reference)
        if container.status == states.PAUSED:
            raise ConflictError(f"Container {container.id} is already paused")
        if container.status == states.RESTARTING:
            raise ConflictError(f"Container {container.id} is restarting, wait until it is running")
        if container.status != states.RUNNING:
            raise ConflictError(f"Container {container.id} is not running", "ketch start starts it")
        cgroup = self.cgroup(container)
        cgroup.freeze()
        self._settings.tell(cgroup_telling.of_freezing, cgroup, frozen=True)
        self.note(container.id, "pause")
        self._settings.tell(telling.of_note, container, "pause", {})

    def unpause(self, reference: str) -> None:
        """Let the processes of a paused container go on.

        Raises:
            NotFoundError: no such container.
            ConflictError: it is not paused.
        """
        container = self.find(reference)
        if container.status != states.PAUSED:
            raise ConflictError(f"Container {container.id} is not paused")
        cgroup = self.cgroup(container)
        cgroup.thaw()
        self._settings.tell(cgroup_telling.of_freezing, cgroup, frozen=False)
        self.note(container.id, "unpause")
        self._settings.tell(telling.of_note, container, "unpause", {})

    def wait(self, reference: str, condition: str = "not-running") -> int:
        """Wait for a container; returns its exit status.

        Args:
            reference: the container.
            condition: what to wait for: ``not-running``, which may be so already; ``next-exit``,
                the next time that it ends; ``removed``.

        Raises:
            NotFoundError: no such container.
            InvalidArgumentError: no such condition.
        """
        if condition not in WAIT_CONDITIONS:
            raise InvalidArgumentError(f'invalid condition: "{condition}"')
        container = self.find(reference)
        if condition == "removed":
            return self._await_removal(container, None)
        if condition == "next-exit" and not container.is_active:
            container = self._await_start(container)
        if not container.is_active:
            return container.exit_status
        self._await_init(container, None)
        return self._await_exit(container)

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container: its writable layer, its log, its record.

        Args:
            reference: the container.
            force: whether to kill it first if it is active.
            volumes: whether its anonymous volumes go with it.

        Raises:
            NotFoundError: no such container.
            ConflictError: it is active, or somebody else is removing it.
            UnavailableError: its directory cannot be removed; the container is then ``dead``.
        """
        deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
        container = self.find(reference)
        while True:
            if container.is_active:
                if not force:
                    raise ConflictError(
                        f'cannot remove container "/{container.name}": container is '
                        f"{container.status}: {_FIRST_STEP[container.status]}"
                    )
                if self._end_by_force(container):
                    return
            try:
                self._begin_removal(container.id)
                break
            except StartedMeanwhileError:
                # By its restart policy, after its end and before it could be told to stay.
                if not force or time.monotonic() > deadline:
                    raise
            container = self.find(container.id)
        self._finish_removal(container.id, volumes=volumes)

    def remove_each(
        self, references: "Iterable[str]", *, force: bool = False, volumes: bool = False
    ) -> "Iterator[tuple[str, KetchError | None]]":
        """Remove containers, many at a time; see ``remove``.

        What is to be killed is killed together, so that their monitors finish side by side, and
        records are changed for many in one transaction.

        Yields:
            Each reference, in order, with why it is still there, or None.
        """
        left = iter(references)
        while some := list(islice(left, _REMOVED_AT_ONCE)):
            # One process alone may wait for another one, and has its own words for what is wrong.
            done = self._remove_plain(some, force=force, volumes=volumes) if len(some) > 1 else {}
            for reference in some:
                try:
                    if reference not in done:
                        self.remove(reference, force=force, volumes=volumes)
                    elif failure := done.pop(reference):
                        raise failure
                except KetchError as error:
                    yield reference, error
                else:
                    yield reference, None

    def cgroup(self, container: "Container") -> "cgroups.Manager":
        """The cgroup of a container that runs."""
        from ketch.engine.configuration import cgroup_paths  # noqa: PLC0415 - few commands need it

        return cgroup_paths.manager(self._settings, container)

    # How it is done

    def _remove_plain(
        self, references: "Iterable[str]", *, force: bool, volumes: bool
    ) -> "dict[str, KetchError | None]":
        """Remove those containers of which nothing needs to be waited for but their end.

        Returns:
            Why they are still there, or None, by reference. Others are not in it.
        """
        chosen: dict[str, Container] = {}
        for reference in references:
            with suppress(KetchError):
                container = self.find(reference)
                plain = not container.is_active or (force and container.status in _FORCED_AT_ONCE)
                if plain and all(container.id != other.id for other in chosen.values()):
                    chosen[reference] = container
        outcomes: dict[str, KetchError | None] = {}
        running = [container for container in chosen.values() if container.is_active]
        with self._ends_told(running):
            self._kill_all(running)
            for reference, container in list(chosen.items()):
                if container.is_active:
                    with _told_in(outcomes, reference):
                        if self._await_forced_end(container):
                            outcomes[reference] = None
        left = {name: each for name, each in chosen.items() if name not in outcomes}
        with self._store.transaction() as connection:
            claimed = [name for name, each in left.items() if self._claims(connection, each.id)]
        for reference in claimed:
            with _told_in(outcomes, reference):
                self._clear(left[reference].id)
        cleared = [left[reference] for reference in claimed if reference not in outcomes]
        with self._store.transaction() as connection:
            cleared = [self._forget(connection, container.id) for container in cleared]
        for container in cleared:
            self._forget_volumes(container, volumes=volumes)
        return outcomes | {name: None for name in claimed if name not in outcomes}

    def _claims(self, connection: "sqlite3.Connection", container_id: str) -> bool:
        """Become the keeper of a container to remove it, if that can be at once."""
        try:
            container = rows.select(connection, container_id, self._boot_id)
        except NotFoundError:
            return False
        if self._is_kept(container) or container.is_active:
            return False
        self._claim_removal(connection, container)
        return True

    def _kill_all(self, running: "list[Container]") -> None:
        with ExitStack() as opened:
            targets = []
            for container in running:
                pidfd = opened.enter_context(
                    open_process(container.init_pid, container.init_start_time)
                )
                if pidfd is not None:
                    targets.append((container, pidfd))
            columns: Columns = {"stopped_by_hand": 1, "on_end": "stay"}
            with self._store.transaction() as connection:
                for container, _ in targets:
                    rows.update(connection, container.id, columns)
                    rows.record_event(connection, "kill", container, signal=str(int(SIGKILL)))
            for container, pidfd in targets:
                with suppress(ProcessLookupError):
                    pidfd_send_signal(pidfd, SIGKILL)
                self._settings.tell(telling.of_note, container, "kill", columns)
                self._settings.tell(telling.of_signal, container, int(SIGKILL))
                self._thaw_if_paused(container)

    def _end_by_force(self, container: "Container") -> bool:
        """Kill a container, and wait until it has ended; returns whether it is gone with that."""
        if self._call_off(container):
            return self._await_forced_end(container)
        if container.status == states.RESTARTING:
            container = self.find(container.id)  # it runs by now
        with self._ends_told([container]):
            self._signal(container, SIGKILL, on_end="stay", thaw=True)
            return self._await_forced_end(container)

    def _await_forced_end(self, container: "Container") -> bool:
        """Wait for the end of a container that was killed; returns whether it is gone with that."""
        if not container.auto_remove:
            ended = self._await_end(container, RECORD_TIMEOUT_SECONDS)
            if ended is not None and not ended.auto_remove:
                return False
        # Its monitor removes it, or has done so; and nobody starts such a one again.
        self._await_removal(container, RECORD_TIMEOUT_SECONDS)
        return True

    def _signal(self, container: "Container", number: int, *, on_end: str, thaw: bool) -> bool:
        """Send a signal to a container's first process; returns whether there was one.

        Args:
            container: the container.
            number: the signal.
            on_end: what is to be left out at its end, on record before that can come.
            thaw: whether a container that is paused is to go on, so that it can act on it.
        """
        with open_process(container.init_pid, container.init_start_time) as pidfd:
            if pidfd is None:
                return False
            columns: Columns = {"stopped_by_hand": 1}
            if on_end:
                columns["on_end"] = on_end
            try:
                self.note(container.id, "kill", columns=columns, signal=str(number))
                self._settings.tell(telling.of_note, container, "kill", columns)
                if runtime_names.is_other(container.record) and number != SIGKILL:
                    self._ask_runtime(container, number, pidfd)
                else:
                    pidfd_send_signal(pidfd, number)
            except (ProcessLookupError, NotFoundError):
                return False
            self._settings.tell(telling.of_signal, container, number)
            if thaw:
                self._thaw_if_paused(container)
            return True

    def _ask_runtime(self, container: "Container", number: int, pidfd: int) -> None:
        """Have another runtime send a signal: the process may be its own, and the program in it."""
        from ketch.engine.containers import driven  # noqa: PLC0415 wanted by few

        try:
            driven.of(self._settings, container.id).kill(number)
        except UnavailableError:
            if not await_readable(pidfd, 0):  # else it has just ended
                raise

    def _thaw_if_paused(self, container: "Container") -> None:
        if container.status == states.PAUSED:
            with suppress(KetchError, OSError):
                cgroup = self.cgroup(container)
                cgroup.thaw()
                self._settings.tell(cgroup_telling.of_freezing, cgroup, frozen=False)

    def _ends_told(self, running: "Iterable[Container]") -> "AbstractContextManager[None]":
        """Have the ends that a block gives to containers told to who asks for that."""
        if not self._settings.say:
            return nullcontext()
        from ketch.engine.containers import ends  # noqa: PLC0415 - seldom wanted

        return ends.heard(self._settings, running)

    def _call_off(self, container: "Container") -> bool:
        """Keep a container that waits for its restart from it; returns whether it was waiting."""
        if container.status != states.RESTARTING:
            return False
        with open_process(container.monitor_pid, container.monitor_start_time) as pidfd:
            with self._store.transaction() as connection:
                current = rows.select(connection, container.id, self._boot_id)
                if current.state != states.RESTARTING:
                    return False
                columns: Columns = {
                    "state": states.next_state(current.state, "exit"), "stopped_by_hand": 1,
                    "on_end": "stay", "monitor_pid": 0, "monitor_start_time": 0,
                }  # fmt: skip
                rows.update(connection, container.id, columns)
                rows.record_event(connection, "stop", current)
            if pidfd is not None:
                with suppress(ProcessLookupError):
                    pidfd_send_signal(pidfd, SIGTERM)
                self._settings.tell(telling.of_calling_off, container)
                await_readable(pidfd, 1000 * RECORD_TIMEOUT_SECONDS)
        release(self._settings, self._store, container)
        return True

    def _await_init(self, container: "Container", timeout_seconds: float | None) -> bool:
        """Wait for the end of a container's first process; returns whether it came in time."""
        with open_process(container.init_pid, container.init_start_time) as pidfd:
            if pidfd is None:
                return True
            milliseconds = None if timeout_seconds is None else int(timeout_seconds * 1000)
            return self._patience.wait(milliseconds, pidfd)

    def _await_start(self, container: "Container") -> "Container":
        """Wait until a container has been started again; returns it as it is then or thereafter."""
        pause_ms = 1
        while True:
            current = self.find(container.id)
            if current.is_active or current.started_ns != container.started_ns:
                return current
            self._patience.wait(pause_ms)
            pause_ms = min(pause_ms * 2, _LONGEST_PAUSE_MS)

    def _await_exit(self, container: "Container") -> int:
        """Wait for the record of an end; a container that restarts has ended as well."""
        pause_ms = 1
        with open_process(container.monitor_pid, container.monitor_start_time) as pidfd:
            while True:
                current = self._current(container)
                if current is None:
                    return self._last_exit_status(container.id)
                if not current.is_active or current.started_ns != container.started_ns:
                    return current.exit_status
                if current.status == states.RESTARTING and container.status != states.RESTARTING:
                    return current.exit_status
                self._patience.wait(pause_ms, pidfd)
                pause_ms = min(pause_ms * 2, _LONGEST_PAUSE_MS)

    def _await_end(
        self, container: "Container", timeout_seconds: float, on_end: str = "stay"
    ) -> "Container | None":
        """Wait until the end of a container is on record, so that ``ps`` shows it.

        It may have ended by itself just before it was signalled, and then its policy has it started
        again; that is called off, or the program that runs by then is killed.

        Args:
            container: the container as it was when it was signalled.
            timeout_seconds: how long to wait.
            on_end: as ``_signal`` takes it.

        Returns:
            The container, which somebody else may have started since; None when it is gone.
        """
        deadline = time.monotonic() + timeout_seconds
        pause_ms = 1
        run = container
        with open_process(container.monitor_pid, container.monitor_start_time) as pidfd:
            while True:
                current = self._current(container)
                if current is None or not current.is_active or not _same_keeper(current, run):
                    return current
                if current.status == states.RESTARTING:
                    self._call_off(current)
                elif current.started_ns != run.started_ns:
                    run = current
                    self._signal(run, SIGKILL, on_end=on_end, thaw=True)
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"container {container.id} has not ended within "
                        f"{timeout_seconds:.0f} seconds",
                        f"look at its monitor, process {current.monitor_pid}",
                    )
                self._patience.wait(pause_ms, pidfd)
                pause_ms = min(pause_ms * 2, _LONGEST_PAUSE_MS)

    def _await_removal(self, container: "Container", timeout_seconds: float | None) -> int:
        """Wait until a container is gone; returns what it ended with."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        status = container.exit_status
        began = time.monotonic()
        while (current := self._current(container)) is not None:
            status = current.exit_status
            if deadline is not None and time.monotonic() > deadline:
                raise UnavailableError(
                    f"container {container.id} is not removed by its monitor, "
                    f"process {container.monitor_pid}"
                )
            # So that it is noticed late by a part of the time that it took; inotify(7) would tell
            # at once, and closing its queue waits for the kernel by more than that gains.
            waited_ms = int((time.monotonic() - began) * 1000)
            self._patience.wait(min(max(waited_ms // _REMOVAL_PART, 1), _LONGEST_PAUSE_MS))
        return self._last_exit_status(container.id) if container.started_ns else status

    def _current(self, container: "Container") -> "Container | None":
        try:
            current = self.read(container.id)
        except NotFoundError:
            return None
        return self._settle(current)

    def _last_exit_status(self, container_id: str) -> int:
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT attributes FROM event WHERE actor_id = ? AND action = 'die'"
                " ORDER BY id DESC LIMIT 1",
                (container_id,),
            ).fetchone()
        return int(json.loads(row["attributes"])["exitCode"]) if row else rows.LOST_EXIT_STATUS


_FIRST_STEP = {
    states.RUNNING: "stop the container before removing or force remove",
    states.RESTARTING: "stop the container before removing or force remove",
    states.PAUSED: "unpause the container before removing or force remove",
}


@contextmanager
def _told_in(
    outcomes: "dict[str, KetchError | None]", reference: str
) -> "Generator[None, None, None]":
    """Keep what goes wrong in the block, under a reference."""
    try:
        yield
    except KetchError as error:
        outcomes[reference] = error


def _same_keeper(one: "Container", other: "Container") -> bool:
    """Whether the same process was in charge of a container at two moments."""
    return (one.monitor_pid, one.monitor_start_time) == (
        other.monitor_pid, other.monitor_start_time,
    )  # fmt: skip
