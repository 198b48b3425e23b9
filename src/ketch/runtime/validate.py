"""Every field of ``config.json`` looked at before anything happens.

First the document's shape, then a list of checks: what the specification demands in words, what
the kernel would refuse later with an errno and no name, and what would be unsafe. An error names
the field by its path. Whether the host has what the document asks for is not decided here.
"""

import os.path

from ketch.errors import InvalidArgumentError
from ketch.runtime.filesystem import sysctl_path
from ketch.spec import number_lists, runtime_shape, shape
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Config, IdMapping, Linux, Process, Resources, Seccomp


# What the kernel takes as "leave as it is" (setresuid(2), chown(2)), so that root would stay root.
_NO_ID = 2**32 - 1
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1
_MAX_NAME_BYTES = 64
_MAX_INTERFACE_NAME_BYTES = 15
_MAX_MAPPINGS = 340
_DIGITS_MAX = 20

_RLIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in (
        "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE",
        "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
    )
)  # fmt: skip
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced",
    )
)  # fmt: skip


def validate(document: object) -> "Config":
    """Check a configuration.

    Args:
        document: ``config.json`` as json.loads gives it.

    Returns:
        The same document, now known to be one.

    Raises:
        InvalidArgumentError: the first fault found, by the path of its field.
    """
    _fit(runtime_shape.CONFIG, document)
    config: Config = document  # type: ignore[assignment]
    for check in _CHECKS:
        check(config)
    return config


def validate_process(document: object) -> "Process":
    """Check a process that exec is to add, as ``validate`` does; paths begin with ``process``."""
    _fit(runtime_shape.PROCESS, document, "process")
    process: Process = document  # type: ignore[assignment]
    _check_process({"ociVersion": "1.0.0", "process": process})
    return process


def validate_resources(document: object) -> "Resources":
    """Check the resources that an update asks for; paths begin with ``linux.resources``."""
    _fit(runtime_shape.RESOURCES, document, "linux.resources")
    resources: Resources = document  # type: ignore[assignment]
    _check_resources({"ociVersion": "1.0.0", "linux": {"resources": resources}})
    return resources


def _fit(expected: "shape.Shape", document: object, name: str = "") -> None:
    try:
        expected(document)
    except shape.Misfit as misfit:
        path = name + "".join(reversed(misfit.path))
        raise _fault(path.removeprefix(".") or "config.json", misfit.message) from None
    except RecursionError:
        raise _fault(name or "config.json", "is nested too deeply") from None


def _fault(path: str, message: str, hint: str = "") -> InvalidArgumentError:
    return InvalidArgumentError(f"{path}: {message}", hint)


def _namespaces(config: "Config") -> dict[str, str]:
    """The kinds of the namespaces that are made or joined, each with its path or nothing."""
    return {
        namespace["type"]: namespace.get("path", "")
        for namespace in config.get("linux", {}).get("namespaces", ())
    }


def _require_absolute(path: str, value: str) -> None:
    if not value.startswith("/"):
        raise _fault(path, f"must be an absolute path, not {shape.shown(value)}")


def _require_namespace(config: "Config", kind: str, path: str) -> None:
    if kind not in _namespaces(config):
        raise _fault(
            path,
            f"needs a {kind} namespace of the container's own",
            f'add {{"type": "{kind}"}} to linux.namespaces',
        )


def _check_document(config: "Config") -> None:
    version = config["ociVersion"]
    if not _is_version(version):
        raise _fault(
            "ociVersion",
            f"must be a version 1.x.y of the specification, not {shape.shown(version)}",
        )
    if not config["root"]["path"]:
        raise _fault("root.path", "must not be empty")
    if "" in config.get("annotations", {}):
        raise _fault("annotations", "a key must not be empty")


def _check_names(config: "Config") -> None:
    names = (("hostname", config.get("hostname")), ("domainname", config.get("domainname")))
    for field, name in names:
        if name:
            _require_namespace(config, "uts", field)
            if len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES:
                raise _fault(field, f"must not be longer than {_MAX_NAME_BYTES} bytes")


