"""Walking trees deeper than paths, descriptors and recursion go, and that are moved meanwhile."""

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ketch.images import layered, tree
from ketch.linux import descent
from ketch.linux.copytree import copy_tree
from ketch.linux.descent import Descent
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from tests.support.descriptors import open_now

DEPTH = 1_500
NAME = "down"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def deepen(top: Path, depth: int = DEPTH) -> None:
    """Make directories in directories, with a file of three bytes in the last one."""
    top.mkdir(exist_ok=True)
    directory = os.open(top, _DIRECTORY)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=directory)
        below = os.open(NAME, _DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
    with (
        owned(directory),
        os.fdopen(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory), "w") as file,
    ):
        file.write("abc")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a tmpfs, where a thousand directories come and go in no time."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield path
    remove_tree(str(path))


def test_depth(memory: Path) -> None:
    """All of it is seen, copied and counted with a bounded number of descriptors."""
    deep = memory / "deep"
    deepen(deep)
    held = []
    before = len(open_now())
    with owned(os.open(deep, _DIRECTORY)) as top:
        kinds = []
        for number, (directory, name, status) in enumerate(descent.statuses(top)):
            kinds.append(stat.S_IFMT(status.st_mode))
            assert os.path.samestat(os.stat(name, dir_fd=directory), status)
            if number % 500 == 0:
                held.append(len(os.listdir("/proc/self/fd")) - before)
        assert kinds == [stat.S_IFDIR] * DEPTH + [stat.S_IFREG]
        target = memory / "target"
        target.mkdir()
        with owned(os.open(target, _DIRECTORY)) as into:
            copy_tree(top, into)
    assert max(held) < 50
    assert descent.usage(str(deep)) == descent.usage(str(target))
    assert descent.usage(str(deep))[0] == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_directories_beside_each_other(tmp_path: Path) -> None:
    """Wide and deep at once: everything once, a directory before what is in it."""
    expected = set()
    for number in range(20):
        path = tmp_path / f"{number}"
        for _ in range(50):
            path = path / "down"
        path.mkdir(parents=True)
        for name in "ab":
            (path / name).touch()
    for where, names, files in os.walk(tmp_path):
        expected |= {os.path.join(where, each) for each in (*names, *files)}
    seen = []
    with owned(os.open(tmp_path, _DIRECTORY)) as top:
        for directory, found, _ in descent.statuses(top):
            place = os.readlink(f"/proc/self/fd/{directory}")
            assert place == str(tmp_path) or place in seen
            seen.append(f"{place}/{os.fsdecode(found)}")
    assert sorted(seen) == sorted(expected)


def test_a_directory_that_is_moved_away_leads_nowhere(tmp_path: Path) -> None:
    """Up again it goes to the same directory, or to none: never by ``..`` out of the tree."""
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    deepen(tree, 100)
    outside.mkdir()
    (outside / "secret").touch()
    (tree / "beside").touch()
    with owned(os.open(tree, _DIRECTORY)) as top, Descent(top) as way:
        for _ in range(100):
            way.enter(NAME.encode())
        assert way.depth == 100
        # The fortieth of them, which is not held open, and all below it.
        path = tree.joinpath(*[NAME] * 40)
        path.rename(outside / "moved")
        found = 0
        while way.depth > 40:
            assert way.leave()
        # It is itself; what it was in is found from the top.
        assert way.leave()
        assert os.path.samestat(os.fstat(way.directory), path.parent.stat())
        while way.depth:
            assert way.leave()
            found += 1
        assert found == 39
        assert "secret" not in os.listdir(way.directory)


