"""From a container's whole configuration to the runtime's ``config.json``. Pure.

What comes out is what Docker's daemon would hand to runc, mount by mount and rule by rule, except
where ketch differs on purpose: an init is asked for by annotation instead of being mounted into the
container, and zeros that mean "unset" are left out. Source: runtime-spec 1.2, moby's
``daemon/oci_linux.go`` and ``daemon/pkg/oci/defaults.go`` of Docker 28.
"""

import os.path

from ketch.engine.configuration import arguments, security_options
from ketch.engine.host import DEFAULT_SYSCTLS
from ketch.spec import capabilities, environment, seccomp
from ketch.spec import mounts as mount_options
from ketch.spec.seccomp_default import default_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.devices import Devices
    from ketch.engine.host import Host
    from ketch.spec.container import HostConfig, Request
    from ketch.spec.container import Mount as MountRequest
    from ketch.spec.passwd import User
    from ketch.spec.runtime import Capabilities as CapabilitySets
    from ketch.spec.runtime import (
        Config,
        DeviceRule,
        Linux,
        Memory,
        Mount,
        Namespace,
        Process,
        Resources,
        Seccomp,
    )
    from ketch.spec.runtime import Cpu as CpuLimits

OCI_VERSION = "1.2.0"

INIT_ANNOTATION = "org.ketch.init"
"""``true`` asks the runtime to stay as PID 1, to pass signals on and to reap."""

CGROUP_PARENT = "/ketch"

_CPU_PERIOD_MICROSECONDS = 100_000

_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",  # GHSA-6fw5-f8r9-fgfm: counts keystrokes
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",  # GHSA-jq35-85cj-fj4p: power as a side channel
)
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# null, zero, full, random, urandom, tty, console; the terminals' own rules are the runtime's.
_ALLOWED_DEVICES = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
_FUSE = (10, 229)

# A read-only root makes the other default mounts read-only as well, but not these.
_ALWAYS_WRITABLE = ("/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev")


class Files:
    """Files of the host that appear in the container under /etc.

    Args:
        hosts: path of what becomes /etc/hosts.
        hostname: likewise /etc/hostname.
        resolv_conf: likewise /etc/resolv.conf.
    """

    __slots__ = ("hostname", "hosts", "resolv_conf")

    def __init__(self, hosts: str, hostname: str, resolv_conf: str) -> None:
        self.hosts = hosts
        self.hostname = hostname
        self.resolv_conf = resolv_conf


def build(
    request: "Request",
    *,
    container_id: str,
    user: "User",
    extra_groups: "list[int]",
    files: Files,
    devices: "Devices",
    host: "Host",
    network_namespace: str = "",
) -> "Config":
    """Builds the runtime's configuration.

    Args:
        request: a whole configuration, from ``configuration.complete``.
        container_id: the container's.
        user: whom the program runs as, looked up in the image.
        extra_groups: the ids of ``GroupAdd``, likewise.
        files: what to mount under /etc.
        devices: from ``engine.devices.gather``.
        host: facts about the machine.
        network_namespace: path of a namespace to join, empty to have the runtime make one.

    Raises:
        InvalidArgumentError: the seccomp profile cannot be used.
    """
    config, resources = request["Config"], request["HostConfig"]
    bundle: Config = {
        "ociVersion": OCI_VERSION,
        "process": _process(request, user, extra_groups, host),
        "root": {"path": "rootfs", "readonly": resources.get("ReadonlyRootfs", False)},
        "mounts": _mounts(resources, files),
        "linux": _linux(resources, container_id, devices, host, network_namespace),
    }
    if resources.get("UTSMode") != "host":
        bundle["hostname"] = config["Hostname"]
        if config.get("Domainname"):
            bundle["domainname"] = config["Domainname"]
    annotations = {**resources.get("Annotations", {})}
    # Where the container is not the first process of its namespace, there is an init already.
    if resources.get("Init") and not resources.get("PidMode"):
        annotations[INIT_ANNOTATION] = "true"
    if annotations:
        bundle["annotations"] = annotations
    return bundle


