"""Taking a link of the default network back from the container that has it."""

import json

from ketch.engine.records.rows import no_such
from ketch.errors import ConflictError, NotFoundError
from ketch.spec import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.containers.containers import Containers
    from ketch.engine.records.store import Store


def unlink(store: "Store", containers: "Containers", reference: str) -> None:
    """Take back what ``--link`` gave a container; one that runs keeps the name until it ends.

    Args:
        store: the engine's database.
        containers: where the container is looked up.
        reference: the container that has the link, a slash, and the name it has for the other.

    Raises:
        NotFoundError: there is no such container, or it has no such link.
        ConflictError: that is a container's own name, not one of a link.
    """
    having, _, alias = reference.removeprefix("/").rpartition("/")
    if not having:
        containers.find(alias)
        raise ConflictError("Conflict, cannot remove the default link name of the container")
    try:
        container = containers.find(having)
    except NotFoundError as error:
        raise no_such(reference) from error
    with store.transaction() as connection:
        row = connection.execute(
            "SELECT record FROM container WHERE id = ?", (container.id,)
        ).fetchone()
        record = json.loads(row["record"]) if row else {"HostConfig": {}}
        given = record["HostConfig"].get("Links") or []
        kept = [link for link in given if _called(link) != alias]
        if len(kept) == len(given):
            raise no_such(reference)
        record["HostConfig"]["Links"] = kept
        connection.execute(
            "UPDATE container SET record = ? WHERE id = ?",
            (json.dumps(record, separators=(",", ":")), container.id),
        )


def _called(link: str) -> str:
    """What a container calls the other."""
    reference, alias = links.split(link)
    return alias or reference
