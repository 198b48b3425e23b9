"""``features`` and ``spec``."""

import os

import ketch
from ketch import cgroups
from ketch.errors import AlreadyExistsError, UnavailableError
from ketch.spec import features as feature_list
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
    "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PLAIN = ("nosuid", "noexec", "nodev")


def features(_settings: "Settings", _options: "Parsed") -> int:
    """Print what this runtime can do."""
    annotations = {"dev.ketch.version": ketch.__version__}
    print(json_text.dumps_indented(feature_list.document(annotations), "    "))
    return 0


def spec(_settings: "Settings", options: "Parsed") -> int:
    """Write a configuration to begin from."""
    path = os.path.join(options.text("bundle"), "config.json")
    config = _template()
    if options.enabled("rootless"):
        _make_rootless(config)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json_text.dumps_indented(config, "\t"))
    except FileExistsError:
        raise AlreadyExistsError(
            "File config.json exists. Remove it first", f"it is {os.path.abspath(path)}"
        ) from None
    return 0


def _template() -> "dict[str, Any]":
    capabilities = list(_CAPABILITIES)
    kinds = ["pid", "network", "ipc", "uts", "mount"]
    if _has_only_v2():
        kinds.append("cgroup")
    return {
        "ociVersion": feature_list.OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ketch",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance",
                   "ptmxmode=0666", "mode=0620", "gid=5"),
            _mount("/dev/shm", "tmpfs", "shm", *_PLAIN, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", *_PLAIN),
            _mount("/sys", "sysfs", "sysfs", *_PLAIN, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *_PLAIN, "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }  # fmt: skip


def _mount(destination: str, kind: str, source: str, *options: str) -> "dict[str, Any]":
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _make_rootless(config: "dict[str, Any]") -> None:
    """Change what a user without privileges may not have: as ``runc spec --rootless``."""
    linux = config["linux"]
    del linux["resources"]
    kept = [each for each in linux["namespaces"] if each["type"] != "network"]
    linux["namespaces"] = [*kept, {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    for index, mount in enumerate(config["mounts"]):
        if mount["destination"] == "/sys":
            config["mounts"][index] = _mount("/sys", "none", "/sys", "rbind", *_PLAIN, "ro")
        elif "options" in mount:
            mount["options"] = [
                option for option in mount["options"] if not option.startswith(("uid=", "gid="))
            ]


def _has_only_v2() -> bool:
    try:
        return cgroups.detect().mode == "v2"
    except UnavailableError:
        return False
