"""Starting and saving containers from any process: ask for who does it, hear that it is done.

For those who do not attach; see ``wire`` for those who do.
"""

from ketch.engine.requests import launch, wire
from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.settings import Settings

_CHUNK_BYTES = 64 * 1024


def start(
    settings: "Settings",
    reference: str,
    checkpoint: str = "",
    directory: str = "",
    hear: "Callable[[bytes], object] | None" = None,
) -> str:
    """Start a container that exists; returns its identifier once its program runs.

    Args:
        settings: the engine's places.
        reference: the container.
        checkpoint: name of the checkpoint that it is to go on from, or empty.
        directory: where that is, empty for the container's own.
        hear: takes what is told of each step, as ``told.Told`` encodes it, and nothing at the end.

    Raises:
        NotFoundError: no such container.
        NotModifiedError: it runs already.
        ConflictError: it is paused or being removed.
        StartError: its program cannot be run.
        KetchError: something that it needs cannot be had.
    """
    fields: dict[str, wire.Value] = {
        "action": "start", "container": reference,
        "checkpoint": checkpoint, "checkpoint-dir": directory, "--explain": hear is not None,
    }  # fmt: skip
    return _ask(settings, fields, wire.STARTED, hear)


def checkpoint(
    settings: "Settings", reference: str, name: str, directory: str, *, leave_running: bool
) -> None:
    """Save a running container; see ``checkpoints.create``."""
    fields: dict[str, wire.Value] = {
        "action": "checkpoint", "container": reference, "checkpoint": name,
        "checkpoint-dir": directory, "leave-running": leave_running,
    }  # fmt: skip
    _ask(settings, fields, wire.EXIT)


def _ask(
    settings: "Settings",
    fields: "dict[str, wire.Value]",
    awaited: int,
    hear: "Callable[[bytes], object] | None" = None,
) -> str:
    """Ask a process for something; returns what comes with the frame that says that it is done."""
    fields |= settings.fields
    connection = launch.connect(settings)
    try:
        connection.sendall(wire.frame(wire.REQUEST, wire.encode(fields)))
        decoder = wire.Decoder()
        while data := connection.recv(_CHUNK_BYTES):
            for kind, payload in decoder.feed(data):
                if kind == wire.FAILED:
                    raise wire.error(payload)
                if hear is not None and kind in {wire.STEP, awaited}:
                    hear(payload if kind == wire.STEP else b"")
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
