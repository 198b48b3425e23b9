"""Removing what a container may have written, on the real file system."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from ketch.linux.namespaces import CLONE_NEWNS, unshare
from ketch.linux.removetree import remove_tree


def test_a_missing_directory_is_no_error(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "none"))


def test_every_kind_of_entry(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "a/b/c/file").write_text("x")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "a/socket"))
    (tree / "a/mode000").mkdir(mode=0)
    (tree / "a/name\nwith \udcff odd").write_text("")
    remove_tree(str(tree))
    assert list(tmp_path.iterdir()) == []


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for link in (tree / "link", tree / "deep/link"):
        link.symlink_to(outside)
    remove_tree(str(tree))
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "precious").read_text() == "x"


def test_the_directory_itself_may_not_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("x")
    (tmp_path / "link").symlink_to("outside")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "outside/precious").exists()


def test_a_tree_deeper_than_paths_and_descriptors_go(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    at = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("down", dir_fd=at)
        os.mkdir("beside", dir_fd=at)
        below = os.open("down", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    remove_tree(str(tmp_path / "tree"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_immutable_and_append_only_entries(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "held/inner").mkdir(parents=True)
    for name in ("file", "held/file", "held/inner/file"):
        (tree / name).write_text("x")
    held = [tree / "held/inner/file", tree / "held/inner", tree / "held"]
    marked = subprocess.run(["chattr", "+i", *held], capture_output=True, text=True, check=False)
    if marked.returncode:
        pytest.skip(f"cannot set file attributes here: {marked.stderr.splitlines()[-1]}")
    subprocess.run(["chattr", "+a", tree / "file", tree], check=True)
    with pytest.raises(PermissionError):
        os.unlink(tree / "held/inner/file")
    remove_tree(str(tree))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_what_is_mounted_inside_keeps_its_content(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "precious").write_text("x")
    target = tmp_path / "tree/deep/target"
    target.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            unshare(CLONE_NEWNS)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "--bind", source, target], check=True)
            with pytest.raises(OSError, match="busy"):
                remove_tree(str(tmp_path / "tree"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (source / "precious").read_text() == "x"
