"""What counts as a change of a container's."""

import os
from pathlib import Path

from ketch.images import layered
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
