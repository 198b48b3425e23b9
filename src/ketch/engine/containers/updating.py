"""``update``: other limits and another restart policy for a container, applied while it runs."""

import json
from contextlib import suppress

from ketch.cgroups import telling as cgroup_telling
from ketch.engine import host
from ketch.engine.configuration import admission, configuration, devices, limits
from ketch.engine.containers import telling
from ketch.engine.records import states
from ketch.engine.records.rows import record_event, select
from ketch.engine.records.rows import update as update_row
from ketch.engine.requests import launch
from ketch.errors import ConflictError, InvalidArgumentError
from ketch.linux import procfs
from ketch.spec import options, restart, runtime_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.spec.container import HostConfig
    from ketch.spec.flag import Value

# What can be changed: all that Docker's update takes.
FIELDS = (
    "BlkioWeight", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpuShares",
    "CpusetCpus", "CpusetMems", "IdleTimeout", "KernelMemory", "Memory", "MemoryReservation",
    "MemorySwap", "NanoCpus", "PidsLimit", "RestartPolicy", "Timeout",
)  # fmt: skip

# What no option of update says, but a client of the API may; the last two in vain (``admission``).
_OF_API = (
    "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps",
    "BlkioWeightDevice", "MemorySwappiness", "IOMaximumBandwidth", "IOMaximumIOps",
)  # fmt: skip

# Those of which 0 means none, and not that nothing was said.
_ZERO_COUNTS = {"IdleTimeout", "MemorySwappiness", "PidsLimit", "Timeout"}

OPTIONS = tuple(option for option in options.OPTIONS if option.field.partition(".")[2] in FIELDS)
"""The options that say so."""


def changes(values: "Mapping[str, Value]", given: "Set[str]") -> "HostConfig":
    """Returns the fields to change.

    Args:
        values: the options' values by name.
        given: the names of those that were given.
    """
    found: dict[str, object] = {}
    for option in OPTIONS:
        if option.name in given:
            value: object = values[option.name]
            key = option.field.partition(".")[2]
            found[key] = option.assemble(value) if option.assemble else value
    return found  # type: ignore[return-value] # keys are computed here


def update(engine: "Engine", reference: str, changes: "HostConfig") -> list[str]:
    """Change what a container may use; returns warnings.

    Args:
        engine: where it is.
        reference: the container.
        changes: the fields to change, of ``FIELDS`` and limits of block devices and swappiness;
            those that are 0 or empty stay as they are.

    Raises:
        NotFoundError: no such container.
        InvalidArgumentError: a value cannot be.
        ConflictError: it contradicts what the container has, or is less than what it uses now.
        UnsupportedError: this kernel has no such limit.
    """
    container = engine.containers.find(reference)
    if container.status in {states.REMOVING, states.DEAD}:
        raise ConflictError(
            'Cannot update container: container is marked for removal and cannot be "update"'
        )
    asked: HostConfig = {  # type: ignore[assignment]
        key: value
        for key, value in changes.items()
        if key in {*FIELDS, *_OF_API} and (value or key in _ZERO_COUNTS) and value is not None
    }
    warnings = [configuration.NO_KERNEL_MEMORY] if asked.pop("KernelMemory", 0) else []
    if asked.get("PidsLimit", 0) < 0:
        asked["PidsLimit"] = 0  # whatever is less means the same: none
    current: HostConfig = container.record["HostConfig"]
    policy = asked.pop("RestartPolicy", None)
    if policy and policy.get("Name"):
        restart.check(policy)
        if current.get("AutoRemove") and policy["Name"] != "no":
            raise ConflictError(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        asked["RestartPolicy"] = policy
    _check_against(current, asked)
    if asked.get("Memory") and not asked.get("MemorySwap") and not current.get("MemorySwap"):
        asked["MemorySwap"] = configuration.swap_of(asked["Memory"])
    merged: HostConfig = {**current, **asked}
    admission.check(container.record["Config"], merged, host.examine())
    if container.is_active and container.status != states.RESTARTING:
        _apply(engine, container, merged, asked)
    with engine.store.transaction() as connection:
        # As it is now: somebody else may have changed another part of it meanwhile.
        record = select(connection, container.id, procfs.boot_id()).record
        record["HostConfig"] |= asked
        text = json.dumps(record, separators=(",", ":"))
        update_row(connection, container.id, {"record": text})
        record_event(connection, "update", container)
    engine.settings.tell(telling.of_note, container, "update", asked)
    if container.is_active and asked.keys() & {"IdleTimeout", "Timeout"}:
        with suppress(ConflictError):  # it ends just now
            launch.ask_monitor(engine.settings, container.id, {"action": "times"})
    return warnings


def _check_against(current: "HostConfig", asked: "HostConfig") -> None:
    """Refuse what Docker refuses because of what was set before."""
    for key, words in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if asked.get("NanoCpus", 0) > 0 and current.get(key):
            raise ConflictError(
                f"Conflicting options: Nano CPUs cannot be updated as {words} has already been set"
            )
        if asked.get(key) and current.get("NanoCpus", 0) > 0:
            raise ConflictError(
                f"Conflicting options: {words} cannot be updated as NanoCPUs has already been set"
            )
    memory, swap = asked.get("Memory", 0), current.get("MemorySwap", 0)
    if memory > swap > 0 and not asked.get("MemorySwap"):
        raise ConflictError(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )


def _apply(
    engine: "Engine", container: "Container", merged: "HostConfig", asked: "HostConfig"
) -> None:
    found = limits.resources_of(merged, devices.gather(merged))
    del found["devices"]  # they are not to be changed
    if asked.get("MemorySwap") == -1:
        found.setdefault("memory", {})["swap"] = -1
    if asked.keys() <= {"IdleTimeout", "RestartPolicy", "Timeout"}:
        return
    written: list[tuple[str, str]] = []

    def hear(path: str, value: str) -> None:
        written.append((path, value))

    try:
        engine.containers.cgroup(container).set(found, hear if engine.settings.say else None)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"Cannot update container {container.id}: {error}") from error
    if runtime_names.is_other(container.record):
        from ketch.engine.containers import driven  # noqa: PLC0415 wanted by few

        # What it has outside is limited now; it may have a machine of its own inside.
        driven.of(engine.settings, container.id).update(found)
    if written:
        engine.settings.tell(cgroup_telling.of_limits, written)
