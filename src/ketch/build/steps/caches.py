"""Cache mounts: directories that one step leaves to the next, of this build and of others.

    ROOT/build-cache/mounts/KEY/about       JSON: what it is called, when it was made
    ROOT/build-cache/mounts/KEY/N/files     what is mounted; N counts from 0
    ROOT/build-cache/mounts/KEY/N-HEX/      being filled, or removed

An identifier is what a Dockerfile says, so it is never a path: KEY is a digest of it and of all
else that tells caches apart. Who has one locks its directory (flock(2)), shared or alone, by a
descriptor that the step's process has as well: should the caller be killed, the lock is there as
long as the step is. Where one is taken, ``private`` and ``shared`` get another of the same key, and
``locked`` waits, as in BuildKit (solver/llbsolver/mounts).
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator

from ketch.build.graph import Sharing
from ketch.dataclass import dataclass
from ketch.engine.processes import Patience
from ketch.errors import UnavailableError, in_words
from ketch.linux import descent, locks, owners
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PAUSE_MS = 20
_CHANGING_SECONDS = 30
_KEY_DIGITS = 64
_ABOUT = "about"
_ABOUT_BYTES_MAX = 64 * 1024

Fill = Callable[[int], None]
"""Puts a new cache's first content into a directory, given its descriptor."""


@dataclass(frozen=True)
class Wanted:
    """A cache mount that a step asks for.

    Attributes:
        scope: whose it is: caches of one scope are nobody else's.
        id: what the Dockerfile calls it.
        sharing: who may have it while the step has.
        seed: identity of its first content, empty for none.
        mode: permissions of a new one, None for 0755.
        uid: owner of a new one.
        gid: likewise.
    """

    scope: str
    id: str
    sharing: Sharing = Sharing.SHARED
    seed: str = ""
    mode: int | None = None
    uid: int = 0
    gid: int = 0

    @property
    def key(self) -> str:
        """What tells it from all others, as hexadecimal digits."""
        facts = [self.scope, self.id, self.seed, self.mode, self.uid, self.gid]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Held:
    """A cache that is locked.

    Attributes:
        lock: descriptor that has the lock.
        files: descriptor of the directory to be mounted.
    """

    lock: int
    files: int

    def close(self) -> None:
        """Let it go; whoever has been given the descriptors may still have it."""
        os.close(self.files)
        os.close(self.lock)


@dataclass(frozen=True)
class Cache:
    """A cache that is there.

    Attributes:
        name: by which it is removed: ``KEY/N``.
        id: what Dockerfiles call it.
        created_ns: when it was made, nanoseconds since the epoch.
        size_bytes: of the disk that it takes.
        used_ns: when a step last had it.
        in_use: whether a step has it now.
    """

    name: str
    id: str
    created_ns: int
    size_bytes: int
    used_ns: int
    in_use: bool


def take(root: str, wanted: Wanted, patience: Patience, fill: Fill | None = None) -> Held:
    """Lock a cache, which is made where there is none.

    Args:
        root: the engine's directory.
        wanted: which.
        patience: how to wait for one that is taken.
        fill: gives a new one its first content.

    Raises:
        UnavailableError: the disk is full or failing.
    """
    place = f"{root}/build-cache/mounts/{wanted.key}"
    try:
        while True:
            with _kept(place, wanted.id, patience) as directory:
                held = _take(directory, place, wanted, fill)
            if held is not None:
                return held
            patience.wait(_PAUSE_MS)
    except OSError as error:
        raise UnavailableError(f"cache mount {wanted.id}: {in_words(error)}") from error


def listed(root: str) -> Iterator[Cache]:
    """Yield the caches that are there."""
    top = f"{root}/build-cache/mounts"
    for key in _names(top):
        about = _read_about(f"{top}/{key}")
        for number in _numbers(_names(f"{top}/{key}")):
            path = f"{top}/{key}/{number}"
            try:
                with owned(os.open(path, _DIRECTORY)) as lock:
                    in_use = not _lock(lock, fcntl.LOCK_EX)
                    used_ns = os.fstat(lock).st_mtime_ns
            except FileNotFoundError:
                continue
            size_bytes = descent.usage(f"{path}/files")[0]
            yield Cache(f"{key}/{number}", *about, size_bytes, used_ns, in_use)


