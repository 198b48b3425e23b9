"""Containers' uses of volumes: mounted while they run, on record until they are removed."""

from ketch.engine.records import events
from ketch.engine.volumes import telling, volumes
from ketch.errors import ConflictError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings


def is_in_use(store: "Store", name: str) -> bool:
    """Whether a container that runs has a volume mounted."""
    with store.reading() as connection:
        query = "SELECT 1 FROM volume_use WHERE volume = ? AND mounted = 1 LIMIT 1"
        return connection.execute(query, (name,)).fetchone() is not None


def detach(settings: "Settings", store: "Store", container_id: str) -> None:
    """Let go of what a container that has ended, or was left behind, had mounted.

    Args:
        settings: the engine's places.
        store: the engine's database.
        container_id: the container.
    """
    with store.reading() as connection:
        query = "SELECT volume FROM volume_use WHERE container_id = ? AND mounted = 1"
        names = [row["volume"] for row in connection.execute(query, (container_id,))]
    if not names:
        return
    with store.transaction() as connection:
        connection.execute(
            "UPDATE volume_use SET mounted = 0 WHERE container_id = ?", (container_id,)
        )
        for name in names:
            attributes = {"container": container_id, "driver": volumes.LOCAL}
            events.record(connection, "volume", "unmount", name, attributes)
    from ketch.engine.volumes import mounts  # noqa: PLC0415 - few commands need them

    for name in names:
        try:
            volume = volumes.Volumes(settings, store).find(name)
        except NotFoundError:
            continue
        if volume.options:
            with mounts.locked(settings, volume):
                if not is_in_use(store, name) and mounts.unmount(volume):
                    settings.tell(telling.of_unmounting, volume)


def forget_container(
    settings: "Settings", store: "Store", container_id: str, *, anonymous: bool
) -> None:
    """Let go of a container's volumes, once it has none of them mounted any more.

    Args:
        settings: the engine's places.
        store: the engine's database.
        container_id: the container, which is being removed.
        anonymous: whether its anonymous volumes go with it, unless others have them.
    """
    with store.reading() as connection:
        query = "SELECT volume FROM volume_use WHERE container_id = ?"
        names = [row["volume"] for row in connection.execute(query, (container_id,))]
    if not names:
        return
    with store.transaction() as connection:
        connection.execute("DELETE FROM volume_use WHERE container_id = ?", (container_id,))
    if not anonymous:
        return
    known = volumes.Volumes(settings, store)
    for name in names:
        try:
            if known.find(name).is_anonymous:
                known.remove(name)
        except (NotFoundError, ConflictError):
            continue  # somebody else removed it, or has it
