"""From a request to a whole configuration: the image's defaults merged in, checked, completed.

Pure; what Docker's daemon does between receiving a request and making the container. The result
is what ``inspect`` shows, and all that a bundle is built from.
"""

import os.path

from ketch.errors import InvalidArgumentError
from ketch.spec import (
    capabilities,
    devices,
    environment,
    hosts,
    log_drivers,
    mounts,
    signals,
    sysctls,
    values,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.host import Host
    from ketch.spec.container import Config, HostConfig, LogConfig, Request
    from ketch.spec.image import ContainerConfig

SHM_SIZE_BYTES = 64 << 20

_MEMORY_MINIMUM_BYTES = 6 << 20
_IPC_MODES = ("", "private", "shareable", "none", "host")


def complete(
    request: "Request", image: "ContainerConfig", container_id: str, host: "Host"
) -> tuple["Request", list[str]]:
    """Merges, checks and completes a request; the request itself stays as it is.

    Args:
        request: what was asked for.
        image: the ``config`` of the image's configuration.
        container_id: the new container's.
        host: facts about the machine.

    Returns:
        The whole configuration, and warnings for the user.

    Raises:
        InvalidArgumentError: something in it cannot be.
        UnsupportedError: something that Docker has and ketch does not.
    """
    config: Config = {**request["Config"]}
    resources: HostConfig = {**request["HostConfig"]}
    _merge(config, image)
    check(config, resources, host)
    for key in ("CapAdd", "CapDrop"):
        if resources.get(key):
            resources[key] = [_capability_name(name) for name in resources[key]]
    if resources.get("Memory", 0) > 0 and not resources.get("MemorySwap"):
        resources["MemorySwap"] = resources["Memory"] * 2
    resources["LogConfig"] = _log_config(resources)
    resources["ShmSize"] = resources.get("ShmSize") or SHM_SIZE_BYTES
    resources["IpcMode"] = resources.get("IpcMode") or "private"
    if resources.get("NetworkMode", "") in {"", "default"}:
        resources["NetworkMode"] = "bridge"
    if not resources.get("CgroupnsMode"):
        # On v1 a privileged container is to see, and may change, the host's own trees.
        shares = resources.get("Privileged") and not host.unified_cgroups
        resources["CgroupnsMode"] = "host" if shares else "private"
    if not config.get("Hostname"):
        of_host = resources["NetworkMode"] == "host" or resources.get("UTSMode") == "host"
        config["Hostname"] = host.hostname if of_host else container_id[:12]
    return {"Config": config, "HostConfig": resources}, _warnings(resources)


def _capability_name(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def _log_config(resources: "HostConfig") -> "LogConfig":
    asked = resources.get("LogConfig") or {"Type": "", "Config": {}}
    driver, options = asked.get("Type") or log_drivers.JSON_FILE, asked.get("Config") or {}
    log_drivers.check(driver, options)
    return {"Type": driver, "Config": options}


def _merge(config: "Config", image: "ContainerConfig") -> None:
    """Fills in what the image has and the request does not."""
    config["User"] = config.get("User") or image.get("User", "")
    config["WorkingDir"] = config.get("WorkingDir") or image.get("WorkingDir", "")
    if stop_signal := config.get("StopSignal") or image.get("StopSignal", ""):
        config["StopSignal"] = stop_signal
    own = config.get("Env") or []
    named = {entry.partition("=")[0] for entry in own}
    inherited = [entry for entry in image.get("Env") or () if entry.partition("=")[0] not in named]
    config["Env"] = [*own, *inherited]
    config["Labels"] = {**(image.get("Labels") or {}), **(config.get("Labels") or {})}
    config["ExposedPorts"] = {
        **(image.get("ExposedPorts") or {}),
        **(config.get("ExposedPorts") or {}),
    }
    config["Volumes"] = {**(image.get("Volumes") or {}), **(config.get("Volumes") or {})}
    # A given entrypoint, even an empty one, does away with the image's command too.
    if not config.get("Entrypoint"):
        if not config.get("Cmd"):
            config["Cmd"] = list(image.get("Cmd") or ())
        config["Entrypoint"] = list(image.get("Entrypoint") or ())
    if config["Entrypoint"] == [""]:
        config["Entrypoint"] = []


def arguments(config: "Config") -> list[str]:
    """Returns what the container runs: its entrypoint, then its command."""
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def check(config: "Config", resources: "HostConfig", host: "Host") -> None:
    """Checks a merged configuration against itself and the host.

    Raises:
        InvalidArgumentError: in Docker's words.
        UnsupportedError: something that Docker has and ketch does not.
    """
    if not arguments(config):
        raise InvalidArgumentError(
            "no command specified",
            "the image has none either: name a program after the image",
        )
    directory = config.get("WorkingDir", "")
    if directory and not os.path.isabs(directory):
        raise InvalidArgumentError(
            f"the working directory '{directory}' is invalid, it needs to be an absolute path"
        )
    if "StopSignal" in config:
        signals.number(config["StopSignal"])
    for entry in config["Env"]:
        environment.variable(entry)
    for entry in resources.get("ExtraHosts", ()):
        hosts.extra_host(entry)
    capabilities.choose(
        resources.get("CapAdd", ()), resources.get("CapDrop", ()), host.capabilities
    )
    for entry in resources.get("DeviceCgroupRules", ()):
        devices.cgroup_rule(entry)
    security_options(resources)
    mounts.of_container(resources)
    _check_memory(resources)
    _check_cpu(resources, host)
    _check_namespaces(config, resources)


def _check_memory(resources: "HostConfig") -> None:
    memory, swap = resources.get("Memory", 0), resources.get("MemorySwap", 0)
    reservation = resources.get("MemoryReservation", 0)
    swappiness = resources.get("MemorySwappiness", -1)
    if memory and memory < _MEMORY_MINIMUM_BYTES:
        raise InvalidArgumentError("Minimum memory limit allowed is 6MB")
    if memory and 0 < swap < memory:
        raise InvalidArgumentError(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if not memory and swap > 0:
        raise InvalidArgumentError(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if swappiness < -1 or swappiness > 100:
        raise InvalidArgumentError(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )
    if reservation and reservation < _MEMORY_MINIMUM_BYTES:
        raise InvalidArgumentError("Minimum memory reservation allowed is 6MB")
    if memory and memory < reservation:
        raise InvalidArgumentError(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if resources.get("ShmSize", 0) < 0:
        raise InvalidArgumentError("SHM size can not be less than 0")
    score = resources.get("OomScoreAdj", 0)
    if not -1000 <= score <= 1000:
        raise InvalidArgumentError(
            f"Invalid value {score}, range for oom score adj is [-1000, 1000]"
        )


def _check_cpu(resources: "HostConfig", host: "Host") -> None:
    nanos, period = resources.get("NanoCpus", 0), resources.get("CpuPeriod", 0)
    quota = resources.get("CpuQuota", 0)
    for other, value in (("Period", period), ("Quota", quota)):
        if nanos > 0 and value > 0:
            raise InvalidArgumentError(
                f"Conflicting options: Nano CPUs and CPU {other} cannot both be set"
            )
    available = values.number_list(host.cpus)
    if nanos < 0 or nanos > len(available) * 10**9:
        raise InvalidArgumentError(
            f"Range of CPUs is from 0.01 to {len(available)}.00, "
            f"as there are only {len(available)} CPUs available"
        )
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidArgumentError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise InvalidArgumentError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    shares = resources.get("CpuShares", 0)
    if shares < 0:
        raise InvalidArgumentError("shares: invalid argument")
    # sched(7): what cgroup v1 takes.
    if shares and not 2 <= shares <= 262144:
        bound = "minimum allowed cpu-shares is 2" if shares < 2 else (
            "maximum allowed cpu-shares is 262144"
        )  # fmt: skip
        raise InvalidArgumentError(f"the {bound}")
    for what, kind, wanted, there in (
        ("CPUs", "cpus", resources.get("CpusetCpus", ""), host.cpus),
        ("memory nodes", "mems", resources.get("CpusetMems", ""), host.memory_nodes),
    ):
        try:
            numbers = values.number_list(wanted)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"Invalid value {wanted} for cpuset {kind}: {error.message}"
            ) from error
        if not numbers <= values.number_list(there):
            raise InvalidArgumentError(
                f"Requested {what} are not available - requested {wanted}, available: {there}"
            )


def _check_namespaces(config: "Config", resources: "HostConfig") -> None:
    ipc = resources.get("IpcMode", "")
    if ipc not in _IPC_MODES:
        raise InvalidArgumentError(
            f"invalid IPC mode: {ipc}", f"one of {', '.join(filter(None, _IPC_MODES))}"
        )
    shares_names = resources.get("UTSMode") == "host"
    if shares_names and config.get("Hostname"):
        raise InvalidArgumentError("conflicting options: hostname and the UTS mode")
    for name in resources.get("Sysctls", {}):
        sysctls.sysctl(f"{name}=")
        if name.startswith("net.") and resources.get("NetworkMode") == "host":
            raise InvalidArgumentError(f'sysctl "{name}" not allowed in host network namespace')
        if not name.startswith("net.") and ipc == "host":
            raise InvalidArgumentError(f'sysctl "{name}" not allowed in host ipc namespace')


def security_options(resources: "HostConfig") -> tuple[bool, str]:
    """Returns whether privileges are frozen, and the seccomp profile.

    The profile is empty for the default one, ``unconfined`` for none, else a profile's text.

    Raises:
        InvalidArgumentError: an option is unknown or malformed.
    """
    frozen, profile = False, ""
    for option in resources.get("SecurityOpt", ()):
        if option == "no-new-privileges":
            frozen = True
            continue
        separator = "=" if "=" in option else ":"
        name, _, value = option.partition(separator)
        if name == "no-new-privileges" and value in {"true", "false"}:
            frozen = value == "true"
        elif name == "seccomp" and value:
            profile = "" if value == "builtin" else value
        else:
            raise InvalidArgumentError(
                f"invalid --security-opt: {values.quoted(option)}",
                "seccomp=FILE, seccomp=unconfined and no-new-privileges are known",
            )
    return frozen, profile


def _warnings(resources: "HostConfig") -> list[str]:
    if resources.get("OomKillDisable") and not resources.get("Memory"):
        return [
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        ]
    return []
