"""What runs in a container: ``top``, which is the host's ps(1) with others' processes left out.

Source: moby, daemon/top_unix.go.
"""

import os
import re
import shutil
import time

from ketch.engine.configuration import cgroup_paths
from ketch.engine.records import events
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    UnavailableError,
    UnsupportedError,
)
from ketch.linux import programs
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.engine.engine import Engine

DEFAULT_ARGUMENTS = "-ef"

# A column that is called PID and is none would let a caller see other processes.
_RENAMED = re.compile(r"\s+(\S+)=\s*(PID\S*)")


def top(engine: "Engine", reference: str, arguments: str = "") -> tuple[list[str], list[list[str]]]:
    """Returns the processes of a running container.

    Args:
        engine: where it is.
        reference: the container.
        arguments: ps's, parted by blanks; ``-ef`` where empty. There must be a column ``PID``.

    Returns:
        The columns' titles, and a row for each process.

    Raises:
        NotFoundError: no such container.
        ConflictError: it does not run.
        InvalidArgumentError: a column is to have another name.
        KetchError: ps does not take the arguments, or there is no column ``PID``.
        UnsupportedError: this host has no ps, and more than the default is asked for.
    """
    arguments = arguments or DEFAULT_ARGUMENTS
    for name, title in _RENAMED.findall(arguments):
        if name != "pid":
            raise InvalidArgumentError(f'specifying "{name}={title}" is not allowed')
    container = engine.containers.find(reference)
    if not container.is_active:
        raise ConflictError(f"container {container.id} is not running")
    if container.status == "restarting":
        raise ConflictError(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    pids = set(cgroup_paths.manager(engine.settings, container).processes())
    if shutil.which("ps") is None:
        if arguments != DEFAULT_ARGUMENTS:
            raise UnsupportedError("this host has no ps", "install procps, or give no options")
        titles, rows = _without_ps(pids)
    else:
        titles, rows = parse(_ps(arguments, pids), pids)
    labels = container.record.get("Config", {}).get("Labels") or {}
    told = {**labels, "image": container.image_reference, "name": container.name}
    with engine.store.transaction() as connection:
        events.record(connection, "container", "top", container.id, told)
    return titles, rows


def _ps(arguments: str, pids: "Collection[int]") -> str:
    words = arguments.split(" ")
    listed = f"-q{','.join(map(str, sorted(pids)))}"
    # Some options (such as f) cannot be used together with q.
    for command in (["ps", *words, listed], ["ps", *words]):
        # It reads the memory of others, for which it waits as long as the kernel has it locked.
        done = programs.ask(command)
        if done.returncode == 0:
            return done.stdout
    reason = (done.stderr.strip().splitlines() or ["it failed"])[0]
    raise KetchError(f"ps: {reason.removeprefix('error: ')}")


def parse(output: str, pids: "Collection[int]") -> tuple[list[str], list[list[str]]]:
    """Take from ps's output what concerns some processes.

    Args:
        output: ps's, the titles first.
        pids: the processes; threads below one of them, whose PID is ``-``, count as well.

    Returns:
        The titles, and a row for each process, of which the last column may have blanks.

    Raises:
        KetchError: there is no column ``PID``.
        UnavailableError: the output makes no sense.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise KetchError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    ours = False
    for line in lines[1:]:
        fields = line.split()
        if not fields:
            continue
        if len(fields) <= column:
            raise UnavailableError(f"unexpected line of ps: {line}")
        if fields[column] != "-":
            pid = decimal(fields[column])
            if pid is None:
                raise UnavailableError(f"Unexpected pid '{fields[column]}'")
            ours = pid in pids
        if ours:
            last = len(titles) - 1
            rows.append([*fields[:last], " ".join(fields[last:])])
    return titles, rows


def _without_ps(pids: "Collection[int]") -> tuple[list[str], list[list[str]]]:
    """The same as ``ps -ef`` shows, from proc(5)."""
    titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    rows = []
    for pid in sorted(pids):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                words = file.read().rstrip("\0").split("\0")
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            continue  # it has just ended
        fields = rest.split()
        used = (int(fields[11]) + int(fields[12])) // ticks
        age = max(1.0, uptime - int(fields[19]) / ticks)
        began = time.localtime(time.time() - age)
        command = " ".join(words) or f"[{name}]"
        rows.append(
            [
                str(uid),
                str(pid),
                fields[1],
                str(int(min(99, used * 100 / age))),
                time.strftime("%H:%M" if age < 86400 else "%b%d", began),
                _terminal(int(fields[4])),
                f"{used // 3600:02d}:{used // 60 % 60:02d}:{used % 60:02d}",
                command,
            ]
        )
    return titles, rows


def _terminal(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    if 136 <= major < 144:  # Unix98 pseudo-terminals, the kernel's devices.txt
        return f"pts/{minor + 256 * (major - 136)}"
    return "?" if device == 0 else f"tty{minor}"
