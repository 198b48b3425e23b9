"""Layers as they come from good tools, with all that a file can have."""

import hashlib
import io
import itertools
import os
import pathlib
import re
import resource
import stat
import subprocess
import sys
import tarfile

import pytest

from ketch.errors import InvalidArgumentError, KetchError, UnavailableError
from ketch.images import filling, layers, tar, tar_writer, tree
from ketch.images.pieces import Pieces
from ketch.linux import owners
from tests.support import trees
from tests.support.archives import archive, member, stream
from tests.support.descriptors import open_now

pytestmark = pytest.mark.root

HUGE_BYTES = (1 << 33) + 1_234_567
OPAQUE = "trusted.overlay.opaque"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep


def apply(tree: pathlib.Path, *members: bytes, lower: tuple[str, ...] = ()) -> int:
    tree.mkdir(exist_ok=True)
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return layers.apply(descriptor, stream(*members), lower)
    finally:
        os.close(descriptor)


def is_whiteout(path: pathlib.Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: pathlib.Path) -> bool:
    return OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"


def facts(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """List everything about every file, hard links as the first name of their file."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        name = str(path.relative_to(root))
        same = inodes.setdefault(status.st_ino, name)
        found[name] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev,
            0 if stat.S_ISDIR(status.st_mode) else status.st_size, content, sorted(xattrs.items()),
            same,
        )  # fmt: skip
    return found


@pytest.fixture
def original(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a tree with one of everything."""
    root = tmp_path / "original"
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"content" * 1000)
    os.link(root / "d" / "f", root / "hard")
    (root / "s").symlink_to("/elsewhere/../x")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    (root / "empty").touch()
    (root / ("long" * 60)).touch()
    pathlib.Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"x")
    (root / "setuid").write_bytes(b"x")
    os.setxattr(root / "d" / "f", "user.note", b"a\0b\n")
    os.setxattr(root / "setuid", "security.capability", CAPABILITY)
    os.setxattr(root / "d", "user.on directory", b"yes")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.chown(path, 1000 + number, 2000 + number, follow_symlinks=False)
        os.utime(path, ns=(1, 1_600_000_000_123_456_789 + number), follow_symlinks=False)
    os.chmod(root / "d", 0o1777)
    os.chmod(root / "d" / "sub", 0o2750)
    os.chmod(root / "setuid", 0o6755)
    os.setxattr(root / "setuid", "security.capability", CAPABILITY)
    os.chown(root, 12, 34)
    os.chmod(root, 0o751)
    os.utime(root, ns=(1, 1_500_000_000_000_000_007))
    return root


