r"""A container's log: Docker's json-file format, written by its monitor, read by anybody.

One JSON object a line::

    {"log":"text of one line\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}

A line of more than 16 KiB is cut into entries without a newline, as Docker does. Bytes that are
not UTF-8 are written as lone surrogates (U+DC80 and on), which other readers show as U+FFFD, the
same as Docker stores, and from which our reader gets the exact bytes back.

The file turns over at a size: ``ID-json.log`` becomes ``ID-json.log.1`` and so on, and the oldest
goes, so that no program can fill the disk by talking.
"""

import contextlib
import errno
import itertools
import json
import os
import time

from ketch.errors import InvalidArgumentError
from ketch.spec.timestamps import SECOND_NS, moment, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What Docker's `local` driver allows; its json-file driver, by default, grows for ever.
MAX_SIZE_BYTES = 20 * 1024 * 1024
MAX_FILES = 5

_LINE_BYTES_MAX = 16 * 1024
_BLOCK_BYTES = 256 * 1024  # more than an entry can have
_TRIES = 20

# Twice as fast as json.loads, which first guesses an encoding.
_raw_decode = json.JSONDecoder().raw_decode

_HEAD = b'{"log":"'
# The backslash comes first, since the others bring new ones; newlines are dealt with at the end.
_COMMON = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"))
_RARE_CODES = bytes(code for code in range(32) if code not in b"\t\n\r")
_ALL = (*_COMMON, *((bytes([code]), b"\\u%04x" % code) for code in _RARE_CODES))


def log_path(directory: str, container_id: str) -> str:
    """Where a container's log is, in its directory."""
    return f"{directory}/{container_id}-json.log"


