"""What happened to containers, images, networks and volumes: recorded, replayed, streamed.

An event is recorded within the transaction that makes it true, so nobody hears of what was not so,
or misses what was. Recorded events are bounded in number. Who waits for more is woken by the
kernel when anybody writes to the database's log file.
"""

import json
import time

from ketch.engine.processes import ENDLESS, Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from ketch.engine.records.store import Store
    from ketch.linux.inotify import Inotify

KEPT = 4096
_ATTRIBUTES_MAX = 16 * 1024  # characters: an image's labels are told with each event

# An attribute of our own, which nobody is shown: a start that failed has no event of its own.
EXIT_STATUS = "_exitStatus"

_LONGEST_WAIT_MS = 10_000
_WITHOUT_INOTIFY_MS = 100
_SETTLE_MS = (1, 4, 16, 64, 256)

# Their action goes on after a colon, and a filter names the start of it.
_WITH_DETAILS = {"health_status", "exec_create", "exec_start"}
_BY_NAME = ("container", "plugin", "volume", "network", "daemon", "service", "node", "secret",
            "config")  # fmt: skip
FILTERS = (*_BY_NAME, "event", "image", "label", "scope", "type")


class Event:
    """Something that happened.

    Attributes:
        id: number of the event; later events have higher ones.
        time_ns: when, in nanoseconds since the epoch.
        type: ``container``, ``image``, ``network`` or ``volume``.
        action: Docker's word for it, such as ``start``; what an exec runs is no Unicode at times.
        actor_id: identifier of what it happened to.
        attributes: what else there is to tell.
        exit_status: what a container had ended with that is removed, None of anything else.
    """

    __slots__ = ("action", "actor_id", "attributes", "exit_status", "id", "time_ns", "type")

    def __init__(self, row: "sqlite3.Row") -> None:
        self.id: int = row["id"]
        self.time_ns: int = row["time_ns"]
        self.type: str = row["type"]
        self.action: str = row["action"]
        self.actor_id: str = row["actor_id"]
        self.attributes: dict[str, str] = json.loads(row["attributes"])
        status = self.attributes.pop(EXIT_STATUS, "")
        self.exit_status = int(status) if status else None

    def document(self) -> "dict[str, Any]":
        """Returns it in the API's keys (``EventMessage``), those included that it gave up."""
        former: dict[str, Any] = {}
        if self.type in {"container", "image"}:
            former = {"status": self.action, "id": self.actor_id}
            if self.type == "container" and self.attributes.get("image"):
                former["from"] = self.attributes["image"]
        return {
            **former,
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.actor_id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.time_ns // 1_000_000_000,
            "timeNano": self.time_ns,
        }


def record(
    connection: "sqlite3.Connection",
    kind: str,
    action: str,
    actor_id: str,
    attributes: dict[str, str],
) -> None:
    """Record an event within the transaction that makes it true.

    Args:
        connection: of the store, in a transaction.
        kind: ``container``, ``image``, ``network`` or ``volume``.
        action: Docker's word for it, such as ``start``; what an exec runs is no Unicode at times.
        actor_id: identifier of what it happened to.
        attributes: what else there is to tell. Of more than there is room for, the first go first.
    """
    text = json.dumps(attributes)
    if len(text) > _ATTRIBUTES_MAX:
        text = json.dumps(_fitting(attributes))
    readable = action.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    cursor = connection.execute(
        "INSERT INTO event (time_ns, type, action, actor_id, attributes) VALUES (?, ?, ?, ?, ?)",
        (time.time_ns(), kind, readable, actor_id, text),
    )
    connection.execute("DELETE FROM event WHERE id <= ?", ((cursor.lastrowid or 0) - KEPT,))


def _fitting(attributes: dict[str, str]) -> dict[str, str]:
    """Leave out what is too long: labels, since what ketch itself has to tell comes after them."""
    room = _ATTRIBUTES_MAX
    kept = []
    for name, value in reversed(attributes.items()):
        if (length := len(name) + len(value)) <= room:
            room -= length
            kept.append((name, value))
    return dict(reversed(kept))


def chooser(pairs: "Iterable[str]") -> "Callable[[Event], bool]":
    """Returns what says whether an event fits all filters; names that are unknown choose nothing.

    Source: moby, daemon/events/filter.go.

    Args:
        pairs: ``name=value`` each, of FILTERS.
    """
    wanted: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals:
            wanted.setdefault(name, []).append(value)
    by_start = bool(_WITH_DETAILS.intersection(wanted.get("event", ())))

    def fits(event: Event) -> bool:
        attributes = event.attributes
        for name in _BY_NAME:
            starts = tuple(wanted.get(name, ()))
            if starts and not event.actor_id.startswith(starts) and not attributes.get(
                "name", "").startswith(starts):  # fmt: skip
                return False
        actions = wanted.get("event", [event.action])
        begins = by_start and event.action.startswith(tuple(actions))
        if not begins and event.action not in actions:
            return False
        if "image" in wanted:
            name = attributes.get("name" if event.type == "image" else "image", "")
            candidates = {event.actor_id, name, _untagged(event.actor_id), _untagged(name)}
            if not candidates.intersection(wanted["image"]):
                return False
        for label in wanted.get("label", ()):
            key, equals, value = label.partition("=")
            if key not in attributes or (equals and attributes[key] != value):
                return False
        return event.type in wanted.get("type", [event.type]) and (
            "local" in wanted.get("scope", ["local"])
        )

    return fits


