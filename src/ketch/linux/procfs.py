"""Facts about processes and the machine from /proc: proc(5)."""

import os


def process_start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process.

    With the pid it names a process for good: a reused pid has another start time.

    Source: proc_pid_stat(5), field 22.
    """
    return _field(pid, 22)


def process_session(pid: int) -> int | None:
    """The session of a process, by its leader's pid; None when there is no such process.

    Source: proc_pid_stat(5), field 6; credentials(7).
    """
    return _field(pid, 6)


def _field(pid: int, number: int) -> int | None:
    """A number of a process's status, None of one that has ended: proc_pid_stat(5).

    Raises:
        OSError: there are no more descriptors, or no memory: that says nothing of the process.
    """
    try:
        # By system calls: a file object asks three more, and lists ask of a thousand processes.
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    # The last of another user's that has the number now, where /proc hides these (hidepid).
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The program's name, the second, is in parentheses, and may hold spaces and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else int(fields[number - 3])


def is_running(pid: int, start_time: int) -> bool:
    """Whether the process that had this pid and start time is still alive (a zombie is not)."""
    return pid > 0 and process_start_time(pid) == start_time


def boot_id() -> str:
    """The identifier that the kernel draws anew at each boot: random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def unescape(field: str) -> str:
    r"""Undo mountinfo's octal escapes (``\040`` for a space): proc_pid_mountinfo(5)."""
    if "\\" not in field:
        return field
    parts = field.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])


def is_mount_point(path: str, process: str = "thread-self") -> bool:
    """Whether something is mounted at a path, as a process sees it.

    Args:
        path: resolved as the caller sees it.
        process: its pid; the calling thread unless given.

    Raises:
        OSError: there is no such process.
    """
    place = os.path.realpath(path)
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(unescape(line.split()[4]) == place for line in mounts)


def umask(place: str) -> int | None:
    """The umask of a process, or thread; None where the kernel does not tell, before 4.7.

    Args:
        place: its directory in /proc.
    """
    with open(f"{place}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return None
