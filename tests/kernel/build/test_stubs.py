"""Mount points that were made for a step, taken out of its result; nothing else is."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from ketch.engine.monitor import stubs
from ketch.linux import beneath

OLD_NS = (10**18, 10**18 + 7)


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[int]:
    (tmp_path / "root/etc").mkdir(parents=True)
    descriptor = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def names(tmp_path: pathlib.Path) -> list[str]:
    top = tmp_path / "root"
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_what_is_made_goes_and_times_are_as_before(root: int, tmp_path: pathlib.Path) -> None:
    os.utime(tmp_path / "root/etc", ns=OLD_NS)
    found = stubs.missing(root, ["/etc/hosts", "/etc/a/b", "/new/c", "/new/d"])
    os.close(beneath.make_file(root, "/etc/hosts"))
    os.close(beneath.make_directories(root, "/etc/a/b"))
    os.close(beneath.make_file(root, "/new/c"))
    os.close(beneath.make_directories(root, "/new/d"))
    stubs.made(root, found)
    stubs.remove(root, found)
    assert names(tmp_path) == ["etc"]
    assert (tmp_path / "root/etc").stat().st_mtime_ns == OLD_NS[1]


def test_times_that_a_step_has_changed_are_its_result(root: int, tmp_path: pathlib.Path) -> None:
    os.utime(tmp_path / "root/etc", ns=OLD_NS)
    found = stubs.missing(root, ["/etc/hosts"])
    os.close(beneath.make_file(root, "/etc/hosts"))
    stubs.made(root, found)
    (tmp_path / "root/etc/own").touch()
    changed_ns = (tmp_path / "root/etc").stat().st_mtime_ns
    stubs.remove(root, found)
    assert names(tmp_path) == ["etc", "etc/own"]
    assert (tmp_path / "root/etc").stat().st_mtime_ns == changed_ns


def test_what_was_there_or_was_written_to_stays(root: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "root/etc/hosts").touch()
    (tmp_path / "root/there").mkdir()
    found = stubs.missing(root, ["/etc/hosts", "/there", "/file", "/directory/mount", "/made"])
    (tmp_path / "root/file").write_text("x")
    (tmp_path / "root/directory/mount").mkdir(parents=True)
    (tmp_path / "root/directory/own").touch()
    os.symlink("elsewhere", tmp_path / "root/made")
    stubs.remove(root, found)
    assert names(tmp_path) == ["directory", "directory/own", "etc", "etc/hosts", "file", "made",
                               "there"]  # fmt: skip


def test_links_are_followed_beneath_the_root(root: int, tmp_path: pathlib.Path) -> None:
    """Where a link leads nowhere, what it names is made; Debian's resolv.conf may be one."""
    os.symlink("../run/resolv.conf", tmp_path / "root/etc/resolv.conf")
    os.symlink("/../../../outside", tmp_path / "root/out")
    found = stubs.missing(root, ["/etc/resolv.conf", "/out/file"])
    os.close(beneath.make_file(root, "/etc/resolv.conf"))
    os.close(beneath.make_file(root, "/out/file"))
    assert "run/resolv.conf" in names(tmp_path)
    assert "outside/file" in names(tmp_path)
    stubs.remove(root, found)
    assert names(tmp_path) == ["etc", "etc/resolv.conf", "out"]


def test_a_link_put_in_the_way_leads_to_nothing_outside(root: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/empty").touch()
    found = stubs.missing(root, ["/a/empty"])
    os.symlink(tmp_path / "victim", tmp_path / "root/a")
    stubs.remove(root, found)
    assert (tmp_path / "victim/empty").exists()


@pytest.mark.parametrize(
    "target", ["/", "", "/.", "//", "/..", "/loop/x", "/etc/../etc", "/file/x"]
)
def test_odd_targets(root: int, tmp_path: pathlib.Path, target: str) -> None:
    os.symlink("loop", tmp_path / "root/loop")
    (tmp_path / "root/file").touch()
    stubs.remove(root, stubs.missing(root, [target]))
    assert names(tmp_path) == ["etc", "file", "loop"]
