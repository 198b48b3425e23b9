"""From a request to a whole configuration: the image's defaults merged in, checked, completed.

Pure; what Docker's daemon does between receiving a request and making the container. The result
is what ``inspect`` shows, and all that a bundle is built from.
"""

import os.path

from ketch.engine.configuration import admission
from ketch.errors import InvalidArgumentError
from ketch.spec import endpoints, health, log_drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.host import Host
    from ketch.spec.container import Config, EndpointSettings, HostConfig, LogConfig, Request
    from ketch.spec.image import ContainerConfig

SHM_SIZE_BYTES = 64 << 20
NO_KERNEL_MEMORY = "Linux has had no kernel memory limit since 5.16: --kernel-memory is discarded."


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
    _drop_unset(resources)
    _merge(config, image)
    config.pop("SystemdMode", None)
    wanted = _endpoints(config, request)
    admission.check(config, resources, host)
    warnings = _settle_systemd(config, resources, host)
    if resources.get("Memory", 0) > 0 and not resources.get("MemorySwap"):
        resources["MemorySwap"] = swap_of(resources["Memory"])
    if size := resources.get("ConsoleSize"):
        resources["ConsoleSize"] = [*size, 0, 0][:2]
    resources["LogConfig"] = _log_config(resources)
    resources["ShmSize"] = resources.get("ShmSize") or SHM_SIZE_BYTES
    resources["IpcMode"] = resources.get("IpcMode") or "private"
    if resources.get("NetworkMode", "") in {"", "default"}:
        resources["NetworkMode"] = "bridge"
    if not resources.get("CgroupnsMode"):
        # On v1 a privileged container is to see, and may change, the host's own trees.
        shares = resources.get("Privileged") and not host.unified_cgroups
        resources["CgroupnsMode"] = "host" if shares else "private"
    if not config.get("Hostname") and not endpoints.is_container(resources["NetworkMode"]):
        of_host = resources["NetworkMode"] == "host" or resources.get("UTSMode") == "host"
        config["Hostname"] = host.hostname if of_host else container_id[:12]
    warnings += _warnings(resources)
    resources.pop("KernelMemory", None)
    whole: Request = {**request, "Config": config, "HostConfig": resources}
    if wanted:
        whole["NetworkingConfig"] = {"EndpointsConfig": wanted}
    return whole, warnings


def _settle_systemd(config: "Config", resources: "HostConfig", host: "Host") -> list[str]:
    program = " ".join(arguments(config)[:3])
    if not resources.get("Systemd") and "systemd" not in program and "/init" not in program:
        return []  # as nearly all are; who looks closer costs them a module
    from ketch.engine.configuration import systemd  # noqa: PLC0415

    return systemd.settle(config, resources, host, arguments(config))


# What API clients send for "not given", where that is not what a missing field means.
_UNSET = {"MemorySwappiness": -1, "OomKillDisable": False}


def _drop_unset(resources: "HostConfig") -> None:
    for name, value in _UNSET.items():
        if resources.get(name) == value:
            del resources[name]  # type: ignore[misc]
    if resources.get("PidsLimit", 0) <= 0:
        resources.pop("PidsLimit", None)


def _endpoints(config: "Config", request: "Request") -> "dict[str, EndpointSettings]":
    """What is asked for on each network, by its name.

    API clients before 1.44 give the link's address in the container's own part.
    """
    mode = request["HostConfig"].get("NetworkMode") or endpoints.DEFAULT
    wanted = dict(request.get("NetworkingConfig", {}).get("EndpointsConfig") or {})
    if address := config.pop("MacAddress", ""):
        endpoints.mac_address(address)
        if endpoints.is_container(mode):
            raise InvalidArgumentError("conflicting options: mac-address and the network mode")
        wanted[mode] = {**wanted.get(mode, {})}
        if wanted[mode].setdefault("MacAddress", address) != address:
            raise InvalidArgumentError(
                "the container-wide MAC address must match the endpoint-specific MAC address for "
                "the main network, or be omitted"
            )
    if endpoints.DEFAULT in wanted:
        wanted["bridge"] = wanted.pop(endpoints.DEFAULT)
    return wanted


def swap_of(memory_bytes: int) -> int:
    """Returns the limit of memory and swap together where that of memory alone is given."""
    return memory_bytes * 2


def _log_config(resources: "HostConfig") -> "LogConfig":
    asked = resources.get("LogConfig") or {"Type": "", "Config": {}}
    driver, options = asked.get("Type") or log_drivers.JSON_FILE, asked.get("Config") or {}
    log_drivers.check(driver, options)
    return {"Type": driver, "Config": options}


def _merge(config: "Config", image: "ContainerConfig") -> None:
    """Fills in what the image has and the request does not."""
    config["User"] = config.get("User") or image.get("User", "")
    # As Go's filepath.Clean has it, which knows no third meaning of two slashes.
    if directory := config.get("WorkingDir") or image.get("WorkingDir", ""):
        directory = os.path.normpath(directory)
        config["WorkingDir"] = f"/{directory.lstrip('/')}" if directory[0] == "/" else directory
    else:
        config["WorkingDir"] = ""
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
    if check := health.merge(config.get("Healthcheck"), image.get("Healthcheck")):
        config["Healthcheck"] = check
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


def _warnings(resources: "HostConfig") -> list[str]:
    found = []
    if resources.get("OomKillDisable") and not resources.get("Memory"):
        found.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if resources.get("KernelMemory"):
        found.append(NO_KERNEL_MEMORY)
    published = resources.get("PortBindings") or resources.get("PublishAllPorts")
    if published and resources["NetworkMode"] == "host":
        found.append("Published ports are discarded when using host network mode")
    return found
