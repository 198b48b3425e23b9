"""A spare: a monitor and its helper that are forked before anybody asks for something.

Much of what a start takes is pages of the zygote's that its starter writes to, if only the count of
an object's users, each copied by a fault of its own; the two forks come before. While nobody asks,
the zygote has one spare do all that, and hands the next caller's connection to it::

    zygote ──connection──▶ monitor ──word, connection──▶ helper

The helper is a starter, or does by itself what takes no monitor. A spare serves one caller, has
nothing from an earlier one, since it is forked by the zygote's own loop, and is as old as its code:
when the zygote leaves, or executes itself anew, both ends of the spare find nobody there and leave.
"""

import _socket
import os

from ketch.engine.monitor import handover
from ketch.linux import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[_socket.socket, handover.Channel | None], None]
    Helper = tuple[int, handover.Channel]

# Names of processes.
SPARE = b"ketch-spare"
MONITOR = b"ketch-monitor"

# What a helper is told: to whom its caller is left.
_BESIDE_MONITOR = b"m"
_ALONE = b"a"
_GIVEN = b"g"


class Spare:
    """The zygote's end of one spare at most."""

    __slots__ = ("_channel",)

    def __init__(self) -> None:
        self._channel: handover.Channel | None = None

    @property
    def waits(self) -> bool:
        """Whether there is one, as far as is known."""
        return self._channel is not None

    def make(self, live: "Callable[[handover.Channel], None]") -> None:
        """Fork one, if that can be done.

        Args:
            live: the forked process's life, given where its caller will come. It does not return.
        """
        ours, theirs = handover.Channel.pair()
        try:
            if os.fork() == 0:
                ours.close()
                live(theirs)
        except OSError:  # as in serving.stand_by
            ours.close()
            return
        finally:
            theirs.close()
        self._channel = ours

    def hand(self, connection: _socket.socket) -> bool:
        """Hand a caller over to the spare; returns whether there was one."""
        if self._channel is None:
            return False
        try:
            self._channel.pass_on(_GIVEN, connection.fileno())
        except OSError:  # it was killed
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Have the spare leave, unless it has been handed a caller."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def receive(channel: handover.Channel) -> _socket.socket | None:
    """Wait for a caller, as a spare's monitor; None when none will come."""
    _, raw = channel.take()
    channel.close()
    return _connection(raw) if raw else None


def fork_helper(work: "Work", written: memory.Written, reception: handover.Channel) -> "Helper":
    """Fork the helper, which makes what helpers before it have written to its own, and waits.

    Args:
        work: what it does with the connection that it is handed, beside its monitor by a channel
            to that, or alone.
        written: what they have written to.
        reception: where a caller will come to the monitor. Nobody else may hold that, or the zygote
            would not see that the monitor was killed.

    Returns:
        Its pid, and the monitor's end of the channel.
    """

    def help_(channel: handover.Channel) -> None:
        reception.close()
        _help(channel, work, written)

    return handover.fork(help_)


def _help(channel: handover.Channel, work: "Work", written: memory.Written) -> None:
    written.copy()
    word, raw = channel.take()
    if not raw:
        return
    if word == _BESIDE_MONITOR:
        work(_connection(raw), channel)
    else:
        channel.close()
        set_name(MONITOR)
        work(_connection(raw), None)
    written.note()


def hand_start(helper: "Helper | None", connection: _socket.socket) -> "Helper | None":
    """Have the helper begin what the caller then watches over; None where there is no helper."""
    return helper if helper and _ask(helper, _BESIDE_MONITOR, connection) else None


def hand_all(helper: "Helper | None", connection: _socket.socket) -> bool:
    """Have the helper do all that is asked for; returns, once that is done, whether it was there.

    It is waited for by who forked it, since not everywhere somebody ends orphans.
    """
    if helper is None:
        return False
    pid, channel = helper
    asked = _ask(helper, _ALONE, connection)
    if asked:
        channel.close()
        connection.close()
        os.waitpid(pid, 0)
    else:
        set_name(MONITOR)
    return asked


def _ask(helper: "Helper", word: bytes, connection: _socket.socket) -> bool:
    """Hand a connection to the helper; returns whether that is there."""
    pid, channel = helper
    try:
        channel.pass_on(word, connection.fileno())
    except OSError:  # it was killed
        channel.close()
        os.waitpid(pid, 0)
        return False
    return True


def _connection(raw: bytes) -> _socket.socket:
    return _socket.socket(fileno=memoryview(raw).cast("i")[0])


def set_name(name: bytes) -> None:
    """Set the process's name by the barest means: it is a page of memory for each object used."""
    descriptor = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(descriptor, name)
    os.close(descriptor)
