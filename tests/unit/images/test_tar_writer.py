"""What is written is read back the same, by ketch and by others."""

import io
import subprocess
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from ketch.images import tar
from ketch.images.tar_writer import Writer, header

NAMES = st.binary(min_size=1, max_size=300).filter(
    lambda name: b"\0" not in name and not name.endswith(b"/")
)
ENTRIES = st.builds(
    lambda name, kind, link, numbers, content, xattrs: (name, kind, link, numbers, content, xattrs),
    NAMES,
    st.sampled_from([tar.REGULAR, tar.DIRECTORY, tar.SYMLINK, tar.HARD_LINK, tar.FIFO,
                     tar.CHARACTER]),
    NAMES,
    st.tuples(
        st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2),
        st.integers(-(2**62), 2**62 - 1), st.integers(0, 4095), st.integers(0, 2**20 - 1),
    ),
    st.binary(max_size=2000),
    st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda key: not set(b"\0=") & set(key)),
        st.binary(max_size=100), max_size=3,
    ),
)  # fmt: skip


def made(name: bytes, kind: str, link: bytes, numbers: tuple[int, ...]) -> tar.Entry:
    entry = tar.Entry(name, kind)
    entry.mode, entry.uid, entry.gid, entry.mtime_ns = numbers[:4]
    if kind in {tar.SYMLINK, tar.HARD_LINK}:
        entry.link = link
    if kind == tar.CHARACTER:
        entry.major, entry.minor = numbers[4:]
    return entry


@given(st.lists(ENTRIES, max_size=5))
def test_entries_are_read_back(
    members: list[tuple[bytes, str, bytes, tuple[int, ...], bytes, dict[bytes, bytes]]],
) -> None:
    buffer = io.BytesIO()
    writer = Writer(buffer.write)
    written = []
    for name, kind, link, numbers, content, xattrs in members:
        entry = made(name, kind, link, numbers)
        entry.xattrs = xattrs
        data = content if kind == tar.REGULAR else b""
        entry.size_bytes = len(data)
        writer.add(entry, data)
        written.append((entry, data))
    writer.finish()
    assert len(buffer.getvalue()) == writer.size_bytes
    buffer.seek(0)
    reader = tar.Reader(buffer)
    read = [(entry, b"".join(reader.data())) for entry in reader]
    assert len(read) == len(written)
    for (entry, found), (expected, data) in zip(read, written, strict=True):
        assert entry.name.rstrip(b"/") == expected.name.rstrip(b"/")
        for field in ("kind", "link", "mode", "uid", "gid", "mtime_ns", "major", "minor", "xattrs",
                      "size_bytes"):  # fmt: skip
            assert getattr(entry, field) == getattr(expected, field), field
        assert found == data


def test_sizes_beyond_octal_are_told_by_pax() -> None:
    entry = tar.Entry(b"huge")
    entry.size_bytes = 1 << 40
    read = next(iter(tar.Reader(io.BytesIO(header(entry)))))
    assert read.size_bytes == 1 << 40


def test_other_readers_agree() -> None:
    buffer = io.BytesIO()
    writer = Writer(buffer.write)
    names = [b"d/" + b"x" * 90, b"p" * 60 + b"/" + b"n" * 90, b"l" * 200, "ü".encode(), b"\xff\xfe"]
    for name in names:
        entry = tar.Entry(name)
        entry.mode, entry.mtime_ns, entry.size_bytes = 0o640, 1_500_000_000, 1
        writer.add(entry, b"x")
    writer.finish()
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as opened:
        members = opened.getmembers()
    assert [member.name.encode(errors="surrogateescape") for member in members] == names
    assert {(member.mode, member.mtime, member.size) for member in members} == {(0o640, 1.5, 1)}
    listed = subprocess.run(["tar", "-t", "--quoting-style=literal"], input=buffer.getvalue(),
                            check=True, capture_output=True).stdout  # fmt: skip
    assert listed.splitlines() == names


def test_a_long_ascii_name_needs_no_extended_header() -> None:
    assert len(header(tar.Entry(b"p" * 100 + b"/" + b"n" * 100))) == tar.BLOCK
    assert len(header(tar.Entry(b"p" * 100))) == tar.BLOCK
    assert len(header(tar.Entry(b"p" * 101))) > tar.BLOCK