def _untagged(name: str) -> str:
    start, colon, tag = name.rpartition(":")
    return start if colon and "/" not in tag else name


def recorded(
    store: "Store", *, after_id: int = 0, since_ns: int = 0, until_ns: int | None = None
) -> list[Event]:
    """Returns the events there are, oldest first.

    Args:
        store: the engine's database.
        after_id: only those after this one.
        since_ns: only those from this moment on, in nanoseconds since the epoch.
        until_ns: only those up to this moment.
    """
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT * FROM event WHERE id > ? AND time_ns >= ? AND time_ns <= ? ORDER BY id",
            (after_id, since_ns, (1 << 63) - 1 if until_ns is None else until_ns),
        ).fetchall()
    return [Event(row) for row in rows]


def last_id(store: "Store") -> int:
    """Returns the number of the latest event, 0 where there is none."""
    with store.reading() as connection:
        row = connection.execute("SELECT max(id) FROM event").fetchone()
    return row[0] or 0


class Settling:
    """How soon to look again where a write to the database's log has brought nothing yet.

    SQLite writes a commit to the log, which wakes whoever watches it, before it says in shared
    memory that it is there, and a writer may lose its processor in between. No second write tells.
    """

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks = len(_SETTLE_MS)

    def looked(self, *, woken: bool, found: bool) -> None:
        """Take note of a look: whether a write came before it, and whether it found anything."""
        if found:
            self._looks = len(_SETTLE_MS)
        elif woken:
            self._looks = 0
        else:
            self._looks += 1

    def milliseconds(self, longest: int) -> int:
        """How long to wait for the next write before looking again, at most ``longest``."""
        return min(longest, _SETTLE_MS[self._looks]) if self._looks < len(_SETTLE_MS) else longest


class Follower:
    """Hears of events as they are recorded; to be closed.

    Args:
        store: the engine's database.
        after_id: the last event that is known already; None for the latest there is.
    """

    __slots__ = ("_last_id", "_queue", "_settling", "_store")

    def __init__(self, store: "Store", after_id: int | None = None) -> None:
        self._store = store
        self._queue = _watch(store)
        self._settling = Settling()
        # Only now: what is recorded from here on wakes the follower.
        self._last_id = last_id(store) if after_id is None else after_id

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there may be news, -1 where there is none."""
        return -1 if self._queue is None else self._queue.fileno()

    def new(self) -> list[Event]:
        """Returns what was recorded since the last call."""
        woken = self._queue is not None and self._queue.forget()
        found = recorded(self._store, after_id=self._last_id)
        self._settling.looked(woken=woken, found=bool(found))
        if found:
            self._last_id = found[-1].id
        return found

    def wait(self, milliseconds: int, patience: Patience) -> None:
        """Wait until there may be news, but no longer than that."""
        if self._queue is None:
            patience.wait(min(milliseconds, _WITHOUT_INOTIFY_MS))
        else:
            patience.wait(self._settling.milliseconds(milliseconds), self._queue.fileno())

    def close(self) -> None:
        """Stop listening."""
        if self._queue is not None:
            self._queue.close()


def _watch(store: "Store") -> "Inotify | None":
    from ketch.linux import inotify  # noqa: PLC0415 - recording needs none of it

    try:
        queue = inotify.Inotify()
    except OSError:
        return None
    try:
        # Each commit is written to ketch.db-wal, which itself comes and goes.
        queue.watch(store.root, inotify.IN_MODIFY | inotify.IN_CREATE)
    except OSError:
        queue.close()
        return None
    return queue


def stream(
    store: "Store",
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    patience: Patience = ENDLESS,
) -> "Iterator[list[Event]]":
    """Replay events, then wait for more.

    Args:
        store: the engine's database.
        since_ns: replay from this moment on, in nanoseconds since the epoch; None to replay
            nothing, or, where ``until_ns`` is given, all there is.
        until_ns: end at this moment; None for never.
        patience: how the caller waits.

    Yields:
        Events in order, some at a time.
    """
    replay = since_ns is not None or until_ns is not None
    follower = Follower(store, 0 if replay else None)
    first_ns, end_ns = since_ns or 0, until_ns
    try:
        while True:
            # In this order: what was recorded before the end is found by the next look.
            now_ns = time.time_ns()
            found = [
                event
                for event in follower.new()
                if event.time_ns >= first_ns and (end_ns is None or event.time_ns <= end_ns)
            ]
            if found:
                yield found
            if end_ns is not None and now_ns >= end_ns:
                return
            left_ms = _LONGEST_WAIT_MS
            if end_ns is not None:
                left_ms = min(left_ms, (end_ns - now_ns) // 1_000_000 + 1)
            follower.wait(left_ms, patience)
    finally:
        follower.close()
