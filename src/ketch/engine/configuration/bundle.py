"""From a container's whole configuration to the runtime's ``config.json``. Pure.

What comes out is what Docker's daemon would hand to runc, mount by mount and rule by rule, except
where ketch differs on purpose: an init is asked for by annotation instead of being mounted into the
container, and zeros that mean "unset" are left out. Source: runtime-spec 1.2, moby's
``daemon/oci_linux.go`` and ``daemon/pkg/oci/defaults.go`` of Docker 28.
"""

import os.path

from ketch.engine.configuration import bundle_mounts
from ketch.engine.configuration.bundle_mounts import Files, Source
from ketch.engine.configuration.configuration import arguments
from ketch.engine.configuration.limits import resources_of
from ketch.engine.configuration.security import security_options
from ketch.engine.host import DEFAULT_SYSCTLS, PING_GROUPS
from ketch.runtime import pid_one
from ketch.runtime.cgroup_mount import SYSTEMD_ANNOTATION
from ketch.runtime.process import KEEP_GROUPS_ANNOTATION
from ketch.spec import capabilities, endpoints, environment, seccomp, user_namespaces
from ketch.spec.passwd import KEEP_GROUPS
from ketch.spec.seccomp_default import default_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.engine.configuration.devices import Devices
    from ketch.engine.configuration.security import SecurityOptions
    from ketch.engine.host import Host
    from ketch.spec.container import Config as ContainerConfig
    from ketch.spec.container import HostConfig, Request
    from ketch.spec.passwd import User
    from ketch.spec.runtime import Capabilities as CapabilitySets
    from ketch.spec.runtime import (
        Config,
        Device,
        Linux,
        Namespace,
        Process,
        Seccomp,
    )

__all__ = ["Files", "Source", "build"]

OCI_VERSION = "1.2.0"

INIT_ANNOTATION = "org.ketch.init"
"""``true`` asks the runtime to stay as PID 1, to pass signals on and to reap; ``alone``, to have
no other program."""

NAME_ANNOTATION = "org.ketch.name"
"""What the container was called at its last start."""

CGROUP_PARENT = "/ketch"

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


