"""The rules of ``docker cp``, one by one."""

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import copy_paths
from ketch.spec.copy_paths import CopyInfo


def directory(path: str) -> CopyInfo:
    return CopyInfo(path, exists=True, is_directory=True)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (directory("/s"), directory("/t"), ("/t", None)),
        (CopyInfo("/s/f", exists=True), directory("/t/"), ("/t/", None)),
        (CopyInfo("/s/f", exists=True), CopyInfo("/t/g", exists=True), ("/t", ("f", "g"))),
        (CopyInfo("/s/f", exists=True), CopyInfo("/t/g"), ("/t", ("f", "g"))),
        (directory("/s"), CopyInfo("/t/new"), ("/t", ("s", "new"))),
        (directory("/s"), CopyInfo("/t/new/"), ("/t", ("s", "new"))),
        (directory("/s/."), CopyInfo("/t/new"), ("/t", (".", "new"))),
        (directory("/"), CopyInfo("/t/new"), ("/t", ("/", "new"))),
        (CopyInfo("/s/l", exists=True, rebase_name="r"), CopyInfo("/t/g"), ("/t", ("r", "g"))),
    ],
)
def test_places(
    source: CopyInfo, target: CopyInfo, expected: tuple[str, tuple[str, str] | None]
) -> None:
    assert copy_paths.place(source, target) == expected


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (directory("/s"), CopyInfo("/f", exists=True), "cannot copy directory"),
        (CopyInfo("/f", exists=True), CopyInfo("/new/"), "no such directory"),
        (CopyInfo("/f", exists=True), CopyInfo("/new/."), "no such directory"),
    ],
)
def test_refusals(source: CopyInfo, target: CopyInfo, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        copy_paths.place(source, target)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (b"s/a/s", ("s", "new"), b"new/a/s"),
        (b"./a", (".", "new"), b"new/a"),
        (b"/etc", ("/", "new"), b"new/etc"),
        (b"a", None, b"a"),
    ],
)
def test_names(name: bytes, change: tuple[str, str] | None, expected: bytes) -> None:
    assert copy_paths.renamed(name, change) == expected


def test_a_followed_symlink_keeps_its_name_and_its_end() -> None:
    assert copy_paths.followed("/d/link", "/other/f") == ("/other/f", "link")
    assert copy_paths.followed("/d/link/", "/other") == ("/other/", "link")
    assert copy_paths.followed("/d/link/.", "/other") == ("/other/.", "")
    assert copy_paths.followed("/d/same", "/other/same") == ("/other/same", "")
