"""Which files of a tree a COPY means: patterns, links, what is hidden, what is missing."""

import os
from pathlib import Path

import pytest

from ketch.build.files.walking import Event
from ketch.build.graph import HttpSource
from ketch.errors import InvalidArgumentError, NotFoundError
from tests.support.build_files import Left, copy, selected


def tree(root: Path, *paths: str) -> None:
    """Make files, and directories where a path ends with a slash."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)


def met(
    root: Path,
    *paths: str,
    hidden: Left | None = None,
    exclude: Left | None = None,
    parents: bool = False,
) -> list[str]:
    """Return what is met of some paths, a directory with a slash at its end."""
    found = []
    with selected(root, *paths, hidden=hidden, exclude=exclude, parents=parents) as chosen:
        for source in chosen.sources:
            way: list[str] = []
            for entry in chosen.entries(source):
                if entry.event is Event.LEAVE:
                    del way[-1:]
                    continue
                found.append("/".join([*way, entry.name]))
                if entry.event is Event.ENTER:
                    found[-1] += "/"
                    way.append(entry.name)
    return found


def test_the_order_is_that_of_names(tmp_path: Path) -> None:
    tree(tmp_path, "b/2", "b/1", "a", "c/", "Z", "b-/x")
    assert met(tmp_path, "/") == ["Z", "a", "b/", "b/1", "b/2", "b-/", "b-/x", "c/"]
    assert met(tmp_path, "b*", "a") == ["1", "2", "x", "a"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("nothing", "/nothing"), ("./x/../d/no", "/d/no"), ("f/below", "/f/below"),
        ("dangling", "/no/where"), ("dangling/x", "/dangling/x"), ("../../../etc/passwd",
        "/etc/passwd"), ("out", "/etc/passwd"), ("d\\*", "/d\\*"),
    ],
)  # fmt: skip
def test_what_is_not_there(tmp_path: Path, path: str, shown: str) -> None:
    tree(tmp_path, "f", "d/f")
    (tmp_path / "dangling").symlink_to("no/where")
    (tmp_path / "out").symlink_to("/etc/passwd")
    with pytest.raises(NotFoundError) as caught, selected(tmp_path, path):
        pass
    assert caught.value.message == (
        f'failed to compute cache key: failed to calculate checksum of ref x: "{shown}": not found'
    )


def test_patterns_may_stand_for_nothing_where_that_is_allowed(tmp_path: Path) -> None:
    tree(tmp_path, "f", "d/f")
    for pattern in ("no*", "f/*", "no/*", "*/*/*", "[^fd]"):
        with selected(tmp_path, pattern, required=False) as chosen:
            assert chosen.sources == ()
        with pytest.raises(NotFoundError, match="not found"), selected(tmp_path, pattern):
            pass


def test_bad_patterns_and_circles(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InvalidArgumentError, match="syntax error"), selected(tmp_path, "a[b"):
        pass
    with pytest.raises(InvalidArgumentError, match="too many"), selected(tmp_path, "loop/x"):
        pass


def test_patterns_follow_links_before_the_first_wildcard_alone(tmp_path: Path) -> None:
    tree(tmp_path, "real/sub/f", "real/sub/g")
    (tmp_path / "link").symlink_to("/real")
    (tmp_path / "real" / "inner").symlink_to("sub")
    assert met(tmp_path, "link/sub/*") == ["f", "g"]
    assert met(tmp_path, "link/*/f") == ["f"]  # and not through inner
    assert met(tmp_path, "link/inn*") == ["f", "g"]  # which is followed itself


def test_names_with_wildcards_are_names_where_no_patterns_are_meant(tmp_path: Path) -> None:
    tree(tmp_path, "a[1].txt", "a1.txt")
    with selected(tmp_path, "a[1].txt", vertex=HttpSource(name="x", url="https://x")) as chosen:
        assert [source.name for source in chosen.sources] == ["a[1].txt"]


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tree(source, "etc/inside", "d/")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "outside").touch()
    (source / "d" / "up").symlink_to("../../../../etc")
    (source / "d" / "root").symlink_to("/")
    (source / "magic").symlink_to("/proc/self/root")
    assert met(source, "d/up") == met(source, "d/root/etc") == ["inside"]
    with pytest.raises(NotFoundError), selected(source, "magic/etc/passwd"):
        pass


def test_what_is_hidden_is_not_there(tmp_path: Path) -> None:
    tree(tmp_path, "a", "secret/key", "secret/public/cert", "node/x/y", "empty/gone")
    (tmp_path / "to-secret").symlink_to("secret/key")
    (tmp_path / "hidden-link").symlink_to("a")
    hidden = Left("secret", "node", "empty/gone", "hidden-link", but=("secret/public",))
    assert met(tmp_path, ".", hidden=hidden) == [
        "a", "empty/", "secret/", "secret/public/", "secret/public/cert", "to-secret",
    ]  # fmt: skip
    assert met(tmp_path, "secret", hidden=hidden) == ["public/", "public/cert"]
    assert met(tmp_path, "secret/public/", hidden=hidden) == ["cert"]
    assert met(tmp_path, "s*", hidden=hidden) == ["public/", "public/cert"]
    assert met(tmp_path, "[ns]*", hidden=hidden) == ["public/", "public/cert"]
    for path in ("secret/key", "node", "node/x/y", "to-secret", "hidden-link", "empty/gone"):
        with pytest.raises(NotFoundError) as caught, selected(tmp_path, path, hidden=hidden):
            pass
        assert ".dockerignore" in caught.value.hint, path


def test_a_hidden_directory_in_which_nothing_is_shown_is_not_there(tmp_path: Path) -> None:
    tree(tmp_path, "d/x", "e/f/g")
    hidden = Left("d", "e", but=("d/other", "e/f/other"))
    assert met(tmp_path, ".", hidden=hidden) == []
    with pytest.raises(NotFoundError), selected(tmp_path, "e/f", hidden=hidden):
        pass
    with selected(tmp_path, "[de]", hidden=hidden, required=False) as chosen:
        assert chosen.sources == ()


def test_what_is_hidden_is_not_entered(tmp_path: Path) -> None:
    tree(tmp_path, "node/x", "f")
    entered = []

    class Watching(Left):
        def hides(self, path: str) -> bool:
            entered.append(path)
            return super().hides(path)

    assert met(tmp_path, ".", hidden=Watching("node")) == ["f"]
    assert "node/x" not in entered


def test_what_is_excluded(tmp_path: Path) -> None:
    tree(tmp_path, "d/x.md", "d/y", "d/sub/x.md", "x.md", "z")
    assert met(tmp_path, "d", exclude=Left("x.md")) == ["sub/", "sub/x.md", "y"]
    assert met(tmp_path, "*", exclude=Left("x.md", "sub")) == ["y", "z"]
    assert met(tmp_path, "d", exclude=Left("sub", but=("sub/x.md",))) == [
        "sub/", "sub/x.md", "x.md", "y",
    ]  # fmt: skip
    # Who names something means it.
    assert met(tmp_path, "x.md", exclude=Left("x.md")) == ["x.md"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a/b/./c/d", ["c/", "c/d/", "c/d/e/", "c/d/e/bay", "c/d/foo"]),
        ("/a/b/c/d/.", ["a/", "a/b/", "a/b/c/", "a/b/c/d/", "a/b/c/d/e/", "a/b/c/d/e/bay",
                        "a/b/c/d/foo"]),
        ("./a/b/c/d/foo", ["a/", "a/b/", "a/b/c/", "a/b/c/d/", "a/b/c/d/foo"]),
        ("a/./b/./c/d/foo", ["b/", "b/c/", "b/c/d/", "b/c/d/foo"]),
        ("a/./*/c/d/e", ["b/", "b/c/", "b/c/d/", "b/c/d/e/", "b/c/d/e/bay", "b2/", "b2/c/",
                         "b2/c/d/", "b2/c/d/e/", "b2/c/d/e/bar"]),
        ("a/b*/./c/**/e", ["c/", "c/d/", "c/d/e/", "c/d/e/bay", "c/", "c/d/", "c/d/e/",
                           "c/d/e/bar"]),
        ("a/b/./**/foo", ["c/", "c/d/", "c/d/foo"]),
        ("a/b2/./**", ["c/", "c/d/", "c/d/e/", "c/d/e/bar"]),
        ("a/no*/x", []),
    ],
)  # fmt: skip
def test_parents_are_kept(tmp_path: Path, path: str, found: list[str]) -> None:
    tree(tmp_path, "a/b/c/d/foo", "a/b/c/d/e/bay", "a/b2/c/d/e/bar", "z/q")
    assert met(tmp_path, path, parents=True) == found


def test_parents_that_are_not_there(tmp_path: Path) -> None:
    tree(tmp_path, "a/b")
    with pytest.raises(NotFoundError, match='"/a/c"'), selected(tmp_path, "a/c", parents=True):
        pass


def test_parents_have_what_they_have(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    tree(source, "a/b/f", "a/other")
    root.mkdir()
    (source / "a").chmod(0o700)
    os.utime(source / "a", ns=(5, 5))
    with selected(source, "a/b/f", parents=True) as chosen:
        copy(chosen, root, "/x/")
    assert not (root / "x" / "a" / "other").exists()
    assert (root / "x" / "a").stat().st_mode & 0o777 == 0o700
    assert (root / "x" / "a").stat().st_mtime_ns == 5
