"""Which devices a cgroup may use: the rules of an OCI configuration, made exact.

The rules are a list in which later ones win, but neither kernel interface is a list. A v1 cgroup
has a default (allow or deny everything) and a set of exceptions to it; a v2 cgroup runs a BPF
program. Both are derived here from one ``Policy``, which is the v1 model:

- a rule for all devices sets the default and forgets every exception;
- a rule against the default adds to the exceptions;
- a rule along with the default takes from them, and it is an error if a wider exception would
  still hold: v1 would ignore such a rule without a word, and the container be less confined than
  its configuration says.

A rule of type ``a`` with numbers or with fewer permissions than ``rwm`` counts for block and for
character devices, as the runtime specification reads. (The v1 kernel file takes any ``a`` for
"everything", which would turn one allowed device into all of them.)

Source: runtime-spec config-linux.md "Allowed Device list", Documentation/admin-guide/cgroup-v1/
devices.rst, security/device_cgroup.c; for v2 see ``device_program``.
"""

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.runtime import DeviceRule

# As in struct bpf_cgroup_dev_ctx, <linux/bpf.h>.
MKNOD, READ, WRITE = 1, 2, 4
BLOCK, CHARACTER = 1, 2
ALL = -1

_ACCESS = {"m": MKNOD, "r": READ, "w": WRITE}
EVERYTHING = MKNOD | READ | WRITE
_TYPES = {"b": BLOCK, "c": CHARACTER, "u": CHARACTER}

# What every container may use where its policy denies by default: making any node, and using the
# devices that runtime-spec's "Default Devices" puts into /dev.
DEFAULT_RULES: "list[DeviceRule]" = [
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},  # null
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},  # zero
    {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},  # full
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},  # random
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},  # urandom
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},  # tty
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},  # ptmx
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},  # pts/*
]

type_and_numbers = tuple[int, int, int]


class Policy:
    """A default, and exceptions to it.

    Args:
        allows: whether a device that no exception names may be used.
        exceptions: (BLOCK or CHARACTER, major or ALL, minor or ALL) -> MKNOD | READ | WRITE.
    """

    __slots__ = ("allows", "exceptions")

    def __init__(
        self, allows: bool = False, exceptions: dict[type_and_numbers, int] | None = None
    ) -> None:
        self.allows = allows
        self.exceptions = exceptions or {}

    @property
    def allows_everything(self) -> bool:
        """Whether no device is forbidden."""
        return self.allows and not self.exceptions


def policy(rules: "Iterable[DeviceRule]") -> Policy:
    """Make a policy of an OCI list of rules; before the first of them everything is denied.

    Where the outcome denies by default, DEFAULT_RULES are added, as runc and crun do.

    Raises:
        InvalidArgumentError: a rule is malformed, or takes back part of a wider exception.
    """
    made = Policy()
    for rule in rules:
        _apply(made, rule)
    if not made.allows:
        for rule in DEFAULT_RULES:
            _apply(made, rule)
    return made


def _apply(target: Policy, rule: "DeviceRule") -> None:
    kind, major, minor = rule.get("type") or "a", rule.get("major", ALL), rule.get("minor", ALL)
    access = 0
    for letter in rule.get("access") or "rwm":
        if letter not in _ACCESS:
            raise InvalidArgumentError(
                f"device rule {_text(rule)}: access {letter!r} is none of r, w and m"
            )
        access |= _ACCESS[letter]
    if kind not in {"a", *_TYPES}:
        raise InvalidArgumentError(f"device rule {_text(rule)}: type {kind!r} is none of a, b, c")
    if not (ALL <= major < 1 << 31 and ALL <= minor < 1 << 31):
        raise InvalidArgumentError(f"device rule {_text(rule)}: number out of range")
    if (kind, major, minor, access) == ("a", ALL, ALL, EVERYTHING):
        target.allows = rule["allow"]
        target.exceptions = {}
        return
    for of in (BLOCK, CHARACTER) if kind == "a" else (_TYPES[kind],):
        key = (of, major, minor)
        if rule["allow"] != target.allows:
            target.exceptions[key] = target.exceptions.get(key, 0) | access
            continue
        for wider in ((of, ALL, minor), (of, major, ALL), (of, ALL, ALL)):
            if wider != key and target.exceptions.get(wider, 0) & access:
                raise InvalidArgumentError(
                    f"device rule {_text(rule)} takes back part of the wider, earlier rule "
                    f"{_line(wider, target.exceptions[wider])}, which no kernel can express",
                    "name the devices one by one instead",
                )
        left = target.exceptions.pop(key, 0) & ~access
        if left:
            target.exceptions[key] = left


def _text(rule: "DeviceRule") -> str:
    verb = "allow" if rule["allow"] else "deny"
    numbers = ":".join(
        "*" if number == ALL else str(number)
        for number in (rule.get("major", ALL), rule.get("minor", ALL))
    )
    return f"'{verb} {rule.get('type') or 'a'} {numbers} {rule.get('access') or 'rwm'}'"


def _line(key: type_and_numbers, access: int) -> str:
    """An exception as the v1 files spell it: ``c 1:3 rwm``."""
    kind, *numbers = key
    text = ":".join("*" if number == ALL else str(number) for number in numbers)
    letters = "".join(letter for letter in "rwm" if _ACCESS[letter] & access)
    return f"{'b' if kind == BLOCK else 'c'} {text} {letters}"


def parse_list(text: str) -> Policy:
    """Read a v1 ``devices.list``.

    A cgroup that allows by default shows one line whatever its exceptions are, so these are lost.
    """
    found = Policy()
    for line in text.splitlines():
        kind, numbers, letters = line.split()
        if kind == "a":
            return Policy(allows=True)
        major, minor = (ALL if part == "*" else int(part) for part in numbers.split(":"))
        access = sum(_ACCESS[letter] for letter in letters)
        found.exceptions[_TYPES[kind], major, minor] = access
    return found


def transition(current: Policy, target: Policy, *, fresh: bool = False) -> list[tuple[str, str]]:
    """What to write to turn a v1 cgroup from one policy to another without a gap.

    Rules that stay are not touched, so a device in use is never refused in between, unless the
    default itself changes.

    Args:
        current: of ``parse_list``.
        target: what to reach.
        fresh: the cgroup was just made, so what ``current`` cannot tell is not there.

    Returns:
        (file, value) in order.
    """
    writes: list[tuple[str, str]] = []
    old = current.exceptions
    with_default, against = (
        ("devices.allow", "devices.deny") if target.allows else ("devices.deny", "devices.allow")
    )
    if current.allows != target.allows or (current.allows and not fresh):
        writes.append((with_default, "a"))
        old = {}
    for file, these, those in (
        (with_default, old, target.exceptions),
        (against, target.exceptions, old),
    ):
        writes += [
            (file, _line(key, differing))
            for key in sorted(these)
            if (differing := these[key] & ~those.get(key, 0))
        ]
    return writes
