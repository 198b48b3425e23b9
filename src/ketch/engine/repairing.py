"""Taking back what lies in an engine's directories after its database was lost or damaged.

A damaged database is put aside, and what can be read of it is copied into a new one. What is still
on no record after that is found where it lies: images by their manifests, volumes by their
directories, containers by theirs. Nothing is removed, and what is put aside stays.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import time

from ketch.engine.configuration.bundle import NAME_ANNOTATION
from ketch.engine.containers import creation, renaming
from ketch.engine.engine import Engine
from ketch.engine.volumes.records import data_directory
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    KetchError,
    UnavailableError,
)
from ketch.linux import locks
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.spec import image as documents
from ketch.spec import reference as references
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.engine.images.image import Image
    from ketch.engine.settings import Settings
    from ketch.spec.container import Request
    from ketch.spec.reference import Reference

_DATABASE = ("ketch.db", "ketch.db-wal", "ketch.db-shm")
# Of what a container's directory holds, what its next start writes anew.
_WRITTEN_ANEW = {"config.json", "hosts", "hostname", "resolv.conf"}

LOCK = "repair.lock"
"""A file of the engine's directory, which one repair at a time has locked."""

_OTHERS_SECONDS = 60.0  # that a repair is given to finish before another one begins

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
_IN_NO_FILE = (
    "what is in no file, where it could not be read: networks that were made; ports, mounts and"
    " limits of containers; labels of volumes"
)


class Repair:
    """What was done, as people are told it.

    Attributes:
        taken: what is there again.
        lost: what is not, and why.
    """

    __slots__ = ("lost", "taken")

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.lost: list[str] = []


def repair(settings: "Settings") -> Repair:
    """Bring an engine's records into line with what its directories hold, one repair at a time.

    Raises:
        UnavailableError: there is no engine, its disk fails, or another repair goes on.
    """
    try:
        path = f"{settings.root}/{LOCK}"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return _repair(settings)
    with owned(lock):
        locks.take(lock, fcntl.LOCK_EX, path, _OTHERS_SECONDS)
        return _repair(settings)


def _repair(settings: "Settings") -> Repair:
    done = Repair()
    aside = _put_aside(settings.root, done)
    engine = Engine(settings)
    engine.store.begin_anew()
    if aside:
        _copy_rows(aside, engine, done)
    _take_images(engine, done)
    _take_volumes(engine, done)
    _take_containers(engine, done)
    if done.taken or done.lost:
        done.lost.append(_IN_NO_FILE)
    return done


def _put_aside(root: str, done: Repair) -> str:
    """Rename a database that is damaged; returns where it is then, empty where it is sound."""
    path = f"{root}/{_DATABASE[0]}"
    if not os.path.exists(path):
        return ""
    try:
        with contextlib.closing(_opened(path)) as found:
            if [tuple(row) for row in found.execute("PRAGMA quick_check")] == [("ok",)]:
                return ""
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"{path}: {error}", "look whether its disk works") from error
    except sqlite3.DatabaseError:
        pass
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = f"{root}/damaged-{moment}"
    os.mkdir(aside, 0o700)
    for name in _DATABASE:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{root}/{name}", f"{aside}/{name}")
    done.taken.append(f"the damaged database is in {aside}")
    return f"{aside}/{_DATABASE[0]}"


def _copy_rows(aside: str, engine: Engine, done: Repair) -> None:
    """Copy what can be read of a damaged database."""
    copied: dict[str, int] = {}
    with (
        contextlib.closing(_opened(aside)) as old,
        engine.store.transaction() as new,
    ):
        tables = [row["name"] for row in new.execute(_TABLES)]
        for table in tables:
            known = {row["name"] for row in new.execute(f"PRAGMA table_info({table})")}
            for columns, row in _rows(old, table):
                kept = [(name, value) for name, value in zip(columns, row, strict=True)
                        if name in known]  # fmt: skip
                marks = ", ".join("?" * len(kept))
                with contextlib.suppress(sqlite3.IntegrityError):
                    copied[table] = copied.get(table, 0) + new.execute(
                        f"INSERT OR IGNORE INTO {table} ({', '.join(name for name, _ in kept)})"
                        f" VALUES ({marks})", [value for _, value in kept],
                    ).rowcount  # fmt: skip
    for table in ("container", "image", "network", "volume"):
        if copied.get(table):
            done.taken.append(f"{copied[table]} of the {table}s that were on record")


def _rows(
    connection: sqlite3.Connection, table: str
) -> "Iterator[tuple[list[str], tuple[Any, ...]]]":
    """Yield a table's rows from its start and from its end, each up to where it is damaged."""
    for order in ("", " ORDER BY 1 DESC"):
        try:
            cursor = connection.execute(f"SELECT * FROM {table}{order}")
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                yield columns, row
        except sqlite3.DatabaseError:
            continue
        return


