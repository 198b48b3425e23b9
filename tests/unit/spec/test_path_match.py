"""Go's filepath.Match: its own table, and no pattern that takes for ever."""

import time

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec.path_match import Pattern, has_wildcards


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
def test_matches(pattern: str, name: str, matches: bool) -> None:
    assert Pattern(pattern).matches(name) is matches


@pytest.mark.parametrize(
    "pattern",
    ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a[b", "[a\\"],
)  # fmt: skip
def test_malformed(pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^syntax error in pattern$"):
        Pattern(pattern)


def test_what_has_wildcards() -> None:
    assert [has_wildcards(text) for text in ("a*", "a?", "a[b", "a\\*b", "a\\\\*", "a", "")] == [
        True, True, True, False, True, False, False,
    ]  # fmt: skip


def test_many_stars_end_soon() -> None:
    begun = time.monotonic()
    assert not Pattern("*a" * 100 + "b").matches("a" * 250)
    assert time.monotonic() - begun < 1
