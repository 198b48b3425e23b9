"""Somebody exchanges what is being copied, or what it is copied to, at every moment there is.

The races are won by appointment: after each single call to the kernel, one after the other, a name
means something else. Whatever becomes of the copy, nothing outside is read into it, nothing outside
is changed, and nobody waits at a fifo. That is what BuildKit and buildah had to mend of copies and
mounts (CVE-2024-23651, CVE-2024-23652, CVE-2024-9675, CVE-2024-11218).
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ketch.build.files import copying, digests
from ketch.errors import ConflictError, KetchError
from ketch.linux import libc
from tests.support import trees
from tests.support.build_files import opened, selected

pytestmark = pytest.mark.root

_CALLS = ("chmod", "chown", "fchmod", "fchown", "fstat", "link", "listdir", "listxattr", "mkdir",
          "mknod", "open", "read", "pread", "readlink", "scandir", "stat", "symlink", "unlink",
          "utime", "write")  # fmt: skip
_SECRET = "a secret of the host's"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that must be at the end as it was."""
    directory = tmp_path / "outside"
    (directory / "d" / "e").mkdir(parents=True, mode=0o700)
    for name in ("d/f", "d/e/g", "d/h"):
        (directory / name).write_text(_SECRET)
        (directory / name).chmod(0o600)
    before = trees.listing(directory)
    yield directory
    assert trees.listing(directory) == before


@pytest.fixture
def place() -> Iterator[Path]:
    """Where copies are made, in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory, "place")


def _prepare(place: Path) -> tuple[Path, Path]:
    shutil.rmtree(place, ignore_errors=True)
    source, root = place / "source", place / "root"
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "f").write_text("content")
    (source / "d" / "e" / "g").write_text("more")
    os.link(source / "d" / "f", source / "d" / "h")
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_text("before")
    (place / "secret").mkdir(0o700)
    (place / "secret" / "key").touch(0o600)
    return source, root


class _Meddler:
    """Exchanges a name after so many calls to the kernel.

    Args:
        place: what is exchanged.
        by: what puts something else in its place.
    """

    def __init__(self, place: Path, by: Callable[[Path], object]) -> None:
        self._place = place
        self._by = by
        self.moment = 0
        self.calls = 0

    def after(self, original: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            result = original(*arguments, **options)
            self.calls += 1
            if self.calls == self.moment:
                self.calls = -1_000_000  # what is done here is not counted
                if os.path.lexists(self._place):
                    os.rename(self._place, self._place.parent.parent / "aside")
                    self._by(self._place)
            return result

        return wrapped


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("source/d", "link"), ("source/d/f", "link"), ("source/d/f", "fifo"),
        ("source/d/e", "link"), ("source/d/f", "device"), ("root/d", "link"),
        ("root/d/f", "link"), ("root/d/e", "link"),
        ("root/d/e/g", "fifo"), ("root/d/h", "link"), ("root/d/e", "secret"),
    ],
)  # fmt: skip
def test_at_every_moment(
    place: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    same = outside.joinpath(*Path(name).parts[1:])
    by: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to(same),
        "fifo": os.mkfifo,
        "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
        "secret": (place / "secret").rename,
    }
    meddler = _Meddler(place / name, by[kind])
    moment = 0
    happened = True
    while happened:  # until the moment is past the end
        moment += 1
        source, root = _prepare(place)
        descriptors = set(os.listdir("/proc/self/fd"))
        with selected(source, "d") as chosen, opened(root) as directory:
            meddler.moment, meddler.calls = moment, 0
            for call in _CALLS:
                monkeypatch.setattr(os, call, meddler.after(getattr(os, call)))
            monkeypatch.setattr(libc, "syscall", meddler.after(libc.syscall))
            try:
                destination = copying.Destination(directory, "/d", owner=(7, 8))
                copying.copy(chosen, destination, digests.Version())
            except KetchError:
                pass  # it is told of
            finally:
                happened = meddler.calls < 0
                monkeypatch.undo()
        assert set(os.listdir("/proc/self/fd")) <= descriptors
        _check(root)
        if (place / "secret").exists():
            assert (place / "secret").stat().st_uid == 0
    assert moment > 40


def _check(root: Path) -> None:
    """Look at all that was copied, without following anything."""
    for directory, _, files in os.walk(root):
        for file in files:
            path = Path(directory, file)
            if stat.S_ISREG(path.lstat().st_mode):
                text = path.read_text()  # perhaps cut to the size of what was to be copied
                assert not text or text not in _SECRET


def test_what_is_digested_is_beneath_the_source(
    place: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = _prepare(place)
    read: list[bytes] = []
    original = os.pread

    def pread(*arguments: int) -> bytes:
        read.append(original(*arguments))
        return read[-1]

    for moment in range(1, 60):
        meddler = _Meddler(source / "d", lambda path: path.symlink_to(outside / "d"))
        meddler.moment = moment
        for call in ("open", "fstat", "scandir", "stat", "listxattr"):
            monkeypatch.setattr(os, call, meddler.after(getattr(os, call)))
        monkeypatch.setattr(libc, "syscall", meddler.after(libc.syscall))
        monkeypatch.setattr(os, "pread", pread)
        try:
            with selected(source, "*", "d/*") as chosen:
                digests.digest([chosen])
        except KetchError:
            pass
        finally:
            monkeypatch.undo()
        source, _ = _prepare(place)
    assert read
    assert _SECRET.encode() not in read


def test_a_further_name_is_of_the_file_that_was_copied(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of what somebody has put at that one's name meanwhile."""
    source, root = _prepare(place)
    original = copying._Copier._link
    linked: list[bool] = []

    def link(copier: copying._Copier, status: os.stat_result, target: int, name: str) -> bool:
        if name == "h":
            (root / "d" / "f").unlink()
            (root / "d" / "f").write_text("another's")
        linked.append(original(copier, status, target, name))
        return linked[-1]

    monkeypatch.setattr(copying._Copier, "_link", link)
    with selected(source, "d") as chosen, opened(root) as directory:
        destination = copying.Destination(directory, "/d")
        with pytest.raises(ConflictError, match="f"):
            copying.copy(chosen, destination, digests.Version())
    assert True not in linked
    assert not (root / "d" / "h").exists()


def test_a_directory_is_given_to_its_owner_where_it_was_made(
    place: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, root = _prepare(place)
    make = os.mkdir

    def mkdir(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        (root / name).rmdir()
        (root / name).symlink_to(outside / "d")

    monkeypatch.setattr(os, "mkdir", mkdir)
    with selected(source, "d") as chosen, opened(root) as directory:
        destination = copying.Destination(directory, "/new/", owner=(7, 8))
        with pytest.raises(KetchError):
            copying.copy(chosen, destination, digests.Version())
