"""Who lives in the user's namespaces: found in /proc, where no holder is there to say."""

import os

from ketch.linux.scopes import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def find(network: str) -> int | None:
    """Find a process of the engine in namespaces that a killed holder has left.

    Its mount namespace has the network's where the holder has put it: an inode number alone may by
    now be that of somebody else's namespace.

    Args:
        network: where the network namespace is mounted.

    Returns:
        A pidfd, which the caller owns; None where nobody is left.
    """
    own = _place("self", "mnt")
    seen = {own}
    for pid in _pids():
        place = _place(pid, "mnt")
        if place is None or place in seen:
            continue
        seen.add(place)
        with suppress(OSError):
            pidfd = os.pidfd_open(int(pid))
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
                mounted = any(_is_network(line, network) for line in file)
            if mounted and _place(pid, "mnt") == place:
                return pidfd
            os.close(pidfd)
    return None


def resident() -> int | None:
    """Find another process that lives in the caller's user namespace, or in one below it.

    Returns:
        A pidfd, which the caller owns; None where nobody does.
    """
    own = os.stat("/proc/self/ns/user")
    for pid in _pids():
        if pid == str(os.getpid()):
            continue
        with suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{pid}/ns/user"), own):
                return os.pidfd_open(int(pid))
    return None


def _is_network(line: str, path: str) -> bool:
    fields = line.split(" ")
    return fields[4] == _escaped(path) and " - nsfs " in line


def _escaped(path: str) -> str:
    """Returns a path as mountinfo has it: proc_pid_mountinfo(5)."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path


def _place(pid: str, kind: str) -> tuple[int, int] | None:
    try:
        status = os.stat(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _pids() -> "Iterator[str]":
    return (name for name in os.listdir("/proc") if name.isdigit())