class Writer:
    """Writes a container's log; its only writer.

    Args:
        path: the current file; what it holds stays.
        max_size_bytes: size at which a file is turned over.
        max_files: how many files may exist, the current one included.
    """

    __slots__ = (
        "_descriptor", "_max_files", "_max_size_bytes", "_partial", "_path", "_second",
        "_second_text", "_size_bytes", "lost_bytes",
    )  # fmt: skip

    def __init__(
        self, path: str, *, max_size_bytes: int = MAX_SIZE_BYTES, max_files: int = MAX_FILES
    ) -> None:
        self._path = path
        self._max_size_bytes = max_size_bytes
        self._max_files = max_files
        self._partial = {"stdout": b"", "stderr": b""}
        self._second, self._second_text = -1, ""
        self.lost_bytes = 0
        self._descriptor = _open(path)
        self._size_bytes = os.fstat(self._descriptor).st_size
        if self._size_bytes and os.pread(self._descriptor, 1, self._size_bytes - 1) != b"\n":
            # The last writer was killed amid an entry: no good entry shall hang on to its half.
            self._append(b"\n")

    def write(self, stream: str, data: bytes, time_ns: int) -> None:
        """Log what a container wrote.

        The start of a line is kept until its end arrives.

        Args:
            stream: ``stdout`` or ``stderr``.
            data: the bytes as they were read.
            time_ns: when, in nanoseconds since the epoch.
        """
        data = self._partial[stream] + data
        tail = self._tail(stream, time_ns)
        entries = []
        start = 0
        while start < len(data):
            # Lines that end within the next 16 KiB cannot be too long themselves.
            end = data.rfind(b"\n", start, start + _LINE_BYTES_MAX) + 1
            if end:
                entries.append(_encode(data[start : end - 1], b"\\n" + tail))
            elif len(data) - start >= _LINE_BYTES_MAX:
                end = start + _LINE_BYTES_MAX
                entries.append(_encode(data[start:end], tail))
            else:
                break
            start = end
        self._partial[stream] = data[start:]
        if entries:
            self._append(b"".join(entries))

    def close(self, time_ns: int) -> None:
        """Log the lines that were begun, and close the file."""
        for stream, data in self._partial.items():
            if data:
                self._append(_encode(data, self._tail(stream, time_ns)))
        os.close(self._descriptor)

    def _tail(self, stream: str, time_ns: int) -> bytes:
        """Returns what ends an entry, its newline included."""
        second, nanosecond = divmod(time_ns, SECOND_NS)
        if second != self._second:
            self._second, self._second_text = second, rfc3339(second * SECOND_NS).removesuffix("Z")
        fraction = f".{nanosecond:09d}".rstrip("0") if nanosecond else ""
        return f'","stream":"{stream}","time":"{self._second_text}{fraction}Z"}}\n'.encode()

    def _append(self, entries: bytes) -> None:
        try:
            if self._size_bytes >= self._max_size_bytes:
                self._turn_over()
            written = os.write(self._descriptor, entries)
            while written < len(entries):
                written += os.write(self._descriptor, entries[written:])
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOENT}:
                raise
            # Neither a full disk nor a directory that somebody removed may stop the container:
            # what does not fit is lost, whole entries.
            os.ftruncate(self._descriptor, self._size_bytes)
            self.lost_bytes += len(entries)
        else:
            self._size_bytes += len(entries)

    def _turn_over(self) -> None:
        """Give the current file a number and begin another; readers follow by inode."""
        # Made first, so that a full disk leaves everything as it is.
        fresh = _open(f"{self._path}.new")
        os.ftruncate(fresh, 0)
        for number in range(self._max_files - 2, -1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(_numbered(self._path, number), _numbered(self._path, number + 1))
        os.rename(f"{self._path}.new", self._path)
        os.close(self._descriptor)
        self._descriptor, self._size_bytes = fresh, 0


class Reader:
    """Reads a container's log, across the files that it was turned over to.

    Args:
        path: the current file.
    """

    __slots__ = ("_files", "_offset", "_path", "_time", "_time_ns")

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: list[int] = []  # the one being read, and newer ones
        self._offset = 0
        self._time, self._time_ns = "", 0

    def entries(
        self,
        *,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        ended: "Callable[[], bool] | None" = None,
    ) -> "Iterator[tuple[str, bytes, int]]":
        """Read entries, oldest first.

        What is not an entry, such as the half of one that a killed writer left, is passed over.

        Args:
            tail: how many entries from the end to begin at; None for all. It counts before
                ``since_ns`` and ``until_ns`` choose.
            since_ns: leave out what is older, in nanoseconds since the epoch.
            until_ns: stop at what is newer.
            ended: says whether nothing more will be written; then new entries are waited for
                until it does. Without it, what is there now is read.

        Yields:
            ``(stream, data, time_ns)``; data ends with a newline unless its line goes on.
        """
        try:
            for stream, data, time_ns in self._all(tail, until_ns, ended):
                if until_ns is not None and time_ns > until_ns:
                    return
                if since_ns is None or time_ns >= since_ns:
                    yield stream, data, time_ns
        finally:
            _close(self._files)

    def _all(
        self, tail: int | None, until_ns: int | None, ended: "Callable[[], bool] | None"
    ) -> "Iterator[tuple[str, bytes, int]]":
        self._files = _open_all(self._path)
        self._offset = 0
        if tail is not None:
            index, self._offset = _tail_start(self._files, tail)
            _close(self._files, index)
        pause_seconds = 0.0
        while True:
            # In this order: what was written before the end, or before the file was turned over,
            # is in the file by the time it is read.
            last = ended is None or ended() or (until_ns is not None and time.time_ns() > until_ns)
            if len(self._files) <= 1:
                self._look_for_newer()
            before = self._offset
            for line in self._lines():
                entry = self._decode(line)
                if entry is not None:
                    yield entry
            if len(self._files) > 1:
                _close(self._files, 1)
                self._offset = 0
            elif last:
                return
            else:
                idle = self._offset == before
                pause_seconds = min(0.1, pause_seconds + 0.01) if idle else 0.01
                time.sleep(pause_seconds)

    def _lines(self) -> "Iterator[bytes]":
        """Read whole lines up to the end of the file at hand."""
        if not self._files:
            return
        file = self._files[0]
        if os.fstat(file).st_size < self._offset:
            self._offset = 0  # somebody emptied it
        while block := os.pread(file, _BLOCK_BYTES, self._offset):
            end = block.rfind(b"\n") + 1
            if not end and len(block) < _BLOCK_BYTES:
                return  # still being written, or never finished
            self._offset += end or len(block)
            yield from block[:end].splitlines()

    def _decode(self, line: bytes) -> tuple[str, bytes, int] | None:
        try:
            entry = _raw_decode(line.decode())[0]
            text: str = entry["log"]
            # Lines that were read together have one time, and reading that is most of the work.
            if entry["time"] != self._time:
                self._time, self._time_ns = entry["time"], moment(entry["time"], 0)
            return entry["stream"], text.encode("utf-8", "surrogateescape"), self._time_ns
        except (ValueError, KeyError, TypeError, AttributeError, InvalidArgumentError):
            return None

    def _look_for_newer(self) -> None:
        """Open what came after our file, if it is no longer the current one."""
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return  # not made yet, being turned over, or removed with its container
        if not self._files:
            self._files = _open_all(self._path)
            return
        ours = os.fstat(self._files[0])
        if not os.path.samestat(ours, current):
            found = _open_all(self._path)
            position = next(
                (n for n, file in enumerate(found) if os.path.samestat(ours, os.fstat(file))), -1
            )
            _close(found, position + 1)
            self._files += found


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def _numbered(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path


def _close(files: list[int], count: int | None = None) -> None:
    """Close the first files and take them off the list."""
    for file in files[:count]:
        os.close(file)
    del files[:count]


def _open_all(path: str) -> list[int]:
    """Open all files of a log as they were at one moment, oldest first."""
    for _ in range(_TRIES):
        files: list[int] = []
        with contextlib.suppress(FileNotFoundError):
            for number in itertools.count():
                files.insert(0, os.open(_numbered(path, number), os.O_RDONLY | os.O_CLOEXEC))
        # Turning over always exchanges the current file: while it stays, all of them do.
        try:
            if files and os.path.samestat(os.fstat(files[-1]), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        if not files and not os.path.exists(_numbered(path, 1)):
            break
        _close(files)
        time.sleep(0.001)
    return files


def _tail_start(files: list[int], count: int) -> tuple[int, int]:
    """Returns the file and the offset in it where the last ``count`` lines begin."""
    for index in range(len(files) - 1, -1, -1):
        end = os.fstat(files[index]).st_size
        while end > 0:
            start = max(0, end - _BLOCK_BYTES)
            block = os.pread(files[index], end - start, start)
            found = block.count(b"\n")
            if found > count:
                at = len(block)
                for _ in range(count + 1):
                    at = block.rfind(b"\n", 0, at)
                return index, start + at + 1
            count -= found
            end = start
        if count == 0:
            return index, 0
    return 0, 0


def _encode(data: bytes, tail: bytes) -> bytes:
    """Encode bytes as JSON entries, a new one after each newline.

    A whole block at once, by replacing, runs ten times as fast as a call for each line.

    Args:
        data: what was read; its last newline, if any, is in the tail.
        tail: what ends an entry, from the text's closing quote on.
    """
    # Looking for each of the rare codes is quick in a long text, looking for any in a short one.
    rare = len(data) > 2048 or len(data.translate(None, _RARE_CODES)) < len(data)
    for plain, escaped in _ALL if rare else _COMMON:
        data = data.replace(plain, escaped)
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace")
    return _HEAD + data.replace(b"\n", tail + _HEAD) + tail
