"""Which machine a process believes itself on: personality(2)."""

import ctypes

from ketch.linux import libc

DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}

_personality = libc.function("personality", ctypes.c_ulong)


def personality(domain: str) -> None:
    """Set the caller's execution domain; LINUX32 makes uname(2) tell of a 32-bit machine."""
    _personality(domain, DOMAINS[domain])
