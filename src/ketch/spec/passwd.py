"""Users and groups, looked up in the text of an image's own /etc/passwd and /etc/group.

No NSS: its modules would be loaded from the container's files. Source: passwd(5), group(5); the
rules are those of the field's ``user:group`` syntax (``GetExecUser`` in moby/sys/user).
"""

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAXIMUM = (1 << 31) - 1
_DIGITS_MAX = 20  # int() refuses thousands of them


class User:
    """Who a process runs as.

    Args:
        uid: the user id.
        gid: the primary group id.
        groups: the supplementary group ids, in the order of the group file.
        home: the home directory, ``/`` where the user has no entry.
    """

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def look_up(specification: str, passwd: str, group: str) -> User:
    """Finds the user that ``user``, ``uid``, ``user:group`` or any mix of these names.

    A number without an entry stands for itself, with group 0; a name needs an entry. Groups that
    list the user count only where no group is given.

    Args:
        specification: as given with ``--user``; empty is root.
        passwd: the image's /etc/passwd, empty where there is none.
        group: the image's /etc/group, likewise.

    Raises:
        InvalidArgumentError: no such user or group, or a number out of range.
    """
    user_part, group_part = [*specification.split(":"), ""][:2]
    number = _number(user_part)
    uid, gid, home, name = number if number is not None else 0, 0, "/", ""
    for fields in _entries(passwd, 7):
        wanted = fields[0] == user_part or fields[2] == (user_part or "0")
        if wanted and _is_id(fields[2]) and _is_id(fields[3]):
            name, uid, gid = fields[0], int(fields[2]), int(fields[3])
            home = fields[5] or "/"
            break
    else:
        if user_part and number is None:
            raise InvalidArgumentError(
                f"unable to find user {user_part}: no matching entries in passwd file",
                "a number needs no entry",
            )
    groups: list[int] = []
    if group_part:
        gid = _group(group_part, group)
    elif name:
        groups = [
            int(fields[2])
            for fields in _entries(group, 4)
            if _is_id(fields[2]) and name in fields[3].split(",")
        ]
    _check_range(uid, gid)
    return User(uid, gid, groups, home)


def home(uid: int, passwd: str) -> str:
    """Returns a user's home directory, ``/`` where it has no entry."""
    for fields in _entries(passwd, 7):
        if fields[2] == str(uid):
            return fields[5] or "/"
    return "/"


def group_ids(specifications: "Iterable[str]", group: str) -> list[int]:
    """Returns the ids of groups given by name or number (``--group-add``).

    Raises:
        InvalidArgumentError: no such group, or a number out of range.
    """
    found = []
    for specification in specifications:
        gid = _group(specification, group, "Unable")
        _check_range(gid)
        found.append(gid)
    return found


def _group(specification: str, group: str, unable: str = "unable") -> int:
    for fields in _entries(group, 4):
        if specification in {fields[0], fields[2]} and _is_id(fields[2]):
            return int(fields[2])
    number = _number(specification)
    if number is None:
        raise InvalidArgumentError(
            f"{unable} to find group {specification}: no matching entries in group file",
            "a number needs no entry",
        )
    return number


def _number(text: str) -> int | None:
    return int(text) if _is_id(text.removeprefix("-")) else None


def _is_id(text: str) -> bool:
    """Whether it is a number that may be an id, out of range included."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX


def _check_range(*ids: int) -> None:
    if not all(0 <= number <= _MAXIMUM for number in ids):
        raise InvalidArgumentError(f"uids and gids must be in range 0-{_MAXIMUM}")


def _entries(text: str, fields: int) -> "Iterator[list[str]]":
    """The lines that have a name, each with as many fields as the format has.

    One with a NUL in it is none: no environment could hold such a home directory.
    """
    for line in text.splitlines():
        parts = line.strip().split(":")
        if parts[0] and not line.startswith("#") and "\0" not in line:
            yield (parts + [""] * fields)[:fields]
