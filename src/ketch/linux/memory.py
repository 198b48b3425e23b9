"""Pages that a process shares with those it forks: proc_pid_pagemap(5), madvise(2)."""

import ctypes
import errno
import mmap
import os

from ketch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MADV_POPULATE_WRITE = 23  # Linux 5.14

_ENTRY_BYTES = 8
# Of the last byte of an entry: there, and mapped by nobody else, so a copy of one's own.
_OWN = 0x81
_IS_OWN = bytes(value & _OWN == _OWN for value in range(256))
# Between two pages to be copied one is copied too, rather than the kernel asked once more.
_GAP_PAGES = 1

_madvise = libc.function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Written:
    """Which pages of a process those that it forks come to write to, as these have found.

    What a fork shares is copied a page at a time, by a fault at the first write to each. One who
    knows which pages that will be can have them copied beforehand, and all with less ado.

    It is made in the process that forks, whose memory must not be mapped otherwise afterwards.

    Args:
        times: how many of those that it forks are to look.
    """

    __slots__ = ("_found", "_mappings", "_times")

    def __init__(self, times: int) -> None:
        self._mappings = tuple(_writable())
        self._times = times
        # Shared with all that are forked: how many have looked, then a byte for each page.
        self._found = mmap.mmap(-1, 1 + sum(count for _, count in self._mappings))

    def note(self) -> None:
        """Find which pages the calling process, a forked one, has written to by now."""
        if self._found[0] >= self._times:
            return
        own = bytearray()
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            for start, count in self._mappings:
                entries = os.pread(
                    file.fileno(), count * _ENTRY_BYTES, start // mmap.PAGESIZE * _ENTRY_BYTES
                )
                last = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
                own += last.translate(_IS_OWN).ljust(count, b"\0")
        known = int.from_bytes(self._found[1:], "big") | int.from_bytes(own, "big")
        self._found[1:] = known.to_bytes(len(own), "big")
        self._found[0] += 1

    def copy(self) -> None:
        """Give the calling process, a forked one, its own copy of what others have written to.

        Before Linux 5.14 nothing is copied.
        """
        first = 1
        for start, count in self._mappings:
            for index, length in _runs(self._found[first : first + count]):
                try:
                    _madvise(
                        "", start + index * mmap.PAGESIZE, length * mmap.PAGESIZE,
                        _MADV_POPULATE_WRITE,
                    )  # fmt: skip
                except OSError as error:
                    if error.errno == errno.EINVAL:  # an older kernel
                        return
                    # Else there is no memory, or none of that kind there any more: by itself then.
            first += count


def _writable() -> "Iterator[tuple[int, int]]":
    """Address and number of pages of each private mapping that can be written to."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        lines = file.read().splitlines()
    for line in lines:
        place, rights, _ = line.split(" ", 2)
        if rights == "rw-p":
            start, _, end = place.partition("-")
            yield int(start, 16), (int(end, 16) - int(start, 16)) // mmap.PAGESIZE


def _runs(marks: bytes) -> "Iterator[tuple[int, int]]":
    """Index and length of each row of marked bytes, two with no more than a gap between as one."""
    index = marks.find(1)
    while index >= 0:
        end = index + 1
        while (following := marks.find(1, end, end + _GAP_PAGES + 1)) >= 0:
            end = following + 1
        yield index, end - index
        index = marks.find(1, end)
