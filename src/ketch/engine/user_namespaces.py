"""Containers with ids of their own: which are whose, and the namespaces that have them.

A container is given a range of the host's ids when it is made and keeps it as long as it is there;
the namespace is made anew by each start. Nothing on the disk has these ids: see
``images.idmapped``.
"""

import os
import sqlite3

from ketch.runtime import mappings
from ketch.spec import user_namespaces
from ketch.spec.user_namespaces import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from ketch.engine.records.rows import Container
    from ketch.spec.runtime import IdMapping
    from ketch.spec.user_namespaces import Range

_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"


class UserNamespace:
    """A user namespace that a container starts in.

    Attributes:
        descriptor: of the namespace.
        uids: its user ids.
        gids: its group ids.
    """

    __slots__ = ("descriptor", "gids", "uids")

    def __init__(self, descriptor: int, uids: IdMap, gids: IdMap) -> None:
        self.descriptor = descriptor
        self.uids = uids
        self.gids = gids

    @property
    def path(self) -> str:
        """Where the runtime finds it, as long as the caller holds it open."""
        return f"/proc/self/fd/{self.descriptor}"


def choose(connection: sqlite3.Connection, count: int) -> int:
    """Returns the first of so many ids for a new container; 0 where it wants none.

    Args:
        connection: in the transaction that records the container.
        count: how many.

    Raises:
        UnavailableError: there are no so many left.
    """
    if not count:
        return 0
    rows = connection.execute("SELECT id_first, id_count FROM container WHERE id_first > 0")
    taken = [(row["id_first"], row["id_count"]) for row in rows]
    return user_namespaces.choose(count, taken, _delegated(_SUBUID), _delegated(_SUBGID))


def make(container: "Container", held: "ExitStack") -> UserNamespace | None:
    """Make a container's user namespace; None where it has no ids of its own.

    Args:
        container: the container.
        held: closes it.

    Raises:
        KetchError, OSError: the kernel refused.
    """
    maps = maps_of(container)
    if maps is None:
        return None
    descriptor = mappings.open_namespace(*maps)
    held.callback(os.close, descriptor)
    return UserNamespace(descriptor, *map(IdMap.of, maps))


def maps_of(container: "Container") -> "tuple[list[IdMapping], list[IdMapping]] | None":
    """Returns a container's own user and group ids, None where it has the host's or another's."""
    first, count = container.ids
    if not first:
        return user_namespaces.maps(container.record["HostConfig"].get("UsernsMode", ""))
    mapping: list[IdMapping] = [{"containerID": 0, "hostID": first, "size": count}]
    return mapping, mapping


def of_process(pid: int) -> tuple[IdMap, IdMap]:
    """Returns the user and group ids of a process's user namespace.

    Raises:
        OSError: there is no such process.
    """
    uids, gids = (_read(f"/proc/{pid}/{name}") for name in ("uid_map", "gid_map"))
    return IdMap(uids), IdMap(gids)


def give(descriptors: "Sequence[int]", ids: tuple[IdMap, IdMap]) -> None:
    """Give pipes to the root of a user namespace, so that it may open /dev/stdout.

    Args:
        descriptors: its program's streams.
        ids: its user and group ids.
    """
    uids, gids = ids
    for descriptor in descriptors:
        status = os.fstat(descriptor)
        if not status.st_rdev:  # the null device is everybody's
            os.fchown(descriptor, uids.outside(0), gids.outside(0))


def _delegated(path: str) -> "list[tuple[str, Range]]":
    try:
        return user_namespaces.delegated(_read(path))
    except FileNotFoundError:
        return []


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
