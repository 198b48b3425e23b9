"""What every way to keep and stack layers must do."""

import contextlib
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Sequence

import pytest

from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.images import layers, lock, tar
from ketch.images.snapshots import OverlaySnapshotter, Snapshotter
from tests.support.archives import member, stream

pytestmark = pytest.mark.root

MAKERS: dict[str, Callable[[str], Snapshotter]] = {
    "overlay": OverlaySnapshotter,
    "overlay, all layers in one option": lambda root: OverlaySnapshotter(root, appends=False),
}
CHAIN = [f"sha256:{number:064x}" for number in range(500)]


@pytest.fixture(params=MAKERS)
def snapshotter(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Snapshotter:
    # A name that an option of mount(2) would have to escape.
    return MAKERS[request.param](str(tmp_path / "ro:ot, \\1"))


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
        assert sorted(os.listdir(root)) == ["d", "o", "s"]
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


def test_a_mount_is_in_no_mount_table_and_moves_nobody(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    mounts = pathlib.Path("/proc/self/mountinfo").read_bytes()
    here = os.getcwd()
    before = set(os.listdir(directory))
    descriptors = len(os.listdir("/proc/self/fd"))
    with mounted(snapshotter, directory):
        assert pathlib.Path("/proc/self/mountinfo").read_bytes() == mounts
        assert os.getcwd() == here
        assert set(os.listdir(directory)) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_image_without_layers_has_an_empty_root(snapshotter: Snapshotter) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, [])
    assert snapshotter.prepared_on(directory) == []
    with mounted(snapshotter, directory) as root:
        assert os.listdir(root) == []
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
        assert len(os.listdir(root)) == count
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
    with pytest.raises(UnavailableError, match="is missing"):
        snapshotter.mount(directory)


def test_a_lower_directory_can_be_renamed_by_copying_as_on_any_overlay(
    snapshotter: Snapshotter,
) -> None:
    directory = container(snapshotter)
    snapshotter.prepare(directory, three_layers(snapshotter))
    with mounted(snapshotter, directory) as root, pytest.raises(OSError, match="cross-device"):
        (root / "d").rename(root / "renamed")
