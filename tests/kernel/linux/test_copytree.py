"""Copying trees as they are, links and attributes included, and nothing outside them."""

import os
import socket
import stat
from pathlib import Path

import pytest

from ketch.linux.copytree import copy_tree
from tests.support.descriptors import open_now

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


def copied(source: Path) -> Path:
    target = source.parent / "target"
    target.mkdir()
    descriptors = [os.open(path, _DIRECTORY) for path in (source, target)]
    try:
        copy_tree(*descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return target


def test_owners_modes_times_and_attributes(source: Path) -> None:
    file = source / "file"
    file.write_bytes(b"x" * 100_000)
    os.chown(file, 1000, 1001)
    file.chmod(0o4711)
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    os.setxattr(file, "user.colour", b"red")
    source.chmod(0o2750)
    os.chown(source, 5, 6)
    target = copied(source)
    status = (target / "file").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, 0o4711)
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
    assert (target / "file").read_bytes() == b"x" * 100_000
    assert os.getxattr(target / "file", "user.colour") == b"red"
    assert stat.S_IMODE(target.stat().st_mode) == 0o2750
    assert (target.stat().st_uid, target.stat().st_gid) == (5, 6)


def test_names_of_one_file_stay_names_of_one_file(source: Path) -> None:
    (source / "below").mkdir()
    (source / "file").write_text("x")
    for number in range(3):
        os.link(source / "file", source / "below" / f"link{number}")
    os.link(source / "file", source.parent / "outside")
    target = copied(source)
    assert (target / "file").stat().st_nlink == 4
    assert (target / "below" / "link2").samefile(target / "file")
    assert not (target / "file").samefile(source / "file")


def test_special_files(source: Path) -> None:
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 7))
    os.chown(source / "fifo", 7, 8)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    target = copied(source)
    assert sorted(os.listdir(target)) == ["device", "fifo", "link"]
    assert os.readlink(target / "link") == "/etc/passwd"
    fifo = (target / "fifo").lstat()
    assert stat.S_ISFIFO(fifo.st_mode)
    assert (fifo.st_uid, fifo.st_gid, stat.S_IMODE(fifo.st_mode)) == (7, 8, 0o640)
    assert (target / "device").stat().st_rdev == os.makedev(1, 7)


def test_descriptors_do_not_pile_up(source: Path) -> None:
    for number in range(700):
        (source / f"{number:04}").touch()
        os.link(source / f"{number:04}", source.parent / f"out{number}")
    before = len(open_now())
    target = copied(source)
    assert len(os.listdir(target)) == 700
    assert len(os.listdir("/proc/self/fd")) == before
