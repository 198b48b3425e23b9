"""What may be asked for: a merged configuration against itself and the host, in Docker's words.

Pure. Nothing here changes a request; ``configuration.complete`` does, and asks this first.
"""

import os.path

from ketch.engine.configuration.security import security_options
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.spec import (
    capabilities,
    devices,
    endpoints,
    environment,
    hosts,
    mounts,
    signals,
    sysctls,
    user_namespaces,
    values,
)
from ketch.spec.number_lists import number_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.host import Host
    from ketch.spec.container import Config, HostConfig

_MEMORY_MINIMUM_BYTES = 6 << 20
_IPC_MODES = ("", "private", "shareable", "none", "host")


def check(config: "Config", resources: "HostConfig", host: "Host") -> None:
    """Checks a merged configuration against itself and the host.

    Raises:
        InvalidArgumentError: in Docker's words.
        UnsupportedError: something that Docker has and ketch does not.
    """
    if not [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]:
        raise InvalidArgumentError(
            "no command specified",
            "the image has none either: name a program after the image",
        )
    directory = config.get("WorkingDir", "")
    if directory and not os.path.isabs(directory):
        raise InvalidArgumentError(
            f"the working directory '{directory}' is invalid, it needs to be an absolute path"
        )
    if any(size < 0 for size in resources.get("ConsoleSize", ())):
        raise InvalidArgumentError("invalid ConsoleSize: height and width cannot be negative")
    if config.get("StopSignal"):
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
    _check_security(resources, host)
    mounts.of_container(resources, config.get("Volumes", {}))
    _check_memory(resources)
    _check_cpu(resources, host)
    _check_block(resources)
    _check_namespaces(config, resources)
    _check_network(config, resources)
    _check_life(config, resources)
    _check_platform(resources)


def _check_security(resources: "HostConfig", host: "Host") -> None:
    asked = security_options(resources)
    if asked.apparmor not in {"", "unconfined"} and not host.apparmor:
        raise UnsupportedError(
            f"--security-opt apparmor={asked.apparmor}: AppArmor is not active on this machine",
            "start the kernel with it, or leave the option out",
        )
    if set(asked.labels) - {"disable"} and not host.selinux:
        raise UnsupportedError(
            "--security-opt label: SELinux is not active on this machine",
            "start the kernel with it, or say label=disable",
        )


def _check_memory(resources: "HostConfig") -> None:
    memory, swap = resources.get("Memory", 0), resources.get("MemorySwap", 0)
    reservation = resources.get("MemoryReservation", 0)
    swappiness = resources.get("MemorySwappiness", -1)
    if memory and memory < _MEMORY_MINIMUM_BYTES:
        raise InvalidArgumentError(
            "Minimum memory limit allowed is 6MB", "a number alone is bytes: 64m, say, or 1g"
        )
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
    available = number_list(host.cpus)
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
    realtime_period = resources.get("CpuRealtimePeriod", 0)
    if realtime_period and resources.get("CpuRealtimeRuntime", 0) > realtime_period:
        raise InvalidArgumentError(
            "cpu real-time runtime cannot be higher than cpu real-time period"
        )
    for what, kind, wanted, there in (
        ("CPUs", "cpus", resources.get("CpusetCpus", ""), host.cpus),
        ("memory nodes", "mems", resources.get("CpusetMems", ""), host.memory_nodes),
    ):
        try:
            numbers = number_list(wanted)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"Invalid value {wanted} for cpuset {kind}: {error.message}"
            ) from error
        if not numbers <= number_list(there):
            raise InvalidArgumentError(
                f"Requested {what} are not available - requested {wanted}, available: {there}"
            )


def _check_block(resources: "HostConfig") -> None:
    weights = [device["Weight"] for device in resources.get("BlkioWeightDevice", ())]
    for weight in (resources.get("BlkioWeight", 0), *weights):
        if weight and not 10 <= weight <= 1000:
            raise InvalidArgumentError("Range of blkio weight is from 10 to 1000")


def _check_namespaces(config: "Config", resources: "HostConfig") -> None:
    ipc = resources.get("IpcMode", "")
    if ipc not in _IPC_MODES and not endpoints.names_container(ipc):
        raise InvalidArgumentError(
            f"invalid IPC mode: {ipc}",
            f"one of {', '.join(filter(None, _IPC_MODES))}, container:NAME",
        )
    pid = resources.get("PidMode", "")
    if pid not in {"", "host"} and not endpoints.names_container(pid):
        raise InvalidArgumentError(f"invalid PID mode: {pid}", "one of host, container:NAME")
    for kind, mode, allowed in (
        ("UTS", resources.get("UTSMode", ""), ("", "host")),
        ("cgroup namespace", resources.get("CgroupnsMode", ""), ("", "private", "host")),
    ):
        if mode not in allowed:
            raise InvalidArgumentError(f"invalid {kind} mode: {mode}")
    _check_user_namespace(resources)
    if resources.get("UTSMode") == "host" and config.get("Hostname"):
        raise InvalidArgumentError("conflicting options: hostname and the UTS mode")
    for name in resources.get("Sysctls", {}):
        sysctls.sysctl(f"{name}=")
        if name.startswith("net.") and resources.get("NetworkMode") == "host":
            raise InvalidArgumentError(f'sysctl "{name}" not allowed in host network namespace')
        if not name.startswith("net.") and ipc == "host":
            raise InvalidArgumentError(f'sysctl "{name}" not allowed in host ipc namespace')


