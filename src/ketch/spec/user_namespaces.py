"""``--userns``: whether a container has ids of its own, how many, and which. Pure.

Sources: user_namespaces(7); podman-run(1), ``--userns``; for the range that is taken from where
nobody says otherwise, systemd's UIDS-GIDS.md, "Special systemd UID ranges".
"""

import re
from itertools import pairwise

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.spec import id_ranges
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

COUNT_FEW = 1024
"""The same where the engine itself has few: what podman gives at least, and images' system users
are below a thousand."""

_CONTAINERS = (524288, 1879048192 - 524288)
_HOST = ("", "host")
MODES = (
    "host", "auto", "auto:size=N", "keep-id", "keep-id:uid=N,gid=N", "nomap", "container:NAME",
)  # fmt: skip
_ID_MAX = (1 << 32) - 2
_PING_LAST = (1 << 31) - 1  # icmp(7)
_AUTO = re.compile(r"auto(?::size=([1-9][0-9]{0,9}))?")
_KEEP = re.compile(r"keep-id(?::((?:uid|gid)=[0-9]{1,10})(?:,((?:uid|gid)=[0-9]{1,10}))?)?")
_NO_MAP = "nomap"
_COUNT_MAX = 1 << 31
# What --uidmap and --gidmap come to: ranges of users, then of groups.
_MAPS = re.compile(r"uidmap=([0-9:,]+);gidmap=([0-9:,]+)")
# The same in words that mean something else to each engine: see ``id_ranges``.
_WORDS = re.compile(r"uidmap=([0-9:,+@]+);gidmap=([0-9:,+@]+)")
_RANGES_MAX = 340  # user_namespaces(7)


def check(mode: str) -> None:
    """Checks a mode, one of ``MODES`` or maps.

    Raises:
        InvalidArgumentError: it is another one.
    """
    if mode == _NO_MAP or mode.startswith("keep-id"):
        _kept(mode)
    elif mode not in _HOST and not names_container(mode) and not maps(mode):
        count(mode)


def settled(
    mode: str, uids: "IdMap", gids: "IdMap", *, is_user: bool
) -> "tuple[str, tuple[int, int] | None]":
    """Returns what a mode comes to where the engine is, and whom the program is unless it is said.

    ``keep-id``, ``nomap`` and words become maps, which a container then has for good, and ``auto``
    gets a size where few ids are there.

    Args:
        mode: as ``check`` takes it.
        uids: the user ids of the engine's own namespace.
        gids: its group ids.
        is_user: whether that is an ordinary user's, whose own id is 0 there.

    Raises:
        InvalidArgumentError: root's engine has no user to keep out, or no such ids.
        UnavailableError: the user has no ids but its own.
    """
    if mode == "auto" and not uids.is_whole:
        return f"auto:size={COUNT_FEW}", None
    if mode == _NO_MAP:
        if not is_user:
            raise InvalidArgumentError("nomap is only supported in rootless mode")
        if uids.count == 1 or gids.count == 1:
            raise UnavailableError(
                "--userns nomap: this user has no ids but its own", "run: ketch system check"
            )
        return _as_maps([[(0, 1, ids.count - 1)] for ids in (uids, gids)]), (0, 0)
    words = _WORDS.fullmatch(mode)
    if words and id_ranges.is_open(mode):
        mode = _as_maps([
            id_ranges.settled(kind, text, ids.ranges, is_user=is_user)
            for kind, text, ids in zip("ug", words.groups(), (uids, gids), strict=True)
        ])  # fmt: skip
    asked = _kept(mode)
    if asked is None:
        _check_outside(mode, uids, gids)
        return mode, None
    if not is_user:
        whole = [[(first, first, count) for first, _, count in ids.ranges] for ids in (uids, gids)]
        return _as_maps(whole), (asked.get("uid", 0), asked.get("gid", 0))
    user, group = asked.get("uid", uids.outside(0)), asked.get("gid", gids.outside(0))
    ranges = [_around(user, uids.count - 1), _around(group, gids.count - 1)]
    return _as_maps(ranges), (user, group)


def _check_outside(mode: str, uids: "IdMap", gids: "IdMap") -> None:
    found = maps(mode)
    # Who mounts files with other ids needs one for the owner of most.
    if uids.is_whole and not all(
        any(one["containerID"] == 0 for one in each) for each in found or ()
    ):
        raise InvalidArgumentError(
            f"root is not among the ids of the container: {mode}", "map 0 as well, as in 0:100000:1"
        )
    for kind, given, ids in zip(("user", "group"), found or (), (uids, gids), strict=False):
        for one in given:
            if ids.has(one["hostID"], one["size"]):
                continue
            there = ", ".join(_span(first, count) for first, _, count in sorted(ids.ranges))
            raise InvalidArgumentError(
                f"{kind} ids {_span(one['hostID'], one['size'])}, which the container is to have, "
                f"are not there: there are {there}",
                "ids outside are those of the engine's own user namespace, where an ordinary user "
                "is 0 and the subordinate ids come after it",
            )


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first} to {first + count - 1}"


