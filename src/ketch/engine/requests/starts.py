"""Starting and saving containers from any process: ask for who does it, hear that it is done.

For those who do not attach; see ``wire`` for those who do.
"""

from ketch.engine.requests import launch, wire
from ketch.errors import UnavailableError
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

_CHUNK_BYTES = 64 * 1024


def start(
    settings: "Settings",
    reference: str,
    checkpoint: str = "",
    directory: str = "",
) -> str:
    """Start a container that exists; returns its identifier once its program runs.

    Args:
        settings: the engine's places.
        reference: the container.
        checkpoint: name of the checkpoint that it is to go on from, or empty.
        directory: where that is, empty for the container's own.

    Raises:
        NotFoundError: no such container.
        NotModifiedError: it runs already.
        ConflictError: it is paused or being removed.
        StartError: its program cannot be run.
        KetchError: something that it needs cannot be had.
    """
    fields: dict[str, wire.Value] = {
        "action": "start", "container": reference,
        "checkpoint": checkpoint, "checkpoint-dir": directory,
    }  # fmt: skip
    return _ask(settings, fields, wire.STARTED)


def checkpoint(
    settings: "Settings", reference: str, name: str, directory: str, *, leave_running: bool
) -> None:
    """Save a running container; see ``checkpoints.create``."""
    fields: dict[str, wire.Value] = {
        "action": "checkpoint", "container": reference, "checkpoint": name,
        "checkpoint-dir": directory, "leave-running": leave_running,
    }  # fmt: skip
    _ask(settings, fields, wire.EXIT)


def _ask(settings: "Settings", fields: "dict[str, wire.Value]", awaited: int) -> str:
    """Ask a process for something; returns what comes with the frame that says that it is done.

    What it tells of its steps is told to who asks what is done.
    """
    fields |= {**settings.fields, "--explain": settings.say is not None}
    connection = launch.connect(settings)
    try:
        connection.sendall(wire.frame(wire.REQUEST, wire.encode(fields)))
        decoder = wire.Decoder()
        while data := connection.recv(_CHUNK_BYTES):
            for kind, payload in decoder.feed(data):
                if kind == wire.FAILED:
                    raise wire.error(payload)
                if kind == wire.STEP:
                    settings.tell(Told.decode, payload.decode("utf-8", "surrogateescape"))
                if kind == awaited:
                    return payload.decode()
    except ConnectionError:
        pass
    finally:
        connection.close()
    raise UnavailableError(
        f"the process that was asked about container {fields['container']} has gone",
        f"{launch.ERROR_LOG} in the state directory tells more",
    )
