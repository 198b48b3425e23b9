"""Taking a link of the default network back from the container that has it."""

from ketch.engine.networks import linking
from ketch.engine.records import links
from ketch.engine.records.rows import no_such
from ketch.errors import ConflictError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine


def unlink(engine: "Engine", reference: str) -> None:
    """Take back what ``--link`` gave a container; one that runs forgets the name at once.

    Args:
        engine: where they are recorded.
        reference: the container that has the link, a slash, and the name it has for the other.

    Raises:
        NotFoundError: there is no such container, or it has no such link.
        ConflictError: that is a container's own name, not one of a link.
    """
    having, _, alias = reference.removeprefix("/").rpartition("/")
    if not having:
        engine.containers.find(alias)
        raise ConflictError("Conflict, cannot remove the default link name of the container")
    try:
        container = engine.containers.find(having)
    except NotFoundError as error:
        raise no_such(reference) from error
    with engine.store.transaction() as connection:
        found = {one.alias: one.target_id for one in links.of(connection, container.id)}
        if not links.remove(connection, container.id, alias):
            raise no_such(reference)
    try:
        other = engine.containers.read(found[alias])
    except NotFoundError:
        other = None
    linking.untell(engine.settings, container, alias, other)