def _check_process(config: "Config") -> None:
    if "process" not in config:
        raise _fault("process", "is required")
    process = config["process"]
    _require_absolute("process.cwd", process["cwd"])
    if not process.get("args"):
        raise _fault("process.args", "must name a program")
    for index, variable in enumerate(process.get("env", ())):
        if variable.find("=") < 1:
            raise _fault(
                f"process.env[{index}]", f"must be NAME=value, not {shape.shown(variable)}"
            )
    _check_user(process)
    size = process.get("consoleSize")
    # Without a terminal the size must be ignored.
    if process.get("terminal") and size and max(size["height"], size["width"]) > 0xFFFF:
        raise _fault("process.consoleSize", "must be from 0 to 65535 each way")
    seen = set()
    for index, limit in enumerate(process.get("rlimits", ())):
        path, name = f"process.rlimits[{index}]", limit["type"]
        if name not in _RLIMITS:
            raise _fault(f"{path}.type", f"{name} is no limit of getrlimit(2)")
        if name in seen:
            raise _fault(f"{path}.type", f"{name} is there twice")
        if limit["soft"] > limit["hard"]:
            raise _fault(f"{path}.soft", f"must not be above the hard limit, {limit['hard']}")
        seen.add(name)
    _check_scheduler(process)
    affinity = process.get("execCPUAffinity", {})
    for field, cpus in (("initial", affinity.get("initial")), ("final", affinity.get("final"))):
        if cpus:
            _check_list(f"process.execCPUAffinity.{field}", cpus)


def _check_user(process: "Process") -> None:
    user = process.get("user", {})
    ids = [("uid", user.get("uid")), ("gid", user.get("gid"))]
    groups = user.get("additionalGids", ())
    ids += [(f"additionalGids[{index}]", group) for index, group in enumerate(groups)]
    for field, number in ids:
        if number == _NO_ID:
            raise _fault(f"process.user.{field}", f"{_NO_ID} is not an id")
    if user.get("umask", 0) > 0o777:
        raise _fault("process.user.umask", "must be from 0 to 511, octal 777")


def _check_scheduler(process: "Process") -> None:
    if "scheduler" not in process:
        return
    scheduler, path = process["scheduler"], "process.scheduler"
    policy = scheduler["policy"]
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= scheduler.get("nice", 0) <= 19:
        raise _fault(f"{path}.nice", "must be from -20 to 19")
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not 1 <= scheduler.get("priority", 0) <= 99:
            raise _fault(f"{path}.priority", f"must be from 1 to 99 under {policy}")
    elif scheduler.get("priority"):
        raise _fault(f"{path}.priority", "is for SCHED_FIFO and SCHED_RR alone")
    if policy != "SCHED_DEADLINE":
        for field in ("runtime", "deadline", "period"):
            if scheduler.get(field):
                raise _fault(f"{path}.{field}", "is for SCHED_DEADLINE alone")


def _is_version(text: str) -> bool:
    """Whether it is 1.x.y, with whatever a hyphen or a plus introduces (semver.org)."""
    major, _, rest = text.partition(".")
    minor, _, rest = rest.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return (
        major == "1"
        and decimal(minor, _DIGITS_MAX) is not None
        and bool(digits)
        and rest[len(digits) : len(digits) + 1] in {"", "-", "+"}
        and "\n" not in rest
    )


def _check_list(path: str, value: str) -> None:
    """A list of CPUs or memory nodes."""
    try:
        number_lists.bits(number_lists.without_blanks(value))
    except InvalidArgumentError as error:
        raise _fault(
            path,
            f"must be a list such as 0-3,7, of numbers up to {number_lists.MAXIMUM}, "
            f"not {shape.shown(value)}",
        ) from error


