"""Layers copied beside themselves with other owners: what they are then, and that they stay."""

import os
import stat
from pathlib import Path

import pytest

from ketch.images import shifted
from ketch.spec.user_namespaces import IdMap

IDS = IdMap("0 100000 10\n50 200000 5\n"), IdMap("0 300000 100\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A layer with a file of each kind."""
    top = tmp_path / "diff"
    (top / "deep").mkdir(parents=True)
    (top / "file").write_bytes(b"content")
    os.chown(top / "file", 52, 7)
    (top / "file").chmod(0o4751)
    os.utime(top / "file", ns=(5, 6))
    os.setxattr(top / "file", "user.note", b"kept")
    os.link(top / "file", top / "deep" / "same")
    (top / "nobodys").write_bytes(b"x")
    os.chown(top / "nobodys", 20, 5000)
    (top / "link").symlink_to("/no/where")
    os.lchown(top / "link", 1, 2)
    os.mkfifo(top / "deep" / "fifo", 0o640)
    os.chown(top / "deep" / "fifo", 9, 99)
    os.mknod(top / "whiteout", stat.S_IFCHR | 0o600, 0)
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 26)
    return top


def owners(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_all_but_the_owners_is_as_it_was(tree: Path) -> None:
    shifted.make([str(tree)], IDS)
    made = Path(shifted.path(str(tree), IDS))
    assert owners(made / "file") == (200002, 300007)
    status = (made / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o4751, 6)
    assert os.getxattr(made / "file", "user.note") == b"kept"
    assert (made / "deep/same").stat().st_ino == status.st_ino != (tree / "file").stat().st_ino
    # Who has no name inside is the user itself.
    assert owners(made / "nobodys") == (0, 0)
    assert ((made / "link").readlink(), owners(made / "link")) == (Path("/no/where"),
                                                                     (100001, 300002))  # fmt: skip
    fifo = (made / "deep/fifo").lstat()
    assert (fifo.st_mode, owners(made / "deep/fifo")) == (stat.S_IFIFO | 0o640, (100009, 300099))
    assert (made / "whiteout").lstat().st_rdev == 0
    assert stat.S_ISCHR((made / "whiteout").lstat().st_mode)
    assert (made / "sparse").stat().st_size == 1 << 26
    assert (made / "sparse").stat().st_blocks < 1000
    assert sorted(each.name for each in tree.parent.iterdir()) == ["diff", made.name]
    assert owners(tree / "file") == (52, 7)


def test_each_map_has_a_tree_of_its_own_which_is_made_once(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = IDS[0], IdMap("0 300000 99\n")
    assert len({shifted.path(str(tree), ids) for ids in (IDS, other, IDS[::-1])}) == 3
    shifted.make([str(tree)], IDS)
    made = Path(shifted.path(str(tree), IDS))
    before = made.stat().st_ino

    def copy(*_: object) -> None:
        pytest.fail("it is copied again")

    monkeypatch.setattr(shifted, "_copy", copy)
    shifted.make([str(tree)], IDS)
    assert made.stat().st_ino == before


def test_one_that_cannot_be_made_leaves_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        Path(str(_[1])).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shifted, "_copy", fails)
    with pytest.raises(OSError, match="No space left"):
        shifted.make([str(tree)], IDS)
    assert [each.name for each in tree.parent.iterdir()] == ["diff"]


def test_another_who_was_quicker_is_as_good(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Path(shifted.path(str(tree), IDS))

    def copy(_source: str, aside: str, _ids: object) -> None:
        Path(aside).mkdir()
        (target / "theirs").mkdir(parents=True)

    monkeypatch.setattr(shifted, "_copy", copy)
    shifted.make([str(tree)], IDS)
    assert sorted(each.name for each in tree.parent.iterdir()) == ["diff", target.name]
    assert (target / "theirs").exists()


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    assert shifted.recorded(str(tmp_path)) is None
    shifted.record(str(tmp_path), IDS)
    found = shifted.recorded(str(tmp_path))
    assert found is not None
    assert [one.ranges for one in found] == [one.ranges for one in IDS]
    with pytest.raises(FileExistsError):
        shifted.record(str(tmp_path), IDS)
