"""From what a container asks of the host's resources to the limits that a runtime sets. Pure."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.configuration.devices import Devices
    from ketch.spec.container import HostConfig
    from ketch.spec.runtime import Cpu as CpuLimits
    from ketch.spec.runtime import DeviceRule, Memory, Resources

_CPU_PERIOD_MICROSECONDS = 100_000

# null, zero, full, random, urandom, tty, console; the terminals' own rules are the runtime's.
_ALLOWED_DEVICES = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
_FUSE = (10, 229)


def resources_of(resources: "HostConfig", devices: "Devices") -> "Resources":
    """Returns the runtime's ``linux.resources``.

    Args:
        resources: what the container asks for.
        devices: from ``engine.devices.gather``.
    """
    if resources.get("Privileged"):
        rules: list[DeviceRule] = devices.rules
    else:
        rules = [{"allow": False, "access": "rwm"}]
        rules += [_character_device(True, *numbers) for numbers in _ALLOWED_DEVICES]
        rules.append(_character_device(False, *_FUSE))
        rules += devices.rules
    found: Resources = {"devices": rules}
    if memory := _memory(resources):
        found["memory"] = memory
    if cpu := _cpu(resources):
        found["cpu"] = cpu
    if devices.block:
        found["blockIO"] = devices.block
    if "PidsLimit" in resources:
        limit = resources["PidsLimit"]
        found["pids"] = {"limit": limit if limit > 0 else -1}
    return found


def _character_device(allow: bool, major: int, minor: int) -> "DeviceRule":
    return {"allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm"}


def _memory(resources: "HostConfig") -> "Memory":
    memory: Memory = {}
    if resources.get("Memory", 0) > 0:
        memory["limit"] = resources["Memory"]
    if resources.get("MemoryReservation", 0) > 0:
        memory["reservation"] = resources["MemoryReservation"]
    if resources.get("MemorySwap", 0) > 0:  # -1, unlimited, is what there is without one
        memory["swap"] = resources["MemorySwap"]
    if resources.get("MemorySwappiness", -1) >= 0:
        memory["swappiness"] = resources["MemorySwappiness"]
    if resources.get("OomKillDisable"):
        memory["disableOOMKiller"] = True
    return memory


def _cpu(resources: "HostConfig") -> "CpuLimits":
    cpu: CpuLimits = {}
    if resources.get("CpuShares"):
        cpu["shares"] = resources["CpuShares"]
    if resources.get("NanoCpus"):
        cpu["period"] = _CPU_PERIOD_MICROSECONDS
        cpu["quota"] = resources["NanoCpus"] * _CPU_PERIOD_MICROSECONDS // 10**9
    if resources.get("CpuPeriod"):
        cpu["period"] = resources["CpuPeriod"]
    if resources.get("CpuQuota"):
        cpu["quota"] = resources["CpuQuota"]
    if resources.get("CpuRealtimePeriod"):
        cpu["realtimePeriod"] = resources["CpuRealtimePeriod"]
    if resources.get("CpuRealtimeRuntime"):
        cpu["realtimeRuntime"] = resources["CpuRealtimeRuntime"]
    if resources.get("CpusetCpus"):
        cpu["cpus"] = resources["CpusetCpus"]
    if resources.get("CpusetMems"):
        cpu["mems"] = resources["CpusetMems"]
    return cpu