def build(
    request: "Request",
    *,
    container_id: str,
    user: "User",
    extra_groups: "list[int]",
    files: Files,
    devices: "Devices",
    host: "Host",
    joined: "Mapping[str, str] | None" = None,
    linked: "Sequence[str]" = (),
    sources: "Mapping[str, Source] | None" = None,
    sysfs: bool = True,
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
        joined: paths of namespaces to join, by the runtime's kinds: ``network``, ``pid``, ...; the
            runtime makes the others.
        linked: variables that tell of containers linked by ``--link``; its own go before.
        sources: where mounts come from that were prepared, by destination.
        sysfs: whether its network namespace, where it has its own, has a sysfs that it may mount.

    Raises:
        InvalidArgumentError: the seccomp profile cannot be used.
    """
    config, resources = request["Config"], request["HostConfig"]
    security = security_options(resources)
    if (resources.get("UsernsMode") or "host") != "host" or not host.makes_devices:
        devices.bind_renamed()
    bundle: Config = {
        "ociVersion": OCI_VERSION,
        "process": _process(
            request, container_id, user, extra_groups, host, security, devices, linked
        ),
        "root": {"path": "rootfs", "readonly": resources.get("ReadonlyRootfs", False)},
        "mounts": bundle_mounts.build(
            request,
            files,
            security,
            sources or {},
            user=user,
            elsewhere=_seen_elsewhere(resources, host, sysfs=sysfs),
            maps_ids=host.maps_ids,
            last_group=host.last_group,
        )
        + devices.mounts,
        "linux": _linux(request, container_id, devices, host, joined or {}),
    }
    if resources.get("UTSMode") != "host":
        bundle["hostname"] = config["Hostname"]
        if config.get("Domainname"):
            bundle["domainname"] = config["Domainname"]
    if devices.hooks:
        bundle["hooks"] = devices.hooks
    annotations = {**resources.get("Annotations", {})}
    # Where the container is not the first process of its namespace, there is an init already.
    if resources.get("Init") and not resources.get("PidMode"):
        alone = arguments(config) == [pid_one.PATH]
        annotations[INIT_ANNOTATION] = "alone" if alone else "true"
    if config.get("SystemdMode"):
        annotations[SYSTEMD_ANNOTATION] = "true"
    if KEEP_GROUPS in resources.get("GroupAdd", ()):
        annotations[KEEP_GROUPS_ANNOTATION] = "1"
    if annotations:
        bundle["annotations"] = annotations
    return bundle


def init_of(config: "Config") -> str:
    """Which PID 1 a configuration asks for beside its program: ``true``, ``alone``, or none."""
    asked = config.get("annotations", {}).get(INIT_ANNOTATION, "")
    return asked if asked in {"true", "alone"} else ""


def _told(config: "ContainerConfig", container_id: str) -> list[str]:
    """What systemd is told of where it is, unless the container's own variables say otherwise."""
    if not config.get("SystemdMode"):
        return []
    return ["container=ketch", f"container_uuid={container_id[:32]}"]


def _process(
    request: "Request",
    container_id: str,
    user: "User",
    extra_groups: list[int],
    host: "Host",
    security: "SecurityOptions",
    devices: "Devices",
    linked: "Sequence[str]",
) -> "Process":
    config, resources = request["Config"], request["HostConfig"]
    terminal = config.get("Tty", False)
    # Where nobody has supplementary groups, those that the image gives are left out.
    own = [user.gid, *user.groups] if host.sets_groups else []
    groups = list(dict.fromkeys([*own, *extra_groups, *devices.groups]))
    process: Process = {
        "terminal": terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": groups},
        "args": arguments(config),
        "env": environment.of_container(
            [*linked, *_told(config, container_id), *config.get("Env", ()), *devices.variables],
            hostname=config["Hostname"],
            home=user.home,
            terminal=terminal,
        ),
        "cwd": config.get("WorkingDir") or "/",
        "capabilities": _capability_sets(_capabilities(resources, host), user.uid),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": resources.get("OomScoreAdj", 0),
    }
    height, width = [*resources.get("ConsoleSize", ()), 0, 0][:2]
    if terminal and 0 < height < 1 << 16 and 0 < width < 1 << 16:
        process["consoleSize"] = {"height": height, "width": width}
    if security.apparmor and host.apparmor:
        process["apparmorProfile"] = security.apparmor
    if label := security.process_label():
        process["selinuxLabel"] = label
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


def hidden_paths(resources: "HostConfig", host: "Host") -> tuple[list[str], list[str]]:
    """Returns which paths of /proc and /sys a container that is not privileged does not see.

    Args:
        resources: what it asks of the host.
        host: this machine.

    Returns:
        Those that are covered, and those that cannot be written to.
    """
    return (
        resources.get("MaskedPaths", [*_MASKED_PATHS, *host.thermal_paths]),
        resources.get("ReadonlyPaths", [*_READONLY_PATHS]),
    )


def _cgroup(host: "Host", path: str) -> str:
    """Where a container's cgroup is; no name leads out of the place that is given."""
    own = os.path.normpath(path).replace("//", "/")
    return f"{host.cgroups.rstrip('/')}{own}"


def _linux(
    request: "Request",
    container_id: str,
    devices: "Devices",
    host: "Host",
    joined: "Mapping[str, str]",
) -> "Linux":
    resources = request["HostConfig"]
    parent = resources.get("CgroupParent") or CGROUP_PARENT
    linux: Linux = {
        "namespaces": _namespaces(resources, joined),
        "cgroupsPath": _cgroup(host, f"/{parent}/{container_id}"),
        "resources": resources_of(resources, devices),
        "sysctl": _sysctls(resources, host),
        "devices": _nodes(request, devices),
    }
    if not resources.get("Privileged"):
        linux["maskedPaths"], linux["readonlyPaths"] = hidden_paths(resources, host)
    propagation = {
        point["Propagation"].removeprefix("r") for point in bundle_mounts.points(request)
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


def _nodes(request: "Request", devices: "Devices") -> "list[Device]":
    """The devices to make: not the host's consoles, where a systemd would have people log in."""
    if not request["Config"].get("SystemdMode"):
        return devices.nodes
    asked = {mapping["PathInContainer"] for mapping in request["HostConfig"].get("Devices", ())}
    return [
        node
        for node in devices.nodes
        if node["path"] in asked or not node["path"].removeprefix("/dev/tty").isdecimal()
    ]


def _namespaces(resources: "HostConfig", joined: "Mapping[str, str]") -> "list[Namespace]":
    namespaces: list[Namespace] = [{"type": "mount"}]
    for kind, mode in (
        ("user", resources.get("UsernsMode") or "host"),
        ("network", resources["NetworkMode"]),
        ("uts", resources.get("UTSMode")),
        ("pid", resources.get("PidMode")),
        ("ipc", resources.get("IpcMode")),
        ("cgroup", resources["CgroupnsMode"]),
    ):
        if kind in joined:
            namespaces.append({"type": kind, "path": joined[kind]})  # type: ignore[typeddict-item]
        elif mode != "host":
            namespaces.append({"type": kind})  # type: ignore[typeddict-item]
    return namespaces


def _seen_elsewhere(resources: "HostConfig", host: "Host", *, sysfs: bool) -> "list[str]":
    """Which file systems show namespaces that are not the user's to mount them for."""
    ipc, pid = resources.get("IpcMode"), resources.get("PidMode")
    can = {
        "sysfs": sysfs and ("net" in host.owned or _has_own_network(resources)),
        "proc": "pid" in host.owned or pid != "host",
        "mqueue": "ipc" in host.owned or ipc != "host",
    }
    return [kind for kind, is_mountable in can.items() if not is_mountable]


def _has_own_network(resources: "HostConfig") -> bool:
    mode = resources["NetworkMode"]
    return mode != "host" and not endpoints.is_container(mode)


def _sysctls(resources: "HostConfig", host: "Host") -> dict[str, str]:
    own = _has_own_network(resources)
    defaults = {name: DEFAULT_SYSCTLS[name] for name in host.sysctls} if own else {}
    if PING_GROUPS in defaults:
        mode = resources.get("UsernsMode", "")
        defaults[PING_GROUPS] = user_namespaces.groups_of_ping(mode, host.last_group)
    return {**defaults, **resources.get("Sysctls", {})}


def _seccomp(resources: "HostConfig", host: "Host") -> "Seccomp | None":
    profile = security_options(resources).seccomp
    if profile == "unconfined" or (resources.get("Privileged") and not profile):
        return None
    if profile == "sandbox":
        from ketch.spec.seccomp_sandbox import sandbox_profile  # noqa: PLC0415 wanted by few

        document = sandbox_profile()
    else:
        document = seccomp.parse(profile) if profile else default_profile()
    names = capabilities.to_names(_capabilities(resources, host))
    return seccomp.to_oci(document, names, host.machine, host.release)
