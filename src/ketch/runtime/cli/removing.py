"""``kill`` and ``delete``."""

import os
import time

from ketch.cgroups import members
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError, UnsupportedError
from ketch.linux import signals as kernel_signals
from ketch.linux.scopes import owned
from ketch.runtime.state import (
    CREATED,
    CREATING,
    PAUSED,
    STOPPED,
    Entry,
    Record,
    States,
    remove_cgroup,
)
from ketch.spec import signals
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings
    from ketch.spec.runtime import Config

_SIGKILL, _LAST_SIGNAL = 9, 64
_PATIENCE_SECONDS = 10.0
_WAIT_SECONDS = 0.005


def kill(settings: "Settings", options: "Parsed") -> int:
    """Send a signal to a container's init, or to all of its processes."""
    container_id, *rest = options.arguments
    number = _number((rest and rest[0]) or "TERM")
    states = States(settings.root)
    record = states.find(container_id)
    status = states.status(record)
    cgroup = record.manager()
    everyone = options.enabled("all")
    # In a PID namespace that is not its own a container's other processes outlive init.
    whole = number == _SIGKILL and status != CREATING and not _has_pid_namespace(states, record)
    if cgroup is not None and whole:
        if not cgroup.exists():
            raise ConflictError("container not running")
        cgroup.kill()
    elif cgroup is not None and everyone:
        if cgroup.exists():
            members.signal(cgroup.processes, number)
    elif status in {CREATING, STOPPED}:
        raise ConflictError("container not running")
    else:
        signal_init(record, number)
    if status == PAUSED and number == _SIGKILL and cgroup is not None:
        cgroup.thaw()  # frozen processes of cgroup v1 do not even die
    return 0


def delete(settings: "Settings", options: "Parsed") -> int:
    """Delete what a container holds, once it has ended; with ``--force`` kill it first."""
    states, force = States(settings.root), options.enabled("force")
    try:
        entry = states.lock(options.arguments[0])
    except NotFoundError:
        if force:
            return 0
        raise
    with entry:
        record = entry.record()
        status = states.status(record)
        if status != STOPPED:
            if status != CREATED and not force:
                raise ConflictError(
                    f"cannot delete container {record.id} that is not stopped: {status}",
                    "kill it first, or give --force",
                )
            end(record)
        destroy(settings, entry, record, states.config(record))
    return 0


def end(record: Record) -> None:
    """Kill a container's init, and wait until it has ended.

    Raises:
        ConflictError: it would not.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    signal_init(record, _SIGKILL, may_be_gone=True)
    cgroup = record.manager()
    if cgroup is not None and cgroup.exists():
        cgroup.kill()
    while record.is_alive():
        if time.monotonic() > deadline:
            raise ConflictError("container init still running")
        time.sleep(_WAIT_SECONDS)


def destroy(settings: "Settings", entry: Entry, record: Record, config: "Config") -> None:
    """Remove all that is left of a container whose init has ended."""
    remove_cgroup(record)
    if wanted := config.get("linux", {}).get("intelRdt"):
        from ketch.runtime import resctrl  # noqa: PLC0415 wanted by few

        try:  # noqa: SIM105 contextlib is not loaded without need
            resctrl.group(wanted, record.id).remove()
        except UnsupportedError:
            pass  # nothing is mounted, so there is nothing to remove
    entry.remove()
    if not config.get("hooks"):
        return
    from ketch.runtime import hooks  # noqa: PLC0415 wanted by few

    told = hooks.state(config, record.id, record.bundle, "stopped")
    for failure in hooks.run_all(config, "poststop", told):
        settings.log.warning(failure.message)


def signal_init(record: Record, number: int, *, may_be_gone: bool = False) -> None:
    """Send a signal to a container's init and to no other process.

    Raises:
        ConflictError: it has ended.
    """
    try:
        with owned(os.pidfd_open(record.pid)) as pidfd:
            # The pid is init's as long as its start time says so after it was opened.
            if not record.is_alive():
                raise ProcessLookupError  # noqa: TRY301 - as the call below does
            kernel_signals.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        if not may_be_gone:
            raise ConflictError("container not running") from None


def _has_pid_namespace(states: States, record: Record) -> bool:
    namespaces = states.config(record).get("linux", {}).get("namespaces", [])
    return any(each["type"] == "pid" and not each.get("path") for each in namespaces)


def _number(text: str) -> int:
    # Whoever calls a runtime has a number from elsewhere; 0 asks whether init is there, as kill(2).
    given = decimal(text)
    if given is not None and given <= _LAST_SIGNAL:
        return given
    try:
        return signals.number(text)
    except InvalidArgumentError:
        raise InvalidArgumentError(f'unknown signal "{text}"') from None
