"""The spare that a zygote keeps: a monitor, and the helper that this one has forked."""

import contextlib
import os
import pathlib
import signal
import time

NAME = "ketch-spare"


def of(zygote: int) -> list[int]:
    """Find the spare that a zygote has: pids of its monitor and its helper; empty where none is."""
    for monitor in children(zygote):
        if name(monitor) == NAME:
            for helper in children(monitor):
                if name(helper) == NAME:
                    return [monitor, helper]
    return []


def awaited(zygote: int) -> list[int]:
    """Wait for the spare that a zygote makes once nobody comes any more."""
    deadline = time.monotonic() + 30
    while not (found := of(zygote)):
        assert time.monotonic() < deadline, "there is no spare"
        time.sleep(0.01)
    return found


def kill(zygote: int) -> None:
    """Kill a zygote's spare, so that who comes next is served by a process forked for it."""
    found = awaited(zygote)
    os.kill(found[0], signal.SIGKILL)
    gone(found)


def gone(pids: list[int]) -> None:
    """Wait until processes have ended."""
    deadline = time.monotonic() + 30
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)


def ended(pid: int) -> None:
    """Wait until a process has ended, whether or not its parent has heard of it."""
    deadline = time.monotonic() + 30
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while "State:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii"):
            assert time.monotonic() < deadline, pid
            time.sleep(0.01)


def children(pid: int) -> list[int]:
    """List a process's children; none where it has ended."""
    with contextlib.suppress(OSError):
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in text.split()]
    return []


def name(pid: int) -> str:
    """Name of a process; empty where it has ended."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    return ""
