"""How the C library keeps memory that Python has freed: mallopt(3), malloc_trim(3)."""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_libc = ctypes.PyDLL(None)


def give_back_beyond(size_bytes: int) -> None:
    """Have freed memory go back to the kernel, but for so many bytes at the end of the heap.

    By itself glibc keeps up to twice the largest block that was ever freed (at most 64 MiB), which
    is for ever in a process that has had a busy minute. Other C libraries are left as they are.

    Args:
        size_bytes: what may be kept; larger blocks are mapped, each by itself.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, size_bytes)
        mallopt(_M_TRIM_THRESHOLD, size_bytes)


def trim() -> None:
    """Give all whole pages that are free back to the kernel, also those amid the heap."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
