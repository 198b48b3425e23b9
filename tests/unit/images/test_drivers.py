"""Which way of stacking layers an engine has: chosen once, then kept."""

import os
from pathlib import Path

import pytest

from ketch.errors import ConflictError, InvalidArgumentError
from ketch.images import drivers


def test_the_first_choice_stays(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    chosen = drivers.choose(root, "vfs")
    assert chosen.name == "vfs"
    drivers.record(chosen)
    assert drivers.choose(root).name == "vfs"
    assert drivers.choose(root, "vfs").name == "vfs"
    with pytest.raises(ConflictError, match="uses the storage driver vfs, not overlay2"):
        drivers.choose(root, "overlay")
    # Whoever records another one at the same moment comes too late.
    drivers.record(drivers._make("overlay2", root))
    assert drivers.choose(root).name == "vfs"
    assert os.listdir(root) == ["storage-driver"]


def test_an_engine_older_than_the_choice_has_overlays(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    assert drivers.choose(str(tmp_path)).name == "overlay2"
    with pytest.raises(ConflictError):
        drivers.choose(str(tmp_path), "vfs")


def test_what_is_no_driver(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown storage driver 'zfs'"):
        drivers.choose(str(tmp_path), "zfs")
