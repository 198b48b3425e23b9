"""What builds keep of what they fetched, for those that come after: ``ROOT/build-cache``.

    git/NAME/        a repository's files at one commit, as they were checked out
    http/NAME/       what a URL answered, and how to ask whether that still holds
    session/NAME/    what a client's directory held, so that only what changed is sent

Nothing of it is needed: whoever finds it in use by somebody else, or gone, fetches anew. An entry
is locked by its own directory, flock(2): together by those who read it, alone by who changes or
removes it; the kernel drops the lock with the process, however that ends. What is published was
made whole elsewhere and is renamed.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from typing import NamedTuple

from ketch.linux import descent
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

GIT, HTTP, SESSION = "git", "http", "session"
KINDS = (GIT, HTTP, SESSION)

_TRIES = 8
_PAUSE_SECONDS = 0.005
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVED = ".removing-"


class Entry(NamedTuple):
    """Something that is kept.

    Attributes:
        kind: of the module's constants.
        name: of its directory.
        size_bytes: what it takes of the disk.
        used_ns: when it was used last.
        in_use: whether a build has it now.
    """

    kind: str
    name: str
    size_bytes: int
    used_ns: int
    in_use: bool


class Kept:
    """All that is kept.

    Args:
        root: the directory, made when something is kept.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def find(self, kind: str, key: str, scope: contextlib.ExitStack) -> int | None:
        """Take what is kept to read it.

        Args:
            kind: what it is.
            key: what tells it from others; any text.
            scope: until its end nobody changes or removes it.

        Returns:
            Descriptor of its directory, of the scope; None where nothing is kept, or it is being
            changed.
        """
        return self._take(kind, _name(key), scope, fcntl.LOCK_SH)

    def alone(self, kind: str, key: str, scope: contextlib.ExitStack) -> int | None:
        """Take what is kept to change it, as ``find`` does; it is made where it is missing.

        Raises:
            OSError: it cannot be made.
        """
        path = f"{self._folder(kind)}/{_name(key)}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        return self._take(kind, _name(key), scope, fcntl.LOCK_EX)

    def publish(self, kind: str, key: str, path: str) -> bool:
        """Keep a directory, in place of what is kept.

        Args:
            kind: what it is.
            key: what tells it from others.
            path: of the directory, which goes from there.

        Returns:
            Whether it is kept; it stays where it is if not: somebody reads what it would replace,
            or it is on another file system.
        """
        name = _name(key)
        self.remove(kind, name)
        try:
            os.rename(path, f"{self._folder(kind)}/{name}")
        except OSError:
            return False
        return True

    def entries(self) -> list[Entry]:
        """Returns what is kept, that which was used longest ago first."""
        found = []
        for kind in KINDS:
            for name in self._names(kind):
                path = f"{self._root}/{kind}/{name}"
                if name.startswith(_REMOVED):
                    with contextlib.suppress(OSError):
                        remove_tree(path)  # whoever was at it was killed
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        size_bytes = descent.usage(path)[1]
                        in_use = _is_locked(path)
                        found.append(Entry(kind, name, size_bytes, status.st_mtime_ns, in_use))
        return sorted(found, key=lambda entry: entry.used_ns)

    def remove(self, kind: str, name: str) -> bool:
        """Remove what is kept.

        Args:
            kind: what it is.
            name: of its directory.

        Returns:
            Whether it is gone; not where somebody uses it.

        Raises:
            OSError: it is gone for everybody, but not all of its files.
        """
        path = f"{self._root}/{kind}/{name}"
        aside = f"{self._root}/{kind}/{_REMOVED}{os.urandom(8).hex()}"
        with contextlib.ExitStack() as scope:
            if self._take(kind, name, scope, fcntl.LOCK_EX) is None:
                return not os.path.lexists(path)
            os.rename(path, aside)
        remove_tree(aside)
        return True

    def _folder(self, kind: str) -> str:
        """Returns the directory of a kind, made closed to others where it is missing."""
        path = f"{self._root}/{kind}"
        for each in (self._root, path):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, 0o700)
        return path

    def _take(self, kind: str, name: str, scope: contextlib.ExitStack, lock: int) -> int | None:
        path = f"{self._root}/{kind}/{name}"
        for _ in range(_TRIES):
            try:
                directory = os.open(path, _DIRECTORY)
            except OSError:
                return None
            try:
                fcntl.flock(directory, lock | fcntl.LOCK_NB)
                # Whoever removed it meanwhile had the lock, and what is there now is another.
                if os.path.samestat(os.stat(path), os.fstat(directory)):
                    os.utime(directory)
                    scope.callback(os.close, directory)
                    return directory
            except BlockingIOError:
                time.sleep(_PAUSE_SECONDS)  # whoever merely looks is done by then
            except FileNotFoundError:
                pass
            os.close(directory)
        return None

    def _names(self, kind: str) -> list[str]:
        try:
            return os.listdir(f"{self._root}/{kind}")
        except (FileNotFoundError, NotADirectoryError):
            return []


def _is_locked(path: str) -> bool:
    with owned(os.open(path, _DIRECTORY)) as directory:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write(directory: int, name: str, content: bytes) -> None:
    """Write a small file of an entry that is being made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with owned(os.open(name, flags, 0o600, dir_fd=directory)) as file:
        os.write(file, content)


def _name(key: str) -> str:
    """Returns the directory's name: keys may be long, and hold names of hosts and repositories."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:40]