def _process(request: "Request", user: "User", extra_groups: list[int], host: "Host") -> "Process":
    config, resources = request["Config"], request["HostConfig"]
    terminal = config.get("Tty", False)
    groups = list(dict.fromkeys([user.gid, *user.groups, *extra_groups]))
    process: Process = {
        "terminal": terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": groups},
        "args": arguments(config),
        "env": environment.of_container(
            config.get("Env", ()), hostname=config["Hostname"], home=user.home, terminal=terminal
        ),
        "cwd": config.get("WorkingDir") or "/",
        "capabilities": _capability_sets(_capabilities(resources, host), user.uid),
        "noNewPrivileges": security_options(resources)[0],
        "oomScoreAdj": resources.get("OomScoreAdj", 0),
    }
    if resources.get("Ulimits"):
        process["rlimits"] = [
            {
                "type": f"RLIMIT_{limit['Name'].upper()}",
                "soft": _unsigned(limit["Soft"]),
                "hard": _unsigned(limit["Hard"]),
            }
            for limit in resources["Ulimits"]
        ]
    return process


def _unsigned(limit: int) -> int:
    """RLIM_INFINITY where the limit is -1, as setrlimit(2) has it."""
    return limit & (1 << 64) - 1


def _capabilities(resources: "HostConfig", host: "Host") -> int:
    if resources.get("Privileged"):
        return host.capabilities
    return capabilities.choose(
        resources.get("CapAdd", ()), resources.get("CapDrop", ()), host.capabilities
    )


def _capability_sets(chosen: int, uid: int) -> "CapabilitySets":
    """Only root has them at once; others may gain them by executing a file that has them."""
    names = capabilities.to_names(chosen)
    if uid:
        return {"bounding": names}
    return {"bounding": names, "effective": names, "permitted": names}


