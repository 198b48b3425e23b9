"""What an open database keeps of a disk that is full: its log, and the log's index.

Between two processes that use the database SQLite gives both back to the disk: who is first to
open the index (``ketch.db-shm``, which all of them map) truncates it, and who is last to close the
database deletes index and log. On a disk that is full neither can be had again, and where a page
of the index is a hole, writing to it is SIGBUS. So locks of SQLite's own are held beside it, by
which it believes that somebody else is there:

- where room is scarce, from before the database is opened, a shared lock on the index's "dead
  man's switch". Who finds nobody there begins the index anew just as SQLite would, but overwrites
  it in place of truncating it;
- while a container runs, the same lock, by its monitor, so that neither who ends it nor any other
  command has to read the log anew;
- while it is closed, a shared lock on the database, which who closes it would have to have for
  itself to delete its log.

They are open file description locks, which SQLite does not know for its own. Closing any descriptor
of these files would take SQLite's own locks away from all of a process (fcntl(2)), so they are open
as long as any store of the process is.

Source: sqlite, src/os_unix.c (unixLockSharedMemory, unixShmMap), src/wal.c (sqlite3WalClose).
"""

import fcntl
import os
from _thread import allocate_lock

from ketch.errors import UnavailableError

# Of src/os_unix.c and src/os.h: the switch; what each reader of a database locks in it.
_SWITCH = (128, 1)
_SHARED = (0x40000002, 510)
# Of src/wal.c: how much of the index is about some 4,000 pages of the log, and what begins it.
_INDEX_BYTES = 32768
_HEADER_BYTES = 136
_LOG_PART_BYTES = 4096 * 4096

_SCARCE_BYTES = 64 << 20
_PAGE_BYTES = 4096
_FIRST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.05


def is_scarce(root: str) -> bool:
    """Whether a disk may soon be full, or gives parts of pages, so that there may be holes."""
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize < _SCARCE_BYTES or status.f_bsize < _PAGE_BYTES


class Kept:
    """What the stores of this process keep of one database's files. From ``of``.

    Args:
        path: of the database.
    """

    __slots__ = ("_database", "_index", "_open", "_path", "pid", "users")

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self.users = 0
        self._path = path
        self._index = -1
        self._database = -1
        self._open: list[int] = []

    def keep_index(self, seconds: float) -> int:
        """Keep the index of the database's log, from before the database is opened or later.

        Args:
            seconds: how long to wait for who is about to make it.

        Returns:
            The descriptor that keeps it, and whose copies in other processes do.

        Raises:
            UnavailableError: somebody is about to make it for all that time.
            OSError: it cannot be opened, or there is no room for it.
        """
        with _lock:
            if not _is(self._index, f"{self._path}-shm"):
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._index = os.open(f"{self._path}-shm", flags, 0o600)
                self._open.append(self._index)
                _share(self._index, self._path, seconds)
            return self._index

    def keep_log(self) -> None:
        """See that nobody deletes the log, before this process closes the database.

        Raises:
            OSError: the database is not there any more.
        """
        with _lock:
            if not _is(self._database, self._path):
                self._database = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                self._open.append(self._database)
                _take(self._database, fcntl.F_RDLCK, _SHARED)

    def let_go(self) -> None:
        """Say that a store has closed its connection, or made none."""
        with _lock:
            self.users -= 1
            if not self.users and self.pid == os.getpid():
                _kept.pop(self._path, None)
                while self._open:
                    os.close(self._open.pop())


# Locks and descriptors are a process's, whoever asks for them in it.
_lock = allocate_lock()
_kept: dict[str, Kept] = {}


def of(path: str) -> Kept:
    """Returns what is kept of a database's files, for one more store until it lets go.

    Args:
        path: of the database.
    """
    with _lock:
        kept = _kept.get(path)
        if kept is None or kept.pid != os.getpid():
            kept = _kept[path] = Kept(path)
        kept.users += 1
        return kept


def _is(descriptor: int, path: str) -> bool:
    """Whether a descriptor is of the file that is there now."""
    try:
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _share(index: int, path: str, seconds: float) -> None:
    import time  # noqa: PLC0415 - where room is scarce

    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        if _take(index, fcntl.F_WRLCK, _SWITCH):  # nobody is there
            _begin(index, path)
            _take(index, fcntl.F_RDLCK, _SWITCH)
            return
        # Who is about to make it may be killed before it has.
        if _holder(index) != fcntl.F_WRLCK and _take(index, fcntl.F_RDLCK, _SWITCH):
            return
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{path}-shm: locked by another process for {seconds:.0f} seconds",
                "look for a stopped or hanging ketch process (lslocks)",
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _begin(index: int, path: str) -> None:
    """Make the index one that whoever reads it will make anew, of blocks that it has."""
    # It grows by a part for each 4,000 pages of the log, which are read when it is made.
    try:
        log_bytes = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        log_bytes = 0
    size_bytes = _INDEX_BYTES * (1 + log_bytes // _LOG_PART_BYTES)
    status = os.fstat(index)
    if status.st_size == size_bytes and status.st_blocks * 512 >= size_bytes:
        os.pwrite(index, bytes(_HEADER_BYTES), 0)
        return
    os.ftruncate(index, min(status.st_size, size_bytes))
    offset = 0
    while offset < size_bytes:  # a disk that is nearly full takes a part
        offset += os.pwrite(index, bytes(size_bytes - offset), offset)


def _take(descriptor: int, how: int, where: tuple[int, int]) -> bool:
    """Lock a part of a file; returns whether nobody had it."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(how, where))
    except (BlockingIOError, PermissionError):  # POSIX allows for both
        return False
    return True


def _holder(index: int) -> int:
    """Returns how the switch is held by others."""
    import struct  # noqa: PLC0415 - likewise

    found = fcntl.fcntl(index, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, _SWITCH))
    how: int = struct.unpack_from("h", found)[0]
    return how


def _flock(how: int, where: tuple[int, int]) -> bytes:
    """Returns a struct flock, of fcntl(2)."""
    import struct  # noqa: PLC0415 - likewise

    return struct.pack("hhqqixxxx", how, os.SEEK_SET, *where, 0)
