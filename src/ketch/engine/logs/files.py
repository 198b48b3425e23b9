"""The files of a log: one that grows, and older ones that it was turned over to.

``container.log`` becomes ``container.log.1`` and so on, or ``container.log.1.gz`` where they are
compressed, and the oldest goes, so that no program can fill the disk by talking. Compressing is
left to a child process, since a container must not wait for it; where the next file is full before
the child is done, the older one stays as it is.
"""

import contextlib
import errno
import os
import signal

from ketch.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from ketch.spec.log_drivers import Rotation

    class Form(Protocol):
        """What entries of a log look like."""

        def entry(self, text: bytes) -> bytes:
            """Returns an entry of our own, on standard error and of now."""

        def count(self, pieces: Sequence[bytes]) -> int:
            """Returns how many entries some pieces are."""


_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOENT}
_LOST_TEXT = b"ketch: %d entries of this log were lost here, for want of room on its disk"
# An attribute of the log's directory: it takes no block of a full disk, and lasts as the log does.
_LOST_ATTRIBUTE = "user.ketch.lost"
_COPY_BYTES = 64 * 1024
_GZIP = 31  # zlib's window bits for a gzip header and trailer
_NICE = 10


class Files:
    """The files of one log, for its only writer.

    Args:
        path: the current file; what it holds stays.
        rotation: how they are bounded.
        form: what entries look like.

    Attributes:
        lost: how many entries could not be written since the log last told of any.
        lost_bytes: how much could not be written, because the disk was full or the directory gone.
        last: the last byte of what was there, or nothing.
    """

    __slots__ = (
        "_compressor", "_descriptor", "_form", "_path", "_rotation", "_size_bytes", "_uncounted",
        "last", "lost", "lost_bytes",
    )  # fmt: skip

    def __init__(self, path: str, rotation: "Rotation", form: "Form") -> None:
        self._path = path
        self._form = form
        self.lost = 0
        self._rotation = rotation
        self._compressor = 0
        self._uncounted = 0
        self.lost_bytes = 0
        self._descriptor = _open(path)
        self._size_bytes = os.fstat(self._descriptor).st_size
        self.last = os.pread(self._descriptor, 1, max(0, self._size_bytes - 1))

    def append(self, pieces: "Sequence[bytes]", size_bytes: int) -> None:
        """Write entries, all or none; of any that were lost before the log tells first.

        Args:
            pieces: whole entries, in any number of pieces.
            size_bytes: of the pieces together.
        """
        told = self.lost
        try:
            if self._size_bytes >= self._rotation.max_size_bytes:
                self._turn_over()
            if told:
                pieces = (self._form.entry(_LOST_TEXT % told), *pieces)
                size_bytes = sum(map(len, pieces))
            written = os.writev(self._descriptor, pieces)
            if written < size_bytes:
                rest = b"".join(pieces)
                while written < size_bytes:
                    written += os.write(self._descriptor, rest[written:])
        except OSError as error:
            if error.errno not in _LOST:
                raise
            # Neither a full disk nor a directory that somebody removed may stop the container:
            # what does not fit is lost, whole entries.
            os.ftruncate(self._descriptor, self._size_bytes)
            pieces = pieces[1:] if told else pieces
            entries = self._form.count(pieces)
            self.lost += entries
            self._count(entries)
            self.lost_bytes += sum(map(len, pieces))
        else:
            self._size_bytes += size_bytes
            self.lost -= told
            if self._uncounted:
                self._count(0)

    def _count(self, entries: int) -> None:
        """Count entries that were lost where others look; later, where that cannot be now."""
        self._uncounted += entries
        directory = os.path.dirname(self._path)
        with contextlib.suppress(OSError):
            count = lost(directory) + self._uncounted
            os.setxattr(directory, _LOST_ATTRIBUTE, b"%d" % count)
            self._uncounted = 0

    def truncate(self, size_bytes: int) -> None:
        """Take away what a writer that was killed left unfinished at the end."""
        os.ftruncate(self._descriptor, size_bytes)
        self._size_bytes = size_bytes

    def close(self) -> None:
        """Let go of the current file; a compression that is under way goes on by itself."""
        if self.lost:
            self.append((), 0)
        self._reap(wait=False)
        os.close(self._descriptor)

    def _turn_over(self) -> None:
        """Give the current file a number and begin another; readers follow by inode."""
        self._stop_compressor()
        # Made first, so that a full disk leaves everything as it is.
        fresh = _open(f"{self._path}.new")
        try:
            os.ftruncate(fresh, 0)
            self._renumber()
        except BaseException:
            os.close(fresh)
            raise
        os.close(self._descriptor)
        self._descriptor, self._size_bytes = fresh, 0
        if self._rotation.compress and self._rotation.max_files > 1:
            self._compress()

    def _renumber(self) -> None:
        for number in range(self._rotation.max_files - 2, -1, -1):
            for suffix in ("", ".gz") if number else ("",):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(
                        f"{numbered(self._path, number)}{suffix}",
                        f"{numbered(self._path, number + 1)}{suffix}",
                    )
                    other = "" if suffix else ".gz"
                    os.unlink(f"{numbered(self._path, number + 1)}{other}")
        os.rename(f"{self._path}.new", self._path)

    def _compress(self) -> None:
        path = f"{self._path}.1"
        # A fork is a copy of a monitor: whatever happens in it, it must not go on as one.
        try:
            pid = os.fork()
        except OSError:  # no memory, no process: it stays as it is
            return
        if pid:
            self._compressor = pid
            return
        status = 1
        try:
            # It holds none of the container's streams, or their ends would not be seen.
            process.close_all_but(set())
            compress(path)
            status = 0
        finally:
            os._exit(status)

    def _stop_compressor(self) -> None:
        if self._compressor and not self._reap(wait=False):
            os.kill(self._compressor, signal.SIGKILL)
            self._reap(wait=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}.1.tmp")

    def _reap(self, *, wait: bool) -> bool:
        """Forget a compressor that has ended; returns whether it has."""
        if not self._compressor:
            return True
        try:
            if os.waitpid(self._compressor, 0 if wait else os.WNOHANG)[0] == 0:
                return False
        except ChildProcessError:
            pass  # somebody else has waited for it
        self._compressor = 0
        return True


def lost(directory: str) -> int:
    """Returns how many entries of the log in a directory were ever lost for want of room."""
    try:
        return int(os.getxattr(directory, _LOST_ATTRIBUTE))
    except (OSError, ValueError):  # none, or a file system without attributes
        return 0


def compress(path: str) -> None:
    """Put a compressed file, ``path.gz``, in the place of a plain one."""
    import zlib  # noqa: PLC0415 - in a process of its own, if at all

    os.nice(_NICE)
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    with open(path, "rb", 0) as source, open(f"{path}.tmp", "wb", 0) as target:
        os.fchmod(target.fileno(), 0o640)
        while block := source.read(_COPY_BYTES):
            target.write(packer.compress(block))
        target.write(packer.flush())
        status = os.fstat(source.fileno())
        os.utime(target.fileno(), ns=(status.st_mtime_ns,) * 2)
    # The container may have been started again meanwhile, and its log turned over.
    if os.path.samestat(status, os.stat(path)):
        os.rename(f"{path}.tmp", f"{path}.gz")
        os.unlink(path)


def numbered(path: str, number: int) -> str:
    """Returns the name of a log's file: 0 is the current one, higher numbers are older."""
    return f"{path}.{number}" if number else path


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
