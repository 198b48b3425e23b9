"""Copy descriptors out of whoever enters this container, with CAP_SYS_PTRACE; print their names.

usage: take_descriptors.py STOP: ends when the file STOP exists.
"""

import contextlib
import ctypes
import json
import os
import sys

SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
libc = ctypes.CDLL(None, use_errno=True)
own = str(os.getpid())
found: set[str] = set()


def take(pid: str) -> None:
    """Copy every descriptor of a process that is still its maker's copy."""
    with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
        if not file.read().startswith("ketch"):
            return
    pidfd = libc.syscall(SYS_PIDFD_OPEN, int(pid), 0)
    for number in range(64):
        taken = libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
        if taken >= 0:
            found.add(os.readlink(f"/proc/self/fd/{taken}"))
            os.close(taken)
    os.close(pidfd)


print("watching", file=sys.stderr, flush=True)
while not os.path.exists(sys.argv[1]):
    for entry in os.listdir("/proc"):
        if entry.isdigit() and entry != own:
            with contextlib.suppress(OSError):
                take(entry)
print(json.dumps(sorted(found)))
