"""A container in a line: what ``ps`` says of it. Pure."""

import time

from ketch.engine.records import states
from ketch.spec.timestamps import SECOND_NS, spoken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.records.rows import Container
    from ketch.network.ports import Port

SHORT_ID_LENGTH = 12


def status(container: "Container", now_ns: int) -> str:
    """Returns what a container is in words, such as ``Up 2 minutes``."""
    if container.status == states.RUNNING:
        up = spoken(now_ns - container.started_ns)
        word = health(container)
        told = {"starting": " (health: starting)", "none": ""}.get(word, f" ({word})")
        return f"Up {up}{told}"
    if container.status == states.PAUSED:
        return f"Up {spoken(now_ns - container.started_ns)} (Paused)"
    ago = spoken(now_ns - container.finished_ns)
    if container.status == states.RESTARTING:
        return f"Restarting ({container.exit_status}) {ago} ago"
    if container.status == states.REMOVING:
        return "Removal In Progress"
    if container.status == states.EXITED:
        return f"Exited ({container.exit_status}) {ago} ago"
    return "Dead" if container.status == states.DEAD else "Created"


def health(container: "Container") -> str:
    """Returns ``healthy``, ``unhealthy`` or ``starting``; ``none`` where nobody looks."""
    found = container.health
    return found.get("Status") or "none" if found else "none"


def command(container: "Container") -> str:
    """Returns the program and its arguments in one string, those with spaces in quotes."""
    arguments = container.record.get("Args") or ()
    quoted = [f"'{argument}'" if " " in argument else argument for argument in arguments]
    return " ".join([container.record.get("Path", ""), *quoted])


def age(container: "Container", now_ns: int) -> str:
    """Returns how long ago it was made, in words."""
    return spoken(now_ns - container.created_ns)


def created_at(container: "Container") -> str:
    """Returns when it was made, in local time, as Go prints a time."""
    moment = time.localtime(container.created_ns // SECOND_NS)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", moment)


def labels(container: "Container") -> dict[str, str]:
    """Returns its labels."""
    return container.record.get("Config", {}).get("Labels") or {}


def network(container: "Container") -> str:
    """Returns the network that it was made for."""
    mode: str = container.record.get("HostConfig", {}).get("NetworkMode", "")
    return mode


def mount_sources(container: "Container") -> list[str]:
    """Returns the host's paths and the volumes that it was given."""
    points = container.record.get("Mounts", ())
    return [point.get("Name") or point["Source"] for point in points if point["Type"] != "tmpfs"]


def volume_count(container: "Container") -> int:
    """Returns how many volumes it has."""
    points = container.record.get("Mounts", ())
    return sum(point["Type"] == "volume" for point in points)


def ports(container: "Container", published: "Sequence[Port]" = ()) -> str:
    """Returns the ports of a running container, as ``0.0.0.0:8080->80/tcp, 443/tcp``.

    Args:
        container: the container.
        published: its published ports, from ``Endpoints.ports``.
    """
    mode = network(container)
    if not container.is_active or mode in {"host", "none"} or mode.startswith("container:"):
        return ""
    if not published and not container.record.get("Config", {}).get("ExposedPorts"):
        return ""
    from ketch.engine.networks import settings  # noqa: PLC0415 - where there are any

    return settings.summary(container.record, published)
