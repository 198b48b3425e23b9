"""The shape of ``config.json``, of its process and of its resources: ``ketch.spec.shape``."""

from ketch.spec import seccomp
from ketch.spec.shape import (
    INT32,
    INT64,
    UINT16,
    UINT32,
    UINT64,
    Misfit,
    array,
    choice,
    flag,
    integer,
    made_of,
    mapping,
    record,
    shown,
    text,
    texts,
    worded,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.shape import Shape


def _page_size(value: object) -> None:
    """A size as the kernel names its huge pages'."""
    if type(value) is str:
        digits, unit = value[:-2], value[-2:]
        plain = digits.isascii() and digits.isdigit() and digits[0] != "0"
        if plain and unit in {"KB", "MB", "GB"}:
            return
    raise Misfit(f"must be a size such as 2MB, not {shown(value)}")


def _bandwidth(value: object) -> None:
    if type(value) is not str or not value.startswith("MB:") or "\n" in value:
        raise Misfit(f"must be one line that starts with MB:, not {shown(value)}")


_CPU_LIST = made_of("0123456789, -", "a list such as 0-3,7")
_ID_MAPPINGS = array(record({"containerID!": UINT32, "hostID!": UINT32, "size!": UINT32}))

PROCESS = record({
    "cwd!": text,
    "args": texts,
    "commandLine": text,
    "env": texts,
    "terminal": flag,
    "consoleSize": record({"height!": UINT64, "width!": UINT64}),
    "user": record({
        "uid": UINT32,
        "gid": UINT32,
        "umask": UINT32,
        "additionalGids": array(UINT32),
        "username": text,
    }),
    "capabilities": record({
        "bounding": texts,
        "effective": texts,
        "inheritable": texts,
        "permitted": texts,
        "ambient": texts,
    }),
    "rlimits": array(record({
        "type!": worded(
            "RLIMIT_", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "a name such as RLIMIT_NOFILE"
        ),
        "soft!": UINT64,
        "hard!": UINT64,
    })),
    "noNewPrivileges": flag,
    "apparmorProfile": text,
    "selinuxLabel": text,
    "oomScoreAdj": integer(-1000, 1000),
    "ioPriority": record({
        "class!": choice("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
        "priority": integer(0, 7),
    }),
    "scheduler": record({
        "policy!": choice(
            "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE",
            "SCHED_DEADLINE",
        ),
        "nice": INT32,
        "priority": INT32,
        "flags": array(choice(
            "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        )),
        "runtime": UINT64,
        "deadline": UINT64,
        "period": UINT64,
    }),
    "execCPUAffinity": record({"initial": _CPU_LIST, "final": _CPU_LIST}),
})  # fmt: skip

_HOOKS = array(record({
    "path!": text,
    "args": texts,
    "env": texts,
    "timeout": integer(1, 2**31 - 1),
}))  # fmt: skip

_DEVICE_NUMBERS: "dict[str, Shape]" = {"major!": INT64, "minor!": INT64}
_THROTTLES = array(record({**_DEVICE_NUMBERS, "rate": UINT64}))

RESOURCES = record({
    "unified": mapping(text),
    "devices": array(record({
        "allow!": flag,
        "type": choice("", "a", "b", "c"),
        "major": INT64,
        "minor": INT64,
        "access": made_of("rwm", "made of r, w and m"),
    })),
    "pids": record({"limit!": INT64}),
    "memory": record({
        "limit": INT64,
        "reservation": INT64,
        "swap": INT64,
        "kernel": INT64,
        "kernelTCP": INT64,
        "swappiness": integer(0, 100),
        "disableOOMKiller": flag,
        "useHierarchy": flag,
        "checkBeforeUpdate": flag,
    }),
    "cpu": record({
        "shares": UINT64,
        "quota": INT64,
        "burst": UINT64,
        "period": UINT64,
        "realtimeRuntime": INT64,
        "realtimePeriod": UINT64,
        "cpus": text,
        "mems": text,
        "idle": INT64,
    }),
    "blockIO": record({
        "weight": UINT16,
        "leafWeight": UINT16,
        "weightDevice": array(record({
            **_DEVICE_NUMBERS, "weight": UINT16, "leafWeight": UINT16,
        })),
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    }),
    "hugepageLimits": array(record({
        "pageSize!": _page_size,
        "limit!": UINT64,
    })),
    "network": record({
        "classID": UINT32,
        "priorities": array(record({"name!": text, "priority!": UINT32})),
    }),
    "rdma": mapping(record({"hcaHandles": UINT32, "hcaObjects": UINT32})),
})  # fmt: skip

_OFFSET = record({"secs": INT64, "nanosecs": integer(0, 999_999_999)})

_LINUX = record({
    "namespaces": array(record({
        "type!": choice("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"),
        "path": text,
    })),
    "uidMappings": _ID_MAPPINGS,
    "gidMappings": _ID_MAPPINGS,
    "timeOffsets": record({"boottime": _OFFSET, "monotonic": _OFFSET}),
    "devices": array(record({
        "type!": choice("c", "b", "u", "p"),
        "path!": text,
        "major": INT64,
        "minor": INT64,
        # The schema has permissions only, yet podman writes the type of the file too.
        "fileMode": integer(0, 0o177777),
        "uid": UINT32,
        "gid": UINT32,
    })),
    "netDevices": mapping(record({"name": text})),
    "cgroupsPath": text,
    "resources": RESOURCES,
    # The schema knows no recursive ones, yet containerd writes them and runc takes them.
    "rootfsPropagation": choice(
        "private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable",
        "",
    ),
    "seccomp": seccomp.SECTION,
    "sysctl": mapping(text),
    "maskedPaths": texts,
    "readonlyPaths": texts,
    "mountLabel": text,
    "intelRdt": record({
        "closID": text,
        "schemata": texts,
        "l3CacheSchema": text,
        "memBwSchema": _bandwidth,
        "enableMonitoring": flag,
    }),
    "memoryPolicy": record({
        "mode!": choice(
            "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE",
            "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
        ),
        "nodes": text,
        "flags": array(choice(
            "MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES",
        )),
    }),
    "personality": record({"domain!": choice("LINUX", "LINUX32"), "flags": texts}),
})  # fmt: skip

CONFIG = record({
    "ociVersion!": text,
    "root!": record({"path!": text, "readonly": flag}),
    "mounts": array(record({
        "destination!": text,
        "source": text,
        "type": text,
        "options": texts,
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
    })),
    "process": PROCESS,
    "hostname": text,
    "domainname": text,
    "hooks": record({
        "prestart": _HOOKS,
        "createRuntime": _HOOKS,
        "createContainer": _HOOKS,
        "startContainer": _HOOKS,
        "poststart": _HOOKS,
        "poststop": _HOOKS,
    }),
    "annotations": mapping(text),
    "linux": _LINUX,
})  # fmt: skip
