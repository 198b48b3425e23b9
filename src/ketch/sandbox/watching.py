"""What happens to a sandbox's files, as it happens: inotify(7) on directories beneath its root."""

import os
import posixpath
import struct
from typing import TYPE_CHECKING, Literal, NamedTuple

from ketch.errors import InvalidArgumentError, NotFoundError, SyscallError
from ketch.linux import contested, inotify, openat2, procfs
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.library.container import Container

_DIRECTORIES_MAX = 4096
_EVENTS = (
    inotify.IN_CREATE | inotify.IN_CLOSE_WRITE | inotify.IN_DELETE | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO | inotify.IN_ONLYDIR
)  # fmt: skip
_EVENT = struct.Struct("iIII")
_LOOK_MS = 500  # between two looks whether the sandbox is still there
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class FileEvent(NamedTuple):
    """Something that happened to a file or directory.

    Attributes:
        kind: ``created``, ``written`` (who wrote has closed it), ``removed``, or ``lost``: so much
            happened that some of it is not told, and the directory is to be read anew.
        path: what, absolute. What was moved is removed, and created elsewhere.
    """

    kind: 'Literal["created", "written", "removed", "lost"]'
    path: str


def watch(container: "Container", where: str, *, recursive: bool) -> "Iterator[FileEvent]":
    """Yield what happens in a directory; see ``Files.watch``."""
    places = container._places
    record = places.engine.containers.find(container.id)
    queue = inotify.Inotify()
    try:
        with owned(os.open(f"/proc/{record.init_pid}/root", os.O_PATH | os.O_CLOEXEC)) as root:
            if not procfs.is_running(record.init_pid, record.init_start_time):
                raise NotFoundError(f"{where}: the sandbox has ended")
            watched: dict[int, str] = {}
            _add(queue, root, where, watched, recursive=recursive)
            place = _place(root, where)
            while procfs.is_running(record.init_pid, record.init_start_time):
                places.patience.wait(_LOOK_MS, queue.fileno())
                now = _place(root, where)
                is_running = procfs.is_running(record.init_pid, record.init_start_time)
                if is_running and now != place:
                    # Something else is there: what a fork has laid over it, for instance.
                    queue.close()
                    queue, watched, place = inotify.Inotify(), {}, now
                    _add(queue, root, where, watched, recursive=recursive, missing_is_fine=True)
                    yield FileEvent("lost", where)
                for number, happened, name in _events(queue.read()):
                    yield from _told(queue, root, watched, number, happened, name, where, recursive)
    except FileNotFoundError as error:
        raise NotFoundError(f"{where}: the sandbox has ended") from error
    finally:
        queue.close()


def _place(root: int, where: str) -> tuple[int, int] | None:
    """What is there, by device and inode."""
    try:
        with owned(openat2.openat2(root, where, os.O_PATH)) as place:
            status = os.fstat(place)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _events(data: bytes) -> "Iterator[tuple[int, int, bytes]]":
    """Of each event the watch's number, what happened, and the name."""
    while data:
        number, happened, _, length = _EVENT.unpack_from(data)
        end = _EVENT.size + length
        yield number, happened, data[_EVENT.size : end].rstrip(b"\0")
        data = data[end:]


def _told(
    queue: inotify.Inotify, root: int, watched: dict[int, str], number: int, happened: int,
    name: bytes, where: str, recursive: bool,
) -> "Iterator[FileEvent]":  # fmt: skip
    if happened & inotify.IN_Q_OVERFLOW:
        yield FileEvent("lost", where)
    if happened & inotify.IN_IGNORED:
        watched.pop(number, None)
    if number not in watched or not name:
        return
    path = posixpath.join(watched[number], os.fsdecode(name))
    if happened & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
        yield FileEvent("removed", path)
    elif happened & (inotify.IN_CREATE | inotify.IN_MOVED_TO):
        yield FileEvent("created", path)
        if recursive and happened & inotify.IN_ISDIR:
            # What was made in it before it is watched is told of now.
            found = _add(queue, root, path, watched, recursive=True, missing_is_fine=True)
            yield from (FileEvent("created", one) for one in found)
    elif happened & inotify.IN_CLOSE_WRITE:
        yield FileEvent("written", path)


def _add(
    queue: inotify.Inotify, root: int, where: str, watched: dict[int, str], *, recursive: bool,
    missing_is_fine: bool = False,
) -> list[str]:  # fmt: skip
    """Watch a directory, and those below; returns what is in them."""
    found: list[str] = []
    waiting = [where]
    while waiting:
        path = waiting.pop()
        try:
            directory = openat2.openat2(root, path, _OPEN)
        except SyscallError as error:
            if missing_is_fine or path != where:
                continue
            raise NotFoundError(
                f"{where}: {os.strerror(error.errno or 0).lower()}", "a directory can be watched"
            ) from error
        with owned(directory):
            if len(watched) >= _DIRECTORIES_MAX:
                raise InvalidArgumentError(f"{where} has more than {_DIRECTORIES_MAX} directories")
            watched[queue.watch(os.fsdecode(contested.path(directory)), _EVENTS)] = path
            if recursive:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        found.append(posixpath.join(path, entry.name))
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(found[-1])
    return found
