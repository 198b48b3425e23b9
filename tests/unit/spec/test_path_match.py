"""Patterns of paths."""

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec.path_match import Pattern, has_wildcards
from ketch.spec.wildcards import Part, Text


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True),
        ("a*", "abc", True), ("a*", "ab/c", False), ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False), ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True), ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False), ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False), ("ab[c]", "abc", True), ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False), ("ab[^c]", "abc", False), ("ab[^b-d]", "abc", False),
        ("ab[^e-g]", "abc", True), ("a\\*b", "a*b", True), ("a\\*b", "ab", False),
        ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True), ("a???b", "a☺b", False),
        ("a[^a][^a][^a]b", "a☺b", False), ("[a-ζ]*", "α", True), ("*[a-ζ]", "A", False),
        ("a?b", "a/b", False), ("a*b", "a/b", False), ("[\\]a]", "]", True), ("[\\-]", "-", True),
        ("[x\\-]", "x", True), ("[x\\-]", "-", True), ("[x\\-]", "z", False),
        ("[\\-x]", "a", False), ("*x", "xxx", True), ("", "", True), ("", "a", False),
        ("**a", "bca", True),
        ("*", "", True), ("a*", "b", False), ("?", "\udcff", True),
    ],
)  # fmt: skip
def test_gos_own_table(pattern: str, name: str, matches: bool) -> None:
    assert Pattern(pattern).matches(name) is matches


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("abc", ["abc"], ["ab", "abcd", "xabc", ""]),
        ("*", ["", "abc", ".x", "a\nb"], ["a/b", "/"]),
        ("a*b*c", ["abc", "aXbXc", "abcbc"], ["ab", "a/bc", "abcd"]),
        ("a**c", ["ac", "abc"], ["a/c"]),
        ("*/*", ["a/b", "/"], ["a", "a/b/c"]),
        ("a?c", ["abc", "aäc"], ["ac", "a/c"]),
        ("[ab]", ["a", "b"], ["c", "ab", ""]),
        ("[^ab]x", ["cx", "/x"], ["ax", "x"]),
        ("[a-cx]", ["b", "x"], ["d"]),
        ("[c-a]", [], ["a", "b", "c"]),
        ("[^c-a]", ["a"], []),
        (r"[\]\-]", ["]", "-"], ["\\"]),
        (r"\*\d\\", ["*d\\"], ["x1\\", r"\*\d"]),
        ("]", ["]"], []),
        ("a|b^c{2}$.+()", ["a|b^c{2}$.+()"], ["a", "a|b^cc"]),
    ],
)
def test_a_pattern_matches_as_in_go(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = Pattern(pattern)
    assert [path for path in matching if not compiled.matches(path)] == []
    assert [path for path in others if compiled.matches(path)] == []


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("**/x", ["x", "a/x", "a/b/x"], ["ax", "x/a"]),
        ("a/**", ["a/", "a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "a/b/c"]),
        ("**/*.go", ["a.go", "x/a.go", ".go"], ["a.go/x", "a.gox"]),
        ("**/a*/**/b", ["a/b", "x/ay/z/b"], ["xa/b", "a/b/c"]),
        ("a**b", ["ab", "ax/b", "a/x/b"], ["axb"]),
    ],
)
def test_two_stars_stand_for_directories(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    compiled = Pattern(pattern, deep=True)
    assert [path for path in matching if not compiled.matches(path)] == []
    assert [path for path in others if compiled.matches(path)] == []


@pytest.mark.parametrize(
    "pattern",
    ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a[b", "[a\\", "[]",
     "[a-", "[^]", "[\\"],
)  # fmt: skip
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^syntax error in pattern$"):
        Pattern(pattern)


def test_what_a_backslash_is_before_is_no_wildcard() -> None:
    assert [*map(has_wildcards, ["a", "a*", "a?b", "[a]", r"\*", r"\\*", r"a\[b\?", "\\"])] == (
        [False, True, True, True, False, True, False, False]
    )


@given(st.text("ab*?/"), st.text("ab/", max_size=12))
def test_both_ways_of_matching_agree_with_a_regular_expression(pattern: str, path: str) -> None:
    compiled = Pattern(pattern)
    # fnmatch's stars take slashes too, so each name is tried on its own.
    parts, names = pattern.split("/"), path.split("/")
    expected = len(parts) == len(names) and all(map(fnmatch.fnmatchcase, names, parts))
    assert compiled.matches(path) == expected
    assert Text(path).fullmatch(compiled._parts) == expected


def _slow(pattern: str, path: str) -> bool:
    """What a deep pattern means, by trying everything."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        if not rest:
            return "\n" not in path
        slashes = [index + 1 for index, character in enumerate(path) if character == "/"]
        return any(_slow(rest, path[start:]) for start in [0, *slashes])
    if pattern[0] == "*":
        ends = range(len(path.partition("/")[0]) + 1)
        return any(_slow(pattern[1:], path[end:]) for end in ends)
    if pattern[0] == "?":
        return path[:1] not in {"", "/"} and _slow(pattern[1:], path[1:])
    return path[:1] == pattern[0] and _slow(pattern[1:], path[1:])


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=8))
def test_deep_patterns_do_what_they_mean(pattern: str, path: str) -> None:
    compiled = Pattern(pattern, deep=True)
    assert compiled.matches(path) == _slow(pattern, path)
    assert Text(path).fullmatch(compiled._parts) == _slow(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 200 + "b", "a" * 4000),
        ("**/" * 50 + "x", "a/" * 2000),
        ("**a" * 200 + "b", "a/" * 2000),
        ("**/*", "a/" * 2000),
        ("[ab]*" * 200 + "c", "ab" * 2000),
    ],
)
def test_patterns_made_to_take_for_ever_do_not(pattern: str, path: str) -> None:
    start = time.monotonic()
    Pattern(pattern, deep=True).matches(path)
    assert time.monotonic() - start < 5


def test_places_where_a_pattern_can_begin_and_end() -> None:
    text = Text("xabab")
    parts = [Part("a"), Part(str.isalpha, repeated=True), Part("b")]
    assert f"{text.starts(parts):06b}" == "001010"
    assert f"{text.ends(parts, 0b10):06b}" == "101000"
    assert text.ends(parts, 0b100) == 0