def _check_mounts(config: "Config") -> None:
    for index, mount in enumerate(config.get("mounts", ())):
        path = f"mounts[{index}]"
        if not mount["destination"]:
            raise _fault(f"{path}.destination", "must not be empty")
        options = mount.get("options", ())
        if not mount.get("type") and not {"bind", "rbind", "remount"} & set(options):
            raise _fault(f"{path}.type", "is required for what is not a bind mount")
        if ("uidMappings" in mount) != ("gidMappings" in mount):
            raise _fault(path, "uidMappings and gidMappings go together")
        if "uidMappings" in mount:
            if not {"bind", "rbind"} & set(options):
                raise _fault(f"{path}.uidMappings", "is for bind mounts alone")
            _check_mappings(f"{path}.uidMappings", mount["uidMappings"])
            _check_mappings(f"{path}.gidMappings", mount["gidMappings"])


def _check_mappings(path: str, mappings: "list[IdMapping]") -> None:
    if not 1 <= len(mappings) <= _MAX_MAPPINGS:
        raise _fault(path, f"must have from 1 to {_MAX_MAPPINGS} entries, user_namespaces(7)")
    for index, mapping in enumerate(mappings):
        if not mapping["size"]:
            raise _fault(f"{path}[{index}].size", "must not be 0")
        if max(mapping["containerID"], mapping["hostID"]) + mapping["size"] > _NO_ID:
            raise _fault(f"{path}[{index}]", "reaches beyond the highest id")
    for side in ("containerID", "hostID"):
        end = 0
        for first, size, index in sorted(
            (mapping[side], mapping["size"], index) for index, mapping in enumerate(mappings)
        ):
            if first < end:
                raise _fault(f"{path}[{index}].{side}", "overlaps with another range")
            end = first + size


def _check_hooks(config: "Config") -> None:
    hooks = config.get("hooks", {})
    for moment, programs in (
        ("prestart", hooks.get("prestart", ())),
        ("createRuntime", hooks.get("createRuntime", ())),
        ("createContainer", hooks.get("createContainer", ())),
        ("startContainer", hooks.get("startContainer", ())),
        ("poststart", hooks.get("poststart", ())),
        ("poststop", hooks.get("poststop", ())),
    ):
        for index, program in enumerate(programs):
            _require_absolute(f"hooks.{moment}[{index}].path", program["path"])


def _check_namespaces(config: "Config") -> None:
    linux = config.get("linux", {})
    seen = set()
    for index, namespace in enumerate(linux.get("namespaces", ())):
        path, kind = f"linux.namespaces[{index}]", namespace["type"]
        if kind in seen:
            raise _fault(f"{path}.type", f"the {kind} namespace is there twice")
        seen.add(kind)
        if namespace.get("path"):
            _require_absolute(f"{path}.path", namespace["path"])
    namespaces = _namespaces(config)
    for field, mappings in (
        ("linux.uidMappings", linux.get("uidMappings")),
        ("linux.gidMappings", linux.get("gidMappings")),
    ):
        if mappings:
            _require_namespace(config, "user", field)
            _check_mappings(field, mappings)
        elif namespaces.get("user") == "":
            raise _fault(field, "is required for a new user namespace")
    _check_time_offsets(linux, namespaces)


def _check_time_offsets(linux: "Linux", namespaces: dict[str, str]) -> None:
    offsets = linux.get("timeOffsets")
    if not offsets:
        return
    if namespaces.get("time") != "":
        raise _fault(
            "linux.timeOffsets",
            "needs a new time namespace",
            'add {"type": "time"}, without a path, to linux.namespaces',
        )
    for clock in offsets:
        if clock not in ("boottime", "monotonic"):
            raise _fault(f"linux.timeOffsets.{clock}", "time_namespaces(7) knows no such clock")


