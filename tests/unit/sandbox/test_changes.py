"""What is taken over of a stranger's tree, and that nothing of it leads out of the caller's."""

import os
import pathlib
import stat
import subprocess
import time
from collections.abc import Iterator

import pytest

from ketch.errors import PermissionDeniedError
from ketch.images.opaque import make_opaque
from ketch.sandbox import applying, changes


class Trees:
    """A project, and what was changed of it."""

    def __init__(self, place: pathlib.Path) -> None:
        self.upper, self.project = place / "upper", place / "project"
        self.upper.mkdir()
        self.project.mkdir()
        self.descriptors = [os.open(one, os.O_RDONLY) for one in (self.upper, self.project)]

    def found(self) -> dict[str, changes.ProjectChange]:
        return {
            change.path: change
            for change in changes.found(self.descriptors[0], self.descriptors[1])
        }

    def apply(self, path: str) -> None:
        self.take(self.found()[path])

    def take(self, change: changes.ProjectChange) -> None:
        applying.apply(self.descriptors[0], self.descriptors[1], change)


@pytest.fixture
def trees(tmp_path: pathlib.Path) -> Iterator[Trees]:
    made = Trees(tmp_path)
    yield made
    for descriptor in made.descriptors:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "target", "stays"),
    [
        ("link", "file", True), ("link", "a/b/c", True), ("a/link", "../file", True),
        ("a/b/link", "../../x", True), ("a/b/link", "./.././../x", True),
        ("link", "/etc/passwd", False), ("link", "..", False), ("link", "../x", False),
        ("a/link", "../../x", False), ("link", "a/..", False), ("link", "a/../../x", False),
        ("a/link", "b/../..", False), ("a/link", "..", True), ("link", ".", True),
    ],
)  # fmt: skip
def test_a_link_stays_or_is_refused(trees: Trees, path: str, target: str, stays: bool) -> None:
    (trees.upper / path).parent.mkdir(parents=True, exist_ok=True)
    (trees.upper / path).symlink_to(target)
    assert (not trees.found()[path].refused) is stays
    if stays:
        trees.apply(path)
        assert (trees.project / path).readlink() == pathlib.Path(target)
    else:
        with pytest.raises(PermissionDeniedError, match="leads out"):
            trees.apply(path)
        assert not os.path.lexists(trees.project / path)


def test_a_link_through_one_of_the_project_leads_no_further(trees: Trees) -> None:
    (trees.project / "out").symlink_to("/")
    (trees.upper / "link").symlink_to("out/etc")
    with pytest.raises(PermissionDeniedError, match="leads out"):
        trees.apply("link")


def test_nothing_is_written_through_a_link_of_the_project(
    trees: Trees, tmp_path: pathlib.Path
) -> None:
    """Also one that somebody puts there between the look and the writing."""
    (tmp_path / "outside").mkdir()
    (trees.upper / "directory").mkdir()
    (trees.upper / "directory" / "file").write_text("guest's")
    change = trees.found()["directory/file"]
    (trees.project / "directory").symlink_to(tmp_path / "outside")
    with pytest.raises(PermissionDeniedError, match="not a directory"):
        trees.take(change)
    assert list((tmp_path / "outside").iterdir()) == []
    (trees.project / "file").symlink_to(tmp_path / "outside" / "made")
    (trees.upper / "file").write_text("new")
    trees.apply("file")
    assert not (trees.project / "file").is_symlink()
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_that_becomes_something_else_is_not_taken(trees: Trees) -> None:
    (trees.upper / "file").write_text("x")
    change = trees.found()["file"]
    (trees.upper / "file").unlink()
    os.mkfifo(trees.upper / "file")
    with pytest.raises(PermissionDeniedError):
        trees.take(change)
    (trees.upper / "file").unlink()
    (trees.upper / "file").symlink_to("/etc/shadow")
    with pytest.raises(PermissionDeniedError):
        trees.take(change)
    assert list(trees.project.iterdir()) == []


def test_what_is_no_file_is_told_and_refused(trees: Trees) -> None:
    os.mkfifo(trees.upper / "fifo")
    assert trees.found()["fifo"].what == "other"
    with pytest.raises(PermissionDeniedError, match="no file"):
        trees.apply("fifo")


def test_permissions_are_the_guests_but_give_nobody_rights(trees: Trees) -> None:
    (trees.upper / "run").write_text("#!/bin/sh\n")
    (trees.upper / "run").chmod(0o6777)
    (trees.upper / "directory").mkdir()
    (trees.upper / "directory").chmod(0o1777)
    before = os.umask(0o027)
    try:
        trees.apply("run")
        trees.apply("directory")
    finally:
        os.umask(before)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in trees.project.iterdir()}
    assert modes == {"run": 0o750, "directory": 0o750}


