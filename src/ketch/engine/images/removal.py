"""When an image may go, and which of its names go first: Docker's rules.

Source: moby, daemon/images/image_delete.go, whose order of checks and messages these are.
"""

import sqlite3

from ketch.engine.records import events as history
from ketch.engine.records import states
from ketch.engine.records.rows import Container
from ketch.errors import ConflictError, InvalidArgumentError, KetchError
from ketch.linux import procfs
from ketch.spec import reference as references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.images.image import Image
    from ketch.spec.reference import Reference

    Events = list[tuple[str, str]]


class Removal:
    """Images being removed, in one transaction; ``Images.removing`` makes it.

    Args:
        connection: within a transaction.
        find: what finds an image by what the user calls it.
    """

    __slots__ = ("_chain_ids", "_connection", "_find", "_parsed", "_told")

    def __init__(
        self,
        connection: sqlite3.Connection,
        find: "Callable[[sqlite3.Connection, str], Image]",
    ) -> None:
        self._connection = connection
        self._find = find
        self._parsed: dict[str, Reference] = {}
        self._told: list[Events] = []
        self._chain_ids: list[list[str]] = []  # beside each of those, of the image's layers

    @property
    def events(self) -> "Events":
        """What happened so far, as ``Images.remove`` tells it."""
        return [event for told in self._told for event in told]

    def remove(
        self,
        text: str,
        *,
        force: bool = False,
        prune: bool = True,
        check: "Callable[[Image], None] | None" = None,
    ) -> None:
        """Remove one; see ``Images.remove``. Of one that stays nothing is changed.

        Args:
            text: name, ID, or unique start of an ID.
            force: whether to overrule what can be overruled.
            prune: whether nameless images that it was committed on go along.
            check: raises an error for an image that is not meant.
        """
        connection = self._connection
        image = self._find(connection, text)
        if check is not None:
            check(image)
        names = [self._parsed.get(name) or self._parse(name) for name in image.names]
        # All that is refused is refused before anything is changed.
        events = remove(connection, image, text, names, force=force, prune=prune)
        self._told.append(events)
        self._chain_ids.append(_chain_ids(image))

    def _parse(self, name: str) -> "Reference":
        parsed = self._parsed[name] = references.parse(name)
        return parsed

    def tell(self, gone: set[str]) -> None:
        """Tell of layers that have gone, with the last of the images that had them."""
        left = set(gone)
        for events, chain_ids in zip(reversed(self._told), reversed(self._chain_ids), strict=True):
            events += [("Deleted", chain) for chain in reversed(chain_ids) if chain in left]
            left.difference_update(chain_ids)


def remove(
    connection: sqlite3.Connection,
    image: "Image",
    text: str,
    names: "list[Reference]",
    *,
    force: bool,
    prune: bool = True,
) -> "Events":
    """Take names, and perhaps the image, out of the records.

    Args:
        connection: within a transaction.
        image: what ``text`` was resolved to.
        text: what the user called it.
        names: the names that it has.
        force: whether several names, and containers that do not run, are overruled.
        prune: whether the images that it was committed on go too where they have no name and no
            other use.

    Returns:
        ``("Untagged", NAME)`` and ``("Deleted", ID)`` in order.

    Raises:
        ConflictError: the image stays because of its containers or its other names.
    """
    users = _users(connection, image)
    events: Events = []
    given = _given_name(text, names)
    if given is not None:
        if not force and users and _are_one(names):
            raise ConflictError(
                f'conflict: unable to remove repository reference "{text}" (must force) -'
                f" container {users[0][:12]} is using its referenced image {image.short_id}",
                "remove the container first, or force the removal",
            )
        dropped = [given]
        if not given.digest and not any(
            name.name == given.name and not name.digest and name != given for name in names
        ):
            # With a repository's last tag its digests go as well.
            dropped += [name for name in names if name.name == given.name and name.digest]
        _untag(connection, image, dropped, events, told=1)  # of the digests nothing is told
        names = [name for name in names if name not in dropped]
        if names:
            return events
        if _conflict(connection, image, users, names, force=force) is not None:
            return events  # the name is gone, as was asked; the containers keep the image
    else:
        others = [] if _are_one(names) else names
        conflict = _conflict(connection, image, users, others, force=force)
        if conflict is not None:
            hard, reason = conflict
            wording = "cannot be forced" if hard else "must be forced"
            raise ConflictError(
                f"conflict: unable to delete {image.short_id} ({wording}) - {reason}",
                "stop the container first" if hard and "container" in reason else "",
            )
        _untag(connection, image, names, events, told=len(names))
    _delete(connection, image.id, events)
    parent_id = image.parent_id
    while prune and parent_id:
        parent_id = _prune_parent(connection, parent_id, events)
    return events