def _check_sysctls(config: "Config") -> None:
    namespaces = _namespaces(config)
    for given in config.get("linux", {}).get("sysctl", {}):
        path = f"linux.sysctl.{given}"
        parts = sysctl_path(given).split("/")
        name = ".".join(parts)
        if any(part in ("", ".", "..") for part in parts):
            raise _fault(path, "is no name of a kernel parameter")
        if name in _IPC_SYSCTLS or parts[:2] == ["fs", "mqueue"]:
            _require_namespace(config, "ipc", path)
        elif parts[0] == "net":
            _require_namespace(config, "network", path)
        elif name == "kernel.domainname":
            _require_namespace(config, "uts", path)
        elif name == "kernel.hostname" and "uts" in namespaces:
            raise _fault(path, "is what the field hostname is for")
        else:
            raise _fault(
                path, "would change the host: it belongs to no namespace of the container's own"
            )


def _check_paths(config: "Config") -> None:
    linux = config.get("linux", {})
    for field, paths in (
        ("linux.maskedPaths", linux.get("maskedPaths")),
        ("linux.readonlyPaths", linux.get("readonlyPaths")),
    ):
        if paths:
            _require_namespace(config, "mount", field)
        for index, value in enumerate(paths or ()):
            _require_absolute(f"{field}[{index}]", value)
    if ".." in linux.get("cgroupsPath", "").split("/"):
        raise _fault("linux.cgroupsPath", "must not lead upwards")


def _check_devices(config: "Config") -> None:
    for index, device in enumerate(config.get("linux", {}).get("devices", ())):
        path = f"linux.devices[{index}]"
        _require_absolute(f"{path}.path", device["path"])
        if not os.path.normpath(device["path"]).strip("/"):
            raise _fault(f"{path}.path", "/ is the container's root, and no place for a device")
        if device["type"] != "p":
            for field, number, maximum in (
                ("major", device.get("major"), _MAX_MAJOR),
                ("minor", device.get("minor"), _MAX_MINOR),
            ):
                if number is None:
                    raise _fault(f"{path}.{field}", "is required")
                if not 0 <= number <= maximum:
                    raise _fault(f"{path}.{field}", f"must be from 0 to {maximum}, not {number}")
        if _NO_ID in (device.get("uid"), device.get("gid")):
            raise _fault(path, f"{_NO_ID} is not an id")


def _check_network_devices(config: "Config") -> None:
    devices = config.get("linux", {}).get("netDevices")
    if not devices:
        return
    _require_namespace(config, "network", "linux.netDevices")
    names = set()
    for device, settings in devices.items():
        path = f"linux.netDevices.{device}"
        name = settings.get("name") or device
        for text in (device, name):
            if (
                not 1 <= len(text.encode("utf-8", "surrogateescape")) <= _MAX_INTERFACE_NAME_BYTES
                or text in (".", "..")
                or any(character in "/:" or character.isspace() for character in text)
            ):
                raise _fault(path, f"{shape.shown(text)} cannot be an interface's name")
        if name in names:
            raise _fault(path, f"two devices would be {name}")
        names.add(name)


def _check_resources(config: "Config") -> None:
    resources = config.get("linux", {}).get("resources", {})
    path = "linux.resources"
    for name in resources.get("unified", {}):
        if "/" in name or name in ("", ".", ".."):
            raise _fault(f"{path}.unified", f"{shape.shown(name)} is no file of a cgroup")
    for index, rule in enumerate(resources.get("devices", ())):
        if min(rule.get("major", -1), rule.get("minor", -1)) < -1:
            raise _fault(f"{path}.devices[{index}]", "a device number must be -1 (all) or above")
    cpu = resources.get("cpu", {})
    for field, value in (("cpus", cpu.get("cpus")), ("mems", cpu.get("mems"))):
        if value:
            _check_list(f"{path}.cpu.{field}", value)
    block_io = resources.get("blockIO", {})
    for index, weights in enumerate(block_io.get("weightDevice", ())):
        if "weight" not in weights and "leafWeight" not in weights:
            raise _fault(f"{path}.blockIO.weightDevice[{index}]", "needs weight or leafWeight")
    for field, throttles in (
        ("throttleReadBpsDevice", block_io.get("throttleReadBpsDevice", ())),
        ("throttleWriteBpsDevice", block_io.get("throttleWriteBpsDevice", ())),
        ("throttleReadIOPSDevice", block_io.get("throttleReadIOPSDevice", ())),
        ("throttleWriteIOPSDevice", block_io.get("throttleWriteIOPSDevice", ())),
    ):
        for index, throttle in enumerate(throttles):
            if "rate" not in throttle:
                raise _fault(f"{path}.blockIO.{field}[{index}].rate", "is required")
    for name, limits in resources.get("rdma", {}).items():
        if "hcaHandles" not in limits and "hcaObjects" not in limits:
            raise _fault(f"{path}.rdma.{name}", "needs hcaHandles or hcaObjects")


