"""Volumes: directories that outlive containers, by name; who uses them; when they may go.

A volume's data is at ``volumes/NAME/_data`` below the engine's root, as Docker has it. One with
options of the local driver (a tmpfs, a bind, an NFS export) is mounted there while containers run
that use it, so that all of them see the same.
"""

import json
import os
import time

from ketch.engine.records import events
from ketch.engine.volumes import records, telling
from ketch.engine.volumes.records import ANONYMOUS_LABEL, Volume, make_data_directory
from ketch.errors import (
    ConflictError,
    DriverNotFoundError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    in_words,
)
from ketch.linux import descent
from ketch.linux.removetree import remove_tree
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings

LOCAL = "local"

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NAME_LENGTH_MAX = 255
_OPTIONS = ("type", "device", "o", "size")
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


class Pruned:
    """What a prune has removed.

    Attributes:
        names: the volumes.
        freed_bytes: how much their data took.
    """

    __slots__ = ("freed_bytes", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.freed_bytes = 0


class Volumes:
    """The volumes of one engine.

    Args:
        settings: the engine's places.
        store: the engine's database.
    """

    __slots__ = ("_settings", "_store")

    def __init__(self, settings: "Settings", store: "Store") -> None:
        self._settings = settings
        self._store = store

    def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: "dict[str, str] | None" = None,
        labels: "dict[str, str] | None" = None,
    ) -> Volume:
        """Make a volume; one of that name that exists already is returned as it is.

        Args:
            name: its name; one is made up, and the volume anonymous, where this is empty.
            driver: ``local`` is the only one.
            options: of the local driver: ``type``, ``device`` and ``o`` as mount(8) has them.
            labels: its labels.

        Raises:
            InvalidArgumentError: the name or an option is malformed.
            NotFoundError: there is no such driver.
        """
        labels = {**(labels or {})}
        if not name:
            name = os.urandom(32).hex()
            labels.setdefault(ANONYMOUS_LABEL, "")
        check_name(name)
        check_driver(name, driver, options or {})
        with self._store.transaction(begins=True) as connection:
            is_new = add(connection, name, options or {}, labels)
        volume = self.find(name)
        make_data_directory(self._settings, name)
        if is_new:
            self._settings.tell(telling.of_record, volume)
            self._settings.tell(telling.of_directory, volume)
        return volume

    def find(self, name: str) -> Volume:
        """Returns a volume by its name.

        Raises:
            NotFoundError: there is none.
        """
        with self._store.reading() as connection:
            row = connection.execute("SELECT * FROM volume WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise _no_such(name)
            return Volume(row, self._settings, records.users(connection, name))

    def list(self) -> "list[Volume]":
        """Returns all volumes, by name."""
        with self._store.reading() as connection:
            users: dict[str, list[str]] = {}
            for row in connection.execute(
                "SELECT volume, container_id FROM volume_use"
                " JOIN container ON container.id = container_id"
            ):
                users.setdefault(row["volume"], []).append(row["container_id"])
            rows = connection.execute("SELECT * FROM volume ORDER BY name")
            return [Volume(row, self._settings, users.get(row["name"], ())) for row in rows]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data.

        Args:
            name: the volume.
            force: whether one that is not there is as good as removed.

        Raises:
            NotFoundError: there is none.
            ConflictError: a container has it.
            UnavailableError: its data cannot be removed.
        """
        try:
            volume = self.find(name)
        except NotFoundError:
            if force:
                return
            raise
        from ketch.engine.volumes import mounts  # noqa: PLC0415 - few commands need them

        with mounts.locked(self._settings, volume):
            with self._store.transaction() as connection:
                users = records.users(connection, name)
                if users:
                    raise ConflictError(
                        f"remove {name}: volume is in use - [{', '.join(users)}]",
                        "remove the containers first",
                    )
                was_mounted = mounts.unmount(volume)
                aside = _put_aside(self._settings, name)
                query = "DELETE FROM volume WHERE name = ?"
                removed = connection.execute(query, (name,)).rowcount > 0
                if removed:
                    events.record(connection, "volume", "destroy", name, {"driver": LOCAL})
            if was_mounted:
                self._settings.tell(telling.of_unmounting, volume)
            self._settings.tell(telling.of_removal, volume)
            _remove_data(name, aside)
        if not removed and not force:
            raise _no_such(name)  # somebody was quicker

    def prune(
        self, *, everything: bool = False, keep: "Callable[[Volume], bool] | None" = None
    ) -> "Pruned":
        """Remove the volumes that no container has.

        Args:
            everything: named ones too.
            keep: takes a volume and returns whether it is to be kept all the same, or None.

        Returns:
            Which they were.
        """
        pruned = Pruned()
        for volume in self.list():
            if volume.users or not (everything or volume.is_anonymous):
                continue
            if keep is not None and keep(volume):
                continue
            size_bytes, _ = descent.usage(volume.mountpoint)
            try:
                self.remove(volume.name)
            except (ConflictError, NotFoundError):
                continue  # somebody was quicker
            pruned.names.append(volume.name)
            pruned.freed_bytes += size_bytes
        remove_left_behind(self._settings)
        return pruned


def check_name(name: str) -> None:
    """Checks a volume's name.

    Raises:
        InvalidArgumentError: it is none.
    """
    if len(name) == 1:
        raise InvalidArgumentError(
            f"create {name}: volume name is too short, "
            "names should be at least two alphanumeric characters"
        )
    good = name[:1].isalnum() and name.isascii() and _NAME.issuperset(name)
    if not good or len(name) > _NAME_LENGTH_MAX:
        raise InvalidArgumentError(
            f"create {name}: {quoted(name)} includes invalid characters for a local volume name, "
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
            "directory, use absolute path"
        )


def check_driver(name: str, driver: str, options: dict[str, str]) -> None:
    """Checks a volume's driver and its options.

    Raises:
        InvalidArgumentError: an option is unknown, or needs another one.
        DriverNotFoundError: there is no such driver.
    """
    if driver not in {"", LOCAL}:
        raise DriverNotFoundError(
            f"create {name}: error looking up volume plugin {driver}: "
            f"plugin {quoted(driver)} not found",
            "local is the only driver that ketch has",
        )
    for option in options:
        if option not in _OPTIONS:
            raise InvalidArgumentError(f"create {name}: invalid option: {quoted(option)}")
    if "size" in options:
        raise InvalidArgumentError(
            f"create {name}: quota size requested but no quota support",
            "limit a tmpfs instead: type=tmpfs, device=tmpfs, o=size=...",
        )
    for option, needed in _NEEDS.items():
        if options.get(option):
            for other in needed:
                if not options.get(other):
                    raise InvalidArgumentError(
                        f"create {name}: missing required option: {quoted(other)}"
                    )


def add(
    connection: "sqlite3.Connection", name: str, options: dict[str, str], labels: dict[str, str]
) -> bool:
    """Record a volume in a transaction, unless there is one of that name.

    Returns:
        Whether it is new.
    """
    cursor = connection.execute(
        "INSERT OR IGNORE INTO volume (name, options, labels, created_ns) VALUES (?, ?, ?, ?)",
        (name, json.dumps(options), json.dumps(labels), time.time_ns()),
    )
    if cursor.rowcount:
        events.record(connection, "volume", "create", name, {"driver": LOCAL})
    return bool(cursor.rowcount)


def remove_left_behind(settings: "Settings") -> None:
    """Remove what interrupted removals have put aside."""
    top = f"{settings.root}/volumes"
    try:
        names = [name for name in os.listdir(top) if name.startswith(_ASIDE)]
    except FileNotFoundError:
        return
    for name in names:
        remove_tree(f"{top}/{name}")


_ASIDE = ".removing-"  # no volume's name begins with a dot


def _no_such(name: str) -> NotFoundError:
    return NotFoundError(f"get {name}: no such volume", "ketch volume ls lists those there are")


def _put_aside(settings: "Settings", name: str) -> str:
    """Take the data's name away, so that a new volume of that name never finds it."""
    aside = f"{settings.root}/volumes/{_ASIDE}{os.urandom(8).hex()}"
    try:
        os.rename(f"{settings.root}/volumes/{name}", aside)
    except FileNotFoundError:
        return ""
    return aside


def _remove_data(name: str, aside: str) -> None:
    if not aside:
        return
    try:
        remove_tree(aside)
    except OSError as error:
        raise UnavailableError(
            f"remove {name}: its data at {aside} cannot be removed: {in_words(error)}",
            "remove what is mounted there; the next prune removes the rest",
        ) from error
