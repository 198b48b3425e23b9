"""What a container's ports may send: which addresses are its own, and whether it has others.

See ``ketch.network.pinning`` for what that comes to in the packet filter.
"""

import json
import sqlite3

from ketch.engine.networks import members
from ketch.engine.networks.plan import endpoint
from ketch.network import pinning
from ketch.spec import capabilities
from ketch.spec.endpoints import container_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ketch.engine.networks.members import Member
    from ketch.engine.networks.records import Network
    from ketch.linux.nftables import Element

_NET_ADMIN = capabilities.mask(("CAP_NET_ADMIN",))
_EVERY = (1 << 64) - 1


def is_free(record: "Mapping[str, Any]") -> bool:
    """Whether a container may configure its network, and so have addresses of its own choice."""
    host = record.get("HostConfig") or {}
    if host.get("Privileged"):
        return True
    chosen = capabilities.choose(host.get("CapAdd") or (), host.get("CapDrop") or (), _EVERY)
    return bool(chosen & _NET_ADMIN)


def of(
    memberships: "Iterable[Member]",
    networks: "Mapping[str, Network]",
    *,
    free: bool,
    owner: str = "",
) -> "list[Element]":
    """What pins the ports of a container that runs, or is about to.

    Args:
        memberships: the container's.
        networks: by id.
        free: whether it may have addresses of its own choice.
        owner: whose the ports are, for whoever looks at the packet filter.
    """
    places = [
        endpoint(member, networks[member.network_id])
        for member in memberships
        if member.id and member.network_id in networks and networks[member.network_id].subnets
    ]
    return pinning.of_container(places, free=free, owner=owner)


def recorded(
    connection: sqlite3.Connection,
    networks: "Mapping[str, Network]",
    owner: "Callable[[str], str]",
) -> "list[Element]":
    """What pins the ports of all containers that run.

    Args:
        connection: of the store.
        networks: all, by id.
        owner: tells whose a container's ports are.
    """
    running = {
        row[0]
        for row in connection.execute("SELECT DISTINCT container_id FROM endpoint WHERE id != ''")
    }
    rows = connection.execute("SELECT id, name, record FROM container").fetchall()
    records = {row["id"]: json.loads(row["record"]) for row in rows}
    ids = {row["name"]: row["id"] for row in rows}
    free = {
        _home(container_id, records, ids)
        for container_id, record in records.items()
        if is_free(record)
    }
    return [
        element
        for container_id in running
        for element in of(
            members.of(connection, container_id), networks,
            free=container_id in free,
            owner=owner(container_id),
        )
    ]  # fmt: skip


def _home(container_id: str, records: "Mapping[str, Any]", ids: "Mapping[str, str]") -> str:
    """The container whose network one is in: whoever shares a network may configure it."""
    seen = set()
    while container_id in records and container_id not in seen:
        seen.add(container_id)
        reference = container_of(records[container_id]["HostConfig"].get("NetworkMode") or "")
        if not reference:
            break
        container_id = ids.get(reference, reference)
    return container_id
