"""What counts as a change of a container's."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ketch.images import layered
from ketch.images.opaque import make_opaque
from ketch.linux.scopes import owned


def told(upper: Path, *lower: Path) -> list[tuple[int, bytes]]:
    parts = [os.fsencode(path) for path in lower]
    with owned(os.open(upper, os.O_RDONLY)) as top:
        found = layered.changes(top, layered.Directory(parts), complete=False)
        return [(change.kind, change.path) for change in found]


def test_mount_points_that_a_start_made_are_none(tmp_path: Path) -> None:
    """Empty ones; what somebody has written there is his."""
    upper = tmp_path / "upper"
    for name in ("dev", "proc", "sys/kernel", "etc/resolv.conf"):
        (upper / name).mkdir(parents=True)
    (upper / "etc" / "hostname").touch()
    (upper / "etc" / "hosts").write_text("written")
    assert told(upper) == [
        (layered.ADDED, b"etc"),
        (layered.ADDED, b"etc/hosts"),
        (layered.ADDED, b"etc/resolv.conf"),  # no file
    ]


def test_paths_that_only_the_hosts_way_to_them_makes_too_long(tmp_path: Path) -> None:
    parts = [b"d" * 250] * 16
    path = b"/".join([*parts, b"f" * 70])
    assert len(path) < 4096 < len(os.fsencode(tmp_path)) + 7 + len(path)
    for root, text in (("upper", "newer"), ("lower", "old")):
        (tmp_path / root).mkdir()
        place = os.open(tmp_path / root, os.O_RDONLY)
        for part in parts:
            os.mkdir(part, dir_fd=place)
            inner = os.open(part, os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = inner
        with owned(place), owned(os.open(b"f" * 70, os.O_CREAT, dir_fd=place)) as file:
            os.utime(file, (0, len(text)))
    assert (layered.MODIFIED, path) in told(tmp_path / "upper", tmp_path / "lower")
    lower = layered.Directory([os.fsencode(tmp_path / "lower")])
    for part in parts:
        assert lower.names() == [part]
        lower = lower.child(part)
    assert lower.names() == [b"f" * 70]


def test_a_stack_that_grows_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of a build lies on those before it, and may be deep in their directories."""
    height = 40
    trees = [tmp_path / f"{number}" for number in range(height)]
    for number, tree in enumerate(trees):
        tree.joinpath(*(f"d{depth}" for depth in range(number + 1))).mkdir(parents=True)
    (trees[12] / "file").touch()
    (trees[20] / "file").mkdir()
    looked = 0
    lstat = os.lstat

    def counted(path: bytes) -> os.stat_result:
        nonlocal looked
        looked += 1
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counted)
    known = layered.Known()
    for top in range(1, height + 1):
        parts = [os.fsencode(tree) for tree in reversed(trees[:top])]
        directory = layered.Directory(parts, known)
        assert len(directory.child(b"file").parts) == (top > 20)
        for depth in range(top):
            directory = directory.child(b"d%d" % depth)
            assert len(directory.parts) == top - depth
    assert looked < 2 * height**2


