"""Recording that a container is out of memory while it runs, which need not be its end."""

import os

from ketch.cgroups import oom
from ketch.engine import mishaps
from ketch.engine.containers.ledger import Keeper
from ketch.engine.engine import Engine
from ketch.engine.monitor import handover
from ketch.engine.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.engine.monitor.supervision import Supervisor
    from ketch.engine.requests import wire

    Fields = Mapping[str, wire.Value]

_EVENTS_BYTES = 64 * 1024


class Watch:
    """The monitor's ear for one run's shortages of memory.

    Args:
        fields: what the starter told the monitor.
        supervisor: whose loop it is.
        told: descriptor from ``cgroups.oom.watch``; it stays the caller's.
        counter: likewise.
    """

    __slots__ = ("_counter", "_fields", "_kills", "_supervisor", "_told")

    def __init__(self, fields: "Fields", supervisor: "Supervisor", told: int, counter: int) -> None:
        self._fields = fields
        self._supervisor = supervisor
        self._told = told
        self._counter = counter
        self._kills = 0
        supervisor.watched[told] = self._hear

    def _hear(self) -> None:
        os.read(self._told, _EVENTS_BYTES)
        if self._counter != oom.NO_COUNTER:
            kills = oom.kills(self._counter)
            if kills <= self._kills:
                return  # a limit was hit, and there was something to be had elsewhere
            self._kills = kills
        watched = self._supervisor.watched
        try:
            pid, channel = handover.fork(lambda _channel: record(self._fields))
        except OSError as error:  # no memory for that either
            mishaps.note(f"record that {self._fields['container']} is out of memory", error)
            return

        def done() -> None:
            del watched[channel.fileno()]
            channel.close()
            os.waitpid(pid, 0)

        watched[channel.fileno()] = done


def record(fields: "Fields") -> None:
    """Record it, in a process of the monitor's."""
    engine = Engine(Settings.told(fields), Keeper.parent())
    engine.containers.mark_out_of_memory(str(fields["container"]))
