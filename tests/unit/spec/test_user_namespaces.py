"""Which ids a container gets, and how they are known outside."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, UnavailableError, spelt_out
from ketch.spec import user_namespaces
from ketch.spec.runtime import IdMapping
from ketch.spec.user_namespaces import OVERFLOW_ID, IdMap

RANGES = st.lists(st.tuples(st.integers(0, 1 << 31), st.integers(1, 1 << 20)), max_size=20)
MAPS = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 100)), max_size=4
).map(lambda ranges: IdMap("".join(f"{a} {b} {n}\n" for a, b, n in ranges)))


@pytest.mark.parametrize(
    ("mode", "count"),
    [("", 0), ("host", 0), ("container:web", 0), ("auto", 65536), ("auto:size=1", 1)],
)
def test_how_many_ids_a_mode_asks_for(mode: str, count: int) -> None:
    user_namespaces.check(mode)
    assert user_namespaces.count(mode) == count


@given(st.text(max_size=20))
def test_any_other_mode_is_refused_by_name(mode: str) -> None:
    if mode in {"", "host", "auto", "keep-id", "nomap"} or re.fullmatch(
        "container:.+|auto:size=[1-9][0-9]*|keep-id:.*", mode
    ):
        return
    with pytest.raises(InvalidArgumentError) as caught:
        user_namespaces.check(mode)
    assert spelt_out(mode) in caught.value.message


def chosen(
    wanted: int,
    taken: list[tuple[int, int]],
    users: list[tuple[str, tuple[int, int]]],
    groups: list[tuple[str, tuple[int, int]]],
) -> int:
    """Choose among the machine's ids."""
    spaces, others = user_namespaces.spaces_of_machine(users, groups)
    return user_namespaces.choose(wanted, [*taken, *others], spaces)


def test_the_last_id_of_a_range_is_given_too() -> None:
    delegated = [(user_namespaces.OWNER, (1000, 300))]
    taken = [(1000, 200)]
    assert chosen(100, taken, delegated, delegated) == 1200
    with pytest.raises(UnavailableError):
        chosen(101, taken, delegated, delegated)


def test_ids_come_from_systemd_s_range_for_containers() -> None:
    assert chosen(65536, [], [], []) == 524288


def test_those_of_users_are_left_to_them() -> None:
    users = user_namespaces.delegated("alice:100000:65536\nbob:524288:65536\nbroken\nx:y:z\n")
    assert users == [("alice", (100000, 65536)), ("bob", (524288, 65536))]
    assert chosen(65536, [], users, []) == 524288 + 65536
    assert chosen(65536, [], [], users) == 524288 + 65536


def test_who_gives_ketch_ids_says_which() -> None:
    users = user_namespaces.delegated("ketch:1000000:200000\n")
    groups = user_namespaces.delegated("ketch:1100000:200000\n")
    assert chosen(65536, [], users, groups) == 1100000
    with pytest.raises(UnavailableError, match="no 65536 user and group ids are left"):
        chosen(65536, [(1100000, 65536)], users, groups)
    with pytest.raises(UnavailableError):
        chosen(1, [], users, [])


@given(RANGES, RANGES, st.integers(1, 1 << 20))
def test_nobody_has_them_already(
    taken: list[tuple[int, int]], others: list[tuple[int, int]], wanted: int
) -> None:
    users = [("someone", span) for span in others]
    first = chosen(wanted, taken, users, [])
    assert first >= 524288
    assert first + wanted <= 1879048192
    for begin, length in (*taken, *others):
        assert first + wanted <= begin or begin + length <= first


@given(st.text())
def test_any_file_of_delegations_is_read(text: str) -> None:
    for _, (first, count) in user_namespaces.delegated(text):
        assert first >= 0
        assert count >= 0


def test_ids_inside_and_outside() -> None:
    ids = IdMap("         0     524288      65536\n     70000          5          1\n")
    assert ids.outside(33) == 524321
    assert ids.outside(70000) == 5
    assert ids.inside(524321) == 33
    assert ids.inside(0) == OVERFLOW_ID
    with pytest.raises(InvalidArgumentError, match="id 65536 is not among"):
        ids.outside(65536)


