"""What builds keep for others: found, changed, replaced and removed, whoever else is at it."""

import contextlib
import multiprocessing
import os
import pathlib
import signal

import pytest

from ketch.build.contexts import kept
from ketch.build.contexts.kept import Kept
from tests.support.contexts import content


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Kept:
    """Return an empty store."""
    return Kept(str(tmp_path / "cache"))


def published(store: Kept, directory: pathlib.Path, text: str, key: str = "key") -> bool:
    made = directory / "made"
    made.mkdir()
    (made / "file").write_text(text)
    done = store.publish(kept.GIT, key, str(made))
    assert made.exists() is not done
    for path in made.glob("*"):
        path.unlink()
    if not done:
        made.rmdir()
    return done


def test_what_is_published_is_found(store: Kept, tmp_path: pathlib.Path) -> None:
    with contextlib.ExitStack() as scope:
        assert store.find(kept.GIT, "key", scope) is None
        assert store.entries() == []
        assert published(store, tmp_path, "one")
        found = store.find(kept.GIT, "key", scope)
        assert found is not None
        assert content(found, "file") == b"one"
        again = store.find(kept.GIT, "key", scope)
        assert again is not None
        for key in ("other", "", "x" * 10000, "a\udcff/../b"):
            assert store.find(kept.GIT, key, scope) is None
        assert store.find(kept.HTTP, "key", scope) is None
    for path in (tmp_path / "cache", tmp_path / "cache" / "git"):
        assert oct(path.stat().st_mode)[-3:] == "700"


def test_what_is_read_is_neither_replaced_nor_removed(store: Kept, tmp_path: pathlib.Path) -> None:
    published(store, tmp_path, "one")
    with contextlib.ExitStack() as scope:
        found = store.find(kept.GIT, "key", scope)
        assert found is not None
        assert not published(store, tmp_path, "two")
        (entry,) = store.entries()
        assert entry.in_use
        assert not store.remove(entry.kind, entry.name)
        with contextlib.ExitStack() as other:
            assert store.alone(kept.GIT, "key", other) is None
        assert content(found, "file") == b"one"
    assert published(store, tmp_path, "two")
    (entry,) = store.entries()
    assert not entry.in_use
    assert entry.size_bytes >= 512
    assert store.remove(entry.kind, entry.name)
    assert store.remove(entry.kind, entry.name)
    assert store.entries() == []


def test_what_is_changed_is_not_found(store: Kept) -> None:
    with contextlib.ExitStack() as scope:
        directory = store.alone(kept.SESSION, "key", scope)
        assert directory is not None
        with contextlib.ExitStack() as other:
            assert store.find(kept.SESSION, "key", other) is None
            assert store.alone(kept.SESSION, "key", other) is None
    with contextlib.ExitStack() as scope:
        assert store.find(kept.SESSION, "key", scope) is not None


def test_entries_come_in_the_order_of_their_use(store: Kept, tmp_path: pathlib.Path) -> None:
    published(store, tmp_path, "1", "first")
    published(store, tmp_path, "2", "second")
    first, second = store.entries()
    for number, entry in enumerate((first, second)):
        os.utime(tmp_path / "cache" / "git" / entry.name, ns=(0, number))
    with contextlib.ExitStack() as scope:
        assert store.find(kept.GIT, "first", scope) is not None
    assert [entry.name for entry in store.entries()] == [second.name, first.name]


def _hold(root: str, ready: "multiprocessing.synchronize.Event") -> None:
    scope = contextlib.ExitStack()
    assert Kept(root).alone(kept.GIT, "key", scope) is not None
    ready.set()
    signal.pause()


def test_a_killed_build_leaves_no_lock_and_a_killed_removal_no_rest(
    store: Kept, tmp_path: pathlib.Path
) -> None:
    published(store, tmp_path, "one")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path / "cache"), ready))
    process.start()
    assert ready.wait(30)
    with contextlib.ExitStack() as scope:
        assert store.find(kept.GIT, "key", scope) is None
        process.kill()
        process.join()
        assert store.find(kept.GIT, "key", scope) is not None
    rest = tmp_path / "cache" / "git" / ".removing-x"
    (rest / "deep").mkdir(parents=True)
    assert len(store.entries()) == 1
    assert not rest.exists()