def keeps_user(mode: str) -> bool:
    """Whether the user's own id is to be one of a container's users, whom its files know."""
    return _KEEP.fullmatch(mode) is not None


def _kept(mode: str) -> dict[str, int] | None:
    """Returns which ids ``keep-id`` says that the user's own are inside; None for other modes."""
    match = _KEEP.fullmatch(mode)
    if match is None:
        if mode.startswith("keep-id"):
            raise _invalid(mode)
        return None
    found: dict[str, int] = {}
    for word in filter(None, match.groups()):
        name, _, number = word.partition("=")
        if name in found or int(number) > _ID_MAX:
            raise _invalid(mode)
        found[name] = int(number)
    return found


def _around(own: int, others: int) -> "list[tuple[int, int, int]]":
    """The user's own id, 0 outside, as one number inside; the others as they come."""
    below = min(own, others)
    ranges = [(0, 1, below), (own, 0, 1), (own + 1, own + 1, others - below)]
    return [one for one in ranges if one[2]]


def _as_maps(ranges: "list[list[tuple[int, int, int]]]") -> str:
    users, groups = (
        ",".join(f"{inside}:{outside}:{count}" for inside, outside, count in each)
        for each in ranges
    )
    return f"uidmap={users};gidmap={groups}"


def mode_of_maps(users: "Sequence[str]", groups: "Sequence[str]") -> str:
    """Returns the mode that ``--uidmap`` and ``--gidmap`` ask for; one alone stands for both.

    Args:
        users: ``INSIDE:OUTSIDE:COUNT`` each, as ``id_ranges`` has it.
        groups: likewise.

    Raises:
        InvalidArgumentError: something is no such range, or the ranges cannot be.
    """
    told = [id_ranges.of_kind("u", users, groups), id_ranges.of_kind("g", groups, users)]
    mode = f"uidmap={told[0]};gidmap={told[1]}"
    if not _WORDS.fullmatch(mode) or not (id_ranges.is_open(mode) or maps(mode)):
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
        raise _invalid(mode)
    return int(match[1] or COUNT)


def _invalid(mode: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"invalid user namespace mode: {mode}", f"one of {', '.join(MODES)}"
    )


def has_group(mode: str, group: int) -> bool:
    """Whether a group's id is among those that a mode gives, as far as the mode says."""
    if found := maps(mode):
        ranges = [(one["containerID"], one["size"]) for one in found[1]]
        return any(first <= group < first + size for first, size in ranges)
    return not count(mode) or group < count(mode)


def groups_of_ping(mode: str, last: int) -> str:
    """Returns which groups may send ICMP echo requests: ``net.ipv4.ping_group_range``, icmp(7).

    The kernel takes only groups that the namespace has.

    Args:
        mode: a container's.
        last: the last of the groups from 0 on that the engine's own namespace has.
    """
    if found := maps(mode):
        lowest = min(found[1], key=lambda one: one["containerID"])
        first = lowest["containerID"]
        return f"{first} {min(first + lowest['size'] - 1, _PING_LAST)}"
    if names_container(mode):
        return "0 0"
    return f"0 {count(mode) - 1 if count(mode) else last}"


def is_apart(mode: str) -> bool:
    """Whether a container's root is not the host's: it has ids of its own, or another's."""
    return mode not in _HOST


def delegated(text: str) -> "list[tuple[str, Range]]":
    """Returns what subuid(5) or subgid(5) says, a name or number with a range each.

    What is no range counts for nothing: see ``faults``.
    """
    return [one for line in text.splitlines() if (one := _delegated(line)) is not None]


def _delegated(line: str) -> "tuple[str, Range] | None":
    name, _, rest = line.partition(":")
    first, _, number = rest.partition(":")
    start, count = decimal(first), decimal(number)
    if start is None or count is None or start + count > _ID_MAX + 1:
        return None
    return name, (start, count)


def faults(text: str, own: int, names: "Iterable[str]") -> "Iterator[str]":
    """Yield what is wrong with a user's lines of subuid(5) or subgid(5), a clause each.

    Args:
        text: the file's content.
        own: the user's id, or its group's.
        names: what the user is called in it.
    """
    names = set(names)
    for number, line in enumerate(text.splitlines(), 1):
        if line.partition(":")[0] not in names:
            continue
        found = _delegated(line)
        if found is None:
            yield f"line {number} is no NAME:FIRST:COUNT of 32 bits"
            continue
        first, count = found[1]
        if first <= own < first + count:
            yield f"line {number} has the user's own id {own}, which is left out"
        for other, (start, length) in delegated(text):
            if other not in names and start < first + count and first < start + length:
                yield f"line {number} has ids that are given to {other} as well"