def test_a_directory_is_told_of_once_before_the_first_change_in_it(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for name in ("a/b/same", "a/c"):
        (lower / name).mkdir(parents=True)
        (upper / name).mkdir(parents=True)
    (upper / "a" / "b" / "new").touch()
    (upper / "a" / "c" / "new").touch()
    (upper / "z").touch()
    assert told(upper, lower) == [
        (layered.MODIFIED, b"a"),
        (layered.MODIFIED, b"a/b"),
        (layered.ADDED, b"a/b/new"),
        (layered.MODIFIED, b"a/c"),
        (layered.ADDED, b"a/c/new"),
        (layered.ADDED, b"z"),
    ]


@pytest.mark.root
def test_what_an_opaque_directory_hides_is_gone_however_deep(tmp_path: Path) -> None:
    """overlayfs marks the directory that was made anew, and none of those that are made in it."""
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for name in ("d/e/f/same", "d/e/gone", "d/e/f/both/gone", "d/other", "kept/e/f"):
        (lower / name).mkdir(parents=True)
    for name in ("d/e/f/both", "kept/e"):
        (upper / name).mkdir(parents=True)
    make_opaque(str(upper / "d"))
    assert told(upper, lower) == [
        (layered.MODIFIED, b"d"),
        (layered.MODIFIED, b"d/e"),
        (layered.MODIFIED, b"d/e/f"),
        (layered.MODIFIED, b"d/e/f/both"),
        (layered.DELETED, b"d/e/f/both/gone"),
        (layered.DELETED, b"d/e/f/same"),
        (layered.DELETED, b"d/e/gone"),
        (layered.DELETED, b"d/other"),
    ]


@pytest.mark.parametrize("complete", [False, True])
def test_files_of_one_time_and_size_may_be_others(tmp_path: Path, complete: bool) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    large = b"x" * 300_000
    for place, number in ((upper, b"2"), (lower, b"1")):
        place.mkdir()
        for name, content in (
            ("same", b"same"), ("other", number), ("large", large + number), ("empty", b""),
        ):  # fmt: skip
            (place / name).write_bytes(content)
        (place / "link").symlink_to(number.decode())
        (place / "same-link").symlink_to("a")
        for file in place.iterdir():
            os.utime(file, (0, 0), follow_symlinks=False)
        os.utime(place, (0, 0))
    with owned(os.open(upper, os.O_RDONLY)) as top:
        stack = layered.Directory([os.fsencode(lower)])
        found = [change.path for change in layered.changes(top, stack, complete=complete)]
    assert found == [b"large", b"link", b"other"]


def _make_another(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
    os.utime(path, (0, 0))


@pytest.mark.root
@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo", "device"])
def test_whatever_a_file_has_may_be_another(tmp_path: Path, kind: str) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "file": Path.touch,
        "directory": Path.mkdir,
        "link": lambda path: path.symlink_to("target"),
        "fifo": os.mkfifo,
        "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
    }
    changes: dict[str, Callable[[Path], object]] = {
        "same": lambda path: None,
        "user": lambda path: os.lchown(path, 7, -1),
        "group": lambda path: os.lchown(path, -1, 7),
        "attribute": lambda path: os.setxattr(path, "trusted.mine", b"1", follow_symlinks=False),
    }
    if kind != "link":
        changes["mode"] = lambda path: path.chmod(0o711)
    if kind != "directory":
        changes["time"] = lambda path: os.utime(path, (1, 1), follow_symlinks=False)
    if kind == "device":
        changes["number"] = _make_another
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for place in (upper, lower):
        place.mkdir()
        os.utime(place, (0, 0))
    for change, do in changes.items():
        for place in (upper, lower):
            make[kind](place / change)
            os.utime(place / change, (0, 0), follow_symlinks=False)
        do(upper / change)
    with owned(os.open(upper, os.O_RDONLY)) as top:
        stack = layered.Directory([os.fsencode(lower)])
        found = {change.path.decode() for change in layered.changes(top, stack, complete=False)}
    assert found - {"."} == changes.keys() - {"same"}


def test_of_a_whole_tree_what_is_the_layers_own_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower" / "file").write_text("read by nobody")
    (tmp_path / "upper").mkdir()
    os.link(tmp_path / "lower" / "file", tmp_path / "upper" / "file")
    monkeypatch.setattr(os, "pread", None)
    with owned(os.open(tmp_path / "upper", os.O_RDONLY)) as top:
        stack = layered.Directory([os.fsencode(tmp_path / "lower")])
        assert list(layered.changes(top, stack, complete=True)) == []


def test_files_at_rest_are_opened_once_and_archived_alike(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        (tmp_path / "files" / name).write_text(name)
    opened: list[str] = []
    is_heard = True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if is_heard and event == "open":
            opened.append(str(arguments[0]))

    def archived(*, at_rest: bool) -> bytes:
        opened.clear()
        with owned(os.open(tmp_path, os.O_RDONLY)) as top:
            found = layered.diff(top, layered.Directory(), complete=False, at_rest=at_rest)
            return b"".join(found)

    sys.addaudithook(hear)  # for good
    others = archived(at_rest=False)
    ours = archived(at_rest=True)
    is_heard = False
    assert ours == others
    assert [place for place in opened if place in {"b'a'", "b'b'"} or "/proc/" in place] == [
        "b'a'", "b'b'"
    ]  # fmt: skip
