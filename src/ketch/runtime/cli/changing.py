"""``start``, ``pause``, ``resume`` and ``update``: what changes a container that is there."""

import sys

from ketch.cgroups import Manager
from ketch.errors import ConflictError, InvalidArgumentError, UnavailableError
from ketch.linux import process as processes
from ketch.runtime.cli.handover import listen, run_poststart
from ketch.runtime.state import CREATED, PAUSED, RUNNING, STOPPED, Record, States
from ketch.spec import json_text
from ketch.spec.values import swap_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings
    from ketch.spec.runtime import Resources

_CPU_FLAGS = {
    "cpu-period": "period", "cpu-quota": "quota", "cpu-burst": "burst", "cpu-share": "shares",
    "cpu-rt-period": "realtimePeriod", "cpu-rt-runtime": "realtimeRuntime", "cpu-idle": "idle",
}  # fmt: skip
_CACHE_FLAGS = {"l3-cache-schema": "l3CacheSchema", "mem-bw-schema": "memBwSchema"}
_MEMORY_FLAGS = {
    "memory": "limit", "memory-reservation": "reservation", "memory-swap": "swap",
    "kernel-memory-tcp": "kernelTCP",
}  # fmt: skip


def start(settings: "Settings", options: "Parsed") -> int:
    """Let a created container's program run."""
    states = States(settings.root)
    with states.lock(options.arguments[0]) as entry:
        record = entry.record()
        status = states.status(record)
        if status == STOPPED:
            raise ConflictError("cannot start a container that has stopped")
        if status == RUNNING:
            raise ConflictError("cannot start an already running container")
        if status != CREATED:
            raise ConflictError(f"cannot start a container in the {status} state")
        pidfd = -1
        listener = listen(entry)
        if listener is not None:
            pidfd = processes.pidfd_open(record.pid)
        entry.release_fifo()
        run_poststart(settings, states.config(record), record)
    if listener is not None:
        listener.wait(record.pid, pidfd)
    return 0


def pause(settings: "Settings", options: "Parsed") -> int:
    """Stop every process of a container."""
    states = States(settings.root)
    with states.lock(options.arguments[0]) as entry:
        record = entry.record()
        if states.status(record) not in {CREATED, RUNNING}:
            raise ConflictError("container not running")
        _cgroup(record).freeze()
    return 0


def resume(settings: "Settings", options: "Parsed") -> int:
    """Let every process of a container run again."""
    states = States(settings.root)
    with states.lock(options.arguments[0]) as entry:
        record = entry.record()
        if states.status(record) != PAUSED:
            raise ConflictError("container not paused")
        _cgroup(record).thaw()
    return 0


def update(settings: "Settings", options: "Parsed") -> int:
    """Change what a container may use."""
    if options.text("kernel-memory"):
        settings.log.warning("Setting --kernel-memory is ignored: the kernel dropped this limit")
    wanted = _from_file(options.text("resources")) or _from_flags(options)
    caches: Any = {
        name: text for flag, name in _CACHE_FLAGS.items() if (text := options.text(flag))
    }
    states = States(settings.root)
    with states.lock(options.arguments[0]) as entry:
        record = entry.record()
        if states.status(record) not in {CREATED, RUNNING, PAUSED}:
            raise ConflictError("container not running")
        config: Any = states.config(record)
        linux = config.setdefault("linux", {})
        if caches:
            _change_caches(record, linux, caches)
        if wanted:
            _cgroup(record).set(wanted)
            present = linux.setdefault("resources", {})
            for name, value in wanted.items():
                old = present.get(name)
                merged = isinstance(old, dict) and isinstance(value, dict)
                present[name] = old | value if merged else value
        if wanted or caches:
            entry.write_config(json_text.dumps(config).encode())
    return 0


def _change_caches(record: Record, linux: "Any", changed: "Any") -> None:
    """Change what a container may use of caches and memory bandwidth."""
    from ketch.runtime import resctrl  # noqa: PLC0415 wanted by few

    wanted = linux.get("intelRdt", {}) | changed
    resctrl.group(wanted, record.id).change(changed, _cgroup(record).processes())
    linux["intelRdt"] = wanted


def _cgroup(record: Record) -> Manager:
    cgroup = record.manager()
    if cgroup is None:
        raise UnavailableError(
            f"container {record.id} has no cgroup", "it was made without permission to make one"
        )
    return cgroup


def _from_file(path: str) -> "Any":
    """The resources in a file, less what is empty and the devices, which an update leaves alone."""
    if not path:
        return {}
    if path == "-":
        text = sys.stdin.buffer.read()
    else:
        with open(path, "rb") as file:
            text = file.read()
    try:
        document = json_text.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"--resources {path}: {error}") from error
    from ketch.runtime.validate import validate_resources  # noqa: PLC0415 with a file alone

    resources = validate_resources(document)
    resources.pop("devices", None)
    return {name: members for name, members in resources.items() if members}


def _from_flags(options: "Parsed") -> "Resources":
    cpu: dict[str, Any] = {}
    for flag, name in _CPU_FLAGS.items():
        if text := options.text(flag):
            try:
                cpu[name] = int(text)
            except ValueError:
                raise InvalidArgumentError(
                    f'invalid value for {flag}: strconv.ParseInt: parsing "{text}": invalid syntax'
                ) from None
    for flag, name in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if text := options.text(flag):
            cpu[name] = text
    memory: dict[str, Any] = {}
    for flag, name in _MEMORY_FLAGS.items():
        if text := options.text(flag):
            try:
                memory[name] = swap_size(text)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"invalid value for {flag}: {error.message}") from error
    found: Any = {
        "cpu": cpu,
        "memory": memory,
        "pids": {"limit": options.number("pids-limit")} if "pids-limit" in options.given else {},
        "blockIO": (
            {"weight": options.number("blkio-weight")} if options.number("blkio-weight") else {}
        ),
    }
    return {name: members for name, members in found.items() if members}  # type: ignore[return-value]