def remove(root: str, name: str) -> bool:
    """Remove a cache; returns whether nobody has it, and so it is gone.

    Args:
        root: the engine's directory.
        name: from ``listed``.
    """
    key, _, number = name.partition("/")
    top = f"{root}/build-cache/mounts"
    if not _is_key(key) or not number.isdecimal():
        return True
    try:
        with owned(os.open(f"{top}/{key}", _DIRECTORY)) as directory:
            locks.take(directory, fcntl.LOCK_EX, f"{top}/{key}", _CHANGING_SECONDS)
            with owned(os.open(number, _DIRECTORY, dir_fd=directory)) as lock:
                if not _lock(lock, fcntl.LOCK_EX):
                    return False
                aside = f"{number}-{os.urandom(6).hex()}"
                os.rename(number, aside, src_dir_fd=directory, dst_dir_fd=directory)
            remove_tree(f"{top}/{key}/{aside}")
            if not _numbers(os.listdir(directory)):
                remove_tree(f"{top}/{key}")
    except FileNotFoundError:
        pass
    return True


def clean(root: str) -> None:
    """Remove what killed processes were filling or removing."""
    top = f"{root}/build-cache/mounts"
    for key in _names(top):
        with (
            contextlib.suppress(FileNotFoundError),
            owned(os.open(f"{top}/{key}", _DIRECTORY)) as directory,
        ):
            if _lock(directory, fcntl.LOCK_EX):
                for name in os.listdir(directory):
                    if name.startswith(f"{_ABOUT}-"):
                        os.unlink(name, dir_fd=directory)
                    elif "-" in name:
                        remove_tree(f"{top}/{key}/{name}")


@contextlib.contextmanager
def _kept(place: str, identifier: str, patience: Patience) -> Iterator[int]:
    """Open a key's directory, made where it is missing, and keep others from changing it."""
    while True:
        try:
            os.makedirs(place, 0o700, exist_ok=True)
        except FileExistsError:
            if os.path.lexists(place) and not os.path.isdir(place):
                raise
            continue  # removed as it was found there
        with contextlib.suppress(FileNotFoundError), owned(os.open(place, _DIRECTORY)) as directory:
            while not _lock(directory, fcntl.LOCK_EX):
                patience.wait(_PAUSE_MS)
            # Whoever had it may have removed it.
            if os.path.samestat(os.fstat(directory), os.stat(place)):
                if not os.path.exists(f"{place}/{_ABOUT}"):
                    _write_about(place, identifier)
                yield directory
                return


def _take(directory: int, place: str, wanted: Wanted, fill: Fill | None) -> Held | None:
    """Lock one of a key's caches; None where it is to be waited for."""
    how = fcntl.LOCK_SH if wanted.sharing is Sharing.SHARED else fcntl.LOCK_EX
    numbers = _numbers(os.listdir(directory))
    for number in numbers:
        lock = os.open(str(number), _DIRECTORY, dir_fd=directory)
        if _lock(lock, how):
            return _hold(lock)
        os.close(lock)
    if numbers and wanted.sharing is Sharing.LOCKED:
        return None
    number = next(number for number in range(len(numbers) + 1) if number not in numbers)
    _make(place, str(number), wanted, fill)
    lock = os.open(str(number), _DIRECTORY, dir_fd=directory)
    _lock(lock, how)
    return _hold(lock)


def _hold(lock: int) -> Held:
    try:
        os.utime(lock)
        return Held(lock, os.open("files", _DIRECTORY, dir_fd=lock))
    except BaseException:
        os.close(lock)
        raise


def _make(place: str, number: str, wanted: Wanted, fill: Fill | None) -> None:
    """Make a cache, whole or not at all."""
    aside = f"{place}/{number}-{os.urandom(6).hex()}"
    try:
        os.makedirs(f"{aside}/files", 0o700)
        with owned(os.open(f"{aside}/files", _DIRECTORY)) as files:
            if fill is None:
                owners.give(files, wanted.uid, wanted.gid)
                os.fchmod(files, 0o755 if wanted.mode is None else wanted.mode)
            else:
                fill(files)
        os.rename(aside, f"{place}/{number}")
    finally:
        remove_tree(aside)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _write_about(place: str, identifier: str) -> None:
    temporary = f"{place}/{_ABOUT}-{os.urandom(6).hex()}"
    with open(temporary, "x", encoding="utf-8") as file:
        json.dump({"id": identifier, "created_ns": time.time_ns()}, file)
    os.rename(temporary, f"{place}/{_ABOUT}")


def _read_about(place: str) -> tuple[str, int]:
    try:
        with open(f"{place}/{_ABOUT}", encoding="utf-8") as file:
            found = json.loads(file.read(_ABOUT_BYTES_MAX))
        return str(found["id"]), int(found["created_ns"])
    except (OSError, ValueError, KeyError):
        return "", 0


def _numbers(names: list[str]) -> list[int]:
    return sorted(int(name) for name in names if name.isdecimal() and name.isascii())


def _names(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_key(text: str) -> bool:
    return len(text) == _KEY_DIGITS and set(text) <= set("0123456789abcdef")
