"""Stopping a container and starting it again, as somebody asks for it."""

from ketch.engine.requests.starts import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.containers.containers import Containers
    from ketch.engine.settings import Settings


def restart(
    settings: "Settings",
    containers: "Containers",
    reference: str,
    timeout_seconds: int | None = None,
    signal: str = "",
) -> None:
    """Stop a container, if it runs, and start it.

    Args:
        settings: the engine's places.
        containers: the engine's containers.
        reference: the container.
        timeout_seconds: as ``Containers.stop`` takes it.
        signal: as ``Containers.stop`` takes it.

    Raises:
        KetchError: as ``Containers.stop`` and ``start`` do.
    """
    container = containers.find(reference)
    # It is not to be removed in between, even if it is to be once it ends.
    containers.stop(container.id, timeout_seconds, signal, on_end="keep")
    start(settings, container.id)
    containers.note(container.id, "restart")
