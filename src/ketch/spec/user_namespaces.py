"""``--userns``: whether a container has ids of its own, how many, and which. Pure.

Sources: user_namespaces(7); podman-run(1), ``--userns``; for the range that is taken from where
nobody says otherwise, systemd's UIDS-GIDS.md, "Special systemd UID ranges".
"""

import re
from itertools import pairwise

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.spec.digits import decimal
from ketch.spec.endpoints import names_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ketch.spec.runtime import IdMapping

    Range = tuple[int, int]  # the first id, and how many

OWNER = "ketch"
"""Whose ranges in /etc/subuid and /etc/subgid containers' ids are taken from, if it has any."""

COUNT = 65536
"""How many ids a container has unless it asks for another number: as many as 16 bits can name."""

OVERFLOW_ID = 65534
"""What an id is shown as that has no name in a namespace: /proc/sys/kernel/overflowuid."""

_CONTAINERS = (524288, 1879048192 - 524288)
_HOST = ("", "host")
_AUTO = re.compile(r"auto(?::size=([1-9][0-9]{0,9}))?")
_COUNT_MAX = 1 << 31
# What --uidmap and --gidmap come to: ranges of users, then of groups.
_MAPS = re.compile(r"uidmap=([0-9:,]+);gidmap=([0-9:,]+)")
_RANGES_MAX = 340  # user_namespaces(7)


def check(mode: str) -> None:
    """Checks a mode: ``host``, ``auto``, ``auto:size=N``, ``container:NAME``, or maps.

    Raises:
        InvalidArgumentError: it is another one.
    """
    if mode not in _HOST and not names_container(mode) and not maps(mode):
        count(mode)


def mode_of_maps(users: "Sequence[str]", groups: "Sequence[str]") -> str:
    """Returns the mode that ``--uidmap`` and ``--gidmap`` ask for; one alone stands for both.

    Args:
        users: ``INSIDE:OUTSIDE:COUNT`` each; one where the count is missing.
        groups: likewise.

    Raises:
        InvalidArgumentError: something is no such range, or the ranges cannot be.
    """
    told = []
    for given in (users or groups, groups or users):
        whole = [text if text.count(":") == 2 else f"{text}:1" for text in given]
        told.append(",".join(whole))
    mode = f"uidmap={told[0]};gidmap={told[1]}"
    if not maps(mode):
        raise InvalidArgumentError(
            f"invalid ranges of ids: {mode}", "a range is INSIDE:OUTSIDE:COUNT, three numbers"
        )
    return mode


def maps(mode: str) -> "tuple[list[IdMapping], list[IdMapping]] | None":
    """Returns the users and groups of a mode that says which these are, else None.

    Raises:
        InvalidArgumentError: the ranges cannot be.
    """
    match = _MAPS.fullmatch(mode)
    return (_ranges(match[1]), _ranges(match[2])) if match else None


def _ranges(text: str) -> "list[IdMapping]":
    found: list[IdMapping] = []
    for part in text.split(","):
        numbers = [decimal(word, 10) for word in part.split(":")]
        if len(numbers) != 3 or None in numbers:
            raise InvalidArgumentError(
                f"invalid range of ids: {part}", "a range is INSIDE:OUTSIDE:COUNT, three numbers"
            )
        inside, outside, length = (number or 0 for number in numbers)
        if not length or max(inside, outside) + length >= 1 << 32:
            raise InvalidArgumentError(f"invalid range of ids: {part}: there are 32 bits")
        found.append({"containerID": inside, "hostID": outside, "size": length})
    for key in ("containerID", "hostID"):
        spans = sorted((one[key], one["size"]) for one in found)
        if any(first + size > after for (first, size), (after, _) in pairwise(spans)):
            raise InvalidArgumentError(f"ranges of ids overlap: {text}")
    if len(found) > _RANGES_MAX:
        raise InvalidArgumentError(
            f"{len(found)} ranges of ids, at most {_RANGES_MAX} are possible"
        )
    if not any(one["containerID"] == 0 for one in found):
        raise InvalidArgumentError(
            f"root is not among the ids of the container: {text}", "map 0 as well, as in 0:100000:1"
        )
    return found


def count(mode: str) -> int:
    """Returns how many ids a mode asks for; 0 for none of its own.

    Raises:
        InvalidArgumentError: there is no such mode.
    """
    if mode in _HOST or names_container(mode) or _MAPS.fullmatch(mode):
        return 0
    match = _AUTO.fullmatch(mode)
    if match is None or int(match[1] or COUNT) > _COUNT_MAX:
        raise InvalidArgumentError(
            f"invalid user namespace mode: {mode}",
            "one of host, auto, auto:size=N, container:NAME",
        )
    return int(match[1] or COUNT)


def has_group(mode: str, group: int) -> bool:
    """Whether a group's id is among those that a mode gives, as far as the mode says."""
    if found := maps(mode):
        ranges = [(one["containerID"], one["size"]) for one in found[1]]
        return any(first <= group < first + size for first, size in ranges)
    return not count(mode) or group < count(mode)


