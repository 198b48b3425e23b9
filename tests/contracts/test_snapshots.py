"""What every way to keep and stack layers must do."""

import concurrent.futures
import contextlib
import io
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Sequence

import pytest

from ketch.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from ketch.images import fuse_overlay, layers, lock, tar
from ketch.images.fuse_overlay import FuseOverlaySnapshotter
from ketch.images.overlay import OverlaySnapshotter
from ketch.images.snapshots import Snapshotter
from ketch.images.vfs import CopySnapshotter
from ketch.linux import fsuid, mount
from ketch.runtime import mappings
from ketch.spec.runtime import IdMapping
from tests.support import build_files, trees
from tests.support.archives import member, stream
from tests.support.descriptors import open_now

pytestmark = pytest.mark.root

MAKERS: dict[str, Callable[[str], Snapshotter]] = {
    "overlay": OverlaySnapshotter,
    "overlay, all layers in one option": lambda root: OverlaySnapshotter(root, appends=False),
    "fuse-overlayfs": FuseOverlaySnapshotter,
    "vfs": CopySnapshotter,
}
CHAIN = [f"sha256:{number:064x}" for number in range(500)]


@pytest.fixture(params=MAKERS)
def snapshotter(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Snapshotter:
    if request.param == "fuse-overlayfs" and not fuse_overlay.available():
        pytest.skip("fuse-overlayfs is not installed, or there is no /dev/fuse")
    # A name that an option of mount(2) would have to escape.
    name = "ro:ot, \\1" if request.param != "fuse-overlayfs" else "ro ot, \\1"
    return MAKERS[request.param](str(tmp_path / name))


def commit(snapshotter: Snapshotter, chain_id: str, below: Sequence[str], *members: bytes) -> None:
    with snapshotter.ingest(below) as ingest:
        size_bytes = layers.apply(ingest.directory, stream(*members), ingest.lower)
        ingest.commit(chain_id, size_bytes)


def container(snapshotter: Snapshotter, name: str = "c") -> str:
    directory = f"{snapshotter.root}/containers/{name}"
    os.makedirs(directory)
    return directory


@contextlib.contextmanager
def mounted(snapshotter: Snapshotter, directory: str) -> Iterator[pathlib.Path]:
    descriptor = snapshotter.mount(directory)
    try:
        yield pathlib.Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def names(root: pathlib.Path) -> list[str]:
    """What a root holds beside what every container has."""
    return sorted({*os.listdir(root)} - {".dockerenv", "etc", "run"})


def test_threads_mount_at_the_same_time(
    snapshotter: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(snapshotter, CHAIN[0], [], member(b"file", data=b"below"))
    directories = [container(snapshotter, str(number)) for number in range(8)]
    for directory in directories:
        snapshotter.prepare(directory, CHAIN[:1])
    fsopen, where = mount.fsopen, set()

    def noticed(kind: str) -> int:
        where.add(os.readlink(f"/proc/{os.getpid()}/cwd"))  # the first thread's
        return fsopen(kind)

    def read(directory: str) -> bytes:
        with mounted(snapshotter, directory) as root:
            return (root / "file").read_bytes()

    monkeypatch.setattr(mount, "fsopen", noticed)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, directories)) == {b"below"}
    assert where <= {os.getcwd()}


def three_layers(snapshotter: Snapshotter) -> list[str]:
    commit(
        snapshotter, CHAIN[0], [],
        member(b"./", tar.DIRECTORY, mode=0o1750, uid=7, gid=8),
        member(b"d", tar.DIRECTORY, mode=0o711),
        member(b"d/f", data=b"first"),
        member(b"gone", data=b"x"),
        member(b"o", tar.DIRECTORY),
        member(b"o/old"),
        member(b"s", tar.SYMLINK, link=b"d/f"),
    )  # fmt: skip
    commit(
        snapshotter, CHAIN[1], CHAIN[:1],
        member(b"d/g", data=b"second"),
        member(b".wh.gone"),
        member(b"o", tar.DIRECTORY),
        member(b"o/.wh..wh..opq"),
        member(b"o/new"),
    )  # fmt: skip
    commit(snapshotter, CHAIN[2], CHAIN[:2], member(b"d/f", data=b"third", mode=0o600))
    return CHAIN[:3]