def test_a_mount_s_map_is_followed_by_the_container_s() -> None:
    ids = IdMap("0 1000 10")
    mount: list[IdMapping] = [
        {"containerID": 500, "hostID": 0, "size": 1},
        {"containerID": 2, "hostID": 5, "size": 9},
    ]
    assert list(ids.composed(mount)) == [
        {"containerID": 500, "hostID": 1000, "size": 1},
        {"containerID": 2, "hostID": 1005, "size": 5},
    ]


@given(MAPS, MAPS, st.integers(0, 1200))
def test_composing_is_one_after_the_other(container: IdMap, mount: IdMap, number: int) -> None:
    ranges: list[IdMapping] = [
        {"containerID": on_disk, "hostID": inside, "size": size}
        for on_disk, inside, size in mount.ranges
    ]
    found = [
        each["hostID"] + number - each["containerID"]
        for each in container.composed(ranges)
        if 0 <= number - each["containerID"] < each["size"]
    ]
    inside = [
        entry["hostID"] + number - entry["containerID"]
        for entry in ranges
        if 0 <= number - entry["containerID"] < entry["size"]
    ]
    expected = [
        outside + each - begin
        for each in inside
        for begin, outside, size in container.ranges
        if begin <= each < begin + size
    ]
    assert sorted(found) == sorted(expected)


def test_ids_by_name() -> None:
    mode = user_namespaces.mode_of_maps(["0:1000:5", "7:1:2"], [])
    assert mode == "uidmap=0:1000:5,7:1:2;gidmap=0:1000:5,7:1:2"
    assert user_namespaces.mode_of_maps([], ["0:9"]) == "uidmap=0:9:1;gidmap=0:9:1"
    users, groups = user_namespaces.maps(mode) or ([], [])
    assert users == groups == [
        {"containerID": 0, "hostID": 1000, "size": 5}, {"containerID": 7, "hostID": 1, "size": 2},
    ]  # fmt: skip
    assert user_namespaces.is_apart(mode)
    assert user_namespaces.count(mode) == 0
    assert [user_namespaces.has_group(mode, number) for number in (0, 4, 5, 7, 8, 9)] == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert user_namespaces.has_group("", 5)
    assert user_namespaces.has_group("auto", 5)
    assert not user_namespaces.has_group("auto:size=5", 5)
    assert IdMap.of(users).outside(8) == 2
    assert user_namespaces.maps("auto") is None


def _spans(*maps: tuple[int, int, int]) -> list[dict[str, int]]:
    return [
        {"containerID": inside, "hostID": first, "size": count} for inside, first, count in maps
    ]


@pytest.mark.parametrize(
    ("subordinate", "expected"),
    [
        ("", [(0, 1000, 1)]),
        ("ann:100000:65536\n", [(0, 1000, 1), (1, 100000, 65536)]),
        ("1000:100000:10\nann:200000:5\n", [(0, 1000, 1), (1, 100000, 10), (11, 200000, 5)]),
        ("bob:100000:65536\n", [(0, 1000, 1)]),
        # What has the user's own id, or another range, counts as far as it is new.
        ("ann:999:3\n", [(0, 1000, 1), (1, 999, 1), (2, 1001, 1)]),
        ("ann:5000:10\nann:5005:10\n", [(0, 1000, 1), (1, 5000, 10), (11, 5010, 5)]),
        ("ann:5000:10\nann:5002:3\n", [(0, 1000, 1), (1, 5000, 10)]),
        ("ann:5002:3\nann:5000:10\n", [(0, 1000, 1), (1, 5002, 3), (4, 5000, 2), (6, 5005, 5)]),
    ],
)  # fmt: skip
def test_a_user_has_its_own_id_as_root_and_those_it_was_given(
    subordinate: str, expected: list[tuple[int, int, int]]
) -> None:
    given = user_namespaces.delegated(subordinate)
    assert user_namespaces.of_user(1000, {"ann", "1000"}, given) == _spans(*expected)


