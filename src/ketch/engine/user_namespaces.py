"""Containers with ids of their own: which are whose, and the namespaces that have them.

A container is given its ids when it is made and keeps them as long as it is there; the namespace is
made anew by each start. Nothing on the disk has these ids where mounts can map them
(``images.idmapped``); in an ordinary user's namespace they cannot, and the container's files have
them (``images.shifted``).
"""

import os
import sqlite3

from ketch.linux import namespaces
from ketch.runtime import mappings
from ketch.spec import endpoints, user_namespaces
from ketch.spec.user_namespaces import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.spec.container import Request
    from ketch.spec.passwd import User
    from ketch.spec.runtime import IdMapping
    from ketch.spec.user_namespaces import Range

_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"


class UserNamespace:
    """A user namespace that a container starts in.

    Attributes:
        descriptor: of the namespace.
        mapping: the same for mounts that are to map ids; None where files have the ids themselves.
        uids: its user ids.
        gids: its group ids.
    """

    __slots__ = ("descriptor", "gids", "mapping", "uids")

    def __init__(self, descriptor: int, uids: IdMap, gids: IdMap) -> None:
        self.descriptor = descriptor
        self.mapping = descriptor if mounts_map_ids() else None
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
    own = of_process("self")
    if not own[0].is_whole:
        return user_namespaces.choose(count, taken, user_namespaces.spaces_of_namespace(*own))
    spaces, others = user_namespaces.spaces_of_machine(_delegated(_SUBUID), _delegated(_SUBGID))
    return user_namespaces.choose(count, taken + others, spaces)


def mounts_map_ids() -> bool:
    """Whether a mount can show files with other owners than they have.

    For that one must be privileged over the namespace that the file system was mounted in, which is
    the machine's own: mount_setattr(2), MOUNT_ATTR_IDMAP.
    """
    return namespaces.in_initial_user_namespace()


def settle(request: "Request", *, is_user: bool) -> "Request":
    """Say which ids a mode comes to here, and whom the program is where that follows from it.

    Args:
        request: what is asked for.
        is_user: whether the engine is an ordinary user's.

    Raises:
        KetchError: there are no such ids here.
    """
    resources, config = request["HostConfig"], request["Config"]
    mode = resources.get("UsernsMode", "")
    if not user_namespaces.is_apart(mode):
        return request
    mode, user = user_namespaces.settled(mode, *of_process("self"), is_user=is_user)
    if user is not None and not config.get("User"):
        config = {**config, "User": f"{user[0]}:{user[1]}"}
    return {**request, "Config": config, "HostConfig": {**resources, "UsernsMode": mode}}


def shift_of(engine: "Engine", container: "Container") -> tuple[IdMap, IdMap] | None:
    """Returns the ids that a new container's files are to have; None where they stay the images'.

    Args:
        engine: where it is recorded, with others whose ids it may have.
        container: the container.

    Raises:
        NotFoundError: there is no container of whose ids it wants.
    """
    if mounts_map_ids():
        return None
    if reference := endpoints.container_of(container.record["HostConfig"].get("UsernsMode", "")):
        return shift_of(engine, engine.containers.find(reference))
    maps = maps_of(container)
    return None if maps is None else (IdMap.of(maps[0]), IdMap.of(maps[1]))


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


def make_alone(user: "User", held: "ExitStack") -> UserNamespace | None:
    """Make a namespace for a program that is not root, where the engine's user has one id alone.

    Under that user's number the id is the engine's user's own, as with ``--userns keep-id``: so
    images run that say whom they run as.

    Args:
        user: the program's.
        held: closes it.

    Returns:
        It; None where there are more ids, or the program is root.
    """
    from ketch.linux import owners  # noqa: PLC0415 - for users alone

    if not (user.uid or user.gid) or not owners.alone():
        return None
    maps: list[list[IdMapping]] = [
        [{"containerID": one, "hostID": 0, "size": 1}] for one in (user.uid, user.gid)
    ]
    descriptor = mappings.open_namespace(*maps)
    held.callback(os.close, descriptor)
    return UserNamespace(descriptor, *map(IdMap.of, maps))


def named(request: "Request", apart: UserNamespace | None) -> "Request":
    """Returns a request that says which ids a namespace has that it did not ask for."""
    if apart is None:
        return request
    ranges = [":".join(map(str, one)) for ids in (apart.uids, apart.gids) for one in ids.ranges]
    mode = user_namespaces.mode_of_maps(ranges[:1], ranges[1:])
    return {**request, "HostConfig": {**request["HostConfig"], "UsernsMode": mode}}


def maps_of(container: "Container") -> "tuple[list[IdMapping], list[IdMapping]] | None":
    """Returns a container's own user and group ids, None where it has the host's or another's."""
    first, count = container.ids
    if not first:
        return user_namespaces.maps(container.record["HostConfig"].get("UsernsMode", ""))
    mapping: list[IdMapping] = [{"containerID": 0, "hostID": first, "size": count}]
    return mapping, mapping


def of_process(pid: int | str) -> tuple[IdMap, IdMap]:
    """Returns the user and group ids of a process's user namespace, ``self`` for the caller's.

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
            os.fchown(descriptor, uids.first_outside(), gids.first_outside())


def _delegated(path: str) -> "list[tuple[str, Range]]":
    try:
        return user_namespaces.delegated(_read(path))
    except FileNotFoundError:
        return []


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
