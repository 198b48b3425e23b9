"""Ending a container whose time is up: the monitor's clock, and the process that looks at it.

How long a container may run, and how long without anybody using it, is on record, and may be
changed while it runs. So when the monitor's alarm rings, a process that it forks looks what is so
by then: it ends the container, or says when to look again.
"""

import math
import os
import time
from contextlib import suppress

from ketch.engine import mishaps
from ketch.engine.engine import Engine
from ketch.engine.monitor import handover
from ketch.engine.monitor.supervision import Alarm
from ketch.engine.records import states
from ketch.engine.records.rows import last_use_ns
from ketch.engine.settings import Settings
from ketch.errors import KetchError
from ketch.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.engine.monitor.supervision import Supervisor
    from ketch.engine.records.rows import Container
    from ketch.engine.requests import wire
    from ketch.engine.requests.client import Client
    from ketch.spec.container import HostConfig

    Fields = Mapping[str, wire.Value]

_SECOND_NS = 10**9
_NEVER_MS = -1
_AGAIN_SECONDS = 1.0  # where nobody could look


class Watch:
    """The monitor's clock of one run's time.

    Args:
        fields: what the starter told the monitor.
        supervisor: whose loop it is.
    """

    __slots__ = ("_alarm", "_ended", "_fields", "_supervisor", "_waiting")

    def __init__(self, fields: "Fields", supervisor: "Supervisor") -> None:
        self._fields = fields
        self._supervisor = supervisor
        self._waiting: list[Client] = []
        self._ended: list[int] = []  # processes that have said all, and are to be reaped
        seconds = int(fields["ends_after"])  # type: ignore[arg-type]
        self._alarm = Alarm(self._look, time.monotonic() + seconds if seconds else None)
        supervisor.alarms.append(self._alarm)
        supervisor.on_times = self._changed

    def _changed(self, client: "Client") -> None:
        """Look now: what is on record has changed."""
        self._waiting.append(client)
        self._alarm.due = time.monotonic()

    def _look(self) -> float | None:
        """Have somebody look; returns None: the end of that says when to do so next."""
        self._ended = [pid for pid in self._ended if os.waitpid(pid, os.WNOHANG)[0] == 0]
        told, self._waiting = self._waiting, []
        try:
            pid, channel = handover.fork(lambda channel: look(self._fields, channel))
        except OSError as error:  # no memory, no process
            mishaps.note(f"look at the time of {self._fields['container']}", error)
            return time.monotonic() + _AGAIN_SECONDS
        watched = self._supervisor.watched

        def done() -> None:
            heard = channel.hear()
            left_ms = _NEVER_MS if heard is None else int(heard[0]["left_ms"])  # type: ignore[arg-type]
            if left_ms != _NEVER_MS:
                due = time.monotonic() + left_ms / 1000
                # Somebody may have changed it once more meanwhile.
                self._alarm.due = due if self._alarm.due is None else min(due, self._alarm.due)
            if heard is not None:
                return
            del watched[channel.fileno()]
            channel.close()
            self._ended.append(pid)  # one that ends the container waits for this very monitor
            for client in told:
                client.ended(0)

        watched[channel.fileno()] = done
        return None


def seconds(resources: "HostConfig") -> int:
    """Returns after how many seconds it is to be looked at first, 0 for never."""
    limits = (resources.get("Timeout", 0), resources.get("IdleTimeout", 0))
    return min((limit for limit in limits if limit), default=0)


def over(
    resources: "HostConfig", started_ns: int, used_ns: int, now_ns: int
) -> "tuple[int | None, str]":
    """Say how much time a container has left. Pure.

    Args:
        resources: what is on record.
        started_ns: when it was started.
        used_ns: when it was last used; ``now_ns`` while it is.
        now_ns: when that is.

    Returns:
        For how many nanoseconds it need not be looked at, 0 where its time is up, None for ever;
        and why, in words.
    """
    left_ns, why = math.inf, ""
    for key, since_ns, words in (
        ("Timeout", started_ns, "its time of {} s is up"),
        ("IdleTimeout", max(started_ns, used_ns), "nobody has used it for {} s"),
    ):
        limit: int = resources.get(key, 0)  # type: ignore[assignment]
        left = since_ns + limit * _SECOND_NS - now_ns
        if limit and left < left_ns:
            left_ns, why = left, words.format(limit)
    return (None if left_ns == math.inf else max(0, int(left_ns))), why


def look(fields: "Fields", channel: handover.Channel) -> None:
    """End a container whose time is up, or say when to look again, in a process of the monitor's.

    Args:
        fields: what the starter told the monitor.
        channel: to the monitor.
    """
    process.set_name("ketch-timer")
    process.close_all_but({0, 1, 2, channel.fileno()})
    engine = Engine(Settings.told(fields))
    container = engine.containers.read(str(fields["container"]))
    if container.status not in {states.RUNNING, states.PAUSED}:
        return
    resources = container.record["HostConfig"]
    now_ns = time.time_ns()
    left_ns, why = over(resources, container.started_ns, _last_use_ns(engine, container), now_ns)
    if left_ns is None:
        channel.tell({"left_ms": _NEVER_MS})
    elif left_ns:
        channel.tell({"left_ms": math.ceil(left_ns / 1e6)})
    else:
        with suppress(OSError):
            channel.close()  # the monitor need not wait for what ends it
        try:
            engine.containers.note(container.id, columns={"error": why})
            engine.containers.kill(container.id)
        except KetchError as error:
            mishaps.note(f"end container {container.id}, for {why}", error)


def _last_use_ns(engine: Engine, container: "Container") -> int:
    if not container.record["HostConfig"].get("IdleTimeout"):
        return 0
    if engine.execs.running(container.id):
        return time.time_ns()
    with engine.store.reading() as connection:
        return last_use_ns(connection, container.id)
