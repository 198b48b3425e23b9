"""The memory of a process in a file, so that those it forks can give back pages that are as before.

A page that a forked process writes to is its own from then on, and mostly that was for nothing: to
use an object is to count its users up and down again, after which the page reads as it did. An
anonymous page cannot be shared once more with the process that it came from. A page of a file can,
by madvise(2). So who is going to fork many puts what it can write to into a file without a name,
mapped privately at the same addresses, and processes that are about to wait for long compare their
copies with that.

Neither can be done in Python, which writes to the very memory while it does so. It is done by some
470 bytes of machine code that write to nothing but their stack, and to what they find emptied:
memory that has been freed since, and mapped anew, is the file's no more, though it may read like
it. Where there are none for the machine, or the kernel refuses, all stays as it is.
"""

import ctypes
import errno
import fcntl
import math
import os
import select
import time

from ketch.errors import SyscallError
from ketch.linux import libc, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# scripts/memory_image_x86_64.s
_X86_64 = bytes.fromhex(
    "534154415541564889fb4989f44989d531c04d85e474624531f64c89ef488b334c01f6488b53084c29f274"
    "1f4c8b53104d01f2b8120000000f054901c64885c07fd848c7c0fbffffffeb2e488b3b488b7308ba030000"
    "0041ba120000004d89e84c8b4b10b8090000000f05483b0375094883c32049ffcceb97415e415d415c5bc3"
    "66662e0f1f8400000000000f1f4000535541544155415641574881ec280800004889fb4889f54989cf4889"
    "9424000800004c898424080800004c898c24100800004885ed0f84d80000004531e4488b43084c29e00f84"
    "bc00000031d249f7f748c1e00341bd000800004c39e84c0f42e8488b034c01e031d249f7f748c1e0034989"
    "c2488bbc24000800004889e64c89eab8110000000f054c39e80f85820000004531f64d39ee73a54a8b0434"
    "488b334c01e6488b7b184c01e74d01fc4983c608480fbae03f73dc480fbae03d72d54989f04989f94c89f9"
    "48c1e903f348a775c34c89c74c89feba04000000b81c0000000f054c89c74c89ce4c89f948c1e903f348a7"
    "749f4c89c74c89ce4c89f948c1e903f348a5eb8d4883c32048ffcde91fffffff31c0488bbc240808000048"
    "85ff74158bb424100800008b942414080000b8070000000f054881c428080000415f415e415d415c5d5bc3"
)
# By machine: the code, and where its second function begins.
_CODE = {"x86_64": (_X86_64, 0x90)}

_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_ANONYMOUS = 0x2, 0x20
_MADV_POPULATE_READ = 22  # since Linux 5.14
# <linux/fcntl.h>
_F_ADD_SEALS = 1033
_NO_MORE_CHANGES = 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write
_FOREVER_MS = -1
_HAS_PAGE = 1 << 63 | 1 << 62  # present, or swapped: proc_pid_pagemap(5)
_APART_PAGES = 16
# VmFlags of proc_pid_smaps(5): readable and writable; and what such memory may be besides, namely
# made so by mprotect(2), accounted for, written since (soft-dirty), with or without huge pages. A
# stack grows down; some is wiped or left out when the process forks, locked, shared or droppable.
_WRITABLE = {"rd", "wr"}
_ORDINARY = _WRITABLE | {"mr", "mw", "me", "ac", "sd", "nr", "hg", "nh"}

_libc = ctypes.PyDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
)  # fmt: skip
_mprotect = libc.function("mprotect", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

# The file's two functions; what they take and return stands there.
_Keep = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_int)
_Restore = ctypes.PYFUNCTYPE(
    ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_long, ctypes.c_void_p,
    ctypes.c_long,
)  # fmt: skip


