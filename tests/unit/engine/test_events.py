"""Events as they are recorded, chosen, replayed and heard of."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ketch.engine import processes
from ketch.engine.records import events
from ketch.engine.records.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(str(tmp_path))
    yield opened
    opened.close()


def record(
    store: Store, action: str, actor: str = "abc", kind: str = "container", **attributes: str
) -> None:
    with store.transaction() as connection:
        events.record(connection, kind, action, actor, attributes)


def actions(store: Store, *pairs: str) -> list[str]:
    fits = events.chooser(pairs)
    return [event.action for event in events.recorded(store) if fits(event)]


def test_filters(store: Store) -> None:
    record(store, "create", name="web", image="busybox:1", tier="front")
    record(store, "exec_create: ls", name="web", image="busybox:1")
    record(store, "die", "def", name="db", image="quay.io:5000/pg")
    record(store, "pull", "busybox:1", "image", name="busybox:1")
    record(store, "connect", "net1", "network", name="bridge", container="abc")
    assert actions(store, "type=image") == ["pull"]
    assert actions(store, "type=image", "type=network") == ["pull", "connect"]
    assert actions(store, "container=we") == ["create", "exec_create: ls"]
    assert actions(store, "container=de") == ["die"]
    assert actions(store, "event=exec_create") == ["exec_create: ls"]
    assert actions(store, "event=exec") == []
    assert actions(store, "event=die", "event=create") == ["create", "die"]
    assert actions(store, "image=busybox") == ["create", "exec_create: ls", "pull"]
    assert actions(store, "image=quay.io:5000/pg") == ["die"]
    assert actions(store, "label=tier") == actions(store, "label=tier=front") == ["create"]
    assert actions(store, "label=tier=back") == []
    assert actions(store, "network=net1", "type=network") == ["connect"]
    assert actions(store, "scope=swarm") == []
    assert len(actions(store, "nonsense=1")) == 5


def test_documents(store: Store) -> None:
    record(store, "start", name="web", image="busybox")
    record(store, "connect", "net1", "network", name="bridge")
    first, second = (event.document() for event in events.recorded(store))
    assert first == {
        "status": "start", "id": "abc", "from": "busybox", "Type": "container", "Action": "start",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "busybox"}},
        "scope": "local", "time": first["timeNano"] // 10**9, "timeNano": first["timeNano"],
    }  # fmt: skip
    assert "status" not in second


def test_replay(store: Store) -> None:
    record(store, "create")
    middle_ns = time.time_ns()
    record(store, "start")

    def replayed(until_ns: int, since_ns: int | None = None) -> list[str]:
        stream = events.stream(store, since_ns=since_ns, until_ns=until_ns)
        return [event.action for found in stream for event in found]

    assert replayed(until_ns=time.time_ns()) == ["create", "start"]
    assert replayed(since_ns=middle_ns, until_ns=time.time_ns()) == ["start"]
    assert replayed(until_ns=middle_ns) == ["create"]


def test_a_follower_hears_at_once(store: Store, tmp_path: Path) -> None:
    record(store, "before")
    heard: list[tuple[str, float]] = []
    begun = threading.Event()

    def follow() -> None:
        own = Store(str(tmp_path))
        begun.set()
        for found in events.stream(own, until_ns=None):
            heard.extend((event.action, time.monotonic()) for event in found)
            if heard[-1][0] == "last":
                break
        own.close()

    thread = threading.Thread(target=follow)
    thread.start()
    begun.wait(5)
    time.sleep(0.2)
    sent = []
    for action in ("one", "two", "last"):
        sent.append((action, time.monotonic()))
        record(store, action)
        time.sleep(0.1)
    thread.join(10)
    assert [action for action, _ in heard] == ["one", "two", "last"]
    waits = [there - here for (_, here), (_, there) in zip(sent, heard, strict=True)]
    assert min(waits) < 0.1, "woken by the record, not by the clock"


def test_a_write_that_brings_nothing_yet_is_looked_into_again(store: Store) -> None:
    """A commit can be read a moment after the write of it that wakes."""
    follower = events.Follower(store)
    looks = 0
    try:
        record(store, "one")
        assert [event.action for event in follower.new()] == ["one"]
        (Path(store.root) / "written").touch()
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert follower.new() == []
            follower.wait(1000, processes.ENDLESS)
            looks += 1
    finally:
        follower.close()
    assert 5 <= looks <= 8, "some looks, and then the clock alone"


def test_events_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 10)
    for number in range(25):
        record(store, str(number))
    assert actions(store) == [str(number) for number in range(15, 25)]


def test_of_too_much_what_ketch_says_itself_is_told(store: Store) -> None:
    labels = {"huge": "x" * 100_000, "small": "y", "half": "z" * 9000, "other": "w" * 9000}
    with store.transaction() as connection:
        events.record(connection, "container", "start", "id", {**labels, "name": "n"})
        events.record(connection, "container", "stop", "id", {"name": "n", "short": "x"})
    with store.reading() as connection:
        rows = connection.execute("SELECT * FROM event ORDER BY id").fetchall()
    told, short = (events.Event(row).attributes for row in rows)
    assert list(told) == ["small", "other", "name"]
    assert list(short) == ["name", "short"]
