import io
import os
import pathlib
import subprocess
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, KetchError
from ketch.images import tar
from tests.support.archives import archive, member, record, stream

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


class Dribble:
    """A stream that gives a few bytes at a time, as a socket may."""

    def __init__(self, content: bytes, step: int) -> None:
        self._file = io.BytesIO(content)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._step))


def read(content: bytes, step: int = 1 << 20) -> list[tuple[tar.Entry, bytes]]:
    reader = tar.Reader(Dribble(content, step))
    return [(entry, b"".join(map(bytes, reader.data()))) for entry in reader]


def first(*members: bytes) -> tar.Entry:
    return next(iter(tar.Reader(stream(*members))))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("step", [1, 511, 513, 1 << 20])
def test_what_pythons_tarfile_writes_is_read_back(kind: str, step: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[kind]) as writer:
        for name, type_, link, content in [
            ("d", tarfile.DIRTYPE, "", b""),
            ("d/f", tarfile.REGTYPE, "", b"x" * 1000),
            ("p" * 90 + "/" + "n" * 90, tarfile.REGTYPE, "", b"y"),
            ("h", tarfile.LNKTYPE, "d/f", b""),
            ("s", tarfile.SYMTYPE, "../elsewhere", b""),
            ("c", tarfile.CHRTYPE, "", b""),
            ("b", tarfile.BLKTYPE, "", b""),
            ("i", tarfile.FIFOTYPE, "", b""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = type_, link, len(content)
            info.mode, info.uid, info.gid, info.mtime = 0o4751, 1234, 5678, 1_700_000_000
            info.devmajor, info.devminor = 7, 300
            writer.addfile(info, io.BytesIO(content))
    found = read(buffer.getvalue(), step)
    assert [(e.name, e.kind, e.link, data) for e, data in found] == [
        (b"d/", tar.DIRECTORY, b"", b""),
        (b"d/f", tar.REGULAR, b"", b"x" * 1000),
        (b"p" * 90 + b"/" + b"n" * 90, tar.REGULAR, b"", b"y"),
        (b"h", tar.HARD_LINK, b"d/f", b""),
        (b"s", tar.SYMLINK, b"../elsewhere", b""),
        (b"c", tar.CHARACTER, b"", b""),
        (b"b", tar.BLOCK_DEVICE, b"", b""),
        (b"i", tar.FIFO, b"", b""),
    ]
    for entry, _ in found:
        assert (entry.mode, entry.uid, entry.gid) == (0o4751, 1234, 5678)
        assert entry.mtime_ns == 1_700_000_000 * 10**9
    assert (found[5][0].major, found[5][0].minor) == (7, 300)


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_long_and_undecodable_names_are_bytes(kind: str) -> None:
    name, link = "\udcff" + "n" * 3000, "\udcfe" + "l" * 3000
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, link
    form: Any = FORMATS[kind]
    content = info.tobuf(form, "utf-8", "surrogateescape") + bytes(1024)
    [(entry, _)] = read(content)
    if kind == "gnu":
        assert entry.name == os.fsencode(name)
        assert entry.link == os.fsencode(link)
    assert len(entry.name) >= 3001


def test_numbers_beyond_octal_are_read() -> None:
    info = tarfile.TarInfo("f")
    info.uid, info.gid, info.mtime = 3_000_000_000, 2_100_000, -5
    [(entry, _)] = read(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert (entry.uid, entry.gid, entry.mtime_ns) == (3_000_000_000, 2_100_000, -5 * 10**9)


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        (b"1.5", 1_500_000_000),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1.1234567899", 1_123_456_789),
        (b"-1.5", -1_500_000_000),
        (b"7", 7_000_000_000),
    ],
)
def test_times_keep_their_nanoseconds(text: bytes, expected_ns: int) -> None:
    assert first(member(b"f", pax={b"mtime": text})).mtime_ns == expected_ns


def test_extended_headers_override_the_header_and_end_with_their_member() -> None:
    pax = {
        b"path": b"q/\xff",
        b"uid": b"4000000",
        b"gid": b"5",
        b"size": b"3",
        b"SCHILY.xattr.user.a\xfe": b"v\0\n=1",
        b"comment": b"ignored",
        b"linkpath": b"",
    }
    found = read(archive(member(b"f", data=b"abc", pax=pax, size=0), member(b"g")))
    entry, data = found[0]
    assert (entry.name, entry.uid, entry.gid, data) == (b"q/\xff", 4_000_000, 5, b"abc")
    assert entry.xattrs == {b"user.a\xfe": b"v\0\n=1"}
    assert (found[1][0].name, found[1][0].xattrs) == (b"g", {})


def test_a_global_header_is_passed_over() -> None:
    content = record(b"path", b"evil")
    assert first(member(b"pax_global_header", "g", content), member(b"f")).name == b"f"


@pytest.mark.parametrize("form", ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1",
                                  "posix --sparse-version=1.0"])  # fmt: skip
