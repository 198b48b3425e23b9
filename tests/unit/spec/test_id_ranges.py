"""The words of --uidmap and --gidmap: what podman 5 comes to, on each kind of engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import id_ranges, user_namespaces
from ketch.spec.user_namespaces import IdMap

WHOLE = IdMap("0 0 4294967295\n")
OWN = IdMap("0 1000 1\n1 100000 65536\n")


def come_to(users: list[str], groups: list[str], *, is_user: bool = False) -> str:
    mode = user_namespaces.mode_of_maps(users, groups)
    own = OWN if is_user else WHOLE
    return user_namespaces.settled(mode, own, own, is_user=is_user)[0]


@pytest.mark.parametrize(
    ("users", "groups", "expected"),
    [
        (["0:@100000:1000"], [], ("0:100000:1000", "")),
        (["+0:@7:1"], [], ("0:7:1", "")),
        (["ug0:100000:10"], [], ("0:100000:10", "")),
        (["u0:100000:9"], ["g0:200000:5"], ("0:100000:9", "0:200000:5")),
        (["0:100000:10", "g20:300:2"], [], ("0:100000:10", "0:100000:10,20:300:2")),
        ([], ["0:7", "+u0:8"], ("0:8:1", "0:7:1")),
        # What was said before gives way, by its ids inside and by those outside.
        (["0:100000:1000", "+5:7"], [], ("0:100000:5,5:7:1,6:100006:994", "")),
        (["0:100000:10", "+5:7:2"], [], ("0:100000:5,5:7:2,7:100007:3", "")),
        (["0:100000:10", "+20:100005"], [], ("0:100000:5,6:100006:4,20:100005:1", "")),
        (["0:100000:10", "+2:100005"], [],
         ("0:100000:2,2:100005:1,3:100003:2,6:100006:4", "")),
        (["0:100000:10", "+0:5:10"], [], ("0:5:10", "")),
        (["0:100:4", "+4:104:4"], [], ("0:100:8", "")),
    ],
)  # fmt: skip
def test_what_root_gets(users: list[str], groups: list[str], expected: tuple[str, str]) -> None:
    first, second = expected
    assert come_to(users, groups) == f"uidmap={first};gidmap={second or first}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["0:@1000", "1:@100000:5"], "0:0:6"),
        (["0:@100007:2"], "0:8:2"),
        # The first extends nothing: what the user has besides fills what is free.
        (["+100000:1"], "0:0:1,1:2:65535,100000:1:1"),
        (["+100000:@100005:3"], "0:0:6,6:9:65528,100000:6:3"),
        (["+0:@1000"], "0:0:65537"),
        (["+5:@1000"], "0:1:5,5:0:1,6:6:65531"),
        (["+70000:0:2", "+70010:9:2"], "0:2:7,7:11:65526,70000:0:2,70010:9:2"),
        (["0:1:9", "+0:0"], "0:0:1,1:2:8"),
    ],
)
def test_what_an_ordinary_user_gets(words: list[str], expected: str) -> None:
    assert come_to(words, [], is_user=True) == f"uidmap={expected};gidmap={expected}"


@pytest.mark.parametrize(
    ("words", "is_user", "message"),
    [
        (["u0:100000:1000"], False, "no group ids are named"),
        (["g0:100000:1000"], False, "no user ids are named"),
        (["+u5:7", "0:100000:1000"], False, "overlap"),
        (["+5:7"], False, "root is not among the ids"),
        (["+-0:1:1"], False, "invalid range"),
        (["0:1:"], False, "invalid range"),
        (["+0:@:1"], False, "invalid range"),
        (["+0:1:0"], False, "invalid range"),
        (["+0:1:4294967295"], False, "invalid range"),
        (["+0:99999999999"], False, "invalid range"),
        (["0:@99999:2"], True, "user id 99999 of this machine"),
        (["0:@165535:2"], True, "user id 165536 of this machine"),
        (["0:1:1"] + [f"+{n}:{n}" for n in range(1, 400)], False, "at most 340"),
    ],
)
def test_words_that_cannot_be(words: list[str], message: str, *, is_user: bool) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        come_to(words, [], is_user=is_user)


_spans = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 12))


@given(st.lists(_spans, min_size=1, max_size=6), st.booleans())
def test_whatever_extends_overlaps_nothing(
    spans: list[tuple[int, int, int]], is_user: bool
) -> None:
    """The last word holds as it is, and no id is there twice, inside or outside."""
    text = ",".join("+" + ":".join(map(str, span)) for span in spans)
    own = [(0, 1000, 20), (20, 5000, 60)]
    found = id_ranges.settled("u", text, own, is_user=is_user)
    pairs = [
        (inside + each, outside + each)
        for inside, outside, count in found
        for each in range(count)
    ]  # fmt: skip
    assert (
        len({inside for inside, _ in pairs}) == len({outside for _, outside in pairs}) == len(pairs)
    )
    inside, outside, count = spans[-1]
    assert {(inside + each, outside + each) for each in range(count)} <= set(pairs)
    if is_user:
        assert set(range(80)) <= {outside for _, outside in pairs}
        assert min(found)[0] == 0
