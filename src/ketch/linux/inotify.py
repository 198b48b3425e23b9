"""Being told what happens to files: inotify(7)."""

import ctypes
import os

from ketch.linux import libc

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_ISDIR = 0x40000000

_BUFFER_BYTES = 64 * 1024

_init = libc.function("inotify_init1", ctypes.c_int)
_add = libc.function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Inotify:
    """A queue of events, close-on-exec and never blocking; to be closed."""

    __slots__ = ("_descriptor",)

    def __init__(self) -> None:
        self._descriptor = _init("a queue", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Returns the descriptor, readable as soon as something has happened."""
        return self._descriptor

    def watch(self, path: str, events: int) -> int:
        """Ask to be told of a file, or of what happens in a directory.

        Returns:
            The watch's number, the same for the same file or directory.

        Raises:
            SyscallError: ENOENT where it is not there; ENOSPC when the user has too many watches.
        """
        return _add(f"of {path}", self._descriptor, os.fsencode(path), events)

    def read(self) -> bytes:
        """Take events off the queue, as the kernel writes them; nothing where there are none."""
        try:
            return os.read(self._descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return b""

    def forget(self) -> bool:
        """Take the events there are off the queue; returns whether there were any."""
        found = False
        try:
            while read := len(os.read(self._descriptor, _BUFFER_BYTES)):
                found = True
                if read < _BUFFER_BYTES:
                    break
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        """Close the queue."""
        os.close(self._descriptor)