def _mounts(resources: "HostConfig", files: Files) -> "list[Mount]":
    asked = mount_options.of_container(resources)
    taken = mount_options.targets(asked)
    read_only = resources.get("ReadonlyRootfs", False)
    own = [
        mount
        for mount in _default_mounts(resources)
        if mount["destination"] not in taken
        and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    if read_only:
        for mount in own:
            if mount["destination"] not in _ALWAYS_WRITABLE and "ro" not in mount["options"]:
                mount["options"].append("ro")
    bound = {
        "/etc/resolv.conf": files.resolv_conf,
        "/etc/hostname": files.hostname,
        "/etc/hosts": files.hosts,
    }
    if resources.get("IpcMode") == "host":
        bound["/dev/shm"] = "/dev/shm"
    return [
        *own,
        *(_asked_mount(mount, resources) for mount in asked),
        *(
            _bind(path, source, read_only=read_only and path != "/dev/shm")
            for path, source in bound.items()
            if path not in taken
        ),
    ]


def _bind(target: str, source: str, *, read_only: bool) -> "Mount":
    return {
        "destination": target,
        "type": "bind",
        "source": source,
        "options": ["rbind", *(["ro"] if read_only else []), "rprivate"],
    }


def _default_mounts(resources: "HostConfig") -> "list[Mount]":
    """What every container has; writable, if privileged, where it would be read-only."""
    system = "rw" if resources.get("Privileged") else "ro"
    safe = ("nosuid", "noexec", "nodev")
    table: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
        ("/proc", "proc", "proc", safe),
        ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        (
            "/dev/pts", "devpts", "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        ("/sys", "sysfs", "sysfs", (*safe, system)),
        ("/sys/fs/cgroup", "cgroup", "cgroup", (system, *safe)),
        ("/dev/mqueue", "mqueue", "mqueue", safe),
    )  # fmt: skip
    if resources.get("IpcMode") not in {"none", "host"}:
        size = f"size={resources['ShmSize']}"
        table = (*table, ("/dev/shm", "tmpfs", "shm", (*safe, "mode=1777", size)))
    return [
        {"destination": target, "type": kind, "source": source, "options": [*options]}
        for target, kind, source, options in table
    ]


def _asked_mount(mount: "MountRequest", resources: "HostConfig") -> "Mount":
    target = os.path.normpath(mount["Target"])
    if mount["Type"] == "tmpfs":
        return {
            "destination": target,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": mount_options.tmpfs_options(_tmpfs_data(mount, resources)),
        }
    options = mount.get("BindOptions", {})
    words = ["bind" if options.get("NonRecursive") else "rbind"]
    if mount.get("ReadOnly"):
        # Docker's since 25.0: what is mounted below becomes read-only too, unless asked otherwise.
        shallow = options.get("NonRecursive") or options.get("ReadOnlyNonRecursive")
        words.append("ro" if shallow else "rro")
    words.append(options.get("Propagation") or "rprivate")
    return {
        "destination": target,
        "type": "bind",
        "source": os.path.normpath(mount["Source"]),
        "options": words,
    }


def _tmpfs_data(mount: "MountRequest", resources: "HostConfig") -> str:
    """The options of a tmpfs, from ``--tmpfs`` or from ``--mount type=tmpfs``."""
    given = resources.get("Tmpfs", {}).get(mount["Target"])
    if given is not None:
        return given
    options = mount.get("TmpfsOptions", {})
    words = ["ro"] if mount.get("ReadOnly") else []
    if options.get("Mode"):
        words.append(f"mode={options['Mode']:o}")
    if options.get("SizeBytes"):
        words.append(f"size={options['SizeBytes']}")
    return ",".join(words)


def _linux(
    resources: "HostConfig",
    container_id: str,
    devices: "Devices",
    host: "Host",
    network_namespace: str,
) -> "Linux":
    parent = resources.get("CgroupParent") or CGROUP_PARENT
    linux: Linux = {
        "namespaces": _namespaces(resources, network_namespace),
        "cgroupsPath": os.path.normpath(f"/{parent}/{container_id}").replace("//", "/"),
        "resources": _resources(resources, devices),
        "sysctl": _sysctls(resources, host),
        "devices": devices.nodes,
    }
    if not resources.get("Privileged"):
        linux["maskedPaths"] = [*_MASKED_PATHS, *host.thermal_paths]
        linux["readonlyPaths"] = [*_READONLY_PATHS]
    propagation = {
        mount.get("BindOptions", {}).get("Propagation", "").removeprefix("r")
        for mount in mount_options.of_container(resources)
    }
    # For mounts to propagate at all, the root they lie on must not be private.
    if "shared" in propagation:
        linux["rootfsPropagation"] = "shared"
    elif "slave" in propagation:
        linux["rootfsPropagation"] = "rslave"
    profile = _seccomp(resources, host)
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def _namespaces(resources: "HostConfig", network_namespace: str) -> "list[Namespace]":
    namespaces: list[Namespace] = [{"type": "mount"}]
    if network_namespace:
        namespaces.append({"type": "network", "path": network_namespace})
    elif resources["NetworkMode"] != "host":
        namespaces.append({"type": "network"})
    if resources.get("UTSMode") != "host":
        namespaces.append({"type": "uts"})
    if resources.get("PidMode") != "host":
        namespaces.append({"type": "pid"})
    if resources.get("IpcMode") != "host":
        namespaces.append({"type": "ipc"})
    if resources["CgroupnsMode"] != "host":
        namespaces.append({"type": "cgroup"})
    return namespaces


def _sysctls(resources: "HostConfig", host: "Host") -> dict[str, str]:
    own = resources["NetworkMode"] != "host"
    defaults = {name: DEFAULT_SYSCTLS[name] for name in host.sysctls} if own else {}
    return {**defaults, **resources.get("Sysctls", {})}


def _resources(resources: "HostConfig", devices: "Devices") -> "Resources":
    if resources.get("Privileged"):
        rules: list[DeviceRule] = devices.rules
    else:
        rules = [{"allow": False, "access": "rwm"}]
        rules += [_character_device(True, *numbers) for numbers in _ALLOWED_DEVICES]
        rules.append(_character_device(False, *_FUSE))
        rules += devices.rules
    limits: Resources = {"devices": rules}
    if memory := _memory(resources):
        limits["memory"] = memory
    if cpu := _cpu(resources):
        limits["cpu"] = cpu
    if "PidsLimit" in resources:
        limit = resources["PidsLimit"]
        limits["pids"] = {"limit": limit if limit > 0 else -1}
    return limits


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
    if resources.get("CpusetCpus"):
        cpu["cpus"] = resources["CpusetCpus"]
    if resources.get("CpusetMems"):
        cpu["mems"] = resources["CpusetMems"]
    return cpu


def _seccomp(resources: "HostConfig", host: "Host") -> "Seccomp | None":
    profile = security_options(resources)[1]
    if profile == "unconfined" or (resources.get("Privileged") and not profile):
        return None
    document = seccomp.parse(profile) if profile else default_profile()
    names = capabilities.to_names(_capabilities(resources, host))
    return seccomp.to_oci(document, names, host.machine, host.release)
