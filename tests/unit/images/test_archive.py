"""Members of archives are found by name, whatever the names are."""

import io
import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.images import archive, tar
from ketch.images.archive import DirectorySource, TarSink, TarSource, seekable
from tests.support.archives import archive as tarred
from tests.support.archives import member


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    found: list[int] = []
    yield found
    for descriptor in found:
        os.close(descriptor)


def opened(content: bytes, descriptors: list[int]) -> TarSource:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        descriptors.append(os.dup(file.fileno()))
    return TarSource(descriptors[-1])


def test_members_are_read_from_where_they_lie(descriptors: list[int]) -> None:
    large = os.urandom(100_000)
    source = opened(
        tarred(
            member(b"./a/b", data=b"first"),
            member(b"large", data=large),
            member(b"/abs", data=b"root"),
            member(b"a/b", data=b"last"),
            member(b"x" * 150, data=b"long"),
            member(b"a/link", tar.SYMLINK, link=b"../large"),
            member(b"a/hard", tar.HARD_LINK, link=b"abs"),
        ),
        descriptors,
    )
    assert source.document("a/b") == b"last"
    assert source.document("abs") == b"root"
    assert source.document("x" * 150) == b"long"
    assert source.document("a/hard") == b"root"
    assert source.document("nonsuch") is None
    part = source.open("a/link")
    assert part.size_bytes == len(large)
    assert b"".join(iter(lambda: part.read(999), b"")) == large
    with pytest.raises(NotFoundError, match="lacks 'nonsuch'"):
        source.open("nonsuch")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tarred(member(b"../x")), "leads out of the archive"),
        (tarred(member(b"l", tar.SYMLINK, link=b"../../x")), "leads out of the archive"),
        (tarred(member(b"x", data=b"y" * 5000))[:3000], "cut short"),
        (tarred(member(b"x", size=1 << 32)), "cut short"),
        (b"no archive" * 200, "wrong checksum"),
    ],
)
def test_malformed_archives_are_refused(
    descriptors: list[int], content: bytes, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        opened(content, descriptors)


def test_links_in_a_circle_lead_to_nothing(descriptors: list[int]) -> None:
    source = opened(
        tarred(member(b"a", tar.SYMLINK, link=b"b"), member(b"b", tar.SYMLINK, link=b"a")),
        descriptors,
    )
    assert "a" not in source


def test_too_many_members_and_too_large_documents_are_refused(
    descriptors: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MEMBERS_MAX", 3)
    with pytest.raises(InvalidArgumentError, match="more than 3 members"):
        opened(tarred(*[member(b"%d" % number) for number in range(4)]), descriptors)
    monkeypatch.setattr(archive, "DOCUMENT_SIZE_MAX", 10)
    with pytest.raises(InvalidArgumentError, match=r"index\.json: larger than 10 bytes"):
        opened(tarred(member(b"index.json", data=b" " * 11)), descriptors).document("index.json")


def test_long_names_do_not_fill_the_memory(
    descriptors: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "NAMES_BYTES_MAX", 1 << 20)
    long = [member(b"x", pax={b"path": b"%d" % number * 100_000}) for number in range(12)]
    with pytest.raises(InvalidArgumentError, match="names of the archive's members take more"):
        opened(tarred(*long), descriptors)


@given(st.binary(max_size=3000))
def test_any_bytes_are_an_archive_or_a_named_error(content: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            TarSource(file.fileno())
        except KetchError as error:
            assert error.message  # noqa: PT017 - either outcome is right


def test_a_directory_is_a_source_and_its_fifos_are_not_opened(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    source = DirectorySource(str(tmp_path))
    assert source.document("f") == b"x"
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "in").symlink_to("f")
    assert source.document("in") == b"x"
    for name in ("out", "up/" + tmp_path.name + "/f", "\ud800", "x" * 300):
        assert source.document(name) is None
    for name in ("fifo", "nonsuch", "out", "\ud800", "x" * 300):
        with pytest.raises(NotFoundError):
            source.open(name)
    with pytest.raises(InvalidArgumentError, match="leads out"):
        source.open("../f")
    with pytest.raises(InvalidArgumentError, match="NUL"):
        source.open("f\0")


def test_what_a_pipe_gives_is_copied_and_bounded(tmp_path: pathlib.Path) -> None:
    read, write = os.pipe()
    os.write(write, tarred(member(b"f", data=b"x")))
    os.close(write)
    copy = seekable(read, str(tmp_path), 1 << 20)
    assert TarSource(copy).document("f") == b"x"
    os.close(copy)
    os.close(read)
    assert os.listdir(tmp_path) == []
    read, write = os.pipe()
    os.write(write, bytes(4000))
    os.close(write)
    with pytest.raises(InvalidArgumentError, match="more than 1000 bytes"):
        seekable(read, str(tmp_path), 1000)
    os.close(read)


def test_what_is_written_is_found(descriptors: list[int]) -> None:
    buffer = io.BytesIO()
    sink = TarSink(buffer.write)
    sink.add("blobs/sha256/a", b"1")
    sink.add("blobs/sha256/b", b"2")
    sink.finish()
    source = opened(buffer.getvalue(), descriptors)
    assert source.document("blobs/sha256/b") == b"2"
    buffer.seek(0)
    names = [entry.name for entry in tar.Reader(buffer)]
    assert names == [b"blobs/", b"blobs/sha256/", b"blobs/sha256/a", b"blobs/sha256/b"]