def test_sparse_files_of_gnu_tar_keep_their_holes(tmp_path: pathlib.Path, form: str) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number in range(30):
            file.seek(number * 1_000_000)
            file.write(b"data%d" % number)
        file.truncate(40_000_000)
    made = subprocess.run(
        ["tar", "-C", str(tmp_path), "-S", *f"--format={form}".split(), "-cf", "-", "sparse"],
        check=True, capture_output=True,
    )  # fmt: skip
    [(entry, data)] = read(made.stdout)
    assert (entry.name, entry.size_bytes) == (b"sparse", 40_000_000)
    assert entry.segments is not None
    content = bytearray(entry.size_bytes)
    position = 0
    for offset, length in entry.segments:
        content[offset : offset + length] = data[position : position + length]
        position += length
    assert len(data) < 1_000_000
    assert bytes(content) == path.read_bytes()


def test_data_that_nobody_reads_is_skipped() -> None:
    content = archive(member(b"a", data=b"x" * 700), member(b"b", data=b"y" * 512), member(b"c"))
    assert [entry.name for entry in tar.Reader(io.BytesIO(content))] == [b"a", b"b", b"c"]


def test_an_archive_may_end_without_its_end_mark() -> None:
    assert [entry.name for entry, _ in read(member(b"a", data=b"x"))] == [b"a"]
    assert read(b"") == []


def test_two_blocks_of_zeros_end_an_archive_and_one_does_so_at_its_very_end() -> None:
    first, second, zeros = member(b"a", data=b"x"), member(b"b"), bytes(tar.BLOCK)
    for content in (first, first + zeros, first + 2 * zeros, first + 2 * zeros + second,
                    first + 21 * zeros):  # fmt: skip
        assert [entry.name for entry, _ in read(content)] == [b"a"]
    assert read(zeros) == read(2 * zeros) == []
    for content in (first + zeros + second, zeros + first, first + zeros + b"x" * tar.BLOCK):
        with pytest.raises(InvalidArgumentError, match="invalid header"):
            read(content)
    with pytest.raises(InvalidArgumentError, match="cut short"):
        read(first + zeros + zeros[:-1])


def test_draining_reads_what_follows_the_end() -> None:
    source = io.BytesIO(archive(member(b"a")) + b"trailing" * 100_000)
    reader = tar.Reader(source)
    assert len(list(reader)) == 1
    reader.drain()
    assert source.read() == b""


