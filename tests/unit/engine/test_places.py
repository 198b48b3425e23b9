"""Directories of the engine's that others may look into are closed, or refused."""

import os
import stat
from pathlib import Path

import pytest

from ketch.engine import places
from ketch.engine.records.store import Store
from ketch.engine.requests import launch
from ketch.engine.settings import is_closed
from ketch.errors import ConflictError, PermissionDeniedError
from ketch.linux import filesystems


def made(path: Path, mode: int, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).touch()
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("mode", "names", "after"),
    [
        (0o700, ["anything"], 0o700),
        (0o710, [], 0o710),
        (0o755, [], 0o710),
        (0o755, ["ketch.db", "blobs"], 0o710),
        (0o751, ["services.lock", "errors.log"], 0o710),
        (0o701, ["ketch.db"], 0o700),
        (0o750, ["config.json"], 0o710),
        (0o755, ["lost+found"], 0o710),
        (0o777, [], 0o710),
        (0o1777, [], 0o710),
    ],
)
def test_closed(tmp_path: Path, mode: int, names: list[str], after: int) -> None:
    path = made(tmp_path / "root", mode, *names)
    places.check(str(path), path.stat())
    assert mode_of(path) == after
    assert is_closed(path.stat())


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (0o755, ["bin", "etc"]),
        (0o1777, ["ketch.db"]),
        (0o775, ["ketch.db"]),
        (0o757, ["ketch.db"]),
        (0o775, ["x"]),
    ],
)
def test_refused(tmp_path: Path, mode: int, names: list[str]) -> None:
    """Not ketch's alone, or others may have put something there: nobody's rights are taken away."""
    path = made(tmp_path / "root", mode, *names)
    with pytest.raises(PermissionDeniedError, match=f"open to other users .mode {mode:o}"):
        Store(str(path))
    assert mode_of(path) == mode


@pytest.mark.root
def test_another_users_directory_is_no_place_for_root(tmp_path: Path) -> None:
    path = made(tmp_path / "root", 0o700)
    os.chown(path, 1000, 1000)
    with pytest.raises(PermissionDeniedError, match="belongs to user 1000"):
        Store(str(path))


def test_both_are_looked_at(tmp_path: Path) -> None:
    """The root with each store, the state with each request; where there is none it is made."""
    Store(str(tmp_path / "none"))
    root, state = made(tmp_path / "root", 0o755), made(tmp_path / "state", 0o755)
    Store(str(root))
    os.close(launch._open_directory(str(state)))
    assert (mode_of(root), mode_of(state)) == (0o710, 0o710)
    os.close(launch._open_directory(str(tmp_path / "new")))
    assert mode_of(tmp_path / "new") == 0o700


def test_one_machine_at_a_time_in_a_directory_that_several_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    places.claim(root)
    assert os.listdir(root) == []  # on a disk of this machine nobody else sees it
    monkeypatch.setattr(filesystems, "kind", lambda path: "nfs4")
    places.claim(root)
    places.claim(root)
    assert os.listdir(root) == ["machine"]
    here = os.uname()
    there = os.uname_result(("Linux", "other", *here[2:]))
    monkeypatch.setattr(os, "uname", lambda: there)
    with pytest.raises(
        ConflictError, match=rf"\(nfs4\), and the engine of {here.nodename} is"
    ) as told:
        places.claim(root)
    assert f"rm {root}/machine" in told.value.hint
    os.unlink(f"{root}/machine")
    places.claim(root)