def _check_seccomp(config: "Config") -> None:
    section = config.get("linux", {}).get("seccomp")
    if section is None:
        return
    path = "linux.seccomp"
    rules = section.get("syscalls", [])
    _check_errno(
        f"{path}.defaultErrnoRet", section["defaultAction"], section.get("defaultErrnoRet")
    )
    if section["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise _fault(f"{path}.defaultAction", "SCMP_ACT_NOTIFY would stop the runtime itself")
    for index, rule in enumerate(rules):
        if not rule["names"] or "" in rule["names"]:
            raise _fault(f"{path}.syscalls[{index}].names", "must name system calls")
        _check_errno(f"{path}.syscalls[{index}].errnoRet", rule["action"], rule.get("errnoRet"))
    _check_listener(section)


def _check_errno(path: str, action: str, value: int | None) -> None:
    if value is None:
        return
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise _fault(path, f"{action} returns no errno")
    if value > 0xFFFF:
        raise _fault(path, "must be from 0 to 65535")


def _check_listener(section: "Seccomp") -> None:
    notifying = [
        (index, rule)
        for index, rule in enumerate(section.get("syscalls", ()))
        if rule["action"] == "SCMP_ACT_NOTIFY"
    ]
    if notifying and not section.get("listenerPath"):
        raise _fault("linux.seccomp.listenerPath", "is required with SCMP_ACT_NOTIFY")
    if section.get("listenerMetadata") and not section.get("listenerPath"):
        raise _fault("linux.seccomp.listenerMetadata", "needs listenerPath")
    for index, rule in notifying:
        if "write" in rule["names"]:
            raise _fault(
                f"linux.seccomp.syscalls[{index}]",
                "SCMP_ACT_NOTIFY cannot be for write, with which the runtime reports the listener",
            )


def _check_tuning(config: "Config") -> None:
    linux = config.get("linux", {})
    if linux.get("personality", {}).get("flags"):
        raise _fault("linux.personality.flags", "the specification defines no flags")
    identity = linux.get("intelRdt", {}).get("closID", "")
    if "/" in identity or identity in (".", ".."):
        raise _fault("linux.intelRdt.closID", "must be a directory's name")
    policy = linux.get("memoryPolicy")
    if policy is not None:
        nodes, mode = policy.get("nodes", ""), policy["mode"]
        if nodes:
            _check_list("linux.memoryPolicy.nodes", nodes)
            if mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
                raise _fault("linux.memoryPolicy.nodes", f"must be empty under {mode}")
        elif mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
            raise _fault("linux.memoryPolicy.nodes", f"is required under {mode}")
        if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= set(policy.get("flags", ())):
            raise _fault(
                "linux.memoryPolicy.flags",
                "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
            )


_CHECKS = (
    _check_document,
    _check_namespaces,
    _check_names,
    _check_process,
    _check_mounts,
    _check_hooks,
    _check_sysctls,
    _check_paths,
    _check_devices,
    _check_network_devices,
    _check_resources,
    _check_seccomp,
    _check_tuning,
)
