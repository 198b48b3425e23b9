"""The engine's database: one SQLite file, shared by every process of an engine.

Names and addresses are unique because a transaction says so. WAL mode lets readers go on while
one process writes; ``synchronous=NORMAL`` keeps the file whole through a power cut, which may take
the last transactions along, and saves the ``fsync`` of each commit.

A connection must not cross a fork: SQLite believes that the child holds the parent's file locks
(https://www.sqlite.org/howtocorrupt.html, 2.6). So a store opens at its first use, in the process
that uses it, and refuses to work in a child of that process.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Generator

from ketch.engine import places
from ketch.engine.records import kept_files
from ketch.errors import NotFoundError, UnavailableError
from ketch.linux.scopes import owned

BUSY_TIMEOUT_SECONDS = 30

# A short log is quickly read again by the first process that opens the database after the last
# one died without closing it, which is how monitors end: closing would wait for an fsync.
_CHECKPOINT_PAGES = 200
# What the log has of the disk for itself, so that what is removed can be recorded as removed where
# the disk is full: a checkpoint's pages twice, and more where one waits for readers. Of a log that
# has grown beyond that the rest is given back.
_LOG_BYTES = 2 << 20
# For a lock that is another's for as long as it takes to begin an index.
_SHARE_SECONDS = 0.1

# Entry N takes a database from user_version N to N + 1. Entries are history: add, never edit.
_MIGRATIONS = (
    """
    CREATE TABLE image (
        id TEXT PRIMARY KEY,             -- digest of the image's config
        manifest_digest TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE image_name (
        reference TEXT PRIMARY KEY,      -- normalised: docker.io/library/busybox:latest
        image_id TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX image_name_image ON image_name (image_id);
    CREATE TABLE container (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image_id TEXT NOT NULL,
        image_reference TEXT NOT NULL,   -- as the user wrote it
        created_ns INTEGER NOT NULL,
        record TEXT NOT NULL,            -- JSON: what was asked for, never changed
        auto_remove INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL,             -- outcome of the last event, see engine.states
        boot_id TEXT NOT NULL DEFAULT '',
        init_pid INTEGER NOT NULL DEFAULT 0,
        init_start_time INTEGER NOT NULL DEFAULT 0,      -- clock ticks since boot
        monitor_pid INTEGER NOT NULL DEFAULT 0,
        monitor_start_time INTEGER NOT NULL DEFAULT 0,
        started_ns INTEGER NOT NULL DEFAULT 0,
        finished_ns INTEGER NOT NULL DEFAULT 0,
        exit_status INTEGER NOT NULL DEFAULT 0,
        oom_killed INTEGER NOT NULL DEFAULT 0,
        error TEXT NOT NULL DEFAULT '',
        restart_count INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX container_image ON container (image_id);
    CREATE TABLE network (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        subnet TEXT NOT NULL,
        gateway TEXT NOT NULL,
        bridge TEXT NOT NULL,
        record TEXT NOT NULL             -- JSON: what was asked for
    );
    CREATE TABLE lease (
        network_id TEXT NOT NULL,
        address TEXT NOT NULL,
        container_id TEXT NOT NULL,
        PRIMARY KEY (network_id, address)
    ) WITHOUT ROWID;
    CREATE INDEX lease_container ON lease (container_id);
    CREATE TABLE event (
        id INTEGER PRIMARY KEY,
        time_ns INTEGER NOT NULL,
        type TEXT NOT NULL,              -- container, image, network, volume
        action TEXT NOT NULL,
        actor_id TEXT NOT NULL,
        attributes TEXT NOT NULL         -- JSON object of strings
    );
    CREATE INDEX event_time ON event (time_ns);
    """,
    """
    ALTER TABLE image ADD COLUMN parent_id TEXT NOT NULL DEFAULT '';  -- what it was committed on
    ALTER TABLE image ADD COLUMN tagged_ns INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX image_parent ON image (parent_id);
    """,
    """
    CREATE TABLE compressed_layer (      -- as what a layer without compression was pushed
        plain_digest TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE container ADD COLUMN stopped_by_hand INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE container ADD COLUMN on_end TEXT NOT NULL DEFAULT '';   -- see Container.on_end
    ALTER TABLE container ADD COLUMN freezer TEXT NOT NULL DEFAULT '';  -- says whether it is paused
    ALTER TABLE container ADD COLUMN health TEXT NOT NULL DEFAULT '';   -- JSON, as inspect shows it
    CREATE TABLE exec (
        id TEXT PRIMARY KEY,
        container_id TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        record TEXT NOT NULL,            -- JSON: what was asked for
        boot_id TEXT NOT NULL DEFAULT '',
        pid INTEGER NOT NULL DEFAULT 0,
        start_time INTEGER NOT NULL DEFAULT 0,           -- clock ticks since boot
        monitor_pid INTEGER NOT NULL DEFAULT 0,
        monitor_start_time INTEGER NOT NULL DEFAULT 0,
        exit_status INTEGER              -- NULL until it has ended
    ) WITHOUT ROWID;
    CREATE INDEX exec_container ON exec (container_id);
    """,
    """
    CREATE TABLE subnet (
        network_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        subnet TEXT NOT NULL,
        gateway TEXT NOT NULL,           -- empty: none
        ip_range TEXT NOT NULL DEFAULT '',
        auxiliary TEXT NOT NULL DEFAULT '{}',            -- JSON: name to address
        chosen INTEGER NOT NULL DEFAULT 0,               -- from the address pools
        last_address TEXT NOT NULL DEFAULT '',           -- the last one leased
        PRIMARY KEY (network_id, position)
    ) WITHOUT ROWID;
    INSERT INTO subnet (network_id, position, subnet, gateway, chosen)
        SELECT id, 0, subnet, gateway, 1 FROM network WHERE subnet != '';
    ALTER TABLE network DROP COLUMN subnet;
    ALTER TABLE network DROP COLUMN gateway;
    CREATE TABLE endpoint (              -- a container's membership in a network, running or not
        container_id TEXT NOT NULL,
        network_id TEXT NOT NULL,        -- or the name that was asked for, until the first start
        network_name TEXT NOT NULL,
        position INTEGER NOT NULL,       -- order in which it was asked for
        settings TEXT NOT NULL,          -- JSON: EndpointSettings as asked for
        id TEXT NOT NULL DEFAULT '',     -- while the container runs, like all below
        ipv4 TEXT NOT NULL DEFAULT '',   -- with prefix length
        ipv6 TEXT NOT NULL DEFAULT '',
        mac TEXT NOT NULL DEFAULT '',
        interface TEXT NOT NULL DEFAULT '',
        gateway INTEGER NOT NULL DEFAULT 0,              -- 4 and 6 added: its way out is here
        names TEXT NOT NULL DEFAULT '[]',                -- JSON: what it is called beside its name
        PRIMARY KEY (container_id, network_id)
    ) WITHOUT ROWID;
    CREATE INDEX endpoint_network ON endpoint (network_id);
    INSERT INTO endpoint (container_id, network_id, network_name, position, settings)
        SELECT id, json_extract(record, '$.HostConfig.NetworkMode'),
            json_extract(record, '$.HostConfig.NetworkMode'), 0, '{}' FROM container
        WHERE json_extract(record, '$.HostConfig.NetworkMode') IS NOT NULL;
    CREATE TABLE port (                  -- published by running containers
        protocol TEXT NOT NULL,
        host_address TEXT NOT NULL,
        host_port INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        address TEXT NOT NULL,           -- the container's; empty while it has no way in
        container_port INTEGER NOT NULL,
        routed INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (protocol, host_port, host_address, container_id, container_port)
    ) WITHOUT ROWID;
    CREATE INDEX port_container ON port (container_id);
    CREATE TABLE boot (id TEXT NOT NULL);                -- in which leases and ports were given
    """,
    """
    CREATE TABLE volume (
        name TEXT PRIMARY KEY,
        options TEXT NOT NULL,           -- JSON object: the local driver's type, device, o
        labels TEXT NOT NULL,            -- JSON object
        created_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE volume_use (
        volume TEXT NOT NULL,
        container_id TEXT NOT NULL,
        mounted INTEGER NOT NULL DEFAULT 0,      -- while the container runs
        PRIMARY KEY (volume, container_id)
    ) WITHOUT ROWID;
    CREATE INDEX volume_use_container ON volume_use (container_id);
    """,
    """
    ALTER TABLE exec ADD COLUMN ended_ns INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE container ADD COLUMN id_first INTEGER NOT NULL DEFAULT 0;  -- of its own ids, or 0
    ALTER TABLE container ADD COLUMN id_count INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX container_ids ON container (id_first, id_count) WHERE id_first > 0;
    """,
    """
    CREATE TABLE link (                  -- by --link, between containers of the default network
        container_id TEXT NOT NULL,      -- who has it
        alias TEXT NOT NULL,             -- what it calls the other
        target_id TEXT NOT NULL,         -- the other, which may be no more
        position INTEGER NOT NULL,       -- order in which they were asked for
        PRIMARY KEY (container_id, alias)
    ) WITHOUT ROWID;
    CREATE INDEX link_target ON link (target_id);
    INSERT OR IGNORE INTO link (container_id, alias, target_id, position)
        SELECT container.id,
            CASE instr(asked.value, ':') WHEN 0 THEN asked.value
                ELSE substr(asked.value, instr(asked.value, ':') + 1) END,
            other.id, asked.key
        FROM container, json_each(container.record, '$.HostConfig.Links') AS asked
        JOIN container AS other ON other.name IN (asked.value,
            substr(asked.value, 1, instr(asked.value, ':') - 1));
    """,
    """
    CREATE TABLE build_record (          -- what a step of a build came to
        id TEXT PRIMARY KEY,             -- by which people call it
        key TEXT NOT NULL UNIQUE,        -- digest of all that the step could see
        chain_id TEXT NOT NULL,          -- of the layer, and what it lies on; empty for no files
        below TEXT NOT NULL,             -- chain ID of what it lies on alone, empty for nothing
        diff_id TEXT NOT NULL,           -- of the layer; empty where nothing was changed
        size_bytes INTEGER NOT NULL,
        is_alone INTEGER NOT NULL,       -- it was made without regard to what it lies on
        description TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        used_ns INTEGER NOT NULL,
        uses INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE build_layer (           -- which unpacked layers the records keep
        chain_id TEXT PRIMARY KEY,
        below TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE build_digest (          -- of files in layers, which never change
        key TEXT PRIMARY KEY,            -- digest of which files
        chain_id TEXT NOT NULL,
        digest TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE sandbox (               -- a network namespace that is no container's
        id TEXT PRIMARY KEY,             -- in the place of a container's in endpoint and lease
        boot_id TEXT NOT NULL,
        pid INTEGER NOT NULL,            -- who holds it
        start_time INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)

# The oldest format whose programs can go on with a database of this one, since all that came after
# only adds to it. A monitor may outlive an upgrade, and has an end to record. Kept in the database
# as its application_id.
_COMPATIBLE_SINCE = 8


class Store:
    """The database of the engine whose state lies in one directory.

    A store belongs to the thread and the process of its first use.

    Args:
        root: the engine's directory; made, for its owner alone, when it is missing.
    """

    __slots__ = ("_anew", "_connection", "_file", "_kept", "_owner", "path", "root")

    def __init__(self, root: str) -> None:
        places.close(root)  # what else is wrong says _open
        self.root = root
        self.path = f"{root}/ketch.db"
        self._connection: sqlite3.Connection | None = None
        self._file = 0  # the inode of the open database
        self._kept: kept_files.Kept | None = None
        self._owner = 0
        self._anew = False

    @contextlib.contextmanager
    def transaction(self, *, begins: bool = False) -> Generator[sqlite3.Connection, None, None]:
        """Write: all of it or, when the block raises, nothing; one writer at a time.

        Constraint violations rise as sqlite3.IntegrityError, for the caller to put into words.

        Args:
            begins: whether something new begins, which nobody would find in a database that was
                taken away since it was opened. What ends may be written there as well.

        Raises:
            UnavailableError: the database is locked for too long, damaged, or its disk is full; or
                it was taken away (``ketch system reset``).
            PermissionDeniedError: the caller may not use this engine's state.
        """
        return self._within("BEGIN IMMEDIATE", begins=begins)

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection, None, None]:
        """Read one consistent state, whatever others write meanwhile.

        Raises:
            NotFoundError: a text that is no Unicode is asked for.
            UnavailableError: the database is damaged.
            PermissionDeniedError: the caller may not use this engine's state.
        """
        return self._within("BEGIN")

    def version(self) -> int:
        """Returns a number that is another one once somebody else has written.

        Raises:
            UnavailableError: the database is damaged.
            PermissionDeniedError: the caller may not use this engine's state.
        """
        with self.reading() as connection:
            version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def begin_anew(self) -> None:
        """Make the database if it is missing, though the engine has been used before.

        Raises:
            UnavailableError: it is damaged, or its disk is full.
        """
        self._anew = True
        with self.reading():
            pass

    def share_index(self) -> int:
        """Returns a descriptor that keeps the index of the database's log while anybody has it.

        Without one, who is first to open the database, while nobody else has, reads its log anew.
        It is this store's, to be handed over to another process that does not open the database;
        -1 where it cannot be had.
        """
        with contextlib.suppress(OSError, UnavailableError):
            self._open()
            assert self._kept is not None
            return self._kept.keep_index(_SHARE_SECONDS)
        return -1

    def close(self) -> None:
        """Close the connection; the next use opens another.

        A process that is about to end need not: the log is then carried over by a later process.
        """
        if self._connection is not None and self._owner == os.getpid():
            if self._kept is not None:
                with contextlib.suppress(OSError):  # it was taken away
                    self._kept.keep_log()
            self._connection.close()
            self._connection = None
            self._let_go()

    def _within(
        self, begin: str, *, begins: bool = False
    ) -> Generator[sqlite3.Connection, None, None]:
        try:
            connection = self._open()
            connection.execute(begin)
            try:
                if begins:
                    self._check_place()
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if self._connection is connection and connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise self._unavailable(error) from error
        except UnicodeEncodeError as error:
            # Half a character, as a command line's bytes that are no UTF-8 become, is in no name.
            raise NotFoundError(f"nothing is called '{error.object}': it is no UTF-8") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise
            raise self._unavailable(error) from error

    def _check_place(self) -> None:
        """Make sure that what is written is found again: not in a file that has been deleted."""
        try:
            there = os.stat(self.path).st_ino
        except FileNotFoundError:
            there = 0
        if there != self._file:
            if there:  # a new engine, which whoever goes on asks from now on
                self.close()
            raise taken_away(self.path)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._owner != os.getpid():
                raise RuntimeError(f"{self.path} was opened before this process was forked")
            return self._connection
        self._kept = kept_files.of(self.path)
        try:
            self._keep_index()
            connection = self._open_current()
        except BaseException:
            self._let_go()
            raise
        self._connection, self._owner = connection, os.getpid()
        status = os.stat(self.path)
        self._file = status.st_ino
        # A disk of this machine's has a number; network file systems have none, and a few others.
        if not os.major(status.st_dev):
            places.claim(self.root)
        self._reserve_log(connection)
        return connection

    def _open_current(self) -> sqlite3.Connection:
        """Open the database, which is made or upgraded where it is not of this format."""
        connection: sqlite3.Connection | None
        try:
            connection = self._connect()
            version = _pragma(connection, "user_version")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
                raise
            version, connection = 0, None
        if connection is None or version < len(_MIGRATIONS):
            if connection is not None:
                connection.close()
            return self._prepare()
        if version > len(_MIGRATIONS) < _pragma(connection, "application_id"):
            connection.close()
            raise UnavailableError(
                f"{self.path} was written by a newer ketch (format {version}, "
                f"this one knows {len(_MIGRATIONS)})",
                "upgrade this ketch, or choose another --root",
            )
        return connection

    def _keep_index(self) -> None:
        """Keep the log's index from being given back to a disk that may be full."""
        assert self._kept is not None
        try:
            if kept_files.is_scarce(self.root) and os.path.exists(self.path):
                self._kept.keep_index(BUSY_TIMEOUT_SECONDS)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise places.unusable(self.path, error.errno) from error
            # Of what else is wrong SQLite says whether it matters.

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.let_go()
            self._kept = None

    def _reserve_log(self, connection: sqlite3.Connection) -> None:
        """See that the log has its room on the disk, and will give back what is beyond that."""
        path = f"{self.path}-wal"
        with contextlib.suppress(OSError):  # the disk is full already, or cannot do that
            status = os.stat(path)
            if status.st_size > _LOG_BYTES:
                connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            if status.st_blocks * 512 < _LOG_BYTES:
                from ketch.linux import fallocate  # noqa: PLC0415 - once a log

                with owned(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as log:
                    fallocate.reserve(log, _LOG_BYTES)

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a missing file must not be made here, with permissions that the umask chooses.
        path = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            f"file:{path}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            cached_statements=64,
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        return connection

    def _prepare(self) -> sqlite3.Connection:
        """Make or upgrade the database, one process at a time."""
        try:
            os.makedirs(self.root, 0o700, exist_ok=True)
            # Switching to WAL does not wait for other processes as transactions do, and a lock
            # file of its own would only be litter.
            directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise places.unusable(self.root, error.errno or 0) from error
        with owned(directory):
            from ketch.linux import locks  # noqa: PLC0415 - once a database

            locks.take(directory, fcntl.LOCK_EX, self.root, BUSY_TIMEOUT_SECONDS)
            if not self._anew and not os.path.exists(self.path) and _has_been_used(self.root):
                # With an empty one in its place, all that it had on record would go as unused.
                raise UnavailableError(
                    f"{self.path} is missing, and the engine's data is there",
                    "`ketch system repair` takes back what can be",
                )
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open("ketch.db", flags, 0o600, dir_fd=directory))
                for name in ("ketch.db-wal", "ketch.db-shm"):  # of one that was deleted
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=directory)
            except FileExistsError:
                pass
            except OSError as error:
                raise places.unusable(self.root, error.errno or 0) from error
            connection = self._connect()
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                for version in range(_pragma(connection, "user_version"), len(_MIGRATIONS)):
                    connection.executescript(
                        f"BEGIN IMMEDIATE; {_MIGRATIONS[version]}"
                        f"PRAGMA user_version = {version + 1};"
                        f"PRAGMA application_id = {_COMPATIBLE_SINCE}; COMMIT;"
                    )
                self._keep_index()  # the one of before is gone where there was one
            except BaseException:
                connection.close()  # which rolls back before anybody else tries
                raise
            return connection

    def _unavailable(self, error: sqlite3.DatabaseError) -> Exception:
        code = error.sqlite_errorcode & 0xFF
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
            return places.unusable(self.path, errno.EACCES)
        if code == sqlite3.SQLITE_BUSY:
            return UnavailableError(
                f"{self.path}: locked by another process for {BUSY_TIMEOUT_SECONDS} seconds",
                "look for a stopped or hanging ketch process",
            )
        if code == sqlite3.SQLITE_FULL or error.sqlite_errorcode == sqlite3.SQLITE_IOERR_SHMSIZE:
            return places.unusable(self.path, errno.ENOSPC)
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR}:
            return UnavailableError(
                f"{self.path}: damaged or unreadable: {error}",
                "`ketch system repair` takes back what can be",
            )
        return error  # wrong SQL is a mistake of ours and must look like one


def taken_away(path: str) -> UnavailableError:
    """Returns what there is to say of a database that was there before, and is no more."""
    return UnavailableError(
        f"{path} has been taken away meanwhile",
        "the engine was reset, or its root deleted; what still runs on it is to be ended",
    )


def _has_been_used(root: str) -> bool:
    """Whether there is what only an engine with a database makes."""
    for name in ("containers", "volumes"):
        with contextlib.suppress(FileNotFoundError):
            if os.listdir(f"{root}/{name}"):
                return True
    return os.path.exists(f"{root}/index.json")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