def test_a_tree_comes_out_as_it_went_into_gnu_tar(
    original: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made = subprocess.run(
        ["tar", "-C", str(original), "--format=posix", "--xattrs", "--xattrs-include=*",
         "--numeric-owner", "-cf", "-", "."],
        check=True, capture_output=True,
    )  # fmt: skip
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    size_bytes = layers.apply(descriptor, io.BytesIO(made.stdout))
    os.close(descriptor)
    assert facts(tree) == facts(original)
    assert size_bytes == 7000 + 1 + 1


def test_holes_stay_holes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "original" / "f"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(50_000_000)
        file.write(b"middle")
        file.truncate(90_000_000)
    made = subprocess.run(
        ["tar", "-C", str(path.parent), "-S", "--format=posix", "-cf", "-", "."],
        check=True, capture_output=True,
    )  # fmt: skip
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    layers.apply(descriptor, io.BytesIO(made.stdout))
    os.close(descriptor)
    assert (tree / "f").read_bytes() == path.read_bytes()
    assert (tree / "f").stat().st_blocks * 512 < 1_000_000


@pytest.fixture
def huge(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory with a file whose size eleven octal digits cannot tell: over 8 GiB."""
    path = tmp_path / "original" / "huge"
    path.parent.mkdir()
    with path.open("wb") as file:
        for offset in (0, (1 << 33) - 3, HUGE_BYTES - 4):
            file.seek(offset)
            file.write(b"data")
    return path.parent


def same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two files have the same size and content, and the second is as sparse."""
    return (
        one.stat().st_size == other.stat().st_size
        and trees.content(one) == trees.content(other)
        and other.stat().st_blocks * 512 < 2 << 20
    )


def test_a_file_of_more_than_8_gib_is_archived_and_unpacked(
    huge: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "tree").mkdir()
    parent = os.open(huge, os.O_RDONLY)
    directory = os.open(tmp_path / "tree", os.O_RDONLY)
    assert layers.apply(directory, Pieces(tree.archive(parent, b".", b""))) == HUGE_BYTES
    os.close(parent)
    os.close(directory)
    assert same(huge / "huge", tmp_path / "tree" / "huge")


def test_a_size_in_base_256_is_taken(huge: pathlib.Path, tmp_path: pathlib.Path) -> None:
    information = tarfile.TarInfo("huge")
    information.size = HUGE_BYTES
    header = information.tobuf(tarfile.GNU_FORMAT)
    assert header[124] == 0x80
    (tmp_path / "tree").mkdir()
    parent = os.open(huge, os.O_RDONLY)
    written = tree.archive(parent, b".", b"")
    assert int(re.search(rb"size=(\d+)", next(written))[1]) == HUGE_BYTES  # type: ignore[index]
    directory = os.open(tmp_path / "tree", os.O_RDONLY)
    layers.apply(directory, Pieces(itertools.chain([header], written)))
    os.close(parent)
    os.close(directory)
    assert same(huge / "huge", tmp_path / "tree" / "huge")


def test_others_read_what_is_written_of_more_than_8_gib(
    huge: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "huge.tar"
    entry = tar.Entry(b"huge")
    entry.mode, entry.size_bytes = 0o644, HUGE_BYTES
    with path.open("wb", buffering=0) as file, (huge / "huge").open("rb") as content:
        writer = tar_writer.Writer(file.write, file.fileno())
        writer.add_file(entry, content.fileno())
        writer.add(tar.Entry(b"after"))
        writer.finish()
        assert writer.size_bytes == file.tell()
    assert path.stat().st_blocks * 512 < 2 << 20
    told = subprocess.run(["tar", "-tvf", path], check=True, capture_output=True, text=True).stdout
    assert [line.split()[2] for line in told.splitlines()] == [str(HUGE_BYTES), "0"]
    with tarfile.open(path) as opened:
        assert {found.name: found.size for found in opened} == {"huge": HUGE_BYTES, "after": 0}


def test_the_root_is_what_the_archive_or_the_layer_below_says(tmp_path: pathlib.Path) -> None:
    below = tmp_path / "below"
    apply(below, member(b"./", tar.DIRECTORY, mode=0o1750, uid=3, gid=4, mtime=77))
    status = below.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1750, 3, 4)
    assert status.st_mtime == 77
    above = tmp_path / "above"
    apply(above, member(b"f"), lower=(str(below),))
    assert above.stat().st_mode == status.st_mode
    assert (above.stat().st_uid, above.stat().st_mtime) == (3, 77)
    apply(tmp_path / "alone", member(b"f"))
    assert stat.S_IMODE((tmp_path / "alone").stat().st_mode) == 0o755


def test_missing_parents_are_made_as_the_layers_below_have_them(tmp_path: pathlib.Path) -> None:
    below = tmp_path / "below"
    apply(
        below,
        member(b"a", tar.DIRECTORY, mode=0o1777, uid=5, gid=6, mtime=99),
        member(b"l", tar.SYMLINK, link=b"/a"),
    )
    above = tmp_path / "above"
    apply(above, member(b"a/b/f", mtime=3), member(b"l/f"), lower=(str(below),))
    status = (above / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 5, 6)
    assert status.st_mtime == 99
    assert stat.S_IMODE((above / "a" / "b").stat().st_mode) == 0o755
    assert (above / "l").is_dir()
    assert not (above / "l").is_symlink()


def test_whiteouts_take_overlays_form(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    apply(
        tree,
        member(b"d", tar.DIRECTORY),
        member(b"d/.wh.gone"),
        member(b".wh.also gone"),
        member(b"o", tar.DIRECTORY),
        member(b"o/.wh..wh..opq"),
        member(b"o/kept"),
        member(b"implicit/.wh.x"),
        member(b".wh..wh.plnk", tar.DIRECTORY),
        member(b".wh..wh.aufs"),
    )
    assert is_whiteout(tree / "d" / "gone")
    assert is_whiteout(tree / "also gone")
    assert is_whiteout(tree / "implicit" / "x")
    assert is_opaque(tree / "o")
    assert not is_opaque(tree / "d")
    assert sorted(os.listdir(tree)) == ["also gone", "d", "implicit", "o"]
    assert os.listdir(tree / "o") == ["kept"]


def test_whiteouts_spare_what_the_same_layer_has(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    apply(
        tree,
        member(b"f", data=b"kept"),
        member(b".wh.f"),
        member(b"d", tar.DIRECTORY),
        member(b"d/f"),
        member(b".wh.d"),
        member(b".wh.later file"),
        member(b"later file", data=b"kept"),
        member(b".wh.later directory"),
        member(b"later directory", tar.DIRECTORY),
        member(b".wh.implicit"),
        member(b"implicit/f"),
    )
    assert (tree / "f").read_bytes() == (tree / "later file").read_bytes() == b"kept"
    assert is_opaque(tree / "d")
    assert os.listdir(tree / "d") == ["f"]
    assert is_opaque(tree / "later directory")
    assert is_opaque(tree / "implicit")


def test_an_opaque_root_hides_all_below(tmp_path: pathlib.Path) -> None:
    below = tmp_path / "below"
    apply(below, member(b"gone"), member(b"d", tar.DIRECTORY), member(b"f"))
    tree = tmp_path / "tree"
    apply(
        tree,
        member(b"f", data=b"x"),
        member(b".wh..wh..opq"),
        member(b"d", tar.DIRECTORY),
        lower=(str(below),),
    )
    assert is_whiteout(tree / "gone")
    assert is_opaque(tree / "d")
    assert (tree / "f").read_bytes() == b"x"


def test_the_last_of_two_members_at_one_place_counts(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    apply(
        tree,
        member(b"a", data=b"first"),
        member(b"a", data=b"second", mode=0o600),
        member(b"b", data=b"file"),
        member(b"b", tar.DIRECTORY, mode=0o711),
        member(b"b/c", data=b"in it"),
        member(b"d", tar.DIRECTORY),
        member(b"d/e/f"),
        member(b"d", tar.SYMLINK, link=b"b"),
        member(b"d/through", data=b"link"),
        member(b"g", tar.DIRECTORY, mode=0o700),
        member(b"g/h"),
        member(b"g", tar.DIRECTORY, mode=0o755, mtime=5),
    )
    assert (tree / "a").read_bytes() == b"second"
    assert stat.S_IMODE((tree / "a").stat().st_mode) == 0o600
    assert sorted(os.listdir(tree / "b")) == ["c", "through"]
    assert stat.S_IMODE((tree / "b").stat().st_mode) == 0o711
    assert os.readlink(tree / "d") == "b"
    assert (tree / "g" / "h").exists()
    assert (tree / "g").stat().st_mtime == 5


def test_a_hard_link_to_itself_keeps_the_file(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    link = member(b"b", tar.HARD_LINK, link=b"./a")
    apply(tree, member(b"a", data=b"x"), link, link, member(b"a", tar.HARD_LINK, link=b"/a"))
    assert (tree / "a").read_bytes() == b"x"
    assert (tree / "a").stat().st_nlink == 2


def test_overlays_own_attributes_and_labels_are_left_out(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    names = (b"trusted.overlay.redirect", b"trusted.overlay.opaque", b"user.overlay.opaque",
             b"trusted.overlay.metacopy", b"security.selinux", b"security.ima", b"no.such",
             b"user.kept", b"trusted.kept")  # fmt: skip
    pax = {b"SCHILY.xattr." + name: b"y" for name in names}
    apply(tree, member(b"d", tar.DIRECTORY, pax=pax), member(b"f", pax=pax))
    assert sorted(os.listxattr(tree / "d")) == ["trusted.kept", "user.kept"]
    assert sorted(os.listxattr(tree / "f")) == ["trusted.kept", "user.kept"]


@pytest.mark.parametrize("kind", ["0", "5", "6"])
def test_no_archive_says_whose_a_file_is_in_the_engines_own_words(
    tmp_path: pathlib.Path, kind: str
) -> None:
    """Where a user has one id alone, owners and devices are what that attribute says."""
    said = {b"SCHILY.xattr." + os.fsencode(owners.ATTRIBUTE): b"0:0:c:1:3"}
    apply(tmp_path / "tree", member(b"file", kind, pax=said))
    assert os.fsdecode(owners.ATTRIBUTE) not in os.listxattr(tmp_path / "tree" / "file")


def test_what_follows_the_end_mark_is_read_for_the_digest(tmp_path: pathlib.Path) -> None:
    source = io.BytesIO(archive(member(b"f")) + b"trailing" * 50_000)
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    layers.apply(descriptor, source)
    os.close(descriptor)
    assert source.read() == b""


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([member(b"../x")], "'../x': leads out of the layer"),
        ([member(b"a/../../x")], "leads out of the layer"),
        ([member(b"a"), member(b"x", tar.HARD_LINK, link=b"../../a")], "leads out"),
        ([member(b"x", tar.HARD_LINK, link=b"/etc/passwd")], "which is not in this layer"),
        ([member(b"d", tar.DIRECTORY), member(b"x", tar.HARD_LINK, link=b"d")], "to a directory"),
        ([member(b"x", tar.HARD_LINK, link=b"/")], "to a directory"),
        ([member(b"a"), member(b"a/b")], "not a directory|file exists"),
        ([member(b"l", tar.SYMLINK, link=b"l"), member(b"l/x")], "levels of symbolic links|exists"),
        ([member(b"l", tar.SYMLINK, link=b"/no"), member(b"l/x")], "file exists"),
        ([member(b"a/.wh..")], "whiteout of nothing"),
        ([member(b"a/.wh...")], "whiteout of nothing"),
        ([member(b".wh.")], "whiteout of nothing"),
        ([member(b"n" * 256)], "file name too long"),
        ([member(b"n/" * 2100 + b"x")], "file name too long"),
        ([member(b"f", pax={b"uid": b"4294967295"})], "impossible owner"),
        ([member(b"f", tar.CHARACTER, device=(4096, 0))], "impossible device"),
        ([member(b".", tar.SYMLINK, link=b"/etc")], "root is not a directory"),
        ([member(b"s", tar.SYMLINK)], "no such file"),
    ],
)
def test_what_cannot_be_is_refused_with_the_member_named(
    tmp_path: pathlib.Path, members: list[bytes], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        apply(tmp_path / "tree", *members)


def test_no_member_for_ever(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "ENTRIES_MAX", 3)
    with pytest.raises(InvalidArgumentError, match="more than 3 entries"):
        apply(tmp_path / "tree", *[member(b"%d" % number) for number in range(4)])


def test_a_full_disk_is_said_to_be_full(tmp_path: pathlib.Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    child = os.fork()
    if not child:  # in a mount namespace of its own, so that nothing can stay mounted
        status = 1
        try:
            os.chdir(tmp_path)
            subprocess.run(["true"], check=True)
            _mount_small_tmpfs(small)
            apply(small, member(b"f", data=b"x" * 10_000_000))
        except UnavailableError as error:
            status = 0 if "no space left" in error.message else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _mount_small_tmpfs(path: pathlib.Path) -> None:
    from ketch.linux import mount, namespaces

    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.mount("", "/", flags=mount.MS_PRIVATE | mount.MS_REC)
    mount.mount("tmpfs", str(path), "tmpfs", data="size=1m")


def test_many_directories_take_few_descriptors(tmp_path: pathlib.Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, open_now())) + 100, usual[1]))
    try:
        apply(tmp_path / "tree", *(member(b"%d/file" % number) for number in range(300)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert len(list((tmp_path / "tree").glob("*/file"))) == 300


def test_descriptors_do_not_leak(tmp_path: pathlib.Path) -> None:
    before = open_now()
    apply(tmp_path / "good", *[member(b"d%d/f" % number) for number in range(300)])
    with pytest.raises(KetchError):
        apply(tmp_path / "bad", *[member(b"d%d/f" % number) for number in range(99)], b"x" * 512)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("name", ["below/file", "below/new/file", "below/new/"])
def test_nothing_is_written_into_what_is_mounted_below(tmp_path: pathlib.Path, name: str) -> None:
    """Whatever has come to be mounted in the tree meanwhile is no part of it."""
    (tmp_path / "tree" / "below").mkdir(parents=True)
    script = """
import os, sys
from ketch.errors import KetchError
from ketch.images import layers
from tests.support.archives import member, stream
tree = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
try:
    kind = "5" if sys.argv[2].endswith("/") else "0"
    layers.apply(tree, stream(member(os.fsencode(sys.argv[2]), kind)), ())
except KetchError as error:
    print("refused:", error.message)
print(os.listdir(f"{sys.argv[1]}/below"))
"""
    place = tmp_path / "tree"
    apart = 'mount -t tmpfs tmpfs "$1/below" && exec "$2" -c "$3" "$1" "$4"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", apart, "sh", place, sys.executable, script, name],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    refused, listed = done.stdout.splitlines()
    assert refused.startswith("refused:")
    assert name in refused
    assert listed == "[]"
