"""What ``--link`` gave to containers of the default network: names for others, by their ids.

A link outlives the other container's name, and the other container itself, as in Docker.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


class Link:
    """A name that one container has for another.

    Attributes:
        container_id: who has it.
        alias: the name.
        target_id: the other container.
        target_name: what the other is called now; its short identifier if it is no more.
    """

    __slots__ = ("alias", "container_id", "target_id", "target_name")

    def __init__(self, row: "sqlite3.Row") -> None:
        self.container_id: str = row["container_id"]
        self.alias: str = row["alias"]
        self.target_id: str = row["target_id"]
        self.target_name: str = row["name"] or self.target_id[:12]


_QUERY = "SELECT link.*, name FROM link LEFT JOIN container ON container.id = target_id "


def declare(
    connection: "sqlite3.Connection", container_id: str, wanted: "Iterable[tuple[str, str]]"
) -> None:
    """Record a new container's links.

    Args:
        connection: of the store, in a transaction.
        container_id: the container's.
        wanted: others' ids, and what it calls them; of two for one name the first counts.
    """
    connection.executemany(
        "INSERT OR IGNORE INTO link (container_id, alias, target_id, position) VALUES (?, ?, ?, ?)",
        [(container_id, alias, other, place) for place, (other, alias) in enumerate(wanted)],
    )


def of(connection: "sqlite3.Connection", container_id: str) -> list[Link]:
    """What a container calls others, in the order in which it was asked for."""
    rows = connection.execute(f"{_QUERY} WHERE container_id = ? ORDER BY position", (container_id,))
    return [Link(row) for row in rows]


def to(connection: "sqlite3.Connection", container_id: str) -> list[Link]:
    """What others call a container."""
    rows = connection.execute(f"{_QUERY} WHERE target_id = ?", (container_id,))
    return [Link(row) for row in rows]


def every(connection: "sqlite3.Connection") -> list[Link]:
    """All there are."""
    return [Link(row) for row in connection.execute(f"{_QUERY} ORDER BY container_id, position")]


def names(connection: "sqlite3.Connection") -> dict[str, list[str]]:
    """What containers are called by links, such as ``/app/mysql``, by their ids."""
    found: dict[str, list[str]] = {}
    for row in connection.execute(
        "SELECT target_id, alias, name FROM link JOIN container ON container.id = container_id"
    ):
        found.setdefault(row["target_id"], []).append(f"/{row['name']}/{row['alias']}")
    return found


def find(connection: "sqlite3.Connection", name: str) -> str:
    """The id of the container behind a link's name, such as ``app/mysql``; empty for none."""
    having, slash, alias = name.partition("/")
    if not slash:
        return ""
    row = connection.execute(
        "SELECT target_id FROM link JOIN container ON container.id = container_id "
        "WHERE name = ? AND alias = ?",
        (having, alias),
    ).fetchone()
    return row["target_id"] if row else ""


def remove(connection: "sqlite3.Connection", container_id: str, alias: str) -> bool:
    """Take a link back; returns whether there was one."""
    return bool(
        connection.execute(
            "DELETE FROM link WHERE container_id = ? AND alias = ?", (container_id, alias)
        ).rowcount
    )


def forget(connection: "sqlite3.Connection", container_id: str) -> None:
    """Forget a removed container's links; others' to it stay."""
    connection.execute("DELETE FROM link WHERE container_id = ?", (container_id,))
