"""Users and groups, looked up in the text of an image's own /etc/passwd and /etc/group.

No NSS: its modules would be loaded from the container's files. Source: passwd(5), group(5); the
rules are those of the field's ``user:group`` syntax (``GetExecUser`` in moby/sys/user). A number is
an id and never a name, however long: an image whose files name somebody ``1000`` or ``4294967296``
cannot make root of who asked for a number (CVE-2016-3697, CVE-2026-46680).
"""

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEEP_GROUPS = "keep-groups"
"""``--group-add`` of this leaves the caller's own supplementary groups, and adds none: podman's."""

ID_MAX = (1 << 31) - 1
"""The largest id that can be asked for, Docker's limit."""


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
    number = id_of(user_part) if user_part else 0
    uid, gid, home, name = number or 0, 0, "/", ""
    for fields in _entries(passwd, 7):
        own, primary = decimal(fields[2]), decimal(fields[3])
        if own is None or primary is None:
            continue
        if fields[0] == user_part if number is None else own == number:
            name, uid, gid = fields[0], own, primary
            home = fields[5] or "/"
            break
    else:
        if number is None:
            raise InvalidArgumentError(
                f"unable to find user {user_part}: no matching entries in passwd file",
                "a number needs no entry",
            )
    groups: list[int] = []
    if group_part:
        gid = _group(group_part, group)
    elif name:
        groups = [
            member
            for fields in _entries(group, 4)
            if (member := decimal(fields[2])) is not None and name in fields[3].split(",")
        ]
    _check_range(uid, gid, *groups)
    return User(uid, gid, groups, home)


def id_of(text: str) -> int | None:
    """Returns the id that a user or group is given as; None for a name.

    Raises:
        InvalidArgumentError: it is a number, and no id.
    """
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    number = decimal(digits.lstrip("0") or "0")
    if number is None or number > ID_MAX or (number and text[0] == "-"):
        raise _out_of_range()
    return number


def home(uid: int, passwd: str) -> str:
    """Returns a user's home directory, ``/`` where it has no entry."""
    for fields in _entries(passwd, 7):
        if decimal(fields[2]) == uid:
            return fields[5] or "/"
    return "/"


def group_ids(specifications: "Iterable[str]", group: str) -> list[int]:
    """Returns the ids of groups given by name or number (``--group-add``), or of KEEP_GROUPS none.

    Raises:
        InvalidArgumentError: no such group, or a number out of range.
    """
    specifications = list(specifications)
    if KEEP_GROUPS in specifications:
        if set(specifications) != {KEEP_GROUPS}:
            raise InvalidArgumentError(
                "the '--group-add keep-groups' option is not allowed with any other --group-add "
                "options"
            )
        return []
    found = []
    for specification in specifications:
        gid = _group(specification, group, "Unable")
        _check_range(gid)
        found.append(gid)
    return found


def _group(specification: str, group: str, unable: str = "unable") -> int:
    number = id_of(specification)
    if number is not None:
        return number
    for fields in _entries(group, 4):
        gid = decimal(fields[2])
        if fields[0] == specification and gid is not None:
            return gid
    raise InvalidArgumentError(
        f"{unable} to find group {specification}: no matching entries in group file",
        "a number needs no entry",
    )


def _check_range(*ids: int) -> None:
    if any(number > ID_MAX for number in ids):
        raise _out_of_range()


def _out_of_range() -> InvalidArgumentError:
    return InvalidArgumentError(f"uids and gids must be in range 0-{ID_MAX}")


def _entries(text: str, fields: int) -> "Iterator[list[str]]":
    """The lines that have a name, each with as many fields as the format has.

    One with a NUL in it is none: no environment could hold such a home directory.
    """
    # No other character ends a line, whatever Unicode has of them.
    for line in text.split("\n"):
        parts = line.strip().split(":")
        if parts[0] and not line.startswith("#") and "\0" not in line:
            yield (parts + [""] * fields)[:fields]
