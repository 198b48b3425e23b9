"""WORKDIR's directories, whom files belong to, and here-documents."""

import os
import stat
from pathlib import Path

import pytest

from ketch.build.files import copying, digests, directories, inline, users
from ketch.build.files.selection import select
from ketch.build.graph import CopyItem, InlineSource
from ketch.errors import InvalidArgumentError, KetchError
from tests.support.build_files import opened


def test_directories_are_made_where_they_are_missing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / "there").mkdir(parents=True, mode=0o700)
    (root / "link").symlink_to("/elsewhere")
    (root / "up").symlink_to("../../outside")
    with opened(root) as directory:
        directories.make(directory, "/there/a/b", (5, 6))
        directories.make(directory, "/link/x/../y")
        directories.make(directory, "/up/z")
        directories.make(directory, "/")
        directories.make(directory, "/there")
    for path, owner in (("there/a", 5), ("there/a/b", 5), ("elsewhere/y", 0), ("outside/z", 0)):
        status = (root / path).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (owner, 0o755), path
    assert stat.S_IMODE((root / "there").stat().st_mode) == 0o700
    assert os.listdir(outside) == []
    assert not (root / "elsewhere" / "x").exists()


def test_directories_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with opened(tmp_path) as directory:
        for path, message in (
            ("/file", "mkdir /file: not a directory"),
            ("/file/x", "mkdir /file: not a directory"),
            ("/loop", "/loop: too many symbolic links"),
            ("/" + "n" * 300, "file name too long"),
        ):
            with pytest.raises(InvalidArgumentError) as caught:
                directories.make(directory, path)
            assert message in caught.value.message


@pytest.mark.parametrize(
    ("specification", "owner", "said"),
    [
        ("", (0, 0), 0), ("7", (7, 7), 0), ("7:8", (7, 8), 0), ("web", (33, 34), 0),
        ("web:staff", (33, 50), 0), ("7:staff", (7, 50), 0), (":staff", (0, 50), 0),
        ("web:9", (33, 9), 0), ("33", (33, 33), 0), ("nobody", (0, 0), 1), ("1:nogroup", (1, 1), 1),
        ("who:which", (0, 0), 2), ("bad", (0, 0), 1),
    ],
)  # fmt: skip
def test_owners(tmp_path: Path, specification: str, owner: tuple[int, int], said: int) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(
        "root:x:0:0::/:\nweb:x:33:34::/:\nbad:x:99999999999:1::/:\n"
    )
    (tmp_path / "etc" / "group").write_text("staff:x:50:\n")
    with opened(tmp_path) as directory:
        assert users.owner(directory, specification) == owner
        assert len(users.unknown(directory, specification)) == said


def test_owners_are_looked_up_in_the_root_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("/etc")
    with opened(tmp_path) as directory:
        assert users.owner(directory, "daemon") == (0, 0)
        with pytest.raises(InvalidArgumentError, match="range"):
            users.owner(directory, "4294967296")


def test_files_of_the_dockerfile_itself(tmp_path: Path) -> None:
    root, place = tmp_path / "root", tmp_path / "place"
    root.mkdir()
    place.mkdir()
    files = {"a[1]": b"#!/bin/sh\n", "b": b""}
    item = CopyItem(InlineSource(name="inline", files=files), tuple(files))
    version = digests.Version()
    with inline.tree(files, str(place)) as tree, opened(root) as directory:
        chosen = select(tree, item)
        copying.copy(chosen, copying.Destination(directory, "/x/"), version)
    assert os.listdir(place) == []
    assert {one.name: one.read_bytes() for one in (root / "x").iterdir()} == files
    status = (root / "x" / "b").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o644)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "n" * 300])
def test_what_no_file_can_be_called(tmp_path: Path, name: str) -> None:
    with pytest.raises(KetchError), inline.tree({name: b"x"}, str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []
