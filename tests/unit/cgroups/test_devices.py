"""Device rules: the v1 model, the writes that reach it, and the v2 program, against each other."""

from struct import iter_unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cgroups.device_program import program
from ketch.cgroups.devices import (
    ALL,
    BLOCK,
    CHARACTER,
    DEFAULT_RULES,
    MKNOD,
    READ,
    WRITE,
    Policy,
    parse_list,
    policy,
    transition,
)
from ketch.errors import InvalidArgumentError
from ketch.spec.runtime import DeviceRule

kinds = st.sampled_from([BLOCK, CHARACTER])
numbers = st.integers(0, 4)
accesses = st.integers(1, 7)
requests = st.tuples(kinds, numbers, numbers, accesses)
exceptions = st.dictionaries(
    st.tuples(kinds, numbers | st.just(ALL), numbers | st.just(ALL)), accesses, max_size=6
)
policies = st.builds(Policy, st.booleans(), exceptions)


def run(code: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """Interpret a program as the kernel would; ends with its verdict."""
    words = [access << 16 | kind, major, minor]
    registers: dict[int, int] = {1: 0}
    instructions = list(iter_unpack("=BBhi", code))
    at = 0
    while True:
        opcode, pair, offset, value = instructions[at]
        to, source = pair & 15, pair >> 4
        at += 1
        match opcode:
            case 0x61:  # r = *(u32 *)(context + offset)
                assert registers[source] == 0
                registers[to] = words[offset // 4]
            case 0xB4:
                registers[to] = value
            case 0xBC:
                registers[to] = registers[source] & 0xFFFFFFFF
            case 0x54:
                registers[to] &= value & 0xFFFFFFFF
            case 0x74:
                registers[to] = (registers[to] & 0xFFFFFFFF) >> value
            case 0x55:
                at += offset if registers[to] != value else 0
            case 0x15:
                at += offset if registers[to] == value else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"instruction {opcode:#x}")


def permits(target: Policy, kind: int, major: int, minor: int, access: int) -> bool:
    """Whether a device may be used in all the given ways, as the v1 kernel judges it.

    An allowing exception must cover the whole access; a denying one need only touch it.
    """
    for (of, its_major, its_minor), mask in target.exceptions.items():
        if (
            of == kind
            and its_major in {ALL, major}
            and its_minor in {ALL, minor}
            and (mask & access if target.allows else access & ~mask == 0)
        ):
            return not target.allows
    return target.allows


@given(policies, requests)
def test_the_program_judges_as_the_policy(target: Policy, request: tuple[int, ...]) -> None:
    assert run(program(target), *request) == permits(target, *request)


def replay(start: Policy, writes: list[tuple[str, str]]) -> Policy:
    """Do to a policy what the v1 kernel files do, security/device_cgroup.c."""
    allows, held = start.allows, dict(start.exceptions)
    for file, value in writes:
        if value == "a":
            allows, held = file == "devices.allow", {}
            continue
        ((key, access),) = parse_list(value).exceptions.items()
        if (file == "devices.allow") == allows:
            held[key] = held.get(key, 0) & ~access
            if not held[key]:
                del held[key]
        else:
            held[key] = held.get(key, 0) | access
    return Policy(allows, held)


@given(policies, policies)
def test_a_transition_ends_at_its_target(start: Policy, target: Policy) -> None:
    # What devices.list tells of a cgroup that allows by default is less than what holds.
    seen = Policy(allows=True) if start.allows else start
    reached = replay(start, transition(seen, target))
    assert (reached.allows, reached.exceptions) == (target.allows, target.exceptions)


@given(exceptions, exceptions)
def test_a_transition_between_lists_never_resets(
    old: dict[tuple[int, int, int], int], new: dict[tuple[int, int, int], int]
) -> None:
    assert "a" not in [value for _, value in transition(Policy(False, old), Policy(False, new))]


@given(exceptions)
def test_a_transition_to_the_same_writes_nothing(held: dict[tuple[int, int, int], int]) -> None:
    assert transition(Policy(False, held), Policy(False, dict(held))) == []


def test_a_fresh_cgroup_that_may_use_everything_needs_no_write() -> None:
    assert transition(Policy(True), Policy(True), fresh=True) == []
    assert transition(Policy(True), Policy(True)) == [("devices.allow", "a")]


def test_the_usual_container() -> None:
    target = policy([{"allow": False, "access": "rwm"}])
    writes = transition(parse_list("a *:* rwm\n"), target, fresh=True)
    assert writes[:3] == [
        ("devices.deny", "a"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c *:* m"),
    ]
    assert ("devices.allow", "c 136:* rwm") in writes
    assert len(writes) == 1 + len(DEFAULT_RULES)
    assert permits(target, CHARACTER, 1, 3, READ | WRITE)
    assert permits(target, BLOCK, 8, 0, MKNOD)
    assert not permits(target, BLOCK, 8, 0, READ)


def test_defaults_do_not_dilute_what_allows_by_default() -> None:
    target = policy([{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 3}])
    assert not permits(target, CHARACTER, 1, 3, READ)
    assert permits(target, CHARACTER, 1, 5, READ)


def test_a_denial_that_touches_the_access_denies_it() -> None:
    target = policy([{"allow": True}, {"allow": False, "type": "b", "access": "w"}])
    assert permits(target, BLOCK, 8, 0, READ)
    assert not permits(target, BLOCK, 8, 0, READ | WRITE)


def test_later_rules_win() -> None:
    rules: list[DeviceRule] = [
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rwm"},
        {"allow": False, "type": "b", "major": 8, "minor": 0, "access": "w"},
    ]
    assert not permits(policy(rules), BLOCK, 8, 0, WRITE)
    assert permits(policy(rules), BLOCK, 8, 0, READ)
    assert permits(policy(rules[::-1]), BLOCK, 8, 0, WRITE)
    assert not permits(policy([*rules, {"allow": False}]), BLOCK, 8, 0, READ)


def test_all_with_numbers_is_not_everything() -> None:
    target = policy([{"allow": True, "type": "a", "major": 10, "minor": 200, "access": "rw"}])
    assert not target.allows
    assert permits(target, CHARACTER, 10, 200, READ)
    assert permits(target, BLOCK, 10, 200, READ)
    assert not permits(target, CHARACTER, 10, 201, READ)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [
                {"allow": True, "type": "c", "major": 4, "access": "rw"},
                {"allow": False, "type": "c", "major": 4, "minor": 1, "access": "w"},
            ],
            r"'deny c 4:1 w' takes back part of the wider, earlier rule c 4:\* rw",
        ),
        ([{"allow": True, "type": "p"}], "type 'p'"),
        ([{"allow": True, "type": "c", "access": "x"}], "access 'x'"),
        ([{"allow": True, "type": "c", "major": -2}], "out of range"),
        ([{"allow": True, "type": "c", "minor": 1 << 31}], "out of range"),
    ],
)
def test_refused(rules: list[DeviceRule], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        policy(rules)


def test_a_narrower_denial_of_other_permissions_is_fine() -> None:
    target = policy(
        [
            {"allow": True, "type": "c", "major": 4, "access": "r"},
            {"allow": False, "type": "c", "major": 4, "minor": 1, "access": "w"},
        ]
    )
    assert permits(target, CHARACTER, 4, 1, READ)