class _Polled(ctypes.Structure):
    """A struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("found", ctypes.c_short))


class Image:
    """What a process could write to when it was taken, in a file; empty until then.

    It is handed on by fork(2). Where the machine has no code, or the kernel lets none be loaded, it
    stays empty, and nothing is given back.
    """

    __slots__ = ("_count", "_keep", "_page_bytes", "_regions", "_restore")

    def __init__(self) -> None:
        self._count = 0
        self._regions = (ctypes.c_uint64 * 0)()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._keep: Callable[..., int] | None = None
        self._restore: Callable[..., int] | None = None

    def load(self) -> None:
        """Load the machine code, which works on an empty image as well, to no effect."""
        known = _CODE.get(libc.MACHINE)
        if known is None:
            return
        code, restore = known
        try:
            place = _map(len(code), _PROT_READ | _PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS, -1)
            ctypes.memmove(place, code, len(code))
            _mprotect("machine code", place, len(code), _PROT_READ | _PROT_EXEC)
        except SyscallError:  # as SELinux has it, unless told otherwise
            return
        self._keep, self._restore = _Keep(place), _Restore(place + restore)

    def take(self) -> None:
        """Put what the calling process can write to, but for its stack, into the image, once.

        The process has no other thread. What it maps later is no part of the image; nor is anything
        where the code is not loaded.
        """
        if self._keep is None:
            return
        keep, self._keep = self._keep, None
        try:
            ranges = [*_written()]
            file = os.memfd_create("ketch-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return
        size_bytes = sum(end - begin for begin, end in ranges)
        words: list[int] = []
        try:
            os.ftruncate(file, size_bytes)
            place = _map(size_bytes, _PROT_READ, _MAP_PRIVATE, file)
            offset = 0
            for begin, end in ranges:
                words += (begin, end - begin, offset, place + offset)
                offset += end - begin
            regions = (ctypes.c_uint64 * len(words))(*words)
            # A handler of Python's would write between the copy and its mapping.
            held = signals.pthread_sigmask(signals.SIG_BLOCK, signals.valid_signals())
            failed = keep(regions, len(ranges), file)
            signals.pthread_sigmask(signals.SIG_SETMASK, held)
            # Whoever may open what another process has mapped (proc_pid_map_files(5)) is to find
            # nothing to change there.
            fcntl.fcntl(file, _F_ADD_SEALS, _NO_MORE_CHANGES)
        except OSError:
            return
        finally:
            os.close(file)
        if failed:  # no memory: what is mapped by then is so for good, and reads as it did
            return
        self._regions, self._count = regions, len(ranges)
        for begin, end in ranges:  # or each process would do that for itself, page by page
            _madvise(begin, end - begin, _MADV_POPULATE_READ)

    def restore(self) -> None:
        """Give back those pages of the calling process that read as they do in the image."""
        if self._restore is not None:
            self._do(None, 0)

    def wait(
        self, awaited: "Iterable[tuple[int, int]]", timeout_ms: int | None = None
    ) -> list[tuple[int, int]]:
        """Wait for descriptors as ``select.poll`` does, in as little memory as that takes.

        Args:
            awaited: descriptors, and the events to wait for.
            timeout_ms: how long that may take; None for ever.

        Returns:
            Descriptors, and the events that there are.
        """
        if self._restore is None:
            poll = select.poll()
            for descriptor, events in awaited:
                poll.register(descriptor, events)
            return poll.poll(timeout_ms)
        polled = [_Polled(descriptor, events) for descriptor, events in awaited]
        array = (_Polled * len(polled))(*polled)
        until = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        left_ms = _FOREVER_MS if timeout_ms is None else timeout_ms
        while (result := self._do(array, len(polled) | left_ms << 32)) == -errno.EINTR:
            if until is not None:
                left_ms = max(0, math.ceil((until - time.monotonic()) * 1000))
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return [(each.fd, each.found) for each in array if each.found]

    def _do(self, polled: "ctypes.Array[_Polled] | None", how: int) -> int:
        assert self._restore is not None
        try:
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # then nothing is given back
            pagemap = -1
        result = self._restore(self._regions, self._count, pagemap, self._page_bytes, polled, how)
        if pagemap >= 0:
            os.close(pagemap)
        return result


def _map(size_bytes: int, protection: int, flags: int, file: int) -> int:
    place: int | None = _mmap(None, size_bytes, protection, flags, file, 0)
    if place is None or place == ctypes.c_void_p(-1).value:
        raise SyscallError(ctypes.get_errno(), "mmap", "memory")
    return place


def _written() -> "Iterator[tuple[int, int]]":
    """Where the calling process has memory of its own that it can write to: proc_pid_smaps(5).

    But for memory that is more than that: a fork that finds its parent's there, and not nothing,
    draws the same numbers from getrandom(2), whose state glibc keeps so from 2.41 on.
    """
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        area = ""
        for line in lines:
            name, *words = line.split()
            if not name.endswith(":"):
                area = name
            elif name == "VmFlags:" and _WRITABLE <= set(words) <= _ORDINARY:
                begin, end = (int(each, 16) // page_bytes for each in area.split("-"))
                pagemap.seek(begin * 8)
                entries = memoryview(pagemap.read((end - begin) * 8)).cast("Q")
                for first, last in _runs(entries):
                    yield (begin + first) * page_bytes, (begin + last) * page_bytes


def _runs(entries: memoryview) -> "Iterator[tuple[int, int]]":
    """Where there are pages, by an entry for each; pure. What lies close together is one run."""
    first = last = -_APART_PAGES
    for number, entry in enumerate(entries):
        if entry & _HAS_PAGE:
            if number - last >= _APART_PAGES:
                if first >= 0:
                    yield first, last
                first = number
            last = number + 1
    if first >= 0:
        yield first, last
