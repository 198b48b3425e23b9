"""Giving a container another name."""

from ketch.engine.containers import telling
from ketch.engine.records import events, names
from ketch.engine.records.rows import no_such
from ketch.errors import AlreadyExistsError, InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.containers.containers import Containers
    from ketch.engine.records.store import Store
    from ketch.spec.told import Say

_ALLOCATING = "Error when allocating new name: "


def rename(
    store: "Store", containers: "Containers", reference: str, new_name: str,
    say: "Say | None" = None,
) -> None:  # fmt: skip
    """Give a container another name; whatever it is doing goes on.

    Args:
        store: the engine's database.
        containers: where the container is looked up.
        reference: its identifier, or its name so far.
        new_name: its name from now on; a slash in front of it means nothing.
        say: takes what is told of it.

    Raises:
        InvalidArgumentError: that is not a name, or the one that it has already.
        NotFoundError: no such container.
        AlreadyExistsError: another container has that name.
    """
    if not reference or not new_name:
        raise InvalidArgumentError("Neither old nor new names may be empty")
    container = containers.find(reference)
    try:
        name = names.check_name(new_name.removeprefix("/"))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{_ALLOCATING}{error.message}", error.hint) from error
    if name == container.name:
        raise InvalidArgumentError("Renaming a container with the same name as its current name")
    with store.transaction() as connection:
        holder = connection.execute("SELECT id FROM container WHERE name = ?", (name,)).fetchone()
        if holder is not None:
            raise AlreadyExistsError(
                f'{_ALLOCATING}Conflict. The container name "/{name}" is already in use by '
                f'container "{holder["id"]}". You have to remove (or rename) that container to be '
                "able to reuse that name."
            )
        old = connection.execute(
            "SELECT name FROM container WHERE id = ?", (container.id,)
        ).fetchone()
        if old is None:
            raise no_such(reference)
        connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container.id))
        labels = container.record.get("Config", {}).get("Labels") or {}
        told = {"image": container.image_reference, "name": name, "oldName": f"/{old['name']}"}
        events.record(connection, "container", "rename", container.id, {**labels, **told})
    if say is not None:
        say(telling.of_renaming(container, old["name"], name))
