"""Reading a container's log across the files that it was turned over to, as it grows.

A follower sleeps until the kernel tells it (inotify) that something was written.
"""

import contextlib
import itertools
import json
import os
import tempfile
import time
import zlib

from ketch.engine.logs import local
from ketch.engine.logs.files import numbered
from ketch.engine.processes import ENDLESS, Patience
from ketch.errors import InvalidArgumentError
from ketch.linux import inotify
from ketch.spec.timestamps import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Protocol

    Entry = tuple[int, str, bytes, dict[str, str]]

    class Format(Protocol):
        """How entries are written."""

        def split(self, block: bytes) -> tuple[list[bytes], int]:
            """Take whole entries from a block; returns them, and how many bytes they take up."""

        def decode(self, entry: bytes) -> Entry | None:
            """Read an entry; None where it is none."""

        def tail_start(self, file: int, size_bytes: int, count: int) -> tuple[int, int]:
            """Find where the last entries of a file begin, and how many of them there are."""


_BLOCK_BYTES = 256 * 1024  # more than an entry can have
_TRIES = 20
_GZIP = 31
_LONGEST_WAIT_MS = 1000
_WITHOUT_INOTIFY_MS = 50

# Twice as fast as json.loads, which first guesses an encoding.
_raw_decode = json.JSONDecoder().raw_decode


class JsonFile:
    """Docker's json-file format; see ``json_file``."""

    __slots__ = ("_time", "_time_ns")

    def __init__(self) -> None:
        self._time, self._time_ns = "", 0

    def split(self, block: bytes) -> tuple[list[bytes], int]:
        """Take whole lines from a block."""
        end = block.rfind(b"\n") + 1
        if not end and len(block) == _BLOCK_BYTES:
            return [], len(block)  # whatever that is, it is no entry
        return block[:end].splitlines(), end

    def decode(self, entry: bytes) -> "Entry | None":
        """Read a line."""
        try:
            found = _raw_decode(entry.decode())[0]
            text: str = found["log"]
            # Lines that were read together have one time, and reading that is most of the work.
            if found["time"] != self._time:
                self._time, self._time_ns = found["time"], moment(found["time"], 0)
            data = text.encode("utf-8", "surrogateescape")
            return self._time_ns, found["stream"], data, found.get("attrs") or {}
        except (ValueError, KeyError, TypeError, AttributeError, InvalidArgumentError):
            return None

    def tail_start(self, file: int, size_bytes: int, count: int) -> tuple[int, int]:
        """Find where the last lines of a file begin."""
        end, found = size_bytes, 0
        while end > 0 and count > 0:
            start = max(0, end - _BLOCK_BYTES)
            block = os.pread(file, end - start, start)
            lines = block.count(b"\n")
            if found + lines > count:
                at = len(block)
                for _ in range(count - found + 1):
                    at = block.rfind(b"\n", 0, at)
                return start + at + 1, count
            found += lines
            end = start
        return (0, found) if count else (size_bytes, 0)


class Local:
    """Docker's local format; see ``local``."""

    __slots__ = ()

    def split(self, block: bytes) -> tuple[list[bytes], int]:
        """Take whole records from a block; of what is damaged, nothing."""
        try:
            return local.split(block)
        except ValueError:
            return [], len(block)

    def decode(self, entry: bytes) -> "Entry | None":
        """Read a record."""
        try:
            stream, data, time_ns = local.decode(entry)
        except ValueError:
            return None
        return time_ns, stream, data, {}

    def tail_start(self, file: int, size_bytes: int, count: int) -> tuple[int, int]:
        """Find where the last records of a file begin."""
        return local.tail_start(file, size_bytes, count)


