"""Cache mounts: named by what a Dockerfile says, which leads nowhere, and had by one or by many."""

import os
import pathlib
import stat
import threading

import pytest

from ketch.build.graph import Sharing
from ketch.build.steps import caches
from ketch.build.steps.caches import Wanted
from ketch.engine.processes import ENDLESS, Patience
from ketch.errors import UnavailableError

pytestmark = pytest.mark.root


class WaitedError(Exception):
    """Somebody would have waited."""


class Impatience(Patience):
    def poll(self, *_: object) -> list[tuple[int, int]]:
        raise WaitedError


def place_of(held: caches.Held) -> str:
    return os.readlink(f"/proc/self/fd/{held.files}")


@pytest.mark.parametrize(
    "identifier", ["../../../etc", "/etc", "a/b", "..", ".", "", "x" * 5000, "\udce9", "a\nb"]
)
def test_an_identifier_is_a_name_and_no_path(tmp_path: pathlib.Path, identifier: str) -> None:
    """buildah's CVE-2024-9675."""
    held = caches.take(str(tmp_path), Wanted("", identifier), ENDLESS)
    (found,) = caches.listed(str(tmp_path))
    assert found.id == identifier
    assert found.in_use
    assert place_of(held) == f"{tmp_path}/build-cache/mounts/{found.name}/files"
    assert not caches.remove(str(tmp_path), found.name)
    held.close()
    assert caches.remove(str(tmp_path), found.name)
    assert os.listdir(f"{tmp_path}/build-cache/mounts") == []


def test_what_tells_caches_apart(tmp_path: pathlib.Path) -> None:
    every = [
        Wanted("", "a"), Wanted("other", "a"), Wanted("", "b"), Wanted("", "a", seed="image"),
        Wanted("", "a", mode=0o700), Wanted("", "a", uid=1), Wanted("", "a", gid=1),
    ]  # fmt: skip
    assert len({one.key for one in every}) == len(every)
    assert Wanted("", "a", Sharing.LOCKED).key == Wanted("", "a", Sharing.PRIVATE).key


def test_a_new_cache_has_its_owner_and_mode_and_an_old_one_keeps_them(
    tmp_path: pathlib.Path,
) -> None:
    wanted = Wanted("", "a", mode=0o2770, uid=7, gid=8)
    held = caches.take(str(tmp_path), wanted, ENDLESS)
    status = os.fstat(held.files)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2770, 7, 8)
    os.fchmod(held.files, 0o700)
    held.close()
    held = caches.take(str(tmp_path), wanted, ENDLESS)
    assert stat.S_IMODE(os.fstat(held.files).st_mode) == 0o700
    held.close()


def test_who_may_have_it_at_the_same_time(tmp_path: pathlib.Path) -> None:
    def take(sharing: Sharing) -> caches.Held:
        return caches.take(str(tmp_path), Wanted("", "a", sharing), Impatience())

    first, second = take(Sharing.SHARED), take(Sharing.SHARED)
    private, other = take(Sharing.PRIVATE), take(Sharing.PRIVATE)
    assert place_of(first) == place_of(second)
    assert len({place_of(one) for one in (first, private, other)}) == 3
    with pytest.raises(WaitedError):
        take(Sharing.LOCKED)
    private.close()
    locked = take(Sharing.LOCKED)
    assert place_of(locked).endswith("/1/files")
    with pytest.raises(WaitedError):
        take(Sharing.LOCKED)
    for one in (first, second, other, locked):
        one.close()


def test_one_that_is_locked_is_waited_for(tmp_path: pathlib.Path) -> None:
    wanted = Wanted("", "a", Sharing.LOCKED)
    held = caches.take(str(tmp_path), wanted, ENDLESS)
    threading.Timer(0.2, held.close).start()
    next_one = caches.take(str(tmp_path), wanted, ENDLESS)
    assert place_of(next_one).endswith("/0/files")
    next_one.close()


def test_a_cache_is_filled_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    def fill(files: int) -> None:
        os.mkdir("half", dir_fd=files)
        raise OSError(28, "No space left on device")

    wanted = Wanted("", "a", seed="image")
    with pytest.raises(UnavailableError, match=r"cache mount a: .*No space left"):
        caches.take(str(tmp_path), wanted, ENDLESS, fill)
    assert list(caches.listed(str(tmp_path))) == []
    (key,) = (tmp_path / "build-cache/mounts").iterdir()
    (key / "0-killed" / "files").mkdir(parents=True)
    caches.clean(str(tmp_path))
    assert [one.name for one in key.iterdir()] == ["about"]
    held = caches.take(str(tmp_path), wanted, ENDLESS, lambda files: os.mkdir("x", dir_fd=files))
    assert os.listdir(held.files) == ["x"]
    held.close()


@pytest.mark.parametrize("name", ["../x/0", "x", "", "0" * 64, f"{'0' * 64}/..", f"{'0' * 64}/0/"])
def test_no_other_name_removes_anything(tmp_path: pathlib.Path, name: str) -> None:
    held = caches.take(str(tmp_path), Wanted("", "a"), ENDLESS)
    held.close()
    assert caches.remove(str(tmp_path), name)
    assert len(list(caches.listed(str(tmp_path)))) == 1


def test_many_at_once_that_come_and_go(tmp_path: pathlib.Path) -> None:
    root, failed = str(tmp_path), []

    def work(sharing: Sharing) -> None:
        try:
            for _ in range(30):
                held = caches.take(root, Wanted("", "a", sharing), ENDLESS)
                name = os.urandom(4).hex()
                if sharing is not Sharing.SHARED:
                    assert os.listdir(held.files) == []
                    os.mkdir(name, dir_fd=held.files)
                    os.rmdir(name, dir_fd=held.files)
                held.close()
                for one in caches.listed(root):
                    caches.remove(root, one.name)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in [*Sharing, *Sharing]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
