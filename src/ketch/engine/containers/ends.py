"""What the ends of containers come to, heard from their monitors by who ends them and is asked.

A monitor tells it as it is done, see ``wire``; one that was killed tells nothing, and whoever puts
its container in order tells that of himself.
"""

import contextlib

from ketch.engine.requests import launch, wire
from ketch.errors import ConflictError
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterable, Iterator

    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

_CHUNK_BYTES = 64 * 1024
_BEGIN_SECONDS = 5.0
_END_SECONDS = 30.0


@contextlib.contextmanager
def heard(settings: "Settings", containers: "Iterable[Container]") -> "Iterator[None]":
    """Have the ends that a block gives to containers told behind it.

    Args:
        settings: the engine's places, and who is told.
        containers: those that run.
    """
    with contextlib.ExitStack() as opened:
        listening = []
        for container in containers:
            connection = _listen(settings, container.id)
            if connection is not None:
                opened.callback(connection.close)
                listening.append(connection)
        yield
        for connection in listening:
            connection.settimeout(_END_SECONDS)
            for kind, payload in _frames(connection):
                if kind == wire.STEP and settings.say is not None:
                    settings.say(Told.decode(payload.decode("utf-8", "surrogateescape")))
                elif kind == wire.EXIT:
                    break


def _listen(settings: "Settings", container_id: str) -> "_socket.socket | None":
    """Ask a monitor for it; None where there is none, or it is about to end."""
    try:
        connection = launch.reach_monitor(settings, container_id)
    except ConflictError:
        return None
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        connection.settimeout(_BEGIN_SECONDS)
        try:
            connection.sendall(wire.frame(wire.REQUEST, wire.encode({"action": "end"})))
        except OSError:
            return None
        if next((kind for kind, _ in _frames(connection)), None) != wire.STARTED:
            return None
        undo.pop_all()
        return connection


def _frames(connection: "_socket.socket") -> "Iterator[tuple[int, bytes]]":
    """Yield what comes until the other end is gone, or says nothing for too long."""
    decoder = wire.Decoder()
    with contextlib.suppress(OSError):
        while data := connection.recv(_CHUNK_BYTES):
            yield from decoder.feed(data)