class _File:
    """One file of a log, open; a compressed one is unpacked at its first use."""

    __slots__ = ("_descriptor", "_packed", "_plain", "offset", "status")

    def __init__(self, path: str) -> None:
        self._packed = path.endswith(".gz")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._plain: int | None = None if self._packed else self._descriptor
        self.status = os.fstat(self._descriptor)
        self.offset = 0

    @property
    def plain(self) -> int:
        """Its content, by a descriptor."""
        if self._plain is None:
            with (
                os.fdopen(os.dup(self._descriptor), "rb") as source,
                tempfile.TemporaryFile() as target,
            ):
                source.seek(0)
                unpacker = zlib.decompressobj(_GZIP)
                with contextlib.suppress(zlib.error):  # what is whole of a damaged file
                    while block := source.read(_BLOCK_BYTES):
                        target.write(unpacker.decompress(block))
                target.flush()
                self._plain = os.dup(target.fileno())
        return self._plain

    @property
    def size_bytes(self) -> int:
        """How much content it has now."""
        return os.fstat(self.plain).st_size

    def is_same(self, other: "_File") -> bool:
        """Whether this is the other file, or what that was compressed to."""
        if os.path.samestat(self.status, other.status):
            return True
        # The compressor gives its file the time of the original.
        mine = os.fstat(self._descriptor).st_mtime_ns
        return self._packed != other._packed and mine == os.fstat(other._descriptor).st_mtime_ns

    def close(self) -> None:
        """Close it."""
        if self._plain is not None and self._plain != self._descriptor:
            os.close(self._plain)
        os.close(self._descriptor)


