"""Which ids an ordinary user's namespace has: those that the machine gives it, or its own alone."""

import os

from ketch.engine.home import places
from ketch.errors import UnavailableError
from ketch.linux import restrictions
from ketch.runtime import mappings
from ketch.spec import user_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import IdMapping
    from ketch.spec.user_namespaces import Range

_FIRST = 100000  # SUB_UID_MIN: login.defs(5)
_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"


class Ids:
    """The ids of a user's namespace, as the kernel is to have them.

    Attributes:
        users: user ids.
        groups: group ids.
    """

    __slots__ = ("groups", "users")

    def __init__(self, users: "list[IdMapping]", groups: "list[IdMapping]") -> None:
        self.users = users
        self.groups = groups

    @property
    def is_alone(self) -> bool:
        """Whether the user's own id is all there is, and with it one group."""
        return len(self.users) == 1 or len(self.groups) == 1

    def alone(self) -> "Ids":
        """Returns the user's own id and group without any others."""
        return Ids(self.users[:1], self.groups[:1])


def choose() -> Ids:
    """Returns the calling user's ids, by subuid(5) and subgid(5), as far as it can have them.

    Who is root in the user's namespaces already, by ``ketch unshare``, and wants an engine
    elsewhere, has what these have: there no file and no program gives more.
    """
    if os.geteuid() == 0:
        return Ids(_all("uid_map"), _all("gid_map"))
    ids = of(os.getuid(), os.getgid())
    return ids if ids.is_alone or unwritable() is None else ids.alone()


def unwritable() -> UnavailableError | None:
    """Returns why newuidmap(1) or newgidmap(1) cannot give a namespace of this user's its ids."""
    try:
        mappings.program("newuidmap")
        mappings.program("newgidmap")
    except UnavailableError as error:
        return error
    return None


def of(user: int, group: int) -> Ids:
    """Returns a user's ids, by subuid(5) and subgid(5).

    Args:
        user: the user's id.
        group: the group's.
    """
    names = {str(user), places.name_of(user)}
    ids = Ids(
        user_namespaces.of_user(user, names, _delegated(_SUBUID)),
        user_namespaces.of_user(group, names, _delegated(_SUBGID)),
    )
    return ids.alone() if ids.is_alone else ids


def faults(user: int, group: int) -> list[str]:
    """Returns what is wrong with a user's ranges, a clause each.

    Args:
        user: the user's id.
        group: the group's.
    """
    names = {str(user), places.name_of(user)}
    return [
        f"{path}: {fault}"
        for path, own in ((_SUBUID, user), (_SUBGID, group))
        for fault in user_namespaces.faults(_read(path), own, names)
    ]


def unclaimed() -> str:
    """A range that nobody has, as usermod(8) takes it: as many ids as 16 bits can name."""
    taken = [*_delegated(_SUBUID), *_delegated(_SUBGID)]
    first = max([_FIRST, *(start + count for _, (start, count) in taken)])
    return f"{first}-{first + user_namespaces.COUNT - 1}"


def write(pid: int, ids: Ids) -> None:
    """Give a process's new user namespace its ids; to be called outside of it.

    Raises:
        InvalidArgumentError: the kernel, or newuidmap(1), refuses.
        UnavailableError: newuidmap or newgidmap is needed and not installed.
    """
    mappings.write(pid, ids.users, ids.groups)


def _all(file: str) -> "list[IdMapping]":
    """All ids of the caller's user namespace, each as itself."""
    return [
        {"containerID": first, "hostID": first, "size": size}
        for first, _, size in restrictions.ranges(file)
    ]


def _delegated(path: str) -> "list[tuple[str, Range]]":
    return user_namespaces.delegated(_read(path))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
