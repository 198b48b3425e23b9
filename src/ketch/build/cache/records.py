"""What steps came to, on record: in the engine's database, for all builders at once.

A record names a layer of the store, which stays there as long as the record does, with all that it
lies on. What the records say is checked against what there is: a layer that a power cut has taken
is none, and its record with it.
"""

import os
import time
from typing import TYPE_CHECKING

from ketch.build.states import Layer, State
from ketch.dataclass import dataclass

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable

    from ketch.engine.records.store import Store
    from ketch.images.snapshots import Snapshotter

_ID_DIGITS = 25  # of base 36, as BuildKit's


@dataclass(frozen=True)
class Record:
    """One of them.

    Attributes:
        id: by which people call it.
        chain_id: of its layer and those below.
        below: of those below alone, empty for none.
        diff_id: of its layer.
        size_bytes: of the layer's files.
        alone: see ``Layer``.
        description: of the step.
        created_ns: when it was made, nanoseconds since the epoch.
        used_ns: when it was used last.
        uses: how often it was used since.
    """

    id: str
    chain_id: str
    below: str
    diff_id: str
    size_bytes: int
    alone: bool
    description: str
    created_ns: int
    used_ns: int
    uses: int


class Records:
    """The records of one engine; a thread's, as its store is.

    Args:
        store: the database.
        snapshotter: the layers.
    """

    def __init__(self, store: "Store", snapshotter: "Snapshotter") -> None:
        self._store = store
        self._snapshotter = snapshotter

    def find(self, key: str, base: State) -> Layer | None:
        """Returns the layer that a step came to, on top of what it would be made on.

        Args:
            key: the step's.
            base: what it lies on now.
        """
        with self._store.reading() as connection:
            row = connection.execute("SELECT * FROM build_record WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        record = _record(row)
        if not self._snapshotter.exists(record.chain_id):
            self.remove([record.id])
            return None
        if record.below != base.chain_id and not record.alone:
            return None
        return Layer(
            record.diff_id, base.over(record.diff_id), record.size_bytes, record.created_ns,
            record.description, alone=record.alone,
        )  # fmt: skip

    def add(self, key: str, layer: Layer, base: State) -> bool:
        """Record what a step came to, in place of what it came to before.

        Args:
            key: the step's.
            layer: of the store; ``Images.adding`` is held.
            base: what it lies on.

        Returns:
            Whether it had come to something else, which nobody may need any more.
        """
        record_id, now_ns = new_id(os.urandom(17)), time.time_ns()
        # One that was made alone is kept as it was made.
        chain_id, below = (layer.diff_id, "") if layer.alone else (layer.chain_id, base.chain_id)
        kept = list(zip(base.chain_ids, ["", *base.chain_ids], strict=False))
        kept += [(layer.chain_id, base.chain_id), (chain_id, below)]
        with self._store.transaction(begins=True) as connection:
            before = connection.execute(
                "SELECT chain_id FROM build_record WHERE key = ?", (key,)
            ).fetchone()
            connection.execute(
                "REPLACE INTO build_record (id, key, chain_id, below, diff_id, size_bytes,"
                " is_alone, description, created_ns, used_ns, uses)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
                (record_id, key, chain_id, below, layer.diff_id, layer.size_bytes, layer.alone,
                 layer.description, layer.created_ns, now_ns),
            )  # fmt: skip
            connection.executemany("INSERT OR IGNORE INTO build_layer VALUES (?, ?)", kept)
            if before is None or before["chain_id"] == chain_id:
                return False
            _forget_layers(connection)
            return True

    def touch(self, keys: "Collection[str]") -> None:
        """Record that results were used, now."""
        if not keys:
            return
        now_ns = time.time_ns()
        with self._store.transaction() as connection:
            connection.executemany(
                "UPDATE build_record SET used_ns = ?, uses = uses + 1 WHERE key = ?",
                [(now_ns, key) for key in keys],
            )

    def list(self) -> "list[Record]":
        """Returns all of them, the one that was used last first."""
        with self._store.reading() as connection:
            rows = connection.execute("SELECT * FROM build_record ORDER BY used_ns DESC, id")
            return [_record(row) for row in rows]

    def remove(self, ids: "Iterable[str]") -> None:
        """Forget some; what nobody else needs of their layers goes with the next collection."""
        with self._store.transaction() as connection:
            connection.executemany("DELETE FROM build_record WHERE id = ?", [(one,) for one in ids])
            _forget_layers(connection)

    def digest(self, key: str) -> str:
        """Returns the digest of some files of layers, empty where nobody knows it."""
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT digest FROM build_digest WHERE key = ?", (key,)
            ).fetchone()
        return row["digest"] if row else ""

    def add_digest(self, key: str, chain_id: str, digest: str) -> None:
        """Record the digest of some files of layers, which never change.

        Args:
            key: what is asked for it (``keys.of_selection``).
            chain_id: the layers'; forgotten with them.
            digest: what it is.
        """
        with self._store.transaction(begins=True) as connection:
            connection.execute(
                "REPLACE INTO build_digest VALUES (?, ?, ?)", (key, chain_id, digest)
            )


def _forget_layers(connection: "sqlite3.Connection") -> None:
    """Forget the layers that no record lies on."""
    below = {
        row["chain_id"]: row["below"] for row in connection.execute("SELECT * FROM build_layer")
    }
    needed: set[str] = set()
    for row in connection.execute("SELECT chain_id FROM build_record"):
        chain_id = row["chain_id"]
        while chain_id and chain_id not in needed:
            needed.add(chain_id)
            chain_id = below.get(chain_id, "")
    unused = [(chain_id,) for chain_id in below if chain_id not in needed]
    connection.executemany("DELETE FROM build_layer WHERE chain_id = ?", unused)
    connection.executemany("DELETE FROM build_digest WHERE chain_id = ?", unused)


def _record(row: "sqlite3.Row") -> Record:
    return Record(
        row["id"], row["chain_id"], row["below"], row["diff_id"], row["size_bytes"],
        bool(row["is_alone"]), row["description"], row["created_ns"], row["used_ns"], row["uses"],
    )  # fmt: skip


def new_id(entropy: bytes) -> str:
    """Returns a name as BuildKit makes them, of 17 bytes that nothing else has."""
    number = int.from_bytes(entropy, "big")
    digits = ""
    while len(digits) < _ID_DIGITS:
        number, digit = divmod(number, 36)
        digits += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    return digits