def _check_user_namespace(resources: "HostConfig") -> None:
    """What cannot be with ids of one's own: what belongs to the host, or to who has others."""
    mode = resources.get("UsernsMode", "")
    user_namespaces.check(mode)
    if not user_namespaces.is_apart(mode):
        return
    if resources.get("Privileged"):
        raise InvalidArgumentError(
            "privileged mode is incompatible with user namespaces.  You must run the container in "
            "the host namespace when running privileged mode",
            "say --userns host",
        )
    for words, shared in (
        ("network", resources.get("NetworkMode", "")),
        ("PID", resources.get("PidMode", "")),
        ("IPC", resources.get("IpcMode", "")),
    ):
        if shared == "host":
            raise InvalidArgumentError(
                f"cannot share the host's {words} namespace when user namespaces are enabled",
                "say --userns host",
            )
        if endpoints.names_container(shared) and mode != shared:
            raise InvalidArgumentError(
                f"cannot share another container's {words} namespace with ids of one's own",
                f"have its ids as well: --userns {shared}",
            )


_UNDEFINED = "This would result in undefined behavior"


def _check_network(config: "Config", resources: "HostConfig") -> None:
    mode = resources.get("NetworkMode", "")
    private = endpoints.is_private(mode)
    if resources.get("Links") and (mode == "host" or private):
        kind = mode.partition(":")[0]
        raise InvalidArgumentError(
            f"conflicting options: {kind} type networking can't be used with links. {_UNDEFINED}"
        )
    if private:
        from ketch.network.uplink.private import Asked  # noqa: PLC0415 - few ask for that

        Asked(mode)
    for port, bindings in resources.get("PortBindings", {}).items():
        from ketch.spec import ports  # noqa: PLC0415 - most containers publish nothing

        ports.parse(port)
        for binding in bindings or ():
            ports.host_range(binding.get("HostPort", ""))
    if mode != "container" and not mode.startswith("container:"):
        return
    if not endpoints.names_container(mode):
        raise InvalidArgumentError(
            "Invalid network mode: invalid container format container:<name|id>"
        )
    published = bool(resources.get("PortBindings")) or resources.get("PublishAllPorts", False)
    for given, words in (
        (config.get("Hostname"), "hostname and the network mode"),
        (
            resources.get("Links"),
            f"container type network can't be used with links. {_UNDEFINED}",
        ),
        (resources.get("Dns"), "dns and the network mode"),
        (resources.get("ExtraHosts"), "custom host-to-IP mapping and the network mode"),
        (published, "port publishing and the container type network mode"),
        (config.get("ExposedPorts"), "port exposing and the container type network mode"),
    ):
        if given:
            raise InvalidArgumentError(f"conflicting options: {words}")


def _check_life(config: "Config", resources: "HostConfig") -> None:
    policy = resources.get("RestartPolicy", {})
    if policy:
        from ketch.spec import restart  # noqa: PLC0415 - most containers have none

        restart.check(policy)
    if resources.get("AutoRemove") and policy.get("Name", "") not in {"", "no"}:
        raise InvalidArgumentError("can't create 'AutoRemove' container with restart policy")
    for name in ("Timeout", "IdleTimeout"):
        if resources.get(name, 0) < 0:  # type: ignore[operator] # both are numbers
            raise InvalidArgumentError(f"invalid {name}: a number of seconds is wanted, 0 for ever")
    if check_ := config.get("Healthcheck"):
        from ketch.spec import health  # noqa: PLC0415 - most containers have none

        health.check(check_)
    if "" in resources.get("Annotations", {}):
        raise InvalidArgumentError(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )


def _check_platform(resources: "HostConfig") -> None:
    isolation = resources.get("Isolation", "")
    if isolation.lower() not in {"", "default"}:
        raise InvalidArgumentError(f"invalid isolation '{isolation}' on linux")
    for what, key in (("bandwidth", "IOMaximumBandwidth"), ("IOPs", "IOMaximumIOps")):
        if resources.get(key):
            raise InvalidArgumentError(
                f"Invalid QoS settings: linux does not support configuration of maximum {what}",
                "these are for Windows; BlkioDevice* bound what a device is asked for",
            )
    unknown = [name for name in resources.get("StorageOpt", {}) if name.lower() != "size"]
    if unknown:
        raise InvalidArgumentError(f"Unknown option {unknown[0]}", "size is the only one")
    for size in resources.get("StorageOpt", {}).values():
        values.size(size)
