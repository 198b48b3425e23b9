"""What clients of older versions of the API mean by what they ask, and expect to be told.

Source: moby, daemon/server/router, where it looks at the version: container_routes.go above all.
"""

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError
from ketch.spec import endpoints

if TYPE_CHECKING:
    from typing import Any

    from ketch.spec.container import HostConfig, Request

    Version = tuple[int, int]

_MAC_MOVED = (
    "The container-wide MacAddress field is now deprecated. "
    "It should be specified in EndpointsConfig instead."
)
_DRIVER_IGNORED = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via "
    "'mount'. Use '--mount type=volume,volume-driver=...' instead"
)


def create(request: "Request", version: "Version", *, unified_cgroups: bool) -> list[str]:
    """Bring a request for a container to what it means now, in place; returns warnings.

    Args:
        request: what was asked for.
        version: the API's, as the client speaks it.
        unified_cgroups: whether this machine has cgroup v2.

    Raises:
        InvalidArgumentError: it asks for what that version did not have, and would be wrong if
            that were left out.
    """
    config, resources = request["Config"], request["HostConfig"]
    if version < (1, 25):
        resources["AutoRemove"] = False  # such a client removes it itself
    if version < (1, 40) and not resources.get("IpcMode"):
        resources["IpcMode"] = "shareable"
    if version < (1, 41):
        request.pop("Platform", None)
        if not unified_cgroups and not resources.get("CgroupnsMode"):
            resources["CgroupnsMode"] = "host"
    if version < (1, 42):
        resources.pop("ConsoleSize", None)
    else:
        resources.pop("KernelMemory", None)
    if version < (1, 43):
        resources.pop("Annotations", None)
    if version < (1, 44) and config.get("Healthcheck"):
        config["Healthcheck"].pop("StartInterval", None)
    _mounts(resources, version)
    return [*_volume_driver(resources, version), *_endpoints(request, version)]


def binds_are_shallow(version: "Version") -> bool:
    """Whether what is mounted below a read-only bind mount stays writable."""
    return version < (1, 44)


def _mounts(resources: "HostConfig", version: "Version") -> None:
    for mount in resources.get("Mounts", ()):
        kind = mount.get("Type", "")
        bind = mount.get("BindOptions", {})
        if version < (1, 40):
            bind.pop("NonRecursive", None)
        if version < (1, 42):
            bind.pop("CreateMountpoint", None)
            # What belongs to another type was not looked at.
            if kind != "volume":
                mount.pop("VolumeOptions", None)
            if kind != "tmpfs":
                mount.pop("TmpfsOptions", None)
        if version < (1, 44) and kind == "bind" and bind.get("ReadOnlyForceRecursive"):
            raise InvalidArgumentError(
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"
            )
        if version < (1, 45) and mount.get("VolumeOptions", {}).get("Subpath"):
            raise InvalidArgumentError("VolumeOptions.Subpath needs API v1.45 or newer")
        if version < (1, 48) and kind == "image":
            raise InvalidArgumentError('Mount type "Image" needs API v1.48 or newer')


def _volume_driver(resources: "HostConfig", version: "Version") -> list[str]:
    """Warn of volumes that do not have the container's driver."""
    ignored = any(
        mount.get("Type") == "volume"
        and not mount.get("VolumeOptions", {}).get("DriverConfig", {}).get("Name")
        for mount in resources.get("Mounts", ())
    )
    return (
        [_DRIVER_IGNORED]
        if ignored and resources.get("VolumeDriver") and version >= (1, 48)
        else []
    )


def _endpoints(request: "Request", version: "Version") -> list[str]:
    config = request["Config"]
    wanted = request.get("NetworkingConfig", {}).get("EndpointsConfig") or {}
    if version < (1, 44) and len(wanted) > 1:
        raise InvalidArgumentError(
            f"Container cannot be created with multiple network endpoints: {', '.join(wanted)}"
        )
    if version < (1, 48):
        for endpoint in wanted.values():
            endpoint.pop("GwPriority", None)
    address = config.get("MacAddress", "")
    mode = request["HostConfig"].get("NetworkMode") or endpoints.DEFAULT
    has_none = mode in {"host", "none"} or endpoints.is_container(mode)
    if version >= (1, 44):
        if address and has_none:
            del config["MacAddress"]
        return [_MAC_MOVED] if address else []
    if address and has_none:
        raise InvalidArgumentError("conflicting options: mac-address and the network mode")
    for endpoint in wanted.values():  # one, which the container's address is for
        endpoint.pop("MacAddress", None)
        if address:
            endpoint["MacAddress"] = config.pop("MacAddress")
    return []


def update(changes: "HostConfig", version: "Version") -> "HostConfig":
    """Returns the changes that a client of a version can ask for."""
    unknown = {"PidsLimit"} if version < (1, 40) else set()
    return {key: value for key, value in changes.items() if key not in unknown}  # type: ignore[return-value] # keys are computed here


def listed_container(found: "dict[str, Any]", version: "Version") -> "dict[str, Any]":
    """Returns what a list tells of a container; that it has written nothing goes without saying."""
    told = {name: value for name, value in found.items() if name != "SizeRw" or value}
    if version < (1, 46):
        told["HostConfig"] = {"NetworkMode": found["HostConfig"]["NetworkMode"]}
    return told


def container(found: "dict[str, Any]", version: "Version") -> "dict[str, Any]":
    """Returns what is told of a container: once, it was known by its short name and its host's."""
    if version >= (1, 45):
        return found
    own = (found["Id"][:12], found["Config"].get("Hostname", ""))
    networks = {
        name: endpoint
        if name in {"bridge", "host", "none"} or endpoints.is_container(name)
        else {**endpoint, "Aliases": list(dict.fromkeys([*(endpoint["Aliases"] or ()), *own]))}
        for name, endpoint in found["NetworkSettings"]["Networks"].items()
    }
    return {**found, "NetworkSettings": {**found["NetworkSettings"], "Networks": networks}}


# What an image's configuration showed of a container's, set or not.
_CONFIG: "dict[str, Any]" = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None,
    "Cmd": None, "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None,
    "OnBuild": None, "Labels": None,
}  # fmt: skip


def image(found: "dict[str, Any]", version: "Version") -> "dict[str, Any]":
    """Returns what is told of an image."""
    told = {**found}
    if version < (1, 44):
        told["VirtualSize"] = told["Size"]
    if version < (1, 45) and "Config" in told:
        told["Container"], told["ContainerConfig"] = "", _CONFIG
    if version < (1, 50) and "Config" in told:
        told["Config"] = _CONFIG | told["Config"]
    return told


def listed_image(found: "dict[str, Any]", version: "Version") -> "dict[str, Any]":
    """Returns what a list tells of an image; once, one without names was called none."""
    told = image(found, version)
    if version < (1, 43) and not told["RepoTags"] and not told["RepoDigests"]:
        told["RepoTags"], told["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]
    return told


def info(found: "dict[str, Any]", version: "Version") -> "dict[str, Any]":
    """Returns what is told of the engine, with the fields that were given up since."""
    told = {**found}
    if version < (1, 47):
        none = {"AllowNondistributableArtifactsCIDRs": None,
                "AllowNondistributableArtifactsHostnames": None}  # fmt: skip
        told["RegistryConfig"] = {**told["RegistryConfig"], **none}
    if version < (1, 49):
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            told[name] = {**told[name], "Expected": told[name]["ID"]}
    if version < (1, 50):
        told["BridgeNfIptables"] = told["BridgeNfIp6tables"] = False
    return told
