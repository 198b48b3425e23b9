"""What an archive of a tree says of its files."""

import io
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
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


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "symlink"])
@pytest.mark.parametrize("moment", range(6, 20))
def test_nothing_outside_is_in_an_archive_of_a_tree_that_others_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, moment: int
) -> None:
    """``cp`` and ``export`` of a running container that exchanges a name for a way to the host."""
    outside, place = tmp_path / "outside", tmp_path / "place"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    os.setxattr(outside / "secret", "user.word", b"secret")
    os.setxattr(outside, "user.word", b"secret")
    place.mkdir()
    match kind:
        case "file":
            (place / "name").write_text("public")
        case "directory":
            (place / "name").mkdir()
            (place / "name" / "file").write_text("public")
        case "fifo":
            os.mkfifo(place / "name")
        case "symlink":
            (place / "name").symlink_to("nowhere")
    calls = []

    def meddled(original: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            result = original(*arguments, **options)
            calls.append(1)
            if len(calls) == moment and os.path.lexists(place / "name"):
                (place / "name").rename(tmp_path / "aside")
                target = outside if kind == "directory" else outside / "secret"
                (place / "name").symlink_to(target)
            return result

        return wrapped

    for call in ("open", "stat", "fstat", "listdir"):
        monkeypatch.setattr(os, call, meddled(getattr(os, call)))
    content = b""
    with owned(os.open(tmp_path, os.O_RDONLY)) as parent, suppress(OSError):
        for piece in tree.archive(parent, b"place", b"place"):
            content += piece
    monkeypatch.undo()
    # A link itself, and where it leads, may be told: it is the container's own.
    assert b"user.word" not in content
    assert content.count(b"secret") == content.count(b"outside/secret")


@pytest.mark.parametrize("moment", range(1, 6))
def test_an_archive_of_a_directory_is_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The first of all is looked up by its name as well."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").touch()
    calls = []

    def meddled(original: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            result = original(*arguments, **options)
            calls.append(1)
            if len(calls) == moment:
                place.rename(tmp_path / "aside")
                place.symlink_to("outside")
            return result

        return wrapped

    for call in ("open", "stat", "fstat"):
        monkeypatch.setattr(os, call, meddled(getattr(os, call)))
    content = b""
    with owned(os.open(tmp_path, os.O_RDONLY)) as parent, suppress(OSError):
        content = b"".join(tree.archive(parent, b"place", b"place"))
    monkeypatch.undo()
    assert b"secret" not in content
