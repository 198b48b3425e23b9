"""What lists ask of the containers on networks, without what connects them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3


def names(connection: "sqlite3.Connection") -> dict[str, list[str]]:
    """Returns the names of the networks that each container is a member of."""
    found: dict[str, list[str]] = {}
    query = "SELECT container_id, network_name FROM endpoint ORDER BY container_id, position"
    for container_id, name in connection.execute(query):
        found.setdefault(container_id, []).append(name)
    return found


def any_port(connection: "sqlite3.Connection") -> bool:
    """Whether a port of any container is published."""
    return (
        connection.execute("SELECT 1 FROM port WHERE address != '' LIMIT 1").fetchone() is not None
    )
