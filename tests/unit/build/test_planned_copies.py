"""What COPY and ADD copy: from where, which paths, to where, and as whose."""

import pytest

from ketch.build.graph import CopyItem, GitSource, HttpSource, InlineSource
from tests.support.planning import copies, history, planned, refused

_HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "paths", "target", "required"),
    [
        ("COPY a b*.c /x/", ["/a", "/b*.c"], "/x/", [True, False]),
        ("COPY . .", ["/"], "/w/", [True]),
        ("COPY ../../a /x/../y", ["/a"], "/y", [True]),
        (r'COPY ["a\\\\*b[0-9]", "/x y"]', [r"/a\*b[0-9]"], "/x y", [False]),
        ('COPY ["a b", "c/"]', ["/a b"], "/w/c/", [True]),
        ("COPY a /", ["/a"], "/", [True]),
        ("COPY a ..", ["/a"], "/", [True]),
        ("COPY --parents ./a/./b/*.c x/y /z/", ["/a/./b/*.c", "/x/y"], "/z/", [False, True]),
    ],
)
def test_paths(text: str, paths: list[str], target: str, required: list[bool]) -> None:
    (copy,) = copies(planned(f"FROM scratch\nWORKDIR /w\n{text}\n"))
    assert [path for item in copy.items for path in item.paths] == paths
    assert copy.target == target
    assert [item.required for item in copy.items] == required


def test_flags_and_the_history() -> None:
    found = planned(
        """
        FROM scratch
        ARG WHO=me
        COPY --parents --chown=$WHO:1 --chmod=u+x --exclude=*.o --exclude=d a $WHO /
        COPY --link --chown=1 a /
        COPY --link --chmod=644 a /
        """
    )
    first, second, third = copies(found)
    assert (first.owner, first.mode, first.exclude) == ("me:1", "u+x", ("*.o", "d"))
    assert (first.parents, first.link) == (True, False)
    assert (second.link, second.owner) == (True, "1")
    assert (third.link, third.mode) == (False, "644")
    assert history(found)[1:] == [
        "COPY --parents --chown=me:1 --chmod=u+x a me / # buildkit",
        "COPY --chown=1 a / # buildkit",
        "COPY --chmod=644 a / # buildkit",
    ]


def test_files_that_stand_in_the_dockerfile() -> None:
    found = planned('FROM scratch\nARG V=1\nCOPY <<a <<"b" c /d/\n$V\na\n$V\nb\n')
    (copy,) = copies(found)
    context, first, second = copy.items
    assert context.paths == ("/c",)
    assert isinstance(first.source, InlineSource)
    assert isinstance(second.source, InlineSource)
    assert (first.source.files, second.source.files) == ({"a": b"1\n"}, {"b": b"$V\n"})
    assert history(found)[1] == "COPY c <<a <<b /d/ # buildkit"


@pytest.mark.parametrize(
    ("flag", "unpacked"),
    [("", [True, False]), ("--unpack=false", [False, False]), ("--unpack", [True, True])],
)
def test_what_is_unpacked(flag: str, unpacked: list[bool]) -> None:
    text = f"FROM scratch\nADD {flag} a.tar https://host.example/b.tar /\n"
    (copy,) = copies(planned(text))
    assert [item.unpack for item in copy.items] == unpacked


def test_downloads_and_repositories() -> None:
    found = planned(
        f"""
        FROM scratch
        ADD --checksum=sha256:{_HEX} https://host.example/d/a%2A.txt?x=y /
        ADD https://host.example/ /x
        ADD --keep-git-dir=true https://host.example/p.git#v1:sub /src
        ADD --checksum=abc git@host.example:p.git /src
        ADD https://host.example/p.git?commit=abc&keep-git-dir /src
        """
    )
    sources = [(item.source, item.paths) for copy in copies(found) for item in copy.items]
    assert [paths for _, paths in sources] == [("a*.txt",), ("__unnamed__",), *[("/",)] * 3]
    shown = [
        (each.url, each.checksum, each.filename if isinstance(each, HttpSource)
         else each.keep_git_dir)
        for each, _ in sources if isinstance(each, HttpSource | GitSource)
    ]  # fmt: skip
    assert shown == [
        ("https://host.example/d/a%2A.txt?x=y", f"sha256:{_HEX}", "a*.txt"),
        ("https://host.example/", "", "__unnamed__"),
        ("https://host.example/p.git#v1:sub", "", True),
        ("git@host.example:p.git", "abc", False),
        ("https://host.example/p.git?commit=abc&keep-git-dir", "abc", True),
    ]


def test_a_path_that_looks_like_a_repository_is_one_only_as_a_context() -> None:
    (copy,) = copies(planned("FROM scratch\nCOPY github.com/a/b /\n"))
    assert copy.items == (CopyItem(copy.items[0].source, ("/github.com/a/b",)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY https://host.example/a /", "source can't be a URL for COPY"),
        ("COPY git@host.example:a.git /", "source can't be a git ref for COPY"),
        ("COPY --chmod=99 a /", "invalid chmod parameter: '99'. it should be octal string and "
         "between 0 and 07777"),
        ("COPY --chmod=q+x a /", "invalid chmod parameter: 'q+x': invalid syntax"),
        ("ADD --checksum=sha256:1 a b /", "checksum can't be specified for multiple sources"),
        ("ADD --checksum=sha256:1 a /", "checksum requires HTTP(S) or Git sources"),
        ("ADD --checksum=nothing https://host.example/a /",
         "invalid checksum digest format"),
        ("ADD https://host.example/p.git?depth=1 /", 'unexpected query "depth"'),
        ("ADD --checksum=a https://host.example/p.git?commit=b /", 'checksum mismatch "a" != "b"'),
        ("ADD --keep-git-dir=false https://host.example/p.git?keep-git-dir=1 /",
         "inconsistent keep-git-dir configuration"),
        ("COPY <<../a /\nx\n../a", 'invalid name of a heredoc: "../a"'),
    ],
)  # fmt: skip
def test_what_cannot_be_copied(text: str, message: str) -> None:
    error = refused(f"FROM scratch\n{text}\n")
    assert error.message == message
    assert [place.first for place in error.places] == [2]