def test_layers_are_stacked_in_order(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    chain = three_layers(snapshotter)
    snapshotter.prepare(directory, chain)
    assert snapshotter.prepared_on(directory) == chain
    with mounted(snapshotter, directory) as root:
        assert names(root) == ["d", "o", "s"]
        assert (root / "d" / "f").read_bytes() == b"third"
        assert (root / "d" / "g").read_bytes() == b"second"
        assert os.listdir(root / "o") == ["new"]
        assert os.readlink(root / "s") == "d/f"
        assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711
        status = root.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1750, 7, 8)


def test_what_a_container_writes_lasts_and_stays_its_own(snapshotter: Snapshotter) -> None:
    chain = three_layers(snapshotter)
    one, other = container(snapshotter, "one"), container(snapshotter, "other")
    for directory in (one, other):
        snapshotter.prepare(directory, chain)
    with mounted(snapshotter, one) as root, mounted(snapshotter, other) as second:
        (root / "d" / "f").write_bytes(b"changed")
        (root / "o" / "new").unlink()
        (root / "made").mkdir()
        assert (second / "d" / "f").read_bytes() == b"third"
        assert os.listdir(second / "o") == ["new"]
    with mounted(snapshotter, one) as root:
        assert (root / "d" / "f").read_bytes() == b"changed"
        assert os.listdir(root / "o") == []
        assert (root / "made").is_dir()


def test_what_is_to_be_removed_is_written_and_read_like_all_else(snapshotter: Snapshotter) -> None:
    """Once and again, and by a mount of the other kind after it."""
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    for number in range(3):
        descriptor = snapshotter.mount(directory, passing=number < 2)
        try:
            root = pathlib.Path(f"/proc/self/fd/{descriptor}")
            assert [(root / f"made{old}").is_file() for old in range(number)] == [True] * number
            (root / f"made{number}").touch()
        finally:
            os.close(descriptor)


def test_ids_on_the_disk_are_a_user_namespace_s(snapshotter: Snapshotter) -> None:
    """Whatever is done there: on the disk, and for all others, files belong to whom they did."""
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    ids: list[IdMapping] = [{"containerID": 0, "hostID": 700_000, "size": 1000}]
    namespace = mappings.open_namespace(ids, ids)
    try:
        if isinstance(snapshotter, FuseOverlaySnapshotter):
            with pytest.raises(UnsupportedError, match="cannot map ids"):
                snapshotter.mount(directory, namespace)
            return
        before = pathlib.Path("/proc/self/mountinfo").read_bytes()
        descriptor = snapshotter.mount(directory, namespace)
    finally:
        os.close(namespace)
    assert pathlib.Path("/proc/self/mountinfo").read_bytes() == before
    root = pathlib.Path(f"/proc/self/fd/{descriptor}")
    try:
        assert (root.stat().st_uid, root.stat().st_gid) == (700_007, 700_008)
        assert (root / "d" / "g").read_bytes() == b"second"
        with fsuid.acting_as(700_000, 700_000):
            (root / "d" / "f").write_bytes(b"changed")
            (root / "o" / "new").unlink()
            (root / "made").mkdir()
            os.chown(root / "made", 700_005, 700_006)
        assert os.geteuid() == 0
    finally:
        os.close(descriptor)
    with mounted(snapshotter, directory) as root:
        assert (root / "d" / "f").read_bytes() == b"changed"
        assert os.listdir(root / "o") == []
        owners = {name: (root / name).stat() for name in ("d/f", "made", ".")}
        assert {name: (status.st_uid, status.st_gid) for name, status in owners.items()} == {
            "d/f": (0, 0), "made": (5, 6), ".": (7, 8)
        }  # fmt: skip