def is_apart(mode: str) -> bool:
    """Whether a container's root is not the host's: it has ids of its own, or another's."""
    return mode not in _HOST


def delegated(text: str) -> "list[tuple[str, Range]]":
    """Returns what subuid(5) or subgid(5) says, a name or number with a range each."""
    found = []
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        first, _, number = rest.partition(":")
        start, count = decimal(first), decimal(number)
        if start is not None and count is not None:
            found.append((name, (start, count)))
    return found


def choose(
    wanted: int,
    taken: "Iterable[Range]",
    users: "list[tuple[str, Range]]",
    groups: "list[tuple[str, Range]]",
) -> int:
    """Returns the first of so many ids that nobody has, the same for users and groups.

    Args:
        wanted: how many.
        taken: other containers'.
        users: what ``delegated`` says of user ids.
        groups: what it says of group ids.

    Raises:
        UnavailableError: there are no so many left.
    """
    own = [[span for name, span in each if name == OWNER] for each in (users, groups)]
    if any(own):
        spaces = [*_common(own[0], own[1])]
        others: list[Range] = []
    else:
        spaces = [_CONTAINERS]
        others = [span for _, span in (*users, *groups)]
    used = sorted((*taken, *others))
    for first, number in spaces:
        candidate = first
        for begin, length in used:
            if begin < candidate + wanted:
                candidate = max(candidate, begin + length)
        if candidate + wanted <= first + number:
            return candidate
    raise UnavailableError(
        f"no {wanted} user and group ids are left for a container",
        f"remove containers that have some, or give {OWNER} more in /etc/subuid and /etc/subgid",
    )


def of_user(
    own: int, names: "Iterable[str]", subordinate: "list[tuple[str, Range]]"
) -> "list[IdMapping]":
    """Returns the ids of an ordinary user's namespace: its own as root, then what it was given.

    Args:
        own: the user's id, or its group's.
        names: what the user is called in subuid(5) and subgid(5): its name and its number.
        subordinate: what ``delegated`` says.

    A range that has the user's own id, or what another has already, counts as far as it is new.
    """
    found: list[IdMapping] = [{"containerID": 0, "hostID": own, "size": 1}]
    names = set(names)
    taken = [(own, 1)]
    inside = 1
    for name, (first, size) in subordinate:
        if name not in names:
            continue
        for begin, length in _less(first, size, taken):
            if len(found) == _RANGES_MAX:
                return found
            found.append({"containerID": inside, "hostID": begin, "size": length})
            taken.append((begin, length))
            inside += length
    return found


def _less(first: int, size: int, taken: "list[Range]") -> "Iterator[Range]":
    """Yield what is left of a range without others."""
    end = first + size
    for begin, length in sorted(taken):
        if first < begin < end:
            yield first, begin - first
        if begin < end and begin + length > first:
            first = max(first, begin + length)
    if first < end:
        yield first, end - first


class IdMap:
    """How a user namespace's ids are known outside.

    Args:
        text: /proc/PID/uid_map or gid_map: lines of first id inside, first outside, how many.
    """

    __slots__ = ("_ranges",)

    def __init__(self, text: str) -> None:
        self._ranges = [tuple(map(int, line.split())) for line in text.splitlines()]

    @classmethod
    def of(cls, mappings: "Iterable[IdMapping]") -> "IdMap":
        """Returns the map that these ranges are."""
        lines = (f"{one['containerID']} {one['hostID']} {one['size']}" for one in mappings)
        return cls("\n".join(lines))

    @property
    def is_identity(self) -> bool:
        """Whether all ids are the same inside and outside."""
        return all(inside == outside for inside, outside, _ in self._ranges)

    def outside(self, number: int) -> int:
        """Returns what an id inside is outside.

        Raises:
            InvalidArgumentError: the namespace does not have it.
        """
        for inside, outside, length in self._ranges:
            if inside <= number < inside + length:
                return outside + number - inside
        raise InvalidArgumentError(f"id {number} is not among those that the container has")

    def composed(self, mappings: "Iterable[IdMapping]") -> "Iterator[IdMapping]":
        """Yield a mount's map with the ids outside in the place of those inside, as far as it goes.

        Args:
            mappings: of a mount: ids on the disk (``containerID``) and inside (``hostID``).
        """
        for mapping in mappings:
            begin, end = mapping["hostID"], mapping["hostID"] + mapping["size"]
            for inside, outside, length in self._ranges:
                low, high = max(begin, inside), min(end, inside + length)
                if low < high:
                    yield {
                        "containerID": mapping["containerID"] + low - begin,
                        "hostID": outside + low - inside,
                        "size": high - low,
                    }

    def inside(self, number: int) -> int:
        """Returns what an id outside is inside: the overflow id if it has no name there."""
        for inside, outside, length in self._ranges:
            if outside <= number < outside + length:
                return inside + number - outside
        return OVERFLOW_ID


def _common(users: "list[Range]", groups: "list[Range]") -> "Iterator[Range]":
    """Yield what is in both of two lists of ranges."""
    for first, number in users:
        for other, size in groups:
            begin, end = max(first, other), min(first + number, other + size)
            if begin < end:
                yield begin, end - begin