def test_a_lost_directory_is_passed_over(tmp_path: Path) -> None:
    """Two are moved: the one between them cannot be found again, the ones above can."""
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    deepen(tree, 100)
    outside.mkdir()
    for number in (10, 11):
        (tree.joinpath(*[NAME] * number) / "file").touch()
    with owned(os.open(tree, _DIRECTORY)) as top:
        seen = []
        for directory, name, status in descent.statuses(top):
            seen.append((name, os.readlink(f"/proc/self/fd/{directory}")))
            if stat.S_ISREG(status.st_mode) and len(seen) > 99:
                tree.joinpath(*[NAME] * 12).rename(outside / "moved")
                tree.joinpath(*[NAME] * 11).rename(outside / "away")
                break
        for directory, name, _ in descent.statuses(top):
            seen.append((name, os.readlink(f"/proc/self/fd/{directory}")))
    assert not [place for _, place in seen if not place.startswith(str(tree))]


def test_what_is_not_there(tmp_path: Path) -> None:
    assert descent.usage(str(tmp_path / "none")) == (0, 0)
    (tmp_path / "link").symlink_to("/etc")
    assert descent.usage(str(tmp_path / "link")) == (0, 0)


def test_files_with_several_names_count_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 5_000)
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "directory").mkdir()
    size_bytes, on_disk = descent.usage(str(tmp_path))
    assert size_bytes == 5_000
    one = (tmp_path / "one").stat().st_blocks + (tmp_path / "directory").stat().st_blocks
    assert on_disk == one * 512


def test_a_deep_tree_is_compared_and_archived(memory: Path) -> None:
    """``diff``, ``commit`` and ``export``: each change once, in order, few descriptors."""
    upper = memory / "upper"
    deepen(upper, 700)
    lower = memory / "lower"
    deepen(lower, 600)
    os.chmod(lower.joinpath(*[NAME] * 3), 0o700)
    before = len(open_now())
    seen = []
    with owned(os.open(upper, _DIRECTORY)) as top:
        found = layered.changes(top, layered.Directory([os.fsencode(lower)]), complete=False)
        for change in found:
            if change.status is not None:
                status = os.stat(change.name, dir_fd=change.parent, follow_symlinks=False)
                assert os.path.samestat(status, change.status)
            seen.append((change.kind, change.path))
            assert len(os.listdir("/proc/self/fd")) - before < 50
        paths = [b"/".join([NAME.encode()] * number) for number in range(1, 701)]
        assert seen == [
            *((layered.MODIFIED, path) for path in paths[:600]),
            *((layered.ADDED, path) for path in paths[600:]),
            (layered.ADDED, paths[-1] + b"/file"),
        ]
        content = io.BytesIO(b"".join(tree.archive(top, b".", b"")))
        with tarfile.open(fileobj=content) as archive:
            assert archive.getnames() == [
                *map(os.fsdecode, paths),
                os.fsdecode(paths[-1]) + "/file",
            ]


def test_a_directory_exchanged_for_another_is_not_archived(tmp_path: Path) -> None:
    """``cp`` and ``export`` of a running container see what was there when they looked, or none."""
    top, other = tmp_path / "top", tmp_path / "other"
    for name in "ab":
        (top / name).mkdir(parents=True)
    (other / "secret").mkdir(parents=True)
    names = []
    with owned(os.open(top, _DIRECTORY)) as directory:
        for piece in tree.archive(directory, b".", b""):
            names.append(piece[-512:][:100].rstrip(b"\0"))
            if names[-1].rstrip(b"/") == b"b":
                (top / "b").rmdir()
                other.rename(top / "b")
    assert [name.rstrip(b"/") for name in names[:2]] == [b"a", b"b"]
    assert not [name for name in names if b"secret" in name]


def test_a_name_exchanged_while_it_is_read_is_not_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as what it was nor as what it is: a symlink's target, a device's numbers."""
    for name in ("link", "other"):
        (tmp_path / name).symlink_to(name)
    archiver = tree.Archiver()
    original = os.open

    def exchanged(name: bytes, flags: int, **options: int) -> int:
        if name == b"link":
            (tmp_path / "other").rename(tmp_path / "link")
        return original(name, flags, **options)

    with owned(os.open(tmp_path, _DIRECTORY)) as directory:
        status = os.stat("link", dir_fd=directory, follow_symlinks=False)
        monkeypatch.setattr(os, "open", exchanged)
        assert not list(archiver.member(directory, b"link", b"link", status))
