"""What an archive of a tree says of its files."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from ketch.errors import InvalidArgumentError
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


def test_a_file_deeper_than_an_archive_can_say_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = b"tmp/\xc3\xa9\x9b" + b"/deeper" * 1000
    with (
        owned(os.open(tmp_path, os.O_RDONLY)) as parent,
        pytest.raises(InvalidArgumentError) as caught,
    ):
        list(tree.archive(parent, b"file", shown))
    assert caught.value.message.startswith(r"tmp/é\x9b/deeper/deeper/")
    assert caught.value.message.endswith("...: file name too long for an archive")
