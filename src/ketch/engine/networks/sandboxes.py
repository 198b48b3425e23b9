"""Network namespaces that are no container's: a build's steps run in them, one after the other.

Each has a holder, a process, and a row of the database that says who that is. It stands in the
place of a container wherever addresses are leased. What a killed holder left is taken away by the
next command that looks: one that holds another, wants an address where none is free, or removes a
network.
"""

from contextlib import suppress

from ketch.engine.networks import endpoints, leases, releasing
from ketch.errors import KetchError
from ketch.linux import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings


def declare(
    settings: "Settings",
    store: "Store",
    sandbox_id: str,
    request: "Mapping[str, Any]",
    holder: tuple[int, int],
) -> None:
    """Record a new one, and the network that it is to be on.

    Args:
        settings: the engine's places.
        store: its database.
        sandbox_id: 64 hexadecimal digits that nothing else has.
        request: what a container's request would say: ``HostConfig.NetworkMode``, ``Config``.
        holder: pid and start time of who is going to hold it.
    """
    boot_id = procfs.boot_id()
    with store.transaction(begins=True) as connection:
        leases.notice_reboot(connection, boot_id)
        connection.execute(
            "INSERT INTO sandbox (id, boot_id, pid, start_time) VALUES (?, ?, ?, ?)",
            (sandbox_id, boot_id, *holder),
        )
    endpoints.Endpoints(settings, store).declare(sandbox_id, request)


def release(settings: "Settings", store: "Store", sandbox_id: str, namespace: int = -1) -> None:
    """Give back what one had of networks, and forget it; done before will do.

    Args:
        settings: the engine's places.
        store: its database.
        sandbox_id: which.
        namespace: descriptor of the network namespace, if somebody has it.

    Raises:
        OSError: the kernel refused.
    """
    releasing.release(store, settings, sandbox_id, namespace, left_behind=True, told=False)
    with store.transaction() as connection:
        connection.execute("DELETE FROM endpoint WHERE container_id = ?", (sandbox_id,))
        connection.execute("DELETE FROM sandbox WHERE id = ?", (sandbox_id,))


def holders(store: "Store") -> list[int]:
    """Returns the pids of those who hold one."""
    return [row["pid"] for row in _rows(store) if _is_held(row)]


def clean(settings: "Settings", store: "Store") -> None:
    """Take away what holders have left who are no more."""
    for row in _rows(store):
        if not _is_held(row):
            with suppress(KetchError, OSError):  # the next one will try again
                release(settings, store, row["id"])


def _rows(store: "Store") -> "list[sqlite3.Row]":
    with store.reading() as connection:
        return connection.execute("SELECT * FROM sandbox").fetchall()


def _is_held(row: "sqlite3.Row") -> bool:
    return row["boot_id"] == procfs.boot_id() and procfs.is_running(row["pid"], row["start_time"])
