"""After a reboot: what is true of the containers, and which of them are started again."""

from ketch.engine.configuration import sharing
from ketch.engine.containers import restarts
from ketch.engine.records import links
from ketch.engine.requests import starts
from ketch.errors import KetchError, NotModifiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.spec.container import HostConfig


def start_wanted(engine: "Engine", failed: "Callable[[str, KetchError], None]") -> list[str]:
    """Start every container that does not run and whose restart policy wants it to.

    That is Docker's at its daemon's start: ``always`` even if it was stopped by hand;
    ``unless-stopped`` if it was not; ``on-failure`` if it ended with a failure, which being cut off
    by the end of the machine is. A container that nobody ever started is left alone.

    Args:
        engine: where they are.
        failed: is told of each that cannot be started.

    Returns:
        The names of those that were started.
    """
    started = []
    linked: dict[str, list[str]] = {}
    with engine.store.reading() as connection:
        for link in links.every(connection):
            linked.setdefault(link.container_id, []).append(link.target_id)
    # The oldest first, but for those that need younger ones: their namespaces, or links to them.
    for container in sharing.in_order(reversed(engine.containers.list(all=True)), linked):
        policy: HostConfig = container.record["HostConfig"]
        end = restarts.End(
            container.exit_status,
            0,
            container.restart_count,
            stopped_by_hand=container.stopped_by_hand,
        )
        if container.is_active or not container.started_ns:
            continue
        if not restarts.wanted(policy.get("RestartPolicy") or {}, end):
            continue
        try:
            starts.start(engine.settings, container.id)
        except NotModifiedError:
            continue
        except KetchError as error:
            failed(container.name, error)
        else:
            started.append(container.name)
    return started
