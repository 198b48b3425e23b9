"""Files that a client sends by fsutil's protocol, made in a directory of ours; what is there stays.

The sender is hostile: every name must be one below the directory, its parent a directory that was
told of just before, and nothing is told of twice. The way down is walked by descriptors, so that no
symlink is ever followed. A file is asked for unless one of the same size, time and mode is there;
what was not told of goes. A file's time is set when it is whole, so that half of one is never taken
for it the next time. Owners, modes and times of directories come last, from below to above.
"""

import errno
import os
import stat
from collections import deque
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import fsutil, schema
from ketch.api.buildkit.fsutil import Kind, refused
from ketch.errors import InvalidArgumentError, PermissionDeniedError, UnavailableError
from ketch.images import attributes
from ketch.linux import contested, owners, sparse
from ketch.linux.descent import Descent
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRIES_MAX = 5_000_000
TOLD_BYTES_MAX = 256 << 20
"""Of names and attributes that are kept until the end."""
_ASKED_MAX = 32  # files that are being received; fsutil's sender takes 128 requests at once
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_ID_MAX = (1 << 32) - 2
_TIME_MAX_NS = (1 << 63) - 1
_ENTRY_BYTES = 200  # what Python adds to each that is kept


class Receiver:
    """One transfer; a context manager that closes what it has open.

    Args:
        directory: descriptor of the directory to make the files in, which stays the caller's.

    Attributes:
        size_bytes: of what has been received.
        is_finished: whether all is there; what is left to do is to send FIN.
    """

    def __init__(self, directory: int) -> None:
        self.size_bytes = 0
        self.is_finished = False
        self._directory = directory
        self._way = Descent(directory)
        self._path: list[bytes] = []
        self._told: list[set[bytes]] = [set()]
        self._wanted: deque[tuple[int, bytes, Any]] = deque()
        self._asked: dict[int, tuple[int, bytes, Any]] = {}
        self._links: list[tuple[bytes, bytes]] = []
        self._directories: list[tuple[bytes, Any]] = []
        self._last: tuple[bytes, int] | None = None
        self._number = 0
        self._kept_bytes = 0
        self._all_told = False
        self._packet = schema.messages("session").Packet

    def __enter__(self) -> "Receiver":
        """Returns the receiver itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close all of it; files that are not whole stay, and are known by their time."""
        for descriptor, _, _ in self._asked.values():
            os.close(descriptor)
        self._asked.clear()
        self._forget_last()
        self._way.__exit__(*error)

    def take(self, message: bytes) -> bytes:
        """Take a packet; returns those that are to be sent, as they stand in a stream.

        Raises:
            InvalidArgumentError: it is none, or what it says cannot be.
            UnavailableError: the sender failed, or there is no room for a file.
        """
        told = schema.decode(self._packet, message)
        kind = told.type
        if kind == Kind.DATA:
            return self._data(told.ID, told.data)
        if kind == Kind.STAT:
            if not told.HasField("stat"):
                return self._end_of_names()
            with _errors(told.stat.path):
                return self._file(told.stat)
        if kind == Kind.ERR:
            text = told.data[:1000].decode(errors="replace")
            raise UnavailableError(f"the client cannot send its files: {text}")
        if kind == Kind.FIN and self.is_finished:
            return b""
        raise InvalidArgumentError(f"the client sends a packet of kind {kind} amid its files")

    # Names

    def _file(self, told: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        path = told.path
        if self._all_told or self._number > ENTRIES_MAX:
            raise refused(path, "one more than were told of, or than are taken")
        *above, name = fsutil.parts(path)
        self._go_to(above, path)
        if name in self._told[-1]:
            raise refused(path, "told of twice")
        self._told[-1].add(name)
        mode = fsutil.posix_mode(told.mode)
        if told.uid > _ID_MAX or told.gid > _ID_MAX or told.size < 0:
            raise refused(path, "its owner or size cannot be")
        if stat.S_ISREG(mode):
            if told.linkname:
                self._keep(len(path) + len(told.linkname))
                self._links.append((path, told.linkname))
                return b""
            return self._regular(number, path, name, mode, told)
        if stat.S_ISDIR(mode):
            self._make_directory(path, name, told)
        elif stat.S_ISLNK(mode):
            self._make_symlink(path, name, told)
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            self._make_node(name, mode, told)
        # Sockets lead nowhere without whoever listens, and are left out.
        return b""

    def _go_to(self, above: list[bytes], path: bytes) -> None:
        while self._path and self._path != above[: len(self._path)]:
            self._leave()
        if self._path != above:
            raise refused(path, "its directory was not told of just before")

    def _leave(self) -> None:
        self._clean()
        self._path.pop()
        if not self._way.leave():
            raise UnavailableError("the directory that files are received in was moved meanwhile")

    def _clean(self) -> None:
        """Take away what is in the present directory and was not told of."""
        told = self._told.pop()
        directory = self._way.directory
        for name in os.listdir(directory):
            if os.fsencode(name) not in told:
                _remove(directory, os.fsencode(name))

    def _make_directory(self, path: bytes, name: bytes, told: Any) -> None:
        directory = self._way.directory
        existing = _status(directory, name)
        if existing is not None and not stat.S_ISDIR(existing.st_mode):
            _remove(directory, name)
            existing = None
        if existing is None:
            os.mkdir(name, 0o700, dir_fd=directory)
        self._way.enter(name)
        self._path.append(name)
        self._told.append(set())
        self._keep(len(path))
        self._directories.append((path, told))

    def _make_symlink(self, path: bytes, name: bytes, told: Any) -> None:
        directory = self._way.directory
        target = told.linkname
        if not target or len(target) > fsutil.PATH_BYTES_MAX or b"\0" in target:
            raise refused(path, "a symlink that leads nowhere")
        existing = _status(directory, name)
        if existing is not None:
            if stat.S_ISLNK(existing.st_mode) and os.readlink(name, dir_fd=directory) == target:
                return
            _remove(directory, name)
        with owned(contested.symlink(target, name, directory)) as made:
            _describe(contested.path(made), told, 0)

    def _make_node(self, name: bytes, mode: int, told: Any) -> None:
        directory = self._way.directory
        device = 0 if stat.S_ISFIFO(mode) else os.makedev(told.devmajor, told.devminor)
        existing = _status(directory, name)
        if existing is not None:
            if existing.st_mode == mode and existing.st_rdev == device:
                return
            _remove(directory, name)
        kind = stat.S_IFMT(mode) | 0o600
        with owned(contested.node(name, kind, device, directory)) as made:
            _describe(contested.path(made), told, mode)

    # Content

    def _regular(self, number: int, path: bytes, name: bytes, mode: int, told: Any) -> bytes:
        directory = self._way.directory
        existing = _status(directory, name)
        if existing is not None:
            if _is_same(existing, mode, told):
                return b""
            _remove(directory, name)
        if len(self._asked) < _ASKED_MAX:
            return self._ask(number, os.open(name, _NEW, 0o600, dir_fd=directory), path, told)
        self._keep(len(path))
        self._wanted.append((number, path, told))
        return b""

    def _ask(self, number: int, descriptor: int, path: bytes, told: Any) -> bytes:
        self._asked[number] = (descriptor, path, told)
        return fsutil.packet(Kind.REQ, number)

    def _ask_more(self) -> bytes:
        requests = []
        while self._wanted and len(self._asked) < _ASKED_MAX:
            number, path, told = self._wanted.popleft()
            head, _, name = path.rpartition(b"/")
            with _errors(path):
                descriptor = os.open(name, _NEW, 0o600, dir_fd=self._directory_of_wanted(head))
            requests.append(self._ask(number, descriptor, path, told))
        return b"".join(requests)

    def _directory_of_wanted(self, path: bytes) -> int:
        """Open a directory; it stays open until another one is asked for."""
        if self._last is None or self._last[0] != path:
            self._forget_last()
            flags = os.O_PATH | os.O_DIRECTORY
            found = openat2(self._directory, path or b".", flags, resolve=_BENEATH)
            self._last = (path, found)
        return self._last[1]

    def _forget_last(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def _data(self, number: int, data: bytes) -> bytes:
        if number not in self._asked:
            raise InvalidArgumentError(f"the client sends file {number}, which nobody asked for")
        descriptor, path, told = self._asked[number]
        with _errors(path):
            if data:
                self.size_bytes += len(data)
                sparse.append(descriptor, data)
                return b""
            _describe(descriptor, told, fsutil.posix_mode(told.mode))
            del self._asked[number]
            os.close(descriptor)
        return self._ask_more() + self._end_of_files()

    # The end

    def _end_of_names(self) -> bytes:
        if self._all_told:
            raise InvalidArgumentError("the client ends its files twice")
        self._all_told = True
        while self._path:
            self._leave()
        self._clean()
        return self._end_of_files()

    def _end_of_files(self) -> bytes:
        if not self._all_told or self._asked or self._wanted:
            return b""
        for path, target in self._links:
            with _errors(path):
                self._link(path, target)
        for path, told in reversed(self._directories):
            with _errors(path), self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
                _describe(directory, told, fsutil.posix_mode(told.mode))
        self.is_finished = True
        return fsutil.packet(Kind.FIN)

    def _link(self, path: bytes, target: bytes) -> None:
        """Give a file that is there a further name."""
        fsutil.parts(target)
        head, _, name = path.rpartition(b"/")
        with self._opened(target, os.O_PATH) as file, self._opened(head, os.O_PATH) as directory:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise refused(path, "a hard link to what is no file")
            existing = _status(directory, name)
            if existing is not None and os.path.samestat(existing, status):
                return
            if existing is not None:
                _remove(directory, name)
            above, _, last = target.rpartition(b"/")
            with self._opened(above, os.O_PATH) as source:
                os.link(last, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _opened(self, path: bytes, flags: int) -> owned:
        return owned(openat2(self._directory, path or b".", flags, resolve=_BENEATH))

    def _keep(self, size_bytes: int) -> None:
        self._kept_bytes += size_bytes + _ENTRY_BYTES
        if self._kept_bytes > TOLD_BYTES_MAX:
            raise InvalidArgumentError("the client tells of more files than can be remembered")


class _errors:  # noqa: N801 - a phrase
    """Says of what goes wrong in its block which file it went wrong with.

    Args:
        path: the file.
    """

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        shown = os.fsdecode(self._path[:200])
        text = f"the client's file {shown!a}: {error.strerror or error}"
        if error.errno in {errno.EPERM, errno.EACCES}:
            raise PermissionDeniedError(text, "its owner or kind needs root") from error
        raise UnavailableError(text) from error


def _status(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_same(existing: os.stat_result, mode: int, told: Any) -> bool:
    """Whether a file is the one that is told of, by what fsutil's diff.go tells files apart by."""
    return (
        existing.st_mode == mode
        and existing.st_size == told.size
        and existing.st_mtime_ns == told.modTime
        and (existing.st_uid, existing.st_gid) == (told.uid, told.gid)
    )


def _remove(directory: int, name: bytes) -> None:
    status = _status(directory, name)
    if status is None:
        return
    if stat.S_ISDIR(status.st_mode):
        remove_tree(f"/proc/self/fd/{directory}/{os.fsdecode(name)}")
    else:
        os.unlink(name, dir_fd=directory)


def _describe(file: int | bytes, told: Any, mode: int) -> None:
    """Give a file, by descriptor or path in procfs, what is told of it; a symlink has no mode."""
    # In this order: a change of owner takes setuid bits and capabilities away.
    status = os.stat(file)
    if (status.st_uid, status.st_gid) != (told.uid, told.gid):
        owners.give(file, told.uid, told.gid)
    if mode:
        os.chmod(file, stat.S_IMODE(mode))
    if told.xattrs:
        attributes.write(file, dict(_attributes(told)), follow=True)
    time_ns = max(-_TIME_MAX_NS, min(told.modTime, _TIME_MAX_NS))
    os.utime(file, ns=(time_ns, time_ns))


def _attributes(told: Any) -> "Iterator[tuple[bytes, bytes]]":
    for name, value in told.xattrs.items():
        yield name.encode(), value