class Reader:
    """Reads a container's log.

    Args:
        path: the current file.
        form: how its entries are written.
    """

    __slots__ = ("_files", "_form", "_path")

    def __init__(self, path: str, form: "Format") -> None:
        self._path = path
        self._form = form
        self._files: list[_File] = []  # the one being read, and newer ones

    def entries(
        self,
        *,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        ended: "Callable[[], bool] | None" = None,
        end_descriptor: int | None = None,
        patience: Patience = ENDLESS,
    ) -> "Iterator[Entry]":
        """Read entries, oldest first.

        What is not an entry, such as the half of one that a killed writer left, is passed over.

        Args:
            tail: how many entries from the end to begin at; None for all. It counts before
                ``since_ns`` and ``until_ns`` choose.
            since_ns: leave out what is older, in nanoseconds since the epoch.
            until_ns: stop at what is newer.
            ended: says whether nothing more will be written; then new entries are waited for
                until it does. Without it, what is there now is read.
            end_descriptor: becomes readable when ``ended`` is worth asking again.
            patience: how the caller waits.

        Yields:
            Nanoseconds since the epoch; ``stdout`` or ``stderr``; data, which ends with a newline
            unless its line goes on; what the entry tells besides (labels, variables, tag).
        """
        with contextlib.ExitStack() as held:
            held.callback(self._close, None)
            # Watched before it is read, so that nothing is missed between the two.
            wait = self._watch(held, end_descriptor, patience) if ended is not None else None
            for entry in self._chosen(tail, since_ns, until_ns, ended, wait):
                if entry is not None:
                    yield entry

    def polled(
        self,
        ended: "Callable[[], bool]",
        *,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> "Generator[Entry | None, None, None]":
        """Read entries as ``entries`` does, for a caller that has its own way of waiting.

        Yields:
            Entries, and None wherever ``entries`` would wait for more.
        """
        try:
            yield from self._chosen(tail, since_ns, until_ns, ended, None)
        finally:
            self._close(None)

    def _chosen(
        self,
        tail: int | None,
        since_ns: int | None,
        until_ns: int | None,
        ended: "Callable[[], bool] | None",
        wait: "Callable[[int], object] | None",
    ) -> "Iterator[Entry | None]":
        for entry in self._all(tail, until_ns, ended, wait):
            if entry is None:
                yield None
                continue
            if until_ns is not None and entry[0] > until_ns:
                return
            if since_ns is None or entry[0] >= since_ns:
                yield entry

    def _all(
        self,
        tail: int | None,
        until_ns: int | None,
        ended: "Callable[[], bool] | None",
        wait: "Callable[[int], object] | None",
    ) -> "Iterator[Entry | None]":
        self._files = _open_all(self._path)
        if tail is not None:
            self._skip_to_tail(tail)
        last = ended is None
        while True:
            if len(self._files) <= 1:
                self._look_for_newer()
            more = False
            for raw in self._raw():
                more = True
                entry = self._form.decode(raw)
                if entry is not None:
                    yield entry
            if len(self._files) > 1:
                self._close(1)
            elif last:
                return
            elif not more:
                # In this order: what was written before the end is in the file by the next look.
                now_ns = time.time_ns()
                last = (ended is not None and ended()) or (
                    until_ns is not None and now_ns > until_ns
                )
                if not last and wait is None:
                    yield None
                elif not last and wait is not None:
                    left_ms = _LONGEST_WAIT_MS
                    if until_ns is not None:
                        left_ms = min(left_ms, (until_ns - now_ns) // 1_000_000 + 1)
                    wait(left_ms)

    def _watch(
        self, held: contextlib.ExitStack, end_descriptor: int | None, patience: Patience
    ) -> "Callable[[int], object]":
        """Returns a function that waits, so many milliseconds at most, for something to read."""
        try:
            queue = inotify.Inotify()
            held.callback(queue.close)
            events = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_DELETE
            queue.watch(os.path.dirname(self._path), events)
        except OSError:  # too many watches, or no log yet
            return lambda milliseconds: patience.wait(min(milliseconds, _WITHOUT_INOTIFY_MS))

        def wait(milliseconds: int) -> None:
            patience.wait(milliseconds, queue.fileno(), end_descriptor)
            queue.forget()

        return wait

    def _raw(self) -> "Iterator[bytes]":
        """Read whole entries up to the end of the file at hand."""
        if not self._files:
            return
        file = self._files[0]
        if file.size_bytes < file.offset:
            file.offset = 0  # somebody emptied it
        while block := os.pread(file.plain, _BLOCK_BYTES, file.offset):
            found, taken = self._form.split(block)
            if not taken:
                return  # still being written, or never finished
            file.offset += taken
            yield from found

    def _skip_to_tail(self, count: int) -> None:
        for index in range(len(self._files) - 1, -1, -1):
            file = self._files[index]
            file.offset, found = self._form.tail_start(file.plain, file.size_bytes, count)
            count -= found
            if count == 0:
                self._close(index)
                return

    def _look_for_newer(self) -> None:
        """Open what came after our file, if it is no longer the current one."""
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return  # not made yet, being turned over, or removed with its container
        if not self._files:
            self._files = _open_all(self._path)
            return
        ours = self._files[0]
        if not os.path.samestat(ours.status, current):
            found = _open_all(self._path)
            position = next((n for n, file in enumerate(found) if file.is_same(ours)), -1)
            for file in found[: position + 1]:
                file.close()
            self._files += found[position + 1 :]

    def _close(self, count: int | None) -> None:
        """Close the first files and take them off the list."""
        for file in self._files[:count]:
            file.close()
        del self._files[:count]


def _open_all(path: str) -> list[_File]:
    """Open all files of a log as they were at one moment, oldest first."""
    for _ in range(_TRIES):
        files: list[_File] = []
        for number in itertools.count():
            try:
                files.insert(0, _open(numbered(path, number), packed=number > 0))
            except FileNotFoundError:
                break
        # Turning over always exchanges the current file: while it stays, all of them do.
        try:
            if files and os.path.samestat(files[-1].status, os.stat(path)):
                break
        except FileNotFoundError:
            pass
        if not files and not os.path.exists(numbered(path, 1)):
            break
        for file in files:
            file.close()
        time.sleep(0.001)
    return files


def _open(path: str, *, packed: bool) -> _File:
    try:
        return _File(path)
    except FileNotFoundError:
        if not packed:
            raise
    return _File(f"{path}.gz")
