"""What is asked of another OCI runtime about a container that it runs."""

import os
from contextlib import suppress

from ketch.engine import mishaps
from ketch.engine.configuration import runtimes
from ketch.errors import KetchError, UnavailableError
from ketch.linux.removetree import remove_tree
from ketch.runtime.driving import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings


def of(settings: "Settings", container_id: str) -> Runtime:
    """Returns the runtime that a container was started by.

    Raises:
        UnavailableError: nobody knows which.
    """
    words = runtimes.kept(settings, container_id)
    if not words:
        raise UnavailableError(f"the runtime of container {container_id} is not known any more")
    state = f"{runtimes.directory_of(settings, container_id)}/state"
    return Runtime(words, state, container_id)


def forget(settings: "Settings", container_id: str) -> None:
    """Have a container's runtime let go of it, and remove what it kept whether it does or not."""
    if runtimes.kept(settings, container_id):
        try:
            of(settings, container_id).delete()
        except (KetchError, OSError) as error:
            mishaps.note(f"have the runtime of container {container_id} forget it", error)
    remove_tree(runtimes.directory_of(settings, container_id))
    with suppress(OSError):  # its monitor listens there, or it is gone
        os.rmdir(settings.runtime_directory(container_id))
