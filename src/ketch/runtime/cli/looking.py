"""``state``, ``list``, ``ps`` and ``events``: what changes nothing."""

import os
import pwd
import select
import sys
import time

from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.runtime.state import STOPPED, Record, States
from ketch.spec import json_text
from ketch.spec.features import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings

_LIST_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_LIST_WIDTHS = 12
_POLL_SECONDS = 0.5
_UNITS_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip


def state(settings: "Settings", options: "Parsed") -> int:
    """Print a container's state: runtime-spec runtime.md "State", and what runc adds."""
    states = States(settings.root)
    record = states.find(options.arguments[0])
    sys.stdout.write(json_text.dumps_indented(_state(states, record), "  "))
    return 0


def list_(settings: "Settings", options: "Parsed") -> int:
    """Print all containers."""
    form = _form(options)
    states = States(settings.root)
    if not settings.is_default_root:
        os.stat(settings.root)  # the default one is made for the first container
    found = [_state(states, record) | {"owner": _owner(record)} for record in states.all()]
    if options.enabled("quiet"):
        for each in found:
            print(each["id"])
    elif form == "json":
        # Go has no list where nothing was appended.
        print(json_text.dumps(found) if found else "null")
    else:
        keys = ("id", "pid", "status", "bundle", "created", "owner")
        rows = [_LIST_COLUMNS, *(tuple(str(each[key]) for key in keys) for each in found)]
        print(_table(rows))
    return 0


def ps(settings: "Settings", options: "Parsed") -> int:
    """Print a container's processes: their pids, or ps(1) of them."""
    container_id, *arguments = options.arguments
    record = States(settings.root).find(container_id)
    cgroup = record.manager()
    pids = cgroup.processes() if cgroup is not None and cgroup.exists() else []
    if cgroup is None and record.is_alive():
        pids = [record.pid]
    if _form(options) == "json":
        print(json_text.dumps(pids) if pids else "null")
        return 0
    from ketch.linux import programs  # noqa: PLC0415 for this command alone

    found = programs.ask(["ps", *(arguments or ["-ef"])])
    if found.returncode:
        raise UnavailableError(f"exit status {found.returncode}: {found.stdout}{found.stderr}")
    heading, *lines = found.stdout.splitlines()
    fields = heading.split()
    if "PID" not in fields:
        raise InvalidArgumentError("couldn't find PID field in ps output")
    column = fields.index("PID")
    print(heading)
    wanted = {str(pid) for pid in pids}
    for line in lines:
        if line.split()[column] in wanted:
            print(line)
    return 0


def events(settings: "Settings", options: "Parsed") -> int:
    """Print what a container uses, once or until it ends, and when memory runs out in it."""
    states = States(settings.root)
    record = states.find(options.arguments[0])
    interval_seconds = _seconds(options.text("interval"))
    if interval_seconds <= 0:
        raise InvalidArgumentError("duration interval must be greater than 0")
    if states.status(record) == STOPPED:
        raise InvalidArgumentError(f"container with id {record.id} is not running")
    from ketch.runtime.cli.usage import figures  # noqa: PLC0415 for this command alone

    cgroup = record.manager()
    if cgroup is None:
        raise NotFoundError(f"container {record.id} has no cgroup, so nobody counts what it uses")
    if options.enabled("stats"):
        _print_event("stats", record, figures(cgroup))
        return 0
    kills = cgroup.oom_kills()
    due = time.monotonic() + interval_seconds
    pidfd = os.pidfd_open(record.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while not poll.poll(1000 * min(_POLL_SECONDS, max(0.0, due - time.monotonic()))):
        before, kills = kills, cgroup.oom_kills()
        if kills > before:
            _print_event("oom", record)
        if time.monotonic() >= due:
            due += interval_seconds
            _print_event("stats", record, figures(cgroup))
    os.close(pidfd)
    if cgroup.exists() and cgroup.oom_kills() > kills:
        _print_event("oom", record)
    return 0


def _print_event(kind: str, record: Record, data: "dict[str, Any] | None" = None) -> None:
    event: dict[str, Any] = {"type": kind, "id": record.id}
    print(json_text.dumps(event if data is None else event | {"data": data}), flush=True)


def _state(states: States, record: Record) -> "dict[str, Any]":
    status = states.status(record)
    told: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "pid": 0 if status == STOPPED else record.pid,
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": _moment(record.created_ns),
    }
    if record.annotations:
        told["annotations"] = record.annotations
    return told | {"owner": ""}


def _moment(moment_ns: int) -> str:
    """A moment as Go's RFC3339Nano has it."""
    seconds, nanoseconds = divmod(moment_ns, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{text}{fraction}Z"


def _owner(record: Record) -> str:
    try:
        return pwd.getpwuid(record.owner).pw_name
    except KeyError:
        return f"#{record.owner}"


def _form(options: "Parsed") -> str:
    form = options.text("format")
    if form not in {"table", "json"}:
        raise InvalidArgumentError("invalid format option")
    return form


def _table(rows: "list[tuple[str, ...]]") -> str:
    """Columns as Go's tabwriter lays them out with cells of at least twelve and three blanks."""
    widths = [
        max(_LIST_WIDTHS, *(len(row[column]) + 3 for row in rows)) for column in range(len(rows[0]))
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1]
        for row in rows
    )


def _seconds(text: str) -> float:
    """Read one of Go's durations: ``5s``, ``1m30s``, ``100ms``."""
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        unit = rest[len(digits) :][
            : len(rest[len(digits) :]) - len(rest[len(digits) :].lstrip("nuµmsh"))
        ]
        if not digits or digits.count(".") > 1 or unit not in _UNITS_SECONDS:
            raise InvalidArgumentError(f'invalid value "{text}" for flag -interval: parse error')
        total += float(digits) * _UNITS_SECONDS[unit]
        rest = rest[len(digits) + len(unit) :]
    return total
