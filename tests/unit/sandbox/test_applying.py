"""What the caller has changed meanwhile in a project is not lost by what is taken over."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.errors import ConflictError, KetchError, PermissionDeniedError
from ketch.linux import rename, sparse
from ketch.sandbox import applying, changes


class Trees:
    """A project, what was changed of it, and what is known of how it was."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place, self.upper, self.project = place, place / "upper", place / "project"
        self.upper.mkdir()
        self.project.mkdir()
        (self.project / "file").write_text("before")
        (self.project / "tree").mkdir()
        (self.project / "tree" / "deep").write_text("before")
        time.sleep(0.02)  # longer than the kernel's clock of times of change takes for a tick
        (place / "now").touch()
        self.base = applying.Base((place / "now").stat().st_ctime_ns, f"{place}/taken.json")
        time.sleep(0.02)
        self.descriptors = os.open(self.upper, os.O_RDONLY), os.open(self.project, os.O_RDONLY)

    def change(self, path: str) -> changes.ProjectChange:
        return next(one for one in changes.found(*self.descriptors) if one.path == path)

    def apply(self, path: str, base: applying.Base | None) -> None:
        applying.apply(*self.descriptors, self.change(path), base)


@pytest.fixture
def trees(tmp_path: pathlib.Path) -> Iterator[Trees]:
    made = Trees(tmp_path)
    yield made
    for descriptor in made.descriptors:
        os.close(descriptor)


def _changed(trees: Trees) -> None:
    (trees.upper / "file").write_text("guest's")
    (trees.project / "file").write_text("caller's")


def _of_another_mode(trees: Trees) -> None:
    (trees.upper / "file").write_text("guest's")
    (trees.project / "file").chmod(0o600)


def _of_the_same_size_and_time(trees: Trees) -> None:
    (trees.upper / "file").write_text("guest's")
    status = (trees.project / "file").stat()
    (trees.project / "file").write_text("after.")
    os.utime(trees.project / "file", ns=(status.st_atime_ns, status.st_mtime_ns))


def _replaced(trees: Trees) -> None:
    (trees.upper / "file").write_text("guest's")
    (trees.project / "new").write_text("caller's")
    (trees.project / "new").rename(trees.project / "file")


def _made_a_link(trees: Trees) -> None:
    (trees.upper / "file").write_text("guest's")
    (trees.project / "file").unlink()
    (trees.project / "file").symlink_to("tree/deep")


def _both_added(trees: Trees) -> None:
    (trees.upper / "file").write_text("guest's")
    (trees.project / "file").unlink()
    (trees.project / "file").write_text("caller's, anew")


def _removed_here(trees: Trees) -> None:
    os.mknod(trees.upper / "file", 0o020000, 0)
    (trees.project / "file").write_text("caller's")


@pytest.mark.parametrize(
    "both",
    [_changed, _of_another_mode, _of_the_same_size_and_time, _replaced, _made_a_link, _both_added,
     _removed_here],
)  # fmt: skip
def test_what_both_have_changed_stays_the_caller_s(
    trees: Trees, both: Callable[[Trees], None]
) -> None:
    both(trees)
    seen = trees.project / "file"
    before = seen.read_bytes(), seen.lstat()  # the first reading changes its time of access
    assert applying.conflict(*trees.descriptors, trees.change("file"), trees.base)
    with pytest.raises(ConflictError, match=r"^file: .*meanwhile"):
        trees.apply("file", trees.base)
    assert (seen.read_bytes(), seen.lstat()) == before
    trees.apply("file", None)
    assert not seen.exists() or seen.read_text() == "guest's"
    assert sorted(os.listdir(trees.project)) in (["tree"], ["file", "tree"])


@pytest.mark.parametrize("what", ["file", "directory", "moved"])
def test_a_tree_goes_only_where_nothing_in_it_has_changed(trees: Trees, what: str) -> None:
    os.mknod(trees.upper / "tree", 0o020000, 0)
    if what == "file":
        (trees.project / "tree" / "deep").write_text("caller's")
    elif what == "directory":
        (trees.project / "tree" / "new").mkdir()
    else:
        (trees.project / "file").rename(trees.project / "tree" / "moved")
    with pytest.raises(ConflictError, match="tree"):
        trees.apply("tree", trees.base)
    assert (trees.project / "tree" / "deep").exists()
    trees.apply("tree", None)
    assert not (trees.project / "tree").exists()


