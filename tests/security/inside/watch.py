"""Watch for processes that enter this container, and try to lay hands on each before its execve.

usage: watch.py STOP: ends when the file STOP exists; prints what was seen, denied and got.
"""

import contextlib
import ctypes
import json
import os
import sys

PTRACE_SEIZE = 0x4206
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def name_of(pid: str) -> str:
    """Return a process's name: its maker's until it has become a program of its own."""
    with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
        return file.read().strip()


def called(number: int) -> int:
    """Return a system call's result, or raise what it failed with."""
    if number < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return number


def trace(pid: str) -> object:
    """Attach to the process as a debugger does; in a child, whose end lets go of it again."""
    child = os.fork()
    if child == 0:
        os._exit(libc.ptrace(PTRACE_SEIZE, int(pid), None, None) != 0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError
    return "attached"


def take_descriptors(pid: str) -> object:
    """Copy descriptors out of the process; those at work for ketch are above 2."""
    pidfd = called(libc.syscall(SYS_PIDFD_OPEN, int(pid), 0))
    try:
        taken = called(libc.syscall(SYS_PIDFD_GETFD, pidfd, 3, 0))
        return os.readlink(f"/proc/self/fd/{taken}")
    finally:
        os.close(pidfd)


def read(path: str) -> object:
    """Read the beginning of a file of the process."""
    with open(path, "rb") as file:
        return len(file.read(64))


ATTEMPTS = {
    "exe": lambda pid: os.close(os.open(f"/proc/{pid}/exe", os.O_RDONLY)),
    "fd": lambda pid: os.readlink(f"/proc/{pid}/fd/{os.listdir(f'/proc/{pid}/fd')[-1]}"),
    "cwd": lambda pid: os.listdir(f"/proc/{pid}/cwd"),
    "root": lambda pid: os.listdir(f"/proc/{pid}/root"),
    "environ": lambda pid: read(f"/proc/{pid}/environ"),
    "maps": lambda pid: read(f"/proc/{pid}/maps"),
    "mem": lambda pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
    "ptrace": trace,
    "pidfd_getfd": take_descriptors,
}


def lay_hands_on(pid: str, known: set[str]) -> None:
    """Try everything once on a process that is still its maker's copy."""
    name = name_of(pid)
    if name in known:
        return
    seen.add(f"{pid} {name}")
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        words = file.read().strip("\0")
    if name_of(pid) == name:
        called_with.add(words)
    for what, attempt in ATTEMPTS.items():
        try:
            result = attempt(pid)
        except PermissionError:
            if name_of(pid) == name:
                denied[what] = denied.get(what, 0) + 1
            continue
        if name_of(pid) == name:  # else it was the program already, which is the container's own
            got[what] = str(result)


seen: set[str] = set()
called_with: set[str] = set()
denied: dict[str, int] = {}
got: dict[str, str] = {}
stop, *own_names = sys.argv[1:]
own = str(os.getpid())
print("watching", file=sys.stderr, flush=True)
while not os.path.exists(stop):
    for entry in os.listdir("/proc"):
        if entry.isdigit() and entry != own:
            with contextlib.suppress(OSError, IndexError):  # it has ended
                lay_hands_on(entry, set(own_names))
print(json.dumps({"seen": len(seen), "denied": denied, "got": got,
                  "words": sorted(called_with)}))  # fmt: skip
