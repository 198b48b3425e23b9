"""ADD: archives by their content, beneath the destination and nowhere else."""

import bz2
import gzip
import lzma
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ketch.build.files import copying, digests, unpacking
from ketch.errors import InvalidArgumentError
from ketch.images import tar
from tests.support.archives import archive, member
from tests.support.build_files import opened, selected

_PLAIN = archive(
    member(b"./", tar.DIRECTORY, mode=0o700),
    member(b"d/", tar.DIRECTORY, mode=0o710, uid=3, gid=4),
    member(b"d/f", data=b"content", mode=0o4750, uid=1, gid=2, mtime=7),
    member(b"hard", tar.HARD_LINK, link=b"d/f"),
    member(b"soft", tar.SYMLINK, link=b"/etc"),
    member(b".wh.kept", data=b"x"),
    member(b"implied/below", data=b"y", mtime=8),
    member(b"null", tar.CHARACTER, device=(1, 3)),
    member(b"fifo", tar.FIFO, mode=0o640),
    member(b"no-whiteout", tar.CHARACTER, device=(0, 0)),
)


def add(
    source: Path,
    root: Path,
    target: str,
    *,
    owner: tuple[int, int] | None = None,
    unpack: bool = True,
) -> None:
    version = digests.Version()
    with selected(source, "archive") as chosen, opened(root) as directory:
        destination = copying.Destination(directory, target, owner)
        unpacking.add(chosen, destination, version, unpack=unpack)
        assert version.digest() == digests.digest([chosen]).version


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_what_an_archive_has(source: Path, root: Path, compress: Callable[[bytes], bytes]) -> None:
    (source / "archive").write_bytes(compress(_PLAIN))
    (root / "x" / "d").mkdir(parents=True)
    (root / "x" / "soft").mkdir()
    (root / "x" / "soft" / "gone").touch()
    add(source, root, "/x")
    there = sorted(os.listdir(root / "x"))
    assert there == [".wh.kept", "d", "fifo", "hard", "implied", "null", "soft"]
    null, fifo = (root / "x" / "null").stat(), (root / "x" / "fifo").stat()
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev) == (True, os.makedev(1, 3))
    assert fifo.st_mode == stat.S_IFIFO | 0o640
    assert stat.S_IMODE((root / "x").stat().st_mode) == 0o755
    d, f = (root / "x" / "d").stat(), (root / "x" / "d" / "f").stat()
    assert (d.st_uid, d.st_gid, stat.S_IMODE(d.st_mode)) == (3, 4, 0o710)
    assert (f.st_uid, f.st_gid, stat.S_IMODE(f.st_mode)) == (1, 2, 0o4750)
    assert f.st_mtime == 7
    assert (root / "x" / "hard").samefile(root / "x" / "d" / "f")
    assert os.readlink(root / "x" / "soft") == "/etc"
    implied = (root / "x" / "implied").stat()
    assert (implied.st_uid, stat.S_IMODE(implied.st_mode)) == (0, 0o755)


def test_an_owner_is_of_all_that_it_has_and_of_where_it_goes(source: Path, root: Path) -> None:
    (source / "archive").write_bytes(_PLAIN)
    add(source, root, "/new/x/", owner=(8, 9))
    for path in ("new", "new/x", "new/x/d", "new/x/d/f", "new/x/soft"):
        status = (root / path).lstat()
        assert (status.st_uid, status.st_gid) == (8, 9), path
    assert (root / "new" / "x" / "implied").stat().st_uid == 0


def test_it_is_copied_where_it_is_not_to_be_unpacked(source: Path, root: Path) -> None:
    (source / "archive").write_bytes(_PLAIN)
    add(source, root, "/x", unpack=False)
    assert (root / "x").read_bytes() == _PLAIN


@pytest.mark.parametrize(
    "content",
    [
        b"", b"text\n", bytes(1024), b"x" * 2000, gzip.compress(b"text"), gzip.compress(b""),
        gzip.compress(_PLAIN)[:20], b"\x1f\x8b\x08 no gzip", b"\xfd7zXZ\x00", b"BZh9 no",
        b"\x28\xb5\x2f\xfd no", _PLAIN[:400], lzma.compress(b"y" * 5000),
    ],
)  # fmt: skip
def test_what_is_no_archive_is_copied(source: Path, root: Path, content: bytes) -> None:
    (source / "archive").write_bytes(content)
    add(source, root, "/x/")
    assert (root / "x" / "archive").read_bytes() == content


def test_one_that_unpacks_to_much(source: Path, root: Path) -> None:
    large = archive(member(b"zeros", data=bytes(1 << 26)))
    (source / "archive").write_bytes(zstandard.ZstdCompressor(level=3).compress(large))
    add(source, root, "/")
    assert (root / "zeros").stat().st_size == 1 << 26


@pytest.mark.parametrize(
    "members",
    [
        [member(b"../outside", data=b"x")],
        [member(b"out", tar.SYMLINK, link=b"../.."), member(b"out/../../outside", data=b"x")],
        [member(b"hard", tar.HARD_LINK, link=b"../secret")],
    ],
)
def test_what_climbs_out_is_refused(source: Path, root: Path, members: list[bytes]) -> None:
    (root.parent / "secret").write_text("secret")
    (root / "secret").write_text("not what is meant")
    (source / "archive").write_bytes(archive(member(b"first", data=b"x"), *members))
    with pytest.raises(InvalidArgumentError, match="leads out of the archive"):
        add(source, root, "/x/")
    assert sorted(os.listdir(root.parent)) == ["root", "secret", "source"]


@pytest.mark.parametrize("target", [b"/", b"../../../.."])
def test_links_lead_nowhere_but_into_the_destination(
    source: Path, root: Path, target: bytes
) -> None:
    outside = str(root.parent).encode()
    (source / "archive").write_bytes(
        archive(
            member(b"link", tar.SYMLINK, link=target),
            member(b"link" + outside + b"/planted", data=b"x"),
            member(b"there/planted", data=b"x"),
        )
    )
    (root / "x").mkdir()
    (root / "x" / "there").symlink_to("/")
    add(source, root, "/x")
    assert sorted(os.listdir(root.parent)) == ["root", "source"]
    assert sorted(os.listdir(root)) == ["x"]
    assert (root / "x" / "planted").read_text() == "x"


def test_a_directory_is_copied_and_not_looked_into(source: Path, root: Path) -> None:
    (source / "archive").mkdir()
    (source / "archive" / "inner").write_bytes(_PLAIN)
    add(source, root, "/x")
    assert (root / "x" / "inner").read_bytes() == _PLAIN
