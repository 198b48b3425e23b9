"""A database that was lost or damaged: nothing goes, and what lies beside it is taken back."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine
from tests.support.images import busybox_archive

pytestmark = pytest.mark.ketch_only("it is ketch's database")


@pytest.fixture
def used(ketch: Engine) -> Iterator[tuple[Engine, pathlib.Path]]:
    """Return an engine of its own that has been used, and its root."""
    beside = pathlib.Path(ketch.prefix[2]).parent
    root, state = beside / "used-root", beside / "used-state"
    engine = Engine("ketch", [ketch.prefix[0], "--root", str(root), "--state", str(state)])
    engine.ok("import", str(busybox_archive()), "busybox")
    engine.ok("tag", "busybox", "other/name:1")
    engine.ok("run", "--network", "none", "--name", "worked", "-e", "WORD=there", "-v", "named:/v",
              "busybox", "sh", "-c", "echo kept | tee /file > /v/file; echo $WORD")  # fmt: skip
    yield engine, root
    engine.ok("system", "repair")
    engine.ok("system", "reset", "-f")


def images(engine: Engine) -> set[str]:
    return set(engine.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split())


def test_what_a_lost_database_had_is_taken_back(used: tuple[Engine, pathlib.Path]) -> None:
    engine, root = used
    for path in root.glob("ketch.db*"):
        path.unlink()
    for command in (["ps"], ["images"], ["image", "prune", "-af"], ["run", "busybox", "true"]):
        refused = engine(*command)
        assert refused.status not in {0, 127}, str(refused)
        assert "ketch.db is missing" in refused.err
        assert "ketch system repair" in refused.err
    done = engine("system", "repair")
    assert done.status == 0, str(done)
    assert "image busybox:latest, other/name:1" in done.out
    assert "volume named" in done.out
    assert "networks that were made" in done.err
    assert images(engine) == {"busybox:latest", "other/name:1"}
    (name,) = engine.ok("ps", "-a", "--format", "{{.Names}}").split()
    assert name == "worked"
    assert "container worked" in done.out
    assert engine.ok("logs", name) == "there"
    engine.ok("cp", f"{name}:/file", str(root.parent / "copied"))
    assert (root.parent / "copied").read_text() == "kept\n"
    assert engine.ok("start", "-a", name) == "there"
    assert engine.ok("run", "--rm", "--network", "none", "-v", "named:/v", "busybox",
                     "cat", "/v/file") == "kept"  # fmt: skip
    assert engine.ok("system", "repair") == "Nothing is to be repaired"


def test_what_can_be_read_of_a_damaged_database_is_kept(used: tuple[Engine, pathlib.Path]) -> None:
    engine, root = used
    path = root / "ketch.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'image'")
        (page,) = found.fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    refused = engine("images")
    assert refused.status == 1
    assert "ketch system repair" in refused.err
    done = engine("system", "repair")
    assert "1 of the containers that were on record" in done.out
    assert list(root.glob("damaged-*/ketch.db"))
    told = engine.ok("inspect", "-f", "{{.State.ExitCode}} {{.Config.Env}}", "worked")
    assert told == "0 [WORD=there]"
    assert images(engine) == {"busybox:latest", "other/name:1"}
    assert engine.ok("start", "-a", "worked") == "there"
