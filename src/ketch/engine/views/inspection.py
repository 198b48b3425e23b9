"""What the Docker Engine API tells of containers, each alone and all in a list, in its order."""

import json
import time

from ketch.engine import logs, user_namespaces
from ketch.engine.configuration import sharing
from ketch.engine.networks import settings
from ketch.engine.records import links, states
from ketch.engine.views import listing, sizes, summary
from ketch.spec import endpoints
from ketch.spec.template_functions import NilMap, NilSlice, Struct
from ketch.spec.timestamps import SECOND_NS, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.images.snapshots import Snapshotter
    from ketch.spec.container import HostConfig

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time

# Docker shows every field that a newer one has not made optional; absent ones have these values.
_CONFIG: "dict[str, Any]" = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "ExposedPorts": None, "Tty": False, "OpenStdin": False,
    "StdinOnce": False, "Env": [], "Cmd": NilSlice(), "Healthcheck": None, "Image": "",
    "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": NilSlice(), "Labels": {},
}  # fmt: skip
_HOST_CONFIG: "dict[str, Any]" = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "bridge", "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
    "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None,
    "CapDrop": None, "CgroupnsMode": "private", "Dns": [], "DnsOptions": [], "DnsSearch": [],
    "ExtraHosts": None, "GroupAdd": None, "IpcMode": "private", "Cgroup": "", "Links": None,
    "OomScoreAdj": 0, "PidMode": "", "Privileged": False, "PublishAllPorts": False,
    "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
    "ShmSize": 64 << 20, "Runtime": "ketch", "Isolation": "", "CpuShares": 0, "Memory": 0,
    "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
    "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0,
    "MemorySwappiness": None, "OomKillDisable": None, "PidsLimit": None, "Ulimits": [],
    "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
}  # fmt: skip
_LISTS = (
    "Binds", "CapAdd", "CapDrop", "DeviceCgroupRules", "DeviceRequests", "ExtraHosts", "GroupAdd",
    "Links", "MaskedPaths", "ReadonlyPaths", "SecurityOpt", "VolumesFrom",
)  # fmt: skip
# Left out where they say nothing, and what a template then finds: Go's zeros of their types.
_UNSAID: "dict[str, Any]" = {"ExposedPorts": NilMap(), "Healthcheck": None}
_CONFIG_UNSAID: "dict[str, Any]" = {
    **_UNSAID, "ArgsEscaped": False, "MacAddress": "", "NetworkDisabled": False,
    "Shell": NilSlice(), "StopSignal": "", "StopTimeout": None,
}  # fmt: skip
_HOST_CONFIG_UNSAID: "dict[str, Any]" = {
    "Annotations": NilMap(), "Init": None, "Mounts": NilSlice(), "StorageOpt": NilMap(),
    "IdleTimeout": 0, "KernelMemory": 0, "KernelMemoryTCP": 0, "Sysctls": NilMap(),
    "Timeout": 0, "Tmpfs": NilMap(),
}  # fmt: skip
_CONTAINER_UNSAID: "dict[str, Any]" = {
    "ImageManifestDescriptor": None,
    "SizeRootFs": None,
    "SizeRw": None,
}


def document(engine: "Engine", container: "Container", *, sized: bool = False) -> Struct:
    """Returns what is known of a container.

    Args:
        engine: where it is.
        container: the container.
        sized: whether to look how much its files take.
    """
    directory = engine.settings.container_directory(container.id)
    record = container.record
    config = Struct(_CONFIG | record.get("Config", {}), optional=_CONFIG_UNSAID)
    home = sharing.network_home(engine, container) if container.started_ns else None
    if home is not None:
        own = home.record["Config"]
        config.update(Hostname=own.get("Hostname", ""), Domainname=own.get("Domainname", ""))
    elif endpoints.is_container(summary.network(container)):
        config["Hostname"] = container.id[: summary.SHORT_ID_LENGTH]
    named = engine.settings.container_directory((home or container).id)
    for name in _UNSAID:
        if not config[name]:
            del config[name]
    for name in ("Env", "Entrypoint"):
        config[name] = config[name] or NilSlice()
    config["Volumes"] = config["Volumes"] or NilMap()
    if address := settings.mac_asked(engine, container):
        config["MacAddress"] = address
    snapshotter = engine.images.snapshotter
    return Struct(
        {
            "Id": container.id,
            "Created": rfc3339(container.created_ns),
            "Path": record.get("Path", ""),
            "Args": record.get("Args", []),
            "State": _state(engine, container),
            "Image": container.image_id,
            "ResolvConfPath": f"{named}/resolv.conf",
            "HostnamePath": f"{named}/hostname",
            "HostsPath": f"{named}/hosts",
            "LogPath": logs.log_path(container, directory),
            "Name": f"/{container.name}",
            "RestartCount": container.restart_count,
            "Driver": snapshotter.name,
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": engine.execs.running(container.id) or NilSlice(),
            "HostConfig": _host_config(engine, directory, container),
            "GraphDriver": _graph_driver(snapshotter, container, directory),
            **(_sizes(engine, container) if sized else {}),
            "Mounts": mount_points(record),
            "Config": config,
            "NetworkSettings": settings.document(engine, container),
        },
        optional=_CONTAINER_UNSAID,
    )


