"""Files of a directory of ours, sent to a client by fsutil's protocol: what ``--output`` writes.

The directory holds what an image holds, so that nothing in it is trusted: it is walked and opened
by descriptors, and no symlink is followed.
"""

import os
import stat
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import fsutil, schema
from ketch.api.buildkit.fsutil import Kind
from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.images import attributes
from ketch.linux.contested import path as proc_path
from ketch.linux.descent import Descent
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE_BYTES = 128 * 1024
_BATCH_BYTES = 64 * 1024
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_FILE = os.O_RDONLY | os.O_NONBLOCK
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Sender:
    """One transfer.

    Args:
        directory: descriptor of the directory whose files are sent, which stays the caller's.

    Attributes:
        is_finished: whether the client has all that it wants.
    """

    def __init__(self, directory: int) -> None:
        self.is_finished = False
        self._directory = directory
        self._files: dict[int, bytes] = {}
        self._names: dict[tuple[int, int], bytes] = {}
        self._packet = schema.messages("session").Packet

    def names(self) -> "Iterator[bytes]":
        """Yield the packets that tell of the files, as they stand in a stream, many at once."""
        batch = bytearray()
        for number, (path, name, directory) in enumerate(self._walk()):
            with owned(os.open(name, _LOOK, dir_fd=directory)) as file:
                batch += fsutil.packet(Kind.STAT, told=self._told(number, path, file))
            if len(batch) > _BATCH_BYTES:
                yield bytes(batch)
                batch.clear()
        yield bytes(batch) + fsutil.packet(Kind.STAT)

    def take(self, message: bytes) -> "Iterator[bytes]":
        """Take a packet; yield those that are to be sent, as they stand in a stream.

        Raises:
            InvalidArgumentError: it is none that a receiver sends.
            UnavailableError: the receiver failed.
        """
        told = schema.decode(self._packet, message)
        if told.type == Kind.REQ:
            path = self._files.pop(told.ID, None)
            if path is None:
                raise InvalidArgumentError(f"the client asks for file {told.ID}, which is none")
            yield from self._content(told.ID, path)
        elif told.type == Kind.FIN:
            self.is_finished = True
            yield fsutil.packet(Kind.FIN)
        elif told.type == Kind.ERR:
            text = told.data[:1000].decode(errors="replace")
            raise UnavailableError(f"the client cannot write the result: {text}")
        else:
            raise InvalidArgumentError(f"the client sends a packet of kind {told.type}")

    def _walk(self) -> "Iterator[tuple[bytes, bytes, int]]":
        """Yield each file's path, name, and the descriptor of its directory, in fsutil's order."""
        with Descent(self._directory) as way:
            path: list[bytes] = []
            waiting = [iter(sorted(_names(way.directory)))]
            while waiting:
                name = next(waiting[-1], None)
                if name is None:
                    waiting.pop()
                    if waiting:
                        path.pop()
                        if not way.leave():
                            raise UnavailableError("the result's files were moved meanwhile")
                    continue
                status = os.stat(name, dir_fd=way.directory, follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode):
                    continue
                yield b"/".join((*path, name)), name, way.directory
                if stat.S_ISDIR(status.st_mode):
                    way.enter(name)
                    path.append(name)
                    waiting.append(iter(sorted(_names(way.directory))))

    def _told(self, number: int, path: bytes, file: int) -> Any:
        status = os.fstat(file)
        mode = status.st_mode
        told = schema.messages("session").Stat(
            path=path, mode=fsutil.go_mode(mode), uid=status.st_uid, gid=status.st_gid,
            modTime=status.st_mtime_ns,
        )  # fmt: skip
        if stat.S_ISLNK(mode):
            told.linkname = os.readlink(b"", dir_fd=file)
        elif stat.S_ISREG(mode):
            identity = status.st_dev, status.st_ino
            first = self._names.get(identity) if status.st_nlink > 1 else None
            if first is not None:
                told.linkname = first
            else:
                told.size = status.st_size
                self._files[number] = path
                if status.st_nlink > 1:
                    self._names[identity] = path
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            told.devmajor, told.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if not stat.S_ISLNK(mode):
            for name, value in attributes.read(proc_path(file), follow=True).items():
                told.xattrs[name.decode(errors="replace")] = value
        return told

    def _content(self, number: int, path: bytes) -> "Iterator[bytes]":
        with owned(openat2(self._directory, path, _FILE, resolve=_BENEATH)) as file:
            while data := os.read(file, _PIECE_BYTES):
                yield fsutil.packet(Kind.DATA, number, data)
        yield fsutil.packet(Kind.DATA, number)


def _names(directory: int) -> list[bytes]:
    return list(map(os.fsencode, os.listdir(directory)))