def test_a_mount_is_in_no_mount_table_and_moves_nobody(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    mounts = pathlib.Path("/proc/self/mountinfo").read_bytes()
    here = os.getcwd()
    before = set(os.listdir(directory))
    descriptors = len(open_now())
    with mounted(snapshotter, directory):
        assert pathlib.Path("/proc/self/mountinfo").read_bytes() == mounts
        assert os.getcwd() == here
        assert set(os.listdir(directory)) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_what_an_image_lacks_is_there_and_told_nowhere(snapshotter: Snapshotter) -> None:
    commit(snapshotter, CHAIN[0], [], member(b"f", data=b"x"))
    commit(
        snapshotter, CHAIN[1], [],
        member(b"etc", tar.DIRECTORY, mode=0o700),
        member(b"etc/mtab", data=b"its own"),
        member(b".dockerenv", data=b"its own"),
        member(b"run", tar.SYMLINK, link=b"var"),
    )  # fmt: skip
    bare, own = container(snapshotter, "bare"), container(snapshotter, "own")
    snapshotter.prepare(bare, CHAIN[:1])
    snapshotter.prepare(own, CHAIN[1:2])
    for _ in range(2):  # as before once it has run
        with mounted(snapshotter, bare) as root:
            assert os.readlink(root / "etc" / "mtab") == "/proc/mounts"
            assert (root / ".dockerenv").read_bytes() == b""
            assert (root / "run" / ".containerenv").read_bytes() == b""
        with mounted(snapshotter, own) as root:
            assert (root / "etc" / "mtab").read_bytes() == b"its own"
            assert (root / ".dockerenv").read_bytes() == b"its own"
            assert os.readlink(root / "run") == "var"
            assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o700
    assert [*snapshotter.changes(bare), *snapshotter.changes(own)] == []
    snapshotter.remove_unfinished()
    assert sorted(snapshotter.chain_ids()) == CHAIN[:2]


def test_an_image_without_layers_has_an_empty_root(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, [])
    assert snapshotter.prepared_on(directory) == []
    with mounted(snapshotter, directory) as root:
        assert names(root) == []
        (root / "f").touch()


@pytest.mark.parametrize("count", [60, 500])
def test_hundreds_of_layers_can_be_stacked(
    snapshotter: Snapshotter, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five hundred flushes of the disk are not what is tested here.
    monkeypatch.setattr("ketch.images.snapshots.syncfs", lambda _: None)
    for number in range(count):
        commit(snapshotter, CHAIN[number], CHAIN[:number], member(b"f%d" % number))
    directory = container(snapshotter)
    snapshotter.prepare(directory, CHAIN[:count])
    with mounted(snapshotter, directory) as root:
        assert len(names(root)) == count
        (root / "written").touch()


def test_a_snapshot_is_there_whole_or_not_at_all(snapshotter: Snapshotter) -> None:
    with pytest.raises(InvalidArgumentError), snapshotter.ingest([]) as ingest:
        layers.apply(ingest.directory, stream(member(b"f"), b"x" * 512))
    assert not snapshotter.exists(CHAIN[0])
    assert list(snapshotter.chain_ids()) == []
    commit(snapshotter, CHAIN[0], [], member(b"f", data=b"12345"))
    assert snapshotter.exists(CHAIN[0])
    assert snapshotter.size_bytes(CHAIN[0]) == 5
    assert list(snapshotter.chain_ids()) == [CHAIN[0]]


def test_of_two_that_unpack_the_same_the_first_stays(snapshotter: Snapshotter) -> None:
    with snapshotter.ingest([]) as one, snapshotter.ingest([]) as other:
        layers.apply(one.directory, stream(member(b"f", data=b"1")))
        layers.apply(other.directory, stream(member(b"f", data=b"1")))
        one.commit(CHAIN[0], 1)
        other.commit(CHAIN[0], 1)
    assert list(snapshotter.chain_ids()) == [CHAIN[0]]


def test_what_a_killed_process_left_is_removed(snapshotter: Snapshotter) -> None:
    commit(snapshotter, CHAIN[0], [], member(b"f"))
    child = os.fork()
    if not child:
        with snapshotter.ingest([]) as ingest:
            layers.apply(ingest.directory, stream(member(b"d/f")))
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    ingest_directory = f"{snapshotter.root}/snapshots/ingest"
    assert len(os.listdir(ingest_directory)) == 1
    with lock.exclusive(snapshotter.root) as alone:
        assert alone
        snapshotter.remove_unfinished()
    assert os.listdir(ingest_directory) == []
    assert snapshotter.exists(CHAIN[0])


def test_a_removed_snapshot_is_gone_and_one_that_is_not_there_no_matter(
    snapshotter: Snapshotter,
) -> None:
    commit(snapshotter, CHAIN[0], [], member(b"d/f"))
    snapshotter.remove(CHAIN[0])
    snapshotter.remove(CHAIN[0])
    assert not snapshotter.exists(CHAIN[0])
    with pytest.raises(NotFoundError, match="not unpacked"):
        snapshotter.size_bytes(CHAIN[0])


def test_missing_layers_are_said_to_be_missing(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    with pytest.raises(NotFoundError, match=CHAIN[0]):
        snapshotter.prepare(directory, CHAIN[:1])
    with pytest.raises(NotFoundError, match=CHAIN[0]), snapshotter.ingest(CHAIN[:1]):
        pass
    commit(snapshotter, CHAIN[0], [], member(b"f"))
    snapshotter.prepare(directory, CHAIN[:1])
    snapshotter.remove(CHAIN[0])
    if isinstance(snapshotter, CopySnapshotter):
        os.close(snapshotter.mount(directory))  # a copy needs nothing any more
        return
    with pytest.raises(UnavailableError, match="is missing"):
        snapshotter.mount(directory)


def test_a_lower_directory_can_be_renamed_by_copying_as_on_any_overlay(
    snapshotter: Snapshotter,
) -> None:
    directory = container(snapshotter)
    if isinstance(snapshotter, CopySnapshotter | FuseOverlaySnapshotter):
        pytest.skip("directories are renamed there as anywhere")
    snapshotter.prepare(directory, three_layers(snapshotter))
    with mounted(snapshotter, directory) as root, pytest.raises(OSError, match="cross-device"):
        (root / "d").rename(root / "renamed")


def edit(snapshotter: Snapshotter, root: pathlib.Path) -> None:
    """Do one of everything that a layer can tell of."""
    (root / "d" / "f").unlink()
    (root / "d" / "g").write_bytes(b"changed")
    os.link(root / "d" / "g", root / "d" / "linked")
    (root / "o" / "new").chmod(0o4711)
    (root / "s").unlink()
    (root / "s").mkdir()
    (root / "s" / "inside").touch()
    os.setxattr(root / "d" / "g", b"user.kept", b"\0value")
    # fuse-overlayfs keeps room for a whiteout's prefix.
    shorter = len(".wh.") if isinstance(snapshotter, FuseOverlaySnapshotter) else 0
    trees.fill(root / "made", trees.NAME_BYTES_MAX - shorter)
    os.utime(root / "made", ns=(1, 1_234_567_890_123_456_789))


def seen(snapshotter: Snapshotter, root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Return what must stay the same; fuse-overlayfs counts links, and tells times, as it likes."""
    whole = trees.listing(root)
    if isinstance(snapshotter, FuseOverlaySnapshotter):
        return {name: facts[:5] for name, facts in whole.items()}
    return whole


def test_what_a_container_changed_is_a_layer(snapshotter: Snapshotter) -> None:
    chain = three_layers(snapshotter)
    directory, again = container(snapshotter), container(snapshotter, "again")
    snapshotter.prepare(directory, chain)
    with mounted(snapshotter, directory) as root:
        edit(snapshotter, root)
        archive = b"".join(snapshotter.diff(directory))
        assert archive == b"".join(snapshotter.diff(directory))
        told = [f"{'CAD'[change.kind]} /{os.fsdecode(change.path)}"
                for change in snapshotter.changes(directory)]  # fmt: skip
        before = seen(snapshotter, root)
    assert [line for line in told if not line.startswith("A /made/")] == [
        "C /d", "D /d/f", "C /d/g", "A /d/linked", "A /made", "C /o", "C /o/new", "C /s",
        "A /s/inside",
    ]  # fmt: skip
    commit_archive(snapshotter, CHAIN[3], chain, archive)
    snapshotter.prepare(again, [*chain, CHAIN[3]])
    with mounted(snapshotter, again) as root:
        assert seen(snapshotter, root) == before
        assert (root / "made" / "sparse").stat().st_blocks < 1000


def test_one_more_name_of_a_lower_layers_file_is_a_name_of_the_same_file(
    snapshotter: Snapshotter,
) -> None:
    commit(
        snapshotter, CHAIN[0], [],
        member(b"a/kept", data=b"a"),
        member(b"two", data=b"two"),
        member(b"twins", tar.HARD_LINK, link=b"two"),
        member(b"z/kept", data=b"z"),
    )  # fmt: skip
    directory, again = container(snapshotter), container(snapshotter, "again")
    snapshotter.prepare(directory, CHAIN[:1])
    with mounted(snapshotter, directory) as root:
        os.link(root / "a" / "kept", root / "b")
        os.link(root / "z" / "kept", root / "y")
        archive = b"".join(snapshotter.diff(directory))
        told = [change.path for change in snapshotter.changes(directory)]
    if not isinstance(snapshotter, FuseOverlaySnapshotter):  # it changes what it copies
        assert told == [b"b", b"y"]
    names = [entry.name for entry in tar.Reader(io.BytesIO(archive))]
    assert not {b"two", b"twins"} & set(names)
    commit_archive(snapshotter, CHAIN[1], CHAIN[:1], archive)
    snapshotter.prepare(again, CHAIN[:2])
    with mounted(snapshotter, again) as root:
        assert (root / "b").samefile(root / "a" / "kept")
        assert (root / "y").samefile(root / "z" / "kept")
        assert ((root / "b").read_bytes(), (root / "y").read_bytes()) == (b"a", b"z")
        assert (root / "two").samefile(root / "twins")


def commit_archive(
    snapshotter: Snapshotter, chain_id: str, below: Sequence[str], archive: bytes
) -> None:
    with snapshotter.ingest(below) as ingest:
        ingest.commit(chain_id, layers.apply(ingest.directory, io.BytesIO(archive), ingest.lower))


def test_an_unchanged_root_has_an_empty_layer(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    with mounted(snapshotter, directory) as root:
        (root / "d" / "f").read_bytes()
    assert list(snapshotter.changes(directory)) == []
    assert b"".join(snapshotter.diff(directory)) == bytes(1024)


def test_a_view_shows_a_root_as_it_is_and_changes_nothing(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    with mounted(snapshotter, directory) as root:
        edit(snapshotter, root)
        descriptor = snapshotter.view(directory)
        view = pathlib.Path(f"/proc/self/fd/{descriptor}")
        assert seen(snapshotter, view) == seen(snapshotter, root)
        with pytest.raises(OSError, match="Read-only"):
            (view / "x").touch()
        os.close(descriptor)


def test_a_directory_made_anew_hides_what_it_had(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    with mounted(snapshotter, directory) as root:
        (root / "d" / "f").unlink()
        (root / "d" / "g").unlink()
        (root / "d").rmdir()
        (root / "d").mkdir(0o711)
        (root / "d" / "new").touch()
    told = [("CAD"[change.kind], change.path) for change in snapshotter.changes(directory)]
    assert told == [("C", b"d"), ("D", b"d/f"), ("D", b"d/g"), ("A", b"d/new")]


def test_a_bare_root_has_its_layers_and_nothing_else(snapshotter: Snapshotter) -> None:
    commit(snapshotter, CHAIN[0], [], member(b"f", data=b"x"))
    for name, below, expected in (("one", [CHAIN[0]], ["f"]), ("none", [], [])):
        directory = container(snapshotter, name)
        snapshotter.prepare(directory, below, bare=True)
        with mounted(snapshotter, directory) as root:
            assert sorted(os.listdir(root)) == expected
            (root / "new").write_text("x")
            assert sorted(os.listdir(root)) == [*expected, "new"]
    full = container(snapshotter, "full")
    snapshotter.prepare(full, [CHAIN[0]])
    with mounted(snapshotter, full) as root:
        assert ".dockerenv" in os.listdir(root)


def adopted(snapshotter: Snapshotter, chain_id: str, below: Sequence[str]) -> None:
    directory = container(snapshotter, f"for-{chain_id[-4:]}")
    snapshotter.prepare(directory, below, bare=True)
    with mounted(snapshotter, directory) as root:
        (root / "kept").mkdir(mode=0o750)
        (root / "kept" / "f").write_text("written")
        for name in names(root):
            if name.startswith("gone"):
                (root / name).unlink()
    snapshotter.adopt(directory, chain_id, 7)


def test_what_was_written_is_adopted_as_a_layer(snapshotter: Snapshotter) -> None:
    if not snapshotter.adopts:
        pytest.skip("this driver's trees are not layers")
    commit(snapshotter, CHAIN[0], [], member(b"gone", data=b"x"), member(b"stays", data=b"x"))
    adopted(snapshotter, CHAIN[1], [CHAIN[0]])
    assert snapshotter.exists(CHAIN[1])
    assert snapshotter.size_bytes(CHAIN[1]) == 7
    directory = container(snapshotter)
    snapshotter.prepare(directory, [CHAIN[0], CHAIN[1]])
    with mounted(snapshotter, directory) as root:
        assert names(root) == ["kept", "stays"]
        assert (root / "kept" / "f").read_text() == "written"


def test_what_a_power_cut_found_unsettled_is_no_snapshot(
    snapshotter: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not snapshotter.adopts:
        pytest.skip("this driver's trees are not layers")
    for chain_id in CHAIN[:2]:
        adopted(snapshotter, chain_id, [])
    snapshotter.settle([CHAIN[0]])
    monkeypatch.setattr("ketch.linux.procfs.boot_id", lambda: "the next boot")
    assert snapshotter.exists(CHAIN[0])
    assert not snapshotter.exists(CHAIN[1])
    with pytest.raises(NotFoundError):
        snapshotter.prepare(container(snapshotter), [CHAIN[1]])
    # Whoever makes it again takes its place.
    commit(snapshotter, CHAIN[1], [], member(b"whole", data=b"x"))
    assert snapshotter.exists(CHAIN[1])
    assert os.listdir(f"{snapshotter.path(CHAIN[1])}/diff") == ["whole"]


def test_a_layer_unpacked_where_an_unsettled_one_is_settles_that(
    snapshotter: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not snapshotter.adopts:
        pytest.skip("this driver's trees are not layers")
    adopted(snapshotter, CHAIN[0], [])
    commit(snapshotter, CHAIN[0], [], member(b"kept/f", data=b"written"))
    monkeypatch.setattr("ketch.linux.procfs.boot_id", lambda: "the next boot")
    assert snapshotter.exists(CHAIN[0])


def test_a_layer_is_linked_onto_another_stack(snapshotter: Snapshotter) -> None:
    commit(
        snapshotter, CHAIN[0], [],
        member(b"d", tar.DIRECTORY, mode=0o1750, uid=7, gid=8),
        member(b"d/f", data=b"linked"),
        member(b".wh.gone"),
    )  # fmt: skip
    commit(snapshotter, CHAIN[1], [], member(b"gone", data=b"x"), member(b"d/below", data=b"x"))
    snapshotter.link(CHAIN[0], CHAIN[2])
    directory = container(snapshotter)
    snapshotter.prepare(directory, [CHAIN[1], CHAIN[2]])
    with mounted(snapshotter, directory) as root:
        assert names(root) == ["d"]
        assert sorted(os.listdir(root / "d")) == ["below", "f"]
        status = (root / "d").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1750, 7, 8)
    with pytest.raises(NotFoundError):
        snapshotter.link(CHAIN[9], CHAIN[3])


def test_what_a_build_copies_is_merged_into_the_layers(
    snapshotter: Snapshotter, tmp_path: pathlib.Path
) -> None:
    """Far more levels than are held open, whose directories change their layer under the copy."""
    deep = "/".join(f"{number:02}" for number in range(40))
    commit(
        snapshotter, CHAIN[0], [],
        member(b"app", tar.DIRECTORY, mode=0o700, uid=5),
        member(f"app/{deep}".encode(), tar.DIRECTORY, mode=0o700),
        member(f"app/{deep}/kept".encode(), data=b"kept"),
        member(b"app/file", data=b"before"), member(b"app/link", tar.SYMLINK, link=b"file"),
        member(b"app/hard", tar.HARD_LINK, link=b"app/file"),
    )  # fmt: skip
    source = tmp_path / "source"
    (source / deep).mkdir(parents=True)
    (source / deep / "new").write_text("new")
    os.link(source / deep / "new", source / "zz")
    for name in ("file", "link"):
        (source / name).write_text("after")
    os.setxattr(source / "file", "security.capability", trees.CAPABILITY)
    directory = container(snapshotter)
    snapshotter.prepare(directory, CHAIN[:1])
    with mounted(snapshotter, directory) as root, build_files.selected(source, ".") as chosen:
        build_files.copy(chosen, root, "/app", owner=(7, 8))
        assert (root / "app" / deep / "kept").read_text() == "kept"
        assert (root / "app" / deep / "new").samefile(root / "app" / "zz")
        assert (root / "app" / "file").read_text() == (root / "app" / "link").read_text()
        assert not (root / "app" / "link").is_symlink()
        assert (root / "app" / "hard").read_text() == "before"
        assert os.getxattr(root / "app" / "file", "security.capability") == trees.CAPABILITY
        facts = [(root / path).stat() for path in ("app", f"app/{deep}", f"app/{deep}/new")]
    assert [(one.st_uid, stat.S_IMODE(one.st_mode)) for one in facts] == [
        (5, 0o700), (7, 0o755), (7, 0o644),
    ]  # fmt: skip
