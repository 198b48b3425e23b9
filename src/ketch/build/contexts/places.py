"""What a build has unpacked and fetched while it goes on: directories in its own place."""

import contextlib
import os
import threading

from ketch.errors import UnavailableError


class Places:
    """Makes directories for what is fetched; they go with the build's place.

    Args:
        path: directory of the build, closed to others.
        scope: at whose end the descriptors are closed.
    """

    def __init__(self, path: str, scope: contextlib.ExitStack) -> None:
        self._path = path
        self._scope = scope
        self._lock = threading.Lock()
        self._count = 0

    def make(self, purpose: str) -> tuple[str, int]:
        """Make an empty directory, 0755 as a context's root is for whoever copies it.

        Args:
            purpose: what for, part of its name.

        Returns:
            Its path, and its descriptor for reading, which is closed at the scope's end.

        Raises:
            UnavailableError: it cannot be made: the disk is full or failing.
        """
        with self._lock:
            self._count += 1
            path = f"{self._path}/{purpose}-{self._count}"
        try:
            os.mkdir(path, 0o755)
            directory = self.open(path)
            os.fchmod(directory, 0o755)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UnavailableError(f"cannot make {path}: {reason}") from error
        return path, directory

    def open(self, path: str) -> int:
        """Open a directory until the scope's end."""
        return self.hold(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def hold(self, descriptor: int) -> int:
        """Have a descriptor closed at the scope's end; returns it."""
        self._scope.callback(os.close, descriptor)
        return descriptor

    @property
    def room_bytes(self) -> int:
        """How much the file system has left."""
        facts = os.statvfs(self._path)
        return facts.f_bavail * facts.f_frsize
