"""What happened to containers, images and networks: recorded for ``events``, and bounded."""

import json
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

KEPT = 4096


def record(
    connection: "sqlite3.Connection",
    kind: str,
    action: str,
    actor_id: str,
    attributes: dict[str, str],
) -> None:
    """Record an event within the transaction that makes it true.

    Args:
        connection: of the store, in a transaction.
        kind: ``container``, ``image`` or ``network``.
        action: Docker's word for it, such as ``start``.
        actor_id: identifier of what it happened to.
        attributes: what else there is to tell.
    """
    cursor = connection.execute(
        "INSERT INTO event (time_ns, type, action, actor_id, attributes) VALUES (?, ?, ?, ?, ?)",
        (time.time_ns(), kind, action, actor_id, json.dumps(attributes)),
    )
    connection.execute("DELETE FROM event WHERE id <= ?", ((cursor.lastrowid or 0) - KEPT,))
