"""Which containers a list shows: ``ps`` and its filters, for every face of ketch alike."""

import time

from ketch.engine import inspection, network_settings, states, summary
from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec.timestamps import SECOND_NS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.containers import Containers
    from ketch.engine.engine import Engine
    from ketch.engine.images import Images
    from ketch.engine.records import Container
    from ketch.spec.filters import Filters

FILTERS = (
    "ancestor", "before", "exited", "id", "label", "name", "network", "since", "status",
)  # fmt: skip
_STATUSES = {*states.ACTIVE, states.CREATED, states.REMOVING, states.EXITED, states.DEAD}


def select(
    containers: "Containers",
    images: "Images",
    chosen: "Filters",
    *,
    everything: bool = False,
    last: int = 0,
) -> "list[Container]":
    """Returns the containers that fit all filters, newest first.

    Args:
        containers: where to look.
        images: what ``ancestor`` names.
        chosen: the filters, of FILTERS.
        everything: whether those that do not run count as well, as they do where a status or a
            number is asked for.
        last: no more than so many, whatever they are doing; 0 for no such limit.

    Raises:
        InvalidArgumentError: a filter's value is wrong.
        NotFoundError: ``before`` or ``since`` name no container.
    """
    found = [
        container
        for container in _between(containers, chosen, everything or last > 0 or "status" in chosen)
        if _fits(container, chosen, images)
    ]
    return found[:last] if last > 0 else found


def _between(containers: "Containers", chosen: "Filters", everything: bool) -> "list[Container]":
    """Returns the containers made before and since those that were named."""
    found = containers.list(all=everything)
    for reference in chosen.values("before"):
        limit_ns = containers.find(reference).created_ns
        found = [container for container in found if container.created_ns < limit_ns]
    for reference in chosen.values("since"):
        limit_ns = containers.find(reference).created_ns
        found = [container for container in found if container.created_ns > limit_ns]
    return found


def _fits(container: "Container", chosen: "Filters", images: "Images") -> bool:
    statuses = chosen.values("status")
    if not set(statuses) <= _STATUSES:
        wrong = next(status for status in statuses if status not in _STATUSES)
        raise InvalidArgumentError(f"invalid filter 'status={wrong}'")
    exits = chosen.numbers("exited")
    if exits and (container.is_active or container.exit_status not in exits
                  or not container.finished_ns):  # fmt: skip
        return False
    return (
        chosen.pattern("id", container.id)
        and chosen.pattern("name", container.name, f"/{container.name}")
        and chosen.exact("status", container.status)
        and chosen.labels("label", summary.labels(container))
        and chosen.exact("network", summary.network(container))
        and ("ancestor" not in chosen or _descends(container, chosen.values("ancestor"), images))
    )


def _descends(container: "Container", ancestors: list[str], images: "Images") -> bool:
    for text in ancestors:
        try:
            if images.resolve(text).id == container.image_id:
                return True
        except KetchError:
            continue
    return False


def image_name(images: "Images", container: "Container", *, whole: bool) -> str:
    """Returns the image as the user named it, or its identifier once the name means another.

    Args:
        images: where names are looked up.
        container: whose image.
        whole: whether an identifier is given at its full length.
    """
    name = container.image_reference
    try:
        if images.resolve(name).id == container.image_id:
            return name or "<no image>"
    except KetchError:
        pass  # the image is gone, or has lost its name
    return container.image_id if whole else container.image_id.partition(":")[2][:12]


def documents(engine: "Engine", containers: "list[Container]") -> "list[dict[str, Any]]":
    """Returns what the API's list tells of containers (``ContainerSummary``)."""
    now_ns = time.time_ns()
    published = engine.endpoints.ports()
    return [
        {
            "Id": container.id,
            "Names": [f"/{container.name}"],
            "Image": image_name(engine.images, container, whole=True),
            "ImageID": container.image_id,
            "Command": summary.command(container),
            "Created": container.created_ns // SECOND_NS,
            "Ports": network_settings.listed(container.record, published.get(container.id, ()))
            if container.is_active
            else [],
            "Labels": summary.labels(container),
            "State": container.status,
            "Status": summary.status(container, now_ns),
            "HostConfig": {"NetworkMode": summary.network(container)},
            "NetworkSettings": {
                "Networks": network_settings.document(engine, container)["Networks"]
            },
            "Mounts": inspection.mount_points(container.record),
        }
        for container in containers
    ]
