"""Flags of files, on the real file systems."""

import os
import pathlib
import subprocess
import tempfile

import pytest

from ketch.images.overlay import OverlaySnapshotter
from ketch.linux import inodeflags

pytestmark = pytest.mark.root


def shown(path: pathlib.Path | str) -> str:
    """What lsattr says of a directory; the test is skipped where its file system has no flags."""
    done = subprocess.run(["lsattr", "-d", path], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no flags here: {done.stderr.strip()}")
    return done.stdout.split()[0]


def test_flags_are_added_and_removed_and_others_stay(tmp_path: pathlib.Path) -> None:
    subprocess.run(["chattr", "+d", tmp_path], check=False, capture_output=True)
    before = shown(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        inodeflags.change(descriptor, add=inodeflags.APPEND_ONLY)
        assert shown(tmp_path).replace("a", "-") == before
        assert "a" in shown(tmp_path)
        inodeflags.change(descriptor, remove=inodeflags.APPEND_ONLY)
        assert shown(tmp_path) == before
    finally:
        os.close(descriptor)


def test_a_file_system_that_does_not_know_a_flag_is_no_error() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        descriptor = os.open(directory, os.O_RDONLY)
        inodeflags.change(descriptor, add=inodeflags.TOPDIR)
        os.close(descriptor)
    with open("/proc/version", "rb") as file:
        inodeflags.change(file.fileno(), add=inodeflags.TOPDIR)


def test_each_layer_gets_a_part_of_an_ext4_disk_of_its_own(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    with OverlaySnapshotter(str(root)).ingest([]):
        kind = subprocess.run(
            ["stat", "--file-system", "--format=%T", root], check=True, capture_output=True,
            text=True,
        ).stdout.strip()  # fmt: skip
        if kind != "ext2/ext3":
            pytest.skip(f"the tests' files are on {kind}")
        assert "T" in shown(root / "snapshots" / "ingest")
