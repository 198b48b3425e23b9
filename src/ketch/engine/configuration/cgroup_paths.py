"""Where a container's control group is: as its start has written it down."""

import json

from ketch import cgroups
from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings


def manager(settings: "Settings", container: "Container") -> cgroups.Manager:
    """Returns what speaks for a container's control group.

    Args:
        settings: the engine's places.
        container: the container, which has been started.

    Raises:
        UnavailableError: it was never started, or has been removed.
    """
    path = f"{settings.container_directory(container.id)}/config.json"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(f"container {container.id} has no control group") from error
    init = container.init_pid, container.init_start_time
    return cgroups.manager(found, cgroups.usable(found), init)