def _graph_driver(snapshotter: "Snapshotter", container: "Container", directory: str) -> Struct:
    """Where a container's files are: all of them, while it runs, where its process sees them."""
    found = snapshotter.description(snapshotter.prepared_on(directory), directory)
    data = found["Data"]
    if isinstance(data, dict) and container.is_active and container.init_pid:
        # It is mounted for the container alone, so this is the way there.
        merged = {**data, "MergedDir": f"/proc/{container.init_pid}/root"}
        found = {**found, "Data": dict(sorted(merged.items()))}
    return Struct(found)


def _sizes(engine: "Engine", container: "Container") -> dict[str, int]:
    own, whole = sizes.container(engine, container)
    return {"SizeRw": own, "SizeRootFs": whole}


def _state(engine: "Engine", container: "Container") -> Struct:
    status = container.status
    lost = logs.lost(container, engine.settings.container_directory(container.id))
    return Struct(
        {
            "Status": status,
            "Running": container.is_active,
            "Paused": status == states.PAUSED,
            "Restarting": status == states.RESTARTING,
            "OOMKilled": container.oom_killed,
            "Dead": status == states.DEAD,
            "Pid": container.init_pid if container.is_active else 0,
            "ExitCode": container.exit_status,
            "Error": container.error,
            "StartedAt": _moment(container.started_ns),
            "FinishedAt": _moment(container.finished_ns),
            **({"Health": _health(container.health)} if container.health else {}),
            # Not of Docker's.
            **({"LogEntriesLost": lost} if lost else {}),
        },
        optional={"Health": None, "LogEntriesLost": 0},
    )


def _health(health: "dict[str, Any]") -> Struct:
    fields = ("Start", "End", "ExitCode", "Output")
    log = [Struct({name: entry[name] for name in fields}) for entry in health["Log"]]
    return Struct({**health, "Log": log})


def _moment(moment_ns: int) -> str:
    return rfc3339(moment_ns) if moment_ns else _NEVER


def _hidden_paths(asked: "HostConfig") -> "tuple[list[str] | None, list[str] | None]":
    if asked.get("Privileged"):
        return None, None
    from ketch.engine import host  # noqa: PLC0415 - only for containers that never ran
    from ketch.engine.configuration import bundle  # noqa: PLC0415

    return bundle.hidden_paths(asked, host.examine())


def _host_config(engine: "Engine", directory: str, container: "Container") -> Struct:
    """What was asked of the host, and which paths of /proc and /sys are hidden for it."""
    asked = container.record.get("HostConfig", {})
    try:
        with open(f"{directory}/config.json", encoding="utf-8") as file:
            linux = json.load(file)["linux"]
    except (OSError, ValueError, KeyError):
        masked, read_only = _hidden_paths(asked)  # it was never started
    else:
        masked, read_only = linux.get("maskedPaths"), linux.get("readonlyPaths")
    with engine.store.reading() as connection:
        linked = links.of(connection, container.id)
    made = {
        "Links": [f"/{one.target_name}:/{container.name}/{one.alias}" for one in linked] or None,
        "MaskedPaths": masked,
        "ReadonlyPaths": read_only,
    }
    found = Struct({**_HOST_CONFIG, **asked, **made}, optional=_HOST_CONFIG_UNSAID)
    for name in _LISTS:
        if found[name] is None:
            found[name] = NilSlice()
    for name in ("LogConfig", "RestartPolicy"):
        found[name] = Struct(_HOST_CONFIG[name] | found[name])
    if maps := user_namespaces.maps_of(container):  # podman's field; Docker has none
        found["IDMappings"] = {
            name: [f"{one['containerID']}:{one['hostID']}:{one['size']}" for one in each]
            for name, each in zip(("UidMap", "GidMap"), maps, strict=True)
        }
    return found


def mount_points(record: "dict[str, Any]") -> list[Struct]:
    """Returns what a container has mounted, as the API shows it.

    What ``--tmpfs`` asks for is shown in HostConfig alone.
    """
    names = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")
    return [
        Struct({name: point[name] for name in names if name in point})
        for point in record.get("Mounts", ())
    ]


def _annotations(container: "Container") -> "dict[str, Any]":
    found = container.record.get("HostConfig", {}).get("Annotations")
    return {"Annotations": found} if found else {}


def summaries(engine: "Engine", containers: "list[Container]") -> "list[dict[str, Any]]":
    """Returns what the API's list tells of containers (``ContainerSummary``)."""
    now_ns = time.time_ns()
    published = engine.endpoints.ports()
    names = listing.ImageNames(engine.images)
    networks = settings.networks_of(engine, containers)
    with engine.store.reading() as connection:
        linked = links.names(connection)
    return [
        {
            "Id": container.id,
            "Names": sorted([f"/{container.name}", *linked.get(container.id, ())]),
            "Image": names.shown(container, whole=True),
            "ImageID": container.image_id,
            "Command": summary.command(container),
            "Created": container.created_ns // SECOND_NS,
            "Ports": settings.listed(container.record, published.get(container.id, ()))
            if container.is_active
            else [],
            "Labels": summary.labels(container),
            "State": container.status,
            "Status": summary.status(container, now_ns),
            "HostConfig": {"NetworkMode": summary.network(container), **_annotations(container)},
            "NetworkSettings": {"Networks": networks[container.id]},
            "Mounts": mount_points(container.record),
        }
        for container in containers
    ]