WHOLE = IdMap("0 0 4294967295\n")
OWN = IdMap("0 1000 1\n1 100000 65536\n")
ALONE = IdMap("0 1000 1\n")


@pytest.mark.parametrize(
    ("mode", "ids", "expected", "user"),
    [
        ("keep-id", OWN, "0:1:1000,1000:0:1,1001:1001:64536", (1000, 1000)),
        ("keep-id:uid=0,gid=0", OWN, "0:0:1,1:1:65536", (0, 0)),
        ("keep-id:gid=70000,uid=70000", OWN, "0:1:65536,70000:0:1", (70000, 70000)),
        ("keep-id", ALONE, "1000:0:1", (1000, 1000)),
        ("nomap", OWN, "0:1:65536", (0, 0)),
    ],
)
def test_a_users_own_id_inside(mode: str, ids: IdMap, expected: str, user: tuple[int, int]) -> None:
    user_namespaces.check(mode)
    settled, whom = user_namespaces.settled(mode, ids, ids, is_user=True)
    assert settled == f"uidmap={expected};gidmap={expected}"
    assert user_namespaces.maps(settled)
    assert whom == user


def test_what_a_mode_comes_to_for_root() -> None:
    mode, user = user_namespaces.settled("keep-id", WHOLE, WHOLE, is_user=False)
    assert mode == "uidmap=0:0:4294967295;gidmap=0:0:4294967295"
    assert user == (0, 0)
    assert user_namespaces.maps(mode)
    with pytest.raises(InvalidArgumentError, match="nomap is only supported in rootless mode"):
        user_namespaces.settled("nomap", WHOLE, WHOLE, is_user=False)
    for mode in ("auto", "auto:size=7", "host", "container:web"):
        assert user_namespaces.settled(mode, WHOLE, WHOLE, is_user=False) == (mode, None)
    assert user_namespaces.settled("auto", OWN, OWN, is_user=True) == ("auto:size=1024", None)


def test_ids_of_an_engine_that_has_few() -> None:
    groups = IdMap("0 1000 1\n1 200000 3000\n")
    spaces = user_namespaces.spaces_of_namespace(OWN, groups)
    assert user_namespaces.choose(1024, [], spaces) == 1
    assert user_namespaces.choose(1024, [(1, 1024)], spaces) == 1025
    with pytest.raises(UnavailableError, match="no 1024 user and group ids are left"):
        user_namespaces.choose(1024, [(1, 1024), (1025, 1024)], spaces)
    with pytest.raises(UnavailableError):
        user_namespaces.choose(1, [], user_namespaces.spaces_of_namespace(ALONE, ALONE))


@pytest.mark.parametrize(
    "mode", ["keep-id:", "keep-id:uid=", "keep-id:uid=1,uid=2", "keep-id:uid=4294967295",
             "keep-id:x=1", "nomap:1"]
)  # fmt: skip
def test_no_way_to_keep_an_id(mode: str) -> None:
    with pytest.raises(InvalidArgumentError):
        user_namespaces.check(mode)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann:100000:65536\nbob:200000:5\nbob:x\n", []),
        ("\nann:abc:65536\n", ["line 2 is no NAME:FIRST:COUNT of 32 bits"]),
        ("ann:100000\n", ["line 1 is no NAME:FIRST:COUNT of 32 bits"]),
        ("1000:4294967290:100\n", ["line 1 is no NAME:FIRST:COUNT of 32 bits"]),
        ("ann:999:3\n", ["line 1 has the user's own id 1000, which is left out"]),
        ("bob:5:10\nann:14:9\n", ["line 2 has ids that are given to bob as well"]),
        ("bob:5:10\nann:15:9\n", []),
    ],
)
def test_what_is_wrong_with_a_users_ranges(text: str, expected: list[str]) -> None:
    assert list(user_namespaces.faults(text, 1000, ["ann", "1000"])) == expected
    assert user_namespaces.of_user(1000, ["ann", "1000"], user_namespaces.delegated(text))
