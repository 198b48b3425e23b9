"""Git repositories as builds name them."""

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec.git_urls import GitUrl, parse

_REMOTE = "https://host.example/group/project.git"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_REMOTE, GitUrl(_REMOTE)),
        (f"{_REMOTE}#main:a/b", GitUrl(_REMOTE, "main", "a/b")),
        (f"{_REMOTE}#:a", GitUrl(_REMOTE, "", "a")),
        (f"{_REMOTE}?ref=v1&subdir=a", GitUrl(_REMOTE, "v1", "a")),
        (f"{_REMOTE}?tag=v1", GitUrl(_REMOTE, "refs/tags/v1")),
        (f"{_REMOTE}?branch=refs/heads/x", GitUrl(_REMOTE, "refs/heads/x")),
        (f"{_REMOTE}?commit=abc", GitUrl(_REMOTE, "abc", "", "abc")),
        (f"{_REMOTE}?checksum=abc#main", GitUrl(_REMOTE, "main", "", "abc")),
        (f"{_REMOTE}?keep-git-dir", GitUrl(_REMOTE, keep_git_dir=True)),
        (f"{_REMOTE}?keep-git-dir=0&submodules=false",
         GitUrl(_REMOTE, keep_git_dir=False, submodules=False)),
        ("git@host.example:a/b.git#v1", GitUrl("git@host.example:a/b.git", "v1")),
        ("git@host.example:p?ref=x", GitUrl("git@host.example:p", "x")),
        ("ssh://git@host.example/p", GitUrl("ssh://git@host.example/p")),
        ("git://host.example/p", GitUrl("git://host.example/p")),
        ("github.com/moby/buildkit", GitUrl("https://github.com/moby/buildkit", like_a_path=True)),
    ],
)  # fmt: skip
def test_read(text: str, expected: GitUrl) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "./a.git", "../a.git", "/a.git", "a.git", "https://host.example/archive.tar.gz",
        "https://host.example/a?x=.git", "ftp://host.example/a.git", "docker-image://a.git", "a@b",
        "https://[bad/a.git",
    ],
)  # fmt: skip
def test_no_repository(text: str) -> None:
    assert parse(text) is None


def test_an_http_url_that_is_said_to_be_a_repository() -> None:
    assert parse("https://host.example/p", known=True) == GitUrl("https://host.example/p")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?ref=a#b", 'ref conflicts: "b" vs "a"'),
        ("?subdir=a#b:c", 'subdir conflicts: "c" vs "a"'),
        ("?tag=a&branch=b", "branch conflicts with tag"),
        ("?branch=b#a", 'ref conflicts: "a" vs "refs/heads/b"'),
        ("?ref=", 'query "ref" has no value'),
        ("?ref=a&ref=b", 'query "ref" has multiple values'),
        ("?depth=1", 'unexpected query "depth"'),
        ("?submodules=maybe", 'invalid submodules value: "maybe"'),
        ("?" + "&".join(["ref=a"] * 30), "invalid query"),
    ],
)
def test_what_is_malformed(query: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse(_REMOTE + query)
    assert caught.value.message.startswith(message)
