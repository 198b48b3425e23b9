"""What is known of the engine and its host: the documents of ``version`` and ``info``."""

import os
import shutil
import time

from ketch import __version__
from ketch.cgroups import absent, delegation, layout
from ketch.engine.configuration import runtimes
from ketch.errors import UnavailableError
from ketch.linux import filesystems
from ketch.spec import image as documents
from ketch.spec.template_functions import NilSlice, Struct
from ketch.spec.timestamps import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.engine import Engine

API_VERSION = "1.50"
API_VERSION_MINIMUM = "1.24"

# What Docker's engine may tell besides, and a template finds where it does not.
_VERSION_UNSAID: "dict[str, Any]" = {"KernelVersion": "", "Experimental": False, "BuildTime": ""}
_INFO_UNSAID: "dict[str, Any]" = {
    "KernelMemory": False, "KernelMemoryTCP": False, "ProductLicense": "",
    "DefaultAddressPools": NilSlice(), "FirewallBackend": None, "CDISpecDirs": NilSlice(),
    "DiscoveredDevices": NilSlice(), "Containerd": None, "SystemStatus": NilSlice(),
}  # fmt: skip
_REGISTRIES_UNSAID: "dict[str, Any]" = {
    "AllowNondistributableArtifactsCIDRs": NilSlice(),
    "AllowNondistributableArtifactsHostnames": NilSlice(),
}
_SWARM_UNSAID: "dict[str, Any]" = {
    "Nodes": 0, "Managers": 0, "Cluster": None, "Warnings": NilSlice(),
}  # fmt: skip

_REGISTRY = "https://index.docker.io/v1/"


def is_experimental() -> bool:
    """Whether clients may offer checkpoints, all that is experimental in Docker and here."""
    return shutil.which("criu") is not None


def version() -> Struct:
    """Returns what ``version`` tells, in the API's keys (``SystemVersion``)."""
    kernel = os.uname()
    details = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": API_VERSION_MINIMUM,
        "Os": "linux",
        "Arch": documents.host_platform()["architecture"],
        "KernelVersion": kernel.release,
    }
    engine = {"Name": "Engine", "Version": __version__, "Details": {
        **details, "Experimental": str(is_experimental()).lower(), "GitCommit": "",
        "GoVersion": "", "BuildTime": "",
    }}  # fmt: skip
    told = {
        "Platform": {"Name": "ketch"},
        "Components": [engine],
        "Version": __version__,
        **details,
        "GitCommit": "",
        "GoVersion": "",
    }
    return Struct(told, optional=_VERSION_UNSAID)


def info(engine: "Engine") -> Struct:
    """Returns what ``info`` tells, in the API's keys (``SystemInfo``)."""
    containers = engine.containers.list(all=True)
    statuses = [container.status for container in containers]
    kernel = os.uname()
    system = _os_release()
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    home = bool(engine.settings.home)
    there = set(delegation.controllers()) if home else _controllers(unified)
    driver = engine.images.snapshotter.name
    running, paused = statuses.count("running"), statuses.count("paused")
    told = {
        "ID": _identity(engine),
        "Containers": len(statuses),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(statuses) - running - paused,
        "Images": len(engine.images.list()),
        "Driver": driver,
        "DriverStatus": _driver_status(driver, engine.settings.root),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["journald", "json-file", "local", "syslog"],
        },
        "MemoryLimit": "memory" in there,
        "SwapLimit": "memory" in there and _limits_swap(),
        "CpuCfsPeriod": "cpu" in there,
        "CpuCfsQuota": "cpu" in there,
        "CPUShares": "cpu" in there,
        "CPUSet": "cpuset" in there,
        "PidsLimit": "pids" in there,
        "IPv4Forwarding": _line("/proc/sys/net/ipv4/ip_forward") == "1",
        "Debug": False,
        "NFd": len(os.listdir("/proc/self/fd")),
        "OomKillDisable": not unified and not home,
        "NGoroutines": 0,
        "SystemTime": rfc3339(time.time_ns()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs" if there or not home else "none",
        "CgroupVersion": "2" if unified else "1",
        "NEventsListener": 0,
        "KernelVersion": kernel.release,
        "OperatingSystem": system.get("PRETTY_NAME", "Linux"),
        "OSVersion": system.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": kernel.machine,
        "IndexServerAddress": _REGISTRY,
        "RegistryConfig": Struct({
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "IndexConfigs": {
                "docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}
            },
            "Mirrors": None,
        }, optional=_REGISTRIES_UNSAID),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "GenericResources": None,
        "DockerRootDir": engine.settings.root,
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
        "Name": kernel.nodename,
        "Labels": [],
        "ExperimentalBuild": is_experimental(),
        "ServerVersion": __version__,
        "Runtimes": {"ketch": {"path": "ketch-oci"}, **runtimes.configured(engine.settings)},
        "DefaultRuntime": runtimes.default(engine.settings),
        "Swarm": Struct(
            {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False,
             "Error": "", "RemoteManagers": None}, optional=_SWARM_UNSAID,
        ),
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "ketch",
        "ContainerdCommit": Struct({"ID": ""}, optional={"Expected": ""}),
        "RuncCommit": Struct({"ID": ""}, optional={"Expected": ""}),
        "InitCommit": Struct({"ID": ""}, optional={"Expected": ""}),
        "SecurityOptions": [
            "name=seccomp,profile=builtin", *(["name=rootless"] if home else []), "name=cgroupns",
        ],
        "CDISpecDirs": [],
        "Warnings": _warnings() if home and not there else None,
    }  # fmt: skip
    return Struct(told, optional=_INFO_UNSAID)


def _warnings() -> list[str]:
    """Docker's way to say what is missing, which clients show."""
    why, hint = absent.reason(layout.usable("/ketch"))
    return [f"WARNING: no limits, no pause: {why}: {hint}"]


def _limits_swap() -> bool:
    try:
        return layout.detect().limits_swap()
    except UnavailableError:  # this machine has no cgroups at all
        return False


def _driver_status(driver: str, root: str) -> list[list[str]]:
    """What there is to tell of a storage driver: copies have nothing, as in Docker."""
    if driver == "vfs":
        return []
    return [
        ["Backing Filesystem", _backing(root)],
        ["Supports d_type", "true"],
        ["Native Overlay Diff", str(driver == "overlay2").lower()],
        ["userxattr", "false"],
    ]


def _backing(root: str) -> str:
    """The file system below, as Docker calls it."""
    kind = filesystems.kind(root)
    return "extfs" if kind in {"ext2", "ext3", "ext4"} else kind


def _identity(engine: "Engine") -> str:
    """An identifier of this engine: of its machine and its place there."""
    import uuid  # noqa: PLC0415 - only here

    machine = _line("/etc/machine-id") or os.uname().nodename
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{machine}{engine.settings.root}"))


def _controllers(unified: bool) -> set[str]:
    if unified:
        return set(_line("/sys/fs/cgroup/cgroup.controllers").split())
    try:
        with open("/proc/cgroups", encoding="ascii") as file:
            rows = [line.split() for line in file if not line.startswith("#")]
    except OSError:
        return set()
    return {row[0] for row in rows if row[3] == "1"}


def _os_release() -> dict[str, str]:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            pairs = (line.strip().partition("=")[::2] for line in file)
            return {name: value.strip('"') for name, value in pairs if name}
    except OSError:
        return {}


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""
