"""Where a container's control group is: as its start has written it down."""

import json

from ketch import cgroups
from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.layout import Layout
    from ketch.engine.settings import Settings


def manager(
    settings: "Settings", container_id: str, layout: "Layout | None" = None
) -> cgroups.Manager:
    """Returns what speaks for a container's control group.

    Args:
        settings: the engine's places.
        container_id: the container, which has been started.
        layout: the machine's hierarchies; looked for where None.

    Raises:
        UnavailableError: it was never started, or has been removed.
    """
    path = f"{settings.container_directory(container_id)}/config.json"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(f"container {container_id} has no control group") from error
    return cgroups.manager(found, layout or cgroups.detect())