def _take_images(engine: Engine, done: Repair) -> None:
    images = engine.images
    named: dict[str, list[Reference]] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for entry in json.loads(images.content.read_index())["manifests"]:
            name = entry.get("annotations", {}).get("io.containerd.image.name")
            named.setdefault(entry["digest"], []).extend([references.parse(name)] if name else [])
    on_record = {image.id for image in images.list()}
    with images.adding():
        for digest in [*named, *images.content.digests()]:
            manifest = _manifest(engine, digest)
            if manifest is None or manifest["config"]["digest"] in on_record:
                continue
            image_id = manifest["config"]["digest"]
            on_record.add(image_id)
            shown = ", ".join(name.familiar for name in named.get(digest, ())) or image_id
            try:
                document = documents.parse_config(images.content.read(image_id))
                chains = documents.chain_ids(document["rootfs"]["diff_ids"])
                size_bytes = sum(map(images.snapshotter.size_bytes, chains))
                images.record(image_id, digest,
                              timestamps.created_ns(document.get("created") or ""), size_bytes,
                              named.get(digest, ()))  # fmt: skip
            except KetchError as error:
                done.lost.append(f"image {shown}: {error.message}: pull it again")
            else:
                done.taken.append(f"image {shown}")
    images.publish_index()


def _manifest(engine: Engine, digest: str) -> "documents.Manifest | None":
    """Returns the manifest that a blob is, if it is one."""
    try:
        content = engine.images.content.read(digest)
        return None if documents.is_index(content) else documents.parse_manifest(content)
    except KetchError:  # a layer, a configuration
        return None


def _take_volumes(engine: Engine, done: Repair) -> None:
    directory = f"{engine.settings.root}/volumes"
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        data = data_directory(engine.settings, name)
        if not os.path.isdir(data):
            continue
        with engine.store.transaction() as connection:
            count = connection.execute(
                "INSERT OR IGNORE INTO volume (name, options, labels, created_ns)"
                " VALUES (?, '{}', '{}', ?)", (name, os.stat(data).st_ctime_ns),
            ).rowcount  # fmt: skip
        if count:
            done.taken.append(f"volume {name}")


def _take_containers(engine: Engine, done: Repair) -> None:
    directory = f"{engine.settings.root}/containers"
    on_record = {container.id for container in engine.containers.list(all=True)}
    by_layers = {tuple(image.chain_ids): image for image in engine.images.list()}
    for identifier in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if identifier in on_record:
            continue
        path = f"{directory}/{identifier}"
        short = identifier[:12]
        image = by_layers.get(tuple(engine.images.snapshotter.prepared_on(path)))
        if image is None:
            done.lost.append(f"container {short}: its image is not there; its files are in {path}")
        elif os.path.exists(engine.settings.runtime_directory(identifier)):
            done.lost.append(f"container {short}: it may still run: end it, and repair again")
        else:
            try:
                name = _take_container(engine, path, identifier, image)
            except (KetchError, OSError) as error:
                done.lost.append(f"container {short}: {error}; its files are in {path}")
            else:
                done.taken.append(f"container {name}: its files, log, program and environment")


def _take_container(engine: Engine, path: str, identifier: str, image: "Image") -> str:
    """Make a container that has another one's files, and its name unless somebody else has that.

    Returns:
        Its name.
    """
    name = f"recovered-{identifier[:12]}"
    former = _name(path)
    try:
        made = creation.create(engine, _request(path, image), name=name)
    except ConflictError:  # an earlier repair was interrupted
        engine.containers.remove(name)
        made = creation.create(engine, _request(path, image), name=name)
    target = engine.settings.container_directory(made.id)
    for entry in os.listdir(path):
        if entry in _WRITTEN_ANEW:
            continue
        new = f"{target}/{entry.replace(identifier, made.id)}"
        if os.path.isdir(new) and not os.path.islink(new):
            aside = f"{path}/.replaced-{entry}"
            os.rename(new, aside)
            remove_tree(aside)
        os.rename(f"{path}/{entry}", new)
    remove_tree(path)
    if former:
        with contextlib.suppress(AlreadyExistsError, InvalidArgumentError):
            renaming.rename(engine.store, engine.containers, name, former)
            return former
    return name


def _name(path: str) -> str:
    """Returns what a container was called at its last start; empty where it never was started."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError),
        open(f"{path}/config.json", encoding="utf-8") as file,
    ):
        return str(json.load(file)["annotations"][NAME_ANNOTATION])
    return ""


def _request(path: str, image: "Image") -> "Request":
    """Returns what a container was asked for, as far as its last start has written it down."""
    config: dict[str, Any] = {"Image": image.id}
    if not (image.config.get("Cmd") or image.config.get("Entrypoint")):
        config["Cmd"] = ["/bin/sh"]  # it was never started, and nobody has written down with what
    with contextlib.suppress(OSError, ValueError, KeyError):
        with open(f"{path}/config.json", encoding="utf-8") as file:
            written = json.load(file)
        process = written["process"]
        config |= {
            "Entrypoint": [], "Cmd": process["args"], "Env": process.get("env", []),
            "WorkingDir": process["cwd"], "Tty": process.get("terminal", False),
        }  # fmt: skip
        user = process.get("user", {})
        if user.get("uid") or user.get("gid"):
            config["User"] = f"{user.get('uid', 0)}:{user.get('gid', 0)}"
        if written.get("hostname") and not os.path.basename(path).startswith(written["hostname"]):
            config["Hostname"] = written["hostname"]
    return {"Config": config, "HostConfig": {}}  # type: ignore[typeddict-item]


def _opened(path: str) -> sqlite3.Connection:
    """Open a database that nobody makes where there is none."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file:{quoted}?mode=rw", uri=True)
