"""What the kernel refuses, in words: tried on directories that only look like cgroups."""

import os
from pathlib import Path

import pytest

from ketch.cgroups.group import Group
from ketch.cgroups.layout import Hierarchy
from ketch.errors import ConflictError, UnsupportedError


@pytest.fixture
def group(tmp_path: Path) -> Group:
    (tmp_path / "ketch").mkdir()
    return Group(Hierarchy(str(tmp_path), 2, ("memory",)), "/ketch")


def test_a_file_that_this_kernel_has_not(group: Group) -> None:
    with pytest.raises(UnsupportedError, match=r"'5' to .*/ketch/memory\.swap\.max") as caught:
        group.write("memory.swap.max", "5")
    assert "swapaccount=1" in caught.value.hint


def test_a_controller_that_did_not_come_down(group: Group) -> None:
    group.refused["memory"] = OSError(16, os.strerror(16))
    with pytest.raises(ConflictError, match="memory controller could not be enabled"):
        group.write("memory.max", "5")


def test_a_cgroup_that_is_gone(group: Group) -> None:
    os.rmdir(group.directory)
    with pytest.raises(ConflictError, match="gone"):
        group.write("memory.max", "5")
    assert group.read("memory.max") is None
    assert group.processes() == []
    assert group.tree() == []
    assert group.remove()


def test_long_files_are_read_whole(group: Group) -> None:
    text = "\n".join(str(number) for number in range(1, 60000))
    (Path(group.directory) / "cgroup.procs").write_text(text, encoding="ascii")
    assert group.processes() == list(range(1, 60000))


def test_children_come_before_their_parents(group: Group) -> None:
    os.makedirs(f"{group.directory}/a/b")
    assert group.tree() == [f"{group.directory}/{name}".rstrip("/") for name in ("a/b", "a", "")]
