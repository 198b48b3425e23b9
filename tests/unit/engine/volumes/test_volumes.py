"""Volumes as records and directories; what is mounted is tested with containers."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ketch.engine.engine import Engine
from ketch.engine.settings import Settings
from ketch.engine.volumes import listing, mounts, uses
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))
    yield made
    made.store.close()


def use(engine: Engine, name: str, container_id: str, *, recorded: bool = True) -> None:
    with engine.store.transaction() as connection:
        connection.execute(
            "INSERT INTO volume_use (volume, container_id) VALUES (?, ?)", (name, container_id)
        )
        if recorded:
            connection.execute(
                "INSERT INTO container (id, name, image_id, image_reference, created_ns, record,"
                " state) VALUES (?, ?, '', '', 1, '{}', 'exited')",
                (container_id, f"n{container_id}"),
            )


def events(engine: Engine) -> list[tuple[str, str]]:
    with engine.store.reading() as connection:
        rows = connection.execute("SELECT action, actor_id FROM event ORDER BY id")
        return [(row["action"], row["actor_id"]) for row in rows]


def test_a_volume_is_made_once(engine: Engine) -> None:
    made = engine.volumes.create("data", labels={"a": "b"})
    assert made.mountpoint == f"{engine.settings.root}/volumes/data/_data"
    assert os.stat(made.mountpoint).st_mode & 0o777 == 0o755
    again = engine.volumes.create("data", labels={"a": "c"})
    assert again.labels == {"a": "b"}
    assert events(engine) == [("create", "data")]
    nameless = engine.volumes.create()
    assert len(nameless.name) == 64
    assert nameless.is_anonymous
    assert not made.is_anonymous


@pytest.mark.parametrize("name", ["x", "-ab", ".ab", "a/b", "a b", "ä1", "a" * 256, "a\n"])
def test_what_is_no_name(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="volume name"):
        engine.volumes.create(name)
    assert engine.volumes.list() == []


def test_what_no_driver_does(engine: Engine) -> None:
    with pytest.raises(NotFoundError) as caught:
        engine.volumes.create("v1", driver="foo")
    assert caught.value.message == (
        'create v1: error looking up volume plugin foo: plugin "foo" not found'
    )


def test_a_volume_in_use_stays(engine: Engine) -> None:
    engine.volumes.create("data")
    use(engine, "data", "c1")
    with pytest.raises(ConflictError) as caught:
        engine.volumes.remove("data")
    assert caught.value.message == "remove data: volume is in use - [c1]"
    assert engine.volumes.find("data").users == ["c1"]
    engine.volumes.create("other")
    use(engine, "other", "killed-while-it-was-made", recorded=False)
    engine.volumes.remove("other")


def test_nothing_is_left_of_a_removed_volume(engine: Engine, tmp_path: Path) -> None:
    data = Path(engine.volumes.create("data").mountpoint)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (data / "link").symlink_to(outside)
    (data / "below").mkdir()
    engine.volumes.remove("data")
    assert os.listdir(f"{engine.settings.root}/volumes") == []
    assert (outside / "file").exists()
    with pytest.raises(NotFoundError, match="get data: no such volume"):
        engine.volumes.remove("data")
    engine.volumes.remove("data", force=True)
    assert os.listdir(engine.volumes.create("data").mountpoint) == []


def test_a_volume_that_two_remove_at_once_goes_once(engine: Engine) -> None:
    outcomes: list[str] = []

    def remove() -> None:
        try:
            Engine(engine.settings).volumes.remove("data")
        except NotFoundError as error:
            outcomes.append(error.message)
        else:
            outcomes.append("removed")

    volume = engine.volumes.create("data")
    removers = [threading.Thread(target=remove) for _ in range(4)]
    with mounts.locked(engine.settings, volume):
        for remover in removers:
            remover.start()
        # Each has opened what it is to lock, beside whoever has the lock.
        while _opened(Path(volume.mountpoint).parent) <= len(removers):
            time.sleep(0.01)
    for remover in removers:
        remover.join()
    assert sorted(outcomes) == ["get data: no such volume"] * 3 + ["removed"]
    assert events(engine) == [("create", "data"), ("destroy", "data")]
    assert os.listdir(f"{engine.settings.root}/volumes") == []


def _opened(directory: Path) -> int:
    """How many descriptors of this process are open on a directory."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{number}") == str(directory)
    return found


def test_a_prune_takes_the_anonymous_ones_alone(engine: Engine) -> None:
    engine.volumes.create("named")
    engine.volumes.create("labelled", labels={"keep": ""})
    anonymous = engine.volumes.create()
    Path(anonymous.mountpoint, "file").write_bytes(bytes(1000))
    left = Path(engine.settings.root, "volumes", ".removing-interrupted", "_data")
    left.mkdir(parents=True)
    pruned = listing.prune(engine)
    assert pruned.names == [anonymous.name]
    assert pruned.freed_bytes == 1000
    assert not left.exists()
    assert listing.prune(engine, ["label!=keep", "all=true"]).names == ["named"]
    assert listing.prune(engine, ["label=keep"], everything=True).names == ["labelled"]


def test_a_containers_anonymous_volumes_go_unless_others_have_them(engine: Engine) -> None:
    shared, own = engine.volumes.create(), engine.volumes.create()
    engine.volumes.create("named")
    for volume in (shared.name, own.name, "named"):
        use(engine, volume, "c1", recorded=False)
    use(engine, shared.name, "c2")
    uses.forget_container(engine.settings, engine.store, "c1", anonymous=True)
    assert {volume.name for volume in engine.volumes.list()} == {shared.name, "named"}
    assert engine.volumes.find("named").users == []


def test_filters(engine: Engine) -> None:
    engine.volumes.create("red", labels={"colour": "red"})
    engine.volumes.create("blue", labels={"colour": "blue"})
    use(engine, "blue", "c1")

    def select(*pairs: str) -> list[str]:
        return [volume.name for volume in listing.select(engine.volumes, pairs)]

    assert select() == ["blue", "red"]
    assert select("name=re") == ["red"]
    assert select("label=colour") == ["blue", "red"]
    assert select("label=colour=red") == ["red"]
    assert select("dangling=true") == ["red"]
    assert select("dangling=0") == ["blue"]
    assert select("driver=foo") == []
    with pytest.raises(InvalidArgumentError, match=r"invalid filter 'dangling=\[x\]'"):
        select("dangling=x")
    with pytest.raises(InvalidArgumentError, match="invalid filter 'size'"):
        select("size=1")


def test_a_volumes_data_is_everybodys_to_read_in_a_container(engine: Engine) -> None:
    """Whatever the umask of who made it; what it lies in is closed."""
    before = os.umask(0o077)
    try:
        made = engine.volumes.create("masked")
    finally:
        os.umask(before)
    assert os.stat(made.mountpoint).st_mode & 0o777 == 0o755
    assert os.stat(os.path.dirname(made.mountpoint)).st_mode & 0o777 == 0o700


def test_a_prune_removes_what_a_killed_removal_has_left(engine: Engine, tmp_path: Path) -> None:
    engine.volumes.create("kept")
    left = tmp_path / "root" / "volumes" / ".removing-0123"
    (left / "_data" / "deep").mkdir(parents=True)
    engine.volumes.prune()
    assert os.listdir(tmp_path / "root" / "volumes") == ["kept"]