def choose(wanted: int, taken: "Iterable[Range]", spaces: "Iterable[Range]") -> int:
    """Returns the first of so many ids that nobody has, the same for users and groups.

    Args:
        wanted: how many.
        taken: others'.
        spaces: where they may be.

    Raises:
        UnavailableError: there are no so many left.
    """
    used = sorted(taken)
    for first, number in spaces:
        candidate = first
        for begin, length in used:
            if begin < candidate + wanted:
                candidate = max(candidate, begin + length)
        if candidate + wanted <= first + number:
            return candidate
    raise UnavailableError(
        f"no {wanted} user and group ids are left for a container",
        "remove containers that have some, ask for fewer with auto:size=N, or give more in "
        "/etc/subuid and /etc/subgid (to root's engine as those of the user "
        f"{OWNER})",
    )


def spaces_of_machine(
    users: "list[tuple[str, Range]]", groups: "list[tuple[str, Range]]"
) -> "tuple[list[Range], list[Range]]":
    """Returns where root's containers may have ids, and which of these are others'.

    Args:
        users: what ``delegated`` says of user ids.
        groups: what it says of group ids.
    """
    own = [[span for name, span in each if name == OWNER] for each in (users, groups)]
    if any(own):
        return [*_common(own[0], own[1])], []
    return [_CONTAINERS], [span for _, span in (*users, *groups)]


def spaces_of_namespace(uids: "IdMap", gids: "IdMap") -> "list[Range]":
    """Returns where containers of an engine in a user namespace may have ids: all but its root."""
    users, groups = (
        [(max(first, 1), first + count - max(first, 1)) for first, _, count in ids.ranges]
        for ids in (uids, gids)
    )
    return [*_common(users, groups)]


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

    Attributes:
        ranges: those three numbers each.
    """

    __slots__ = ("ranges",)

    def __init__(self, text: str) -> None:
        self.ranges: list[tuple[int, int, int]] = []
        for line in text.splitlines():
            inside, outside, count = map(int, line.split())
            self.ranges.append((inside, outside, count))

    @classmethod
    def of(cls, mappings: "Iterable[IdMapping]") -> "IdMap":
        """Returns the map that these ranges are."""
        lines = (f"{one['containerID']} {one['hostID']} {one['size']}" for one in mappings)
        return cls("\n".join(lines))

    @property
    def is_whole(self) -> bool:
        """Whether these are all ids that there are, as on a machine itself."""
        return self.ranges == [(0, 0, _ID_MAX + 1)]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(count for _, _, count in self.ranges)

    @property
    def text(self) -> str:
        """The map as the kernel's files have it."""
        return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in self.ranges)

    def has(self, first: int, count: int) -> bool:
        """Whether a range of ids inside is there, whole."""
        end = first + count
        for inside, _, length in sorted(self.ranges):
            if inside <= first < inside + length:
                first = inside + length
        return first >= end

    def first_outside(self) -> int:
        """Returns what the lowest id inside is outside: root's, where there is root."""
        return min(self.ranges)[1]

    def outside(self, number: int) -> int:
        """Returns what an id inside is outside.

        Raises:
            InvalidArgumentError: the namespace does not have it.
        """
        found = self.outside_or(number, -1)
        if found < 0:
            raise InvalidArgumentError(f"id {number} is not among those that the container has")
        return found

    def outside_or(self, number: int, otherwise: int) -> int:
        """Returns what an id inside is outside, or something else where there is no such id."""
        for inside, outside, length in self.ranges:
            if inside <= number < inside + length:
                return outside + number - inside
        return otherwise

    def composed(self, mappings: "Iterable[IdMapping]") -> "Iterator[IdMapping]":
        """Yield a mount's map with the ids outside in the place of those inside, as far as it goes.

        Args:
            mappings: of a mount: ids on the disk (``containerID``) and inside (``hostID``).
        """
        for mapping in mappings:
            begin, end = mapping["hostID"], mapping["hostID"] + mapping["size"]
            for inside, outside, length in self.ranges:
                low, high = max(begin, inside), min(end, inside + length)
                if low < high:
                    yield {
                        "containerID": mapping["containerID"] + low - begin,
                        "hostID": outside + low - inside,
                        "size": high - low,
                    }

    def inside(self, number: int) -> int:
        """Returns what an id outside is inside: the overflow id if it has no name there."""
        for inside, outside, length in self.ranges:
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
