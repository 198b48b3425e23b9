"""What an archive of a tree says of its files."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from ketch.images import tree
from ketch.linux.scopes import owned


@pytest.mark.parametrize(("whole", "mtime"), [(False, 1.5), (True, 1.0)])
def test_copies_have_whole_seconds_as_dockers(tmp_path: Path, whole: bool, mtime: float) -> None:
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", ns=(0, 1_500_000_000))
    with owned(os.open(tmp_path, os.O_RDONLY)) as parent:
        pieces = tree.archive(parent, b"file", b"file", whole_seconds=whole)
        content = io.BytesIO(b"".join(pieces))
    with tarfile.open(fileobj=content) as archive:
        assert [member.mtime for member in archive] == [mtime]