def test_kinds_that_change_take_the_place_of_what_was_there(trees: Trees) -> None:
    (trees.project / "one" / "deep").mkdir(parents=True)
    (trees.project / "two").write_text("file")
    (trees.upper / "one").write_text("now a file")
    (trees.upper / "two").mkdir()
    (trees.upper / "two" / "inside").write_text("x")
    found = trees.found()
    assert {path: (one.kind, one.what) for path, one in found.items()} == {
        "one": ("changed", "file"), "two": ("changed", "directory"),
        "two/inside": ("added", "file"),
    }  # fmt: skip
    for change in found.values():
        trees.take(change)
    assert (trees.project / "one").read_text() == "now a file"
    assert (trees.project / "two" / "inside").read_text() == "x"
    assert trees.found() == {}


@pytest.mark.root
def test_of_a_directory_made_anew_all_is_gone_however_deep(trees: Trees) -> None:
    for name in ("d/e/kept", "d/e/gone", "d/e/f/deep", "d/other"):
        (trees.project / name).parent.mkdir(parents=True, exist_ok=True)
        (trees.project / name).write_text("x")
    (trees.upper / "d" / "e" / "f").mkdir(parents=True)
    (trees.upper / "d" / "e" / "kept").write_text("x")
    make_opaque(str(trees.upper / "d"))
    found = trees.found()
    assert {path: change.kind for path, change in found.items()} == {
        "d/e/f/deep": "deleted", "d/e/gone": "deleted", "d/other": "deleted",
    }  # fmt: skip
    for change in found.values():
        trees.take(change)
    assert trees.found() == {}


@pytest.mark.parametrize("name", ["with\nnewline", "-rf", "\udcff\udc80", "a\\b", "\x1b[2J", " "])
def test_names_are_what_they_are(trees: Trees, name: str) -> None:
    (trees.upper / name).write_text("x\n")
    change = trees.found()[name]
    head = change.text.split("@@")[0]
    assert len(head.splitlines()) == 2, "a name adds no line to a difference"
    assert "\x1b" not in head
    trees.apply(name)
    assert (trees.project / name).read_text() == "x\n"


@pytest.mark.parametrize("lines", [10, 1500, 3000])
def test_a_difference_is_one_that_patch_takes(trees: Trees, lines: int) -> None:
    before = [f"line {number}\n" for number in range(lines)]
    after = [*before[:3], "new\n", *before[4 : lines // 2], *reversed(before[lines // 2 : -2]), "z"]
    (trees.project / "file").write_text("".join(before))
    (trees.upper / "file").write_text("".join(after))
    text = trees.found()["file"].text
    done = subprocess.run(
        ["patch", "-p1", "--quiet"], cwd=trees.project, input=text.encode(), check=False,
        capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b""), done
    assert (trees.project / "file").read_text() == "".join(after)


def test_what_is_no_text_has_no_difference(trees: Trees) -> None:
    (trees.upper / "binary").write_bytes(b"\0\1")
    (trees.upper / "large").write_bytes(b"x\n" * changes.TEXT_BYTES_MAX)
    assert [one.text for one in trees.found().values()] == ["", ""]


@pytest.mark.parametrize(
    ("path", "is_one"),
    [(".git/config", True), ("a/.GIT/hooks/x", True), (".gitignore", False), ("git", False)],
)
def test_what_git_keeps_is_known(path: str, is_one: bool) -> None:
    assert changes.is_of_git(path) is is_one


def test_holes_are_not_read(trees: Trees) -> None:
    """A file of a guest's is as long as it likes, and has the same in the project once taken."""
    for place in (trees.upper, trees.project):
        with open(place / "giant", "wb") as file:
            file.truncate(1 << 43)
            file.seek(1 << 42)
            file.write(b"same")
    begun = time.monotonic()
    assert trees.found() == {}
    with open(trees.upper / "giant", "r+b") as file:
        file.seek(1 << 41)
        file.write(b"x")
    assert trees.found()["giant"].kind == "changed"
    assert time.monotonic() - begun < 20


def test_what_lies_too_deep_is_told_of_and_left(trees: Trees) -> None:
    at = os.open(trees.upper, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    found = trees.found()
    deepest = max(found, key=len)
    assert len(deepest) > 4096
    assert found[deepest].refused == "its path is too long"
    with pytest.raises(PermissionDeniedError, match="too long"):
        trees.apply(deepest)