def sparse(text: bytes, stored: int = 1, real: bytes = b"10") -> bytes:
    pax = {b"GNU.sparse.map": text, b"GNU.sparse.size": real}
    return member(b"f", data=b"x" * stored, pax=pax)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"root:x:0:0:" * 100, "wrong checksum"),
        (archive(member(b"f"))[:100], "cut short"),
        (archive(member(b"f", data=b"x" * 600))[:600], "cut short"),
        (archive(member(b"f", "V")), "unknown type 'V'"),
        (archive(member(b"f", "\xff")), "unknown type"),
        (archive(member(b"f", "x", size=2 << 20)), "at most 1 MiB"),
        (archive(member(b"f", "L", size=2 << 20)), "at most 1 MiB"),
        (archive(member(b"f", "K", size=7 << 30)), "at most 1 MiB"),
        (archive(member(b"f", "g", size=2 << 20)), "at most 1 MiB"),
        (archive(member(b"f", "x", b"99 a=b\n")), "malformed record"),
        (archive(member(b"f", "x", b"5 a=b\n")), "malformed record"),
        (archive(member(b"f", "x", b"a=b\n")), "malformed record"),
        (archive(member(b"f", "x", b"0 a=b\n")), "malformed record"),
        (archive(member(b"f", "x", b"-6 a=b\n")), "malformed record"),
        (archive(member(b"f", "x", b"5 =b\n")), "malformed record"),
        (archive(member(b"f", pax={b"path": b"a\0b"})), "contains a NUL"),
        (archive(member(b"f", pax={b"SCHILY.xattr.user.\0": b""})), "contains a NUL"),
        (archive(member(b"f", pax={b"size": b"-1"})), "size is not a number"),
        (archive(member(b"f", pax={b"size": b"9" * 30})), "size is not a number"),
        (archive(member(b"f", pax={b"mtime": b"1.x"})), "mtime is not a number"),
        (archive(member(b"f", pax={b"mtime": b"1e9"})), "mtime is not a number"),
        (archive(member(b"f", pax={b"uid": b"\xd9\xa1"})), "uid is not a number"),
        (archive(sparse(b"0")), "odd number"),
        (archive(sparse(b"0,2")), "does not fit"),
        (archive(sparse(b"9,1,0,0")), "overlap"),
        (archive(sparse(b"5,1,2,1", 2)), "overlap"),
        (archive(sparse(b"10,1")), "does not fit"),
        (archive(sparse(b"x,1")), "not a number"),
        (
            archive(member(b"f", data=bytes(512), pax={b"GNU.sparse.major": b"1"})),
            "sparse map is not a number|cut short",
        ),
        (
            archive(
                member(
                    b"f",
                    data=b"99999999\n".ljust(512, b"0"),
                    pax={b"GNU.sparse.major": b"1"},
                )
            ),
            "too many segments",
        ),
    ],
)
def test_malformed_archives_are_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        read(content)


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_size_below_nothing_is_refused(size: int, kind: bytes) -> None:
    """GNU tar's numbers of 256 values a byte can say it; what follows would be read for ever."""
    info = tarfile.TarInfo("f")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size.to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(InvalidArgumentError, match="negative size"):
        read(bytes(header) + bytes(1024))


def test_many_extended_headers_in_a_row_need_no_stack() -> None:
    many = member(b"x", "x", record(b"path", b"p")) * 20_000
    assert first(many, member(b"f")).name == b"p"


BASE = archive(
    member(b"d", tar.DIRECTORY),
    member(b"f", data=b"x" * 600, pax={b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"b"}),
    sparse(b"1,2", 2),
    member(b"n" * 150, tar.SYMLINK, link=b"t" * 150),
)


def total(read_all: Callable[[], object]) -> None:
    try:
        read_all()
    except KetchError as error:
        assert error.message  # noqa: PT017 - either outcome is right


@given(st.binary(max_size=2048))
def test_any_bytes_are_an_archive_or_a_clear_error(content: bytes) -> None:
    total(lambda: read(content))


@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(BASE)),
)
def test_any_damage_is_an_archive_or_a_clear_error(
    changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(BASE)
    for position, value in changes:
        content[position] = value
    for start in range(0, len(content), 512):  # so that the damage is seen behind the checksum
        header = bytes(content[start : start + 512])
        if header[257:262] == b"ustar":
            plain = header[:148] + b" " * 8 + header[156:]
            content[start + 148 : start + 156] = b"%06o\0 " % sum(plain)
    total(lambda: read(bytes(content[:length])))