def _delete(connection: sqlite3.Connection, image_id: str, events: "Events") -> None:
    connection.execute("DELETE FROM image WHERE id = ?", (image_id,))
    history.record(connection, "image", "delete", image_id, {"name": image_id})
    events.append(("Deleted", image_id))


def _prune_parent(connection: sqlite3.Connection, image_id: str, events: "Events") -> str:
    """Delete an image that nothing needs any more; returns the one to look at next."""
    row = connection.execute(
        "SELECT parent_id FROM image WHERE id = ?"
        " AND NOT EXISTS (SELECT 1 FROM image_name WHERE image_id = image.id)"
        " AND NOT EXISTS (SELECT 1 FROM container WHERE image_id = image.id)"
        " AND NOT EXISTS (SELECT 1 FROM image AS child WHERE child.parent_id = image.id)",
        (image_id,),
    ).fetchone()
    if row is None:
        return ""
    _delete(connection, image_id, events)
    parent_id: str = row["parent_id"]
    return parent_id


def _given_name(text: str, names: "list[Reference]") -> "Reference | None":
    """The name that a text is, which may look like the start of an ID as well (``cafe``)."""
    try:
        given = references.parse(text).tagged()
    except InvalidArgumentError:  # a whole ID is no name
        return None
    return given if given in names else None


def _users(connection: sqlite3.Connection, image: "Image") -> list[str]:
    """Returns the IDs of the containers of an image, the oldest first."""
    rows = connection.execute(
        "SELECT id FROM container WHERE image_id = ? ORDER BY created_ns", (image.id,)
    )
    return [row["id"] for row in rows]


def _active_user(connection: sqlite3.Connection, image: "Image") -> str:
    """Returns the ID of a container of an image that has a process, or empty."""
    boot_id = procfs.boot_id()
    marks = ", ".join("?" * len(states.ACTIVE))
    rows = connection.execute(
        f"SELECT * FROM container WHERE image_id = ? AND state IN ({marks}) ORDER BY created_ns",
        (image.id, *states.ACTIVE),
    )
    # What is recorded as active may have ended; what is not, is not.
    users = (Container(row, boot_id) for row in rows)
    return next((user.id for user in users if user.is_active), "")


def _untag(
    connection: sqlite3.Connection,
    image: "Image",
    names: "list[Reference]",
    events: "Events",
    *,
    told: int,
) -> None:
    """Take names away; of the first ones of them ``events`` tells."""
    for number, name in enumerate(names):
        if number < told:
            attributes = {**image.labels, "name": image.id}
            history.record(connection, "image", "untag", image.id, attributes)
        connection.execute("DELETE FROM image_name WHERE reference = ?", (str(name),))
        events.append(("Untagged", name.familiar))


def _are_one(names: "list[Reference]") -> bool:
    """Whether all names are of one repository, with at most one tag among them."""
    tags = [name for name in names if not name.digest]
    return len(tags) <= 1 and len({name.name for name in names}) == 1


def _conflict(
    connection: sqlite3.Connection,
    image: "Image",
    users: list[str],
    names: "list[Reference]",
    *,
    force: bool,
) -> tuple[bool, str] | None:
    """Returns whether force would not help, and what keeps the image; None where nothing does."""
    children = "SELECT 1 FROM image WHERE parent_id = ? LIMIT 1"
    if connection.execute(children, (image.id,)).fetchone():
        return True, "image has dependent child images"
    if users and (active := _active_user(connection, image)):
        return True, f"image is being used by running container {active[:12]}"
    if force:
        return None
    if names:
        return False, "image is referenced in multiple repositories"
    if users:
        return False, f"image is being used by stopped container {users[0][:12]}"
    return None


def _chain_ids(image: "Image") -> list[str]:
    """Returns an image's chain IDs; none where its configuration is damaged."""
    try:
        return image.chain_ids
    except KetchError:
        return []