def test_what_nobody_else_has_changed_is_taken_again_and_again(trees: Trees) -> None:
    for text in ("one", "two"):
        (trees.upper / "file").write_text(text)
        trees.apply("file", trees.base)
        trees.base.remember("file", (trees.project / "file").stat())
        trees.base.save()
        trees.base = applying.Base(0, f"{trees.place}/taken.json")
        assert (trees.project / "file").read_text() == text
    (trees.project / "file").write_text("caller's")
    (trees.upper / "file").write_text("three")
    with pytest.raises(ConflictError):
        trees.apply("file", trees.base)


@pytest.mark.parametrize("what", ["written", "replaced", "link", "gone", "added", "in the tree"])
def test_what_is_changed_in_the_very_moment_stays(
    trees: Trees, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Between the last look and the renaming."""
    secret = tmp_path / "secret"
    secret.write_text("other's")
    true = rename.renameat2
    path = {"added": "other", "in the tree": "tree"}.get(what, "file")
    place = trees.project / path

    def race(*given: object) -> None:
        monkeypatch.setattr(rename, "renameat2", true)
        if what == "written":
            place.write_text("caller's own")
        elif what == "in the tree":
            (place / "deep").write_text("caller's own")
        elif what == "gone":
            place.unlink()
        else:
            place.unlink(missing_ok=True)
            place.symlink_to(secret) if what == "link" else place.write_text("caller's own")
        true(*given)  # type: ignore[arg-type]

    if what == "in the tree":
        os.mknod(trees.upper / "tree", 0o020000, 0)
    else:
        (trees.upper / path).write_text("guest's")
    change = trees.change(path)
    monkeypatch.setattr(rename, "renameat2", race)
    with pytest.raises(ConflictError, match="very moment"):
        applying.apply(*trees.descriptors, change, trees.base)
    if what == "link":
        assert place.readlink() == secret
    elif what == "in the tree":
        assert (place / "deep").read_text() == "caller's own"
    elif what == "gone":
        assert not place.exists()
    else:
        assert place.read_text() == "caller's own"
    assert secret.read_text() == "other's"
    assert not [name for name in os.listdir(trees.project) if name.endswith(".ketch")]


def test_a_file_system_without_exchange_does(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(rename, "renameat2", refuse)
    (trees.upper / "file").write_text("guest's")
    (trees.upper / "new").write_text("new")
    (trees.upper / "tree").write_text("a file now")
    for path in ("file", "new", "tree"):
        trees.apply(path, trees.base)
    assert [(trees.project / name).read_text() for name in ("file", "new", "tree")] == [
        "guest's", "new", "a file now",
    ]  # fmt: skip


def test_what_is_known_outlives_a_torn_file(trees: Trees) -> None:
    trees.base.remember("file", (trees.project / "file").stat())
    trees.base.save()
    again = applying.Base(0, f"{trees.place}/taken.json")
    assert again.since_ns == trees.base.since_ns
    assert again.has("file", (trees.project / "file").stat())
    again.remember("file", None)
    (trees.project / "file").write_text("x")
    assert not again.has("file", (trees.project / "file").stat())
    assert isinstance(applying.refusal("a", "b"), KetchError)


def test_a_hole_costs_the_caller_no_disk(trees: Trees) -> None:
    with open(trees.upper / "file", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"guest's")
    trees.apply("file", trees.base)
    taken = (trees.project / "file").stat()
    assert taken.st_size == 1 << 40
    assert taken.st_blocks * 512 < 1 << 20
    with open(trees.project / "file", "rb") as file:
        file.seek(1 << 39)
        assert file.read(7) == b"guest's"


def test_who_fills_holes_meanwhile_does_not_fill_the_caller_s_disk(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a guest does that writes ahead of what is read, and takes away what was."""
    with open(trees.upper / "file", "wb") as file:
        file.truncate(64 << 20)

    def filled(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
        for begin in range(0, size_bytes, 1 << 20):
            with open(trees.upper / "file", "r+b") as file:
                file.seek(begin)
                file.write(b"x" * (1 << 20))
            yield begin, begin + (1 << 20)

    monkeypatch.setattr(sparse, "_extents", filled)
    with pytest.raises(PermissionDeniedError, match="grows meanwhile"):
        trees.apply("file", trees.base)
    assert (trees.project / "file").read_text() == "before"
    assert sorted(os.listdir(trees.project)) == ["file", "tree"]
