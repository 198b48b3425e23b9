"""Who does what a client asks for: a monitor and its starter, or a process alone."""

import _socket

from ketch.engine.monitor import execution, handover, requests, spare
from ketch.engine.monitor.monitor import Monitor
from ketch.linux import memory, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# What a request for a container's start begins with: see wire.encode.
_STARTS = (b"action\0srun\0", b"action\0sstart\0")
_LASTING = b"action\0sexec-lasting\0"
_PEEK_BYTES = 32


def _monitor() -> Monitor:
    spare.set_name(spare.MONITOR)
    return Monitor()


def stand_by(
    written: memory.Written,
    channel: handover.Channel,
    help_: "spare.Work | None" = None,
    make: "Callable[[], Monitor]" = _monitor,
) -> None:
    """Do what one client asks for, which has not come yet; see ``spare``.

    Args:
        written: which pages are worth to be copied beforehand.
        channel: where its connection will come; closed when none will.
        help_: what the helper does.
        make: makes the monitor of a container, and has the process called one.
    """
    try:
        helper = spare.fork_helper(help_ or _help, written, channel)
    except OSError:  # no memory, no process: whoever asks next is told, if it is still so
        return
    connection = spare.receive(channel)
    if connection is not None:
        serve(connection, helper, make)


def _help(connection: "_socket.socket", channel: handover.Channel | None) -> None:
    if channel is not None:
        process.set_name("ketch-starter")
    requests.serve(connection, channel)


def serve(
    connection: "_socket.socket",
    helper: "spare.Helper | None" = None,
    make: "Callable[[], Monitor]" = _monitor,
) -> None:
    """Do what one client asks for.

    Args:
        connection: to the client; its request has not been read yet.
        helper: who was forked for it beforehand, None where nobody was.
        make: makes the monitor of a container, and has the process called one.
    """
    try:
        seen = connection.recv(_PEEK_BYTES, _socket.MSG_PEEK)
    except OSError:
        seen = b""
    if seen[8:].startswith(_STARTS):
        make().run(connection, spare.hand_start(helper, connection))
    elif seen[8:].startswith(_LASTING):
        spare.set_name(spare.MONITOR)
        execution.last(connection, requests.serve, spare.hand_start(helper, connection))
    elif not spare.hand_all(helper, connection):
        requests.serve(connection)
