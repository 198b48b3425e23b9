"""Where what a build's steps write comes to lie, and how a COPY reaches it."""

import os
from pathlib import Path

from ketch.build import place
from ketch.build.layering import Root


def test_roots_have_names_of_their_own_in_each_build(tmp_path: Path) -> None:
    """ext4 takes the part of the disk from the name: see ``snapshots.spread``."""
    found = set()
    for _ in range(2):
        with place.opened(str(tmp_path)) as at, at.root() as first, at.root() as second:
            found |= {os.path.basename(first), os.path.basename(second)}
    assert len(found) == 4


def test_a_new_directory_is_opened_where_it_lies_once_the_root_is_unmounted(tmp_path: Path) -> None:
    (tmp_path / "upper" / "new").mkdir(parents=True)
    mounted = os.open(tmp_path, os.O_RDONLY)
    with Root(mounted, str(tmp_path / "upper")) as root:
        assert root.beneath is not None
        below = root.beneath(["new"])
        assert root.descriptor == -1
        assert os.path.samestat(os.fstat(below), os.stat(tmp_path / "upper" / "new"))
        os.close(below)
    with Root(os.open(tmp_path, os.O_RDONLY), "") as root:
        assert root.beneath is None
