"""``.dockerignore``."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import ignore_patterns
from ketch.spec.ignore_patterns import IgnorePatterns


def test_a_file_of_patterns() -> None:
    content = (
        b"\xef\xbb\xbf# comment\n\n  a/./b/../c  \r\n/d/\n # e\n!f\n! /g//h\n*\\#\n/\n.\n!\n\xff\n"
    )
    assert ignore_patterns.read(content) == [
        "a/c", "d", "# e", "!f", "!g/h", "*\\#", "/", ".", "!", "\udcff",
    ]  # fmt: skip
    assert ignore_patterns.read(b"") == []


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["a"], ["a", "a/b", "a/b/c"], ["ab", "b/a", "x"]),
        (["*"], ["a", "a/b", ".x"], []),
        (["*.o", "!b.o"], ["a.o", "a.o/x"], ["b.o", "b.o/x", "x/a.o"]),
        (["**/*.o"], ["a.o", "x/a.o", "x/y/a.o"], ["a.oo"]),
        (["**"], ["a", "a/b"], []),
        (["**/a"], ["a", "x/a", "x/a/y"], ["xa", "ax"]),
        (["**a"], ["a", "xa", "x/ya"], ["ax"]),
        (["a/**"], ["a/b", "a/b/c"], ["a", "ab"]),
        (["a/*", "!a/b"], ["a/c", "a/c/d"], ["a", "a/b", "a/b/c"]),
        (["*", "!a/b/c"], ["a", "a/b", "a/b/d"], ["a/b/c", "a/b/c/d"]),
        (["a", "!a/b", "a/b/c"], ["a", "a/x", "a/b/c", "a/b/c/d"], ["a/b", "a/b/x"]),
        (["!a", "a"], ["a"], []),
        (["a", "!a"], [], ["a", "a/b"]),
        (["*", "!**/*.md", "c.md"], ["a", "b/c", "c.md"], ["a.md", "b/a.md"]),
        ([" /a/../b/ ", "", "c//d"], ["c/d", "c/d/e"], ["b", "c"]),
        ([r"\!a", r"[b-d]", r"e\*"], ["!a", "c", "e*"], ["a", "ef"]),
        (["a|b*"], ["a|b", "a|bc"], ["a", "b", "bc"]),
        (["docs/*/x?", "a[^/]c"], ["docs/1/xy", "abc"], ["docs/1/2/xy", "docs/1/x", "a/c"]),
    ],
)
def test_a_path_is_ignored_by_the_last_pattern_that_matches_it_or_its_directory(
    patterns: list[str], ignored: list[str], kept: list[str]
) -> None:
    matcher = IgnorePatterns(patterns)
    assert [path for path in ignored if not matcher.matches(path)] == []
    assert [path for path in kept if matcher.matches(path)] == []
    for path in (*ignored, *kept):
        assert walked(matcher, path) == matcher.matches(path)


def walked(matcher: IgnorePatterns, path: str) -> bool:
    """Whether a path is ignored, as a walk down to it finds out."""
    state = None
    ignored = False
    names = path.split("/")
    for depth in range(len(names)):
        ignored, state = matcher.step("/".join(names[: depth + 1]), state)
    return ignored


@pytest.mark.parametrize("pattern", ["[", "a[]b", "!", "! ", "!\\", "a\\"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"syntax error in pattern$|illegal exclusion"):
        IgnorePatterns([pattern])


def test_limits_are_limits() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^x: larger than 1048576 bytes$"):
        ignore_patterns.read(b"\n" * ((1 << 20) + 1), "x")
    with pytest.raises(InvalidArgumentError, match=r"^more than 10000 patterns$"):
        IgnorePatterns(["a"] * 10_001)


@pytest.mark.parametrize(
    ("patterns", "directory", "expected"),
    [
        (["*"], "a", False),
        (["*", "!a/b/c"], "a", True),
        (["*", "!a/b/c"], "a/b", True),
        (["*", "!a/b/c"], "a/b/c", False),
        (["*", "!a/b/c"], "b", False),
        (["*", "!*/x"], "b", True),
        (["*", "!*/x"], "b/c", False),
        (["*", "!**/x"], "b/c", True),
        (["*", "!a/**/x"], "b", False),
        (["*", "!a/**"], "a/b/c", True),
    ],
)
def test_an_ignored_directory_is_walked_where_something_in_it_may_be_kept(
    patterns: list[str], directory: str, expected: bool
) -> None:
    assert IgnorePatterns(patterns).may_except_beneath(directory) is expected


PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map("/".join)
NAMES = st.sampled_from(["a", "b", "*", "**", "a*", "?"])
PATTERN = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PATTERNS = st.lists(st.tuples(st.sampled_from(["", "", "!"]), PATTERN).map("".join), max_size=5)


@given(PATTERNS, PATHS)
def test_nothing_is_kept_where_a_walk_is_cut_short(patterns: list[str], path: str) -> None:
    matcher = IgnorePatterns(patterns)
    directory = path
    while directory := posixpath.dirname(directory):
        if walked(matcher, directory) and not matcher.may_except_beneath(directory):
            assert walked(matcher, path)


@given(st.lists(st.text("ab*?![]\\/.- \n^"), max_size=4), st.text("ab/.", min_size=1))
def test_any_patterns_match_or_are_refused(patterns: list[str], path: str) -> None:
    try:
        matcher = IgnorePatterns(patterns)
    except InvalidArgumentError as error:
        assert error.message  # noqa: PT017 - either outcome is right
    else:
        matcher.matches(path)
        walked(matcher, path)
