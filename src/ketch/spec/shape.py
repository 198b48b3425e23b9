"""The shape of ``config.json``: which fields there are, of which types, and which are required.

A shape is a function that takes a value out of a JSON document and raises Misfit when the value
is not of that shape. Fields that no shape names are let pass, as the runtime specification wants.
A field that is null is taken out: so Go's programs, runc among them, read and write what is absent.
"""

from ketch.spec import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[object], None]


class Misfit(Exception):  # noqa: N818 it never leaves this package
    """A value that is not of its shape.

    Attributes:
        path: the fields from the document's root to the value, the innermost first.
        message: what it should be.
    """

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = list(path)


def shown(value: object) -> str:
    """A value as an error names it: what it is, cut to a line's length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text(value: object) -> None:
    """A string that can become a C string."""
    if type(value) is not str:
        raise Misfit(f"must be a string, not {shown(value)}")
    if "\0" in value:
        raise Misfit(f"must not contain a NUL character: {shown(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise Misfit(f"is not Unicode text: {shown(value)}") from None


def flag(value: object) -> None:
    """True or false."""
    if type(value) is not bool:
        raise Misfit(f"must be true or false, not {shown(value)}")


def integer(minimum: int, maximum: int) -> "Shape":
    """An integer within bounds, both included."""

    def check(value: object) -> None:
        # bool is a kind of int in Python, and true is no number in JSON.
        if type(value) is not int:
            raise Misfit(f"must be an integer, not {shown(value)}")
        if not minimum <= value <= maximum:
            raise Misfit(f"must be from {minimum} to {maximum}, not {value}")

    return check


def choice(*known: str) -> "Shape":
    """One of some strings."""

    def check(value: object) -> None:
        if type(value) is not str or value not in known:
            raise Misfit(f"must be one of {', '.join(known)}, not {shown(value)}")

    return check


def made_of(characters: str, meaning: str) -> "Shape":
    """A string of some characters."""
    known = frozenset(characters)

    def check(value: object) -> None:
        if type(value) is not str or not known.issuperset(value):
            raise Misfit(f"must be {meaning}, not {shown(value)}")

    return check


def worded(start: str, characters: str, meaning: str) -> "Shape":
    """A string that is a start and then some characters, at least one."""
    rest = made_of(characters, meaning)

    def check(value: object) -> None:
        if type(value) is not str or not value.startswith(start) or value == start:
            raise Misfit(f"must be {meaning}, not {shown(value)}")
        rest(value.removeprefix(start))

    return check


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


def array(item: "Shape") -> "Shape":
    """An array of values of one shape."""

    def check(value: object) -> None:
        if type(value) is not list:
            raise Misfit(f"must be an array, not {shown(value)}")
        for index, element in enumerate(value):
            try:
                item(element)
            except Misfit as misfit:
                misfit.path.append(f"[{index}]")
                raise

    return check


def texts(value: object) -> None:
    """An array of strings, of which there may be hundreds."""
    if type(value) is list:
        try:
            # One look at all of them together, where none is at fault.
            text("".join(value))
        except (TypeError, Misfit):
            pass
        else:
            return
    _each_text(value)


_each_text = array(text)


def mapping(item: "Shape") -> "Shape":
    """An object with keys of any kind and values of one shape."""

    def check(value: object) -> None:
        if type(value) is not dict:
            raise Misfit(f"must be an object, not {shown(value)}")
        for key, element in value.items():
            try:
                text(key)
                item(element)
            except Misfit as misfit:
                misfit.path.append(f".{key}")
                raise

    return check


def record(fields: "dict[str, Shape]") -> "Shape":
    """An object with fields of known shapes; a name that ends in ``!`` is required."""
    shapes = {name.rstrip("!"): shape for name, shape in fields.items()}
    required = [name[:-1] for name in fields if name.endswith("!")]

    def check(value: object) -> None:
        if type(value) is not dict:
            raise Misfit(f"must be an object, not {shown(value)}")
        if None in value.values():
            for name in [name for name, element in value.items() if element is None]:
                del value[name]
        for name in required:
            if name not in value:
                raise Misfit("is required", f".{name}")
        for name, element in value.items():
            shape = shapes.get(name)
            if shape is not None:
                try:
                    shape(element)
                except Misfit as misfit:
                    misfit.path.append(f".{name}")
                    raise

    return check


_INT32 = integer(-(2**31), 2**31 - 1)
_INT64 = integer(-(2**63), 2**63 - 1)
_UINT16 = integer(0, 2**16 - 1)
_UINT32 = integer(0, 2**32 - 1)
_UINT64 = integer(0, 2**64 - 1)

_CPU_LIST = made_of("0123456789, -", "a list such as 0-3,7")
_ID_MAPPINGS = array(record({"containerID!": _UINT32, "hostID!": _UINT32, "size!": _UINT32}))

PROCESS = record({
    "cwd!": text,
    "args": texts,
    "commandLine": text,
    "env": texts,
    "terminal": flag,
    "consoleSize": record({"height!": _UINT64, "width!": _UINT64}),
    "user": record({
        "uid": _UINT32,
        "gid": _UINT32,
        "umask": _UINT32,
        "additionalGids": array(_UINT32),
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
        "soft!": _UINT64,
        "hard!": _UINT64,
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
        "nice": _INT32,
        "priority": _INT32,
        "flags": array(choice(
            "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        )),
        "runtime": _UINT64,
        "deadline": _UINT64,
        "period": _UINT64,
    }),
    "execCPUAffinity": record({"initial": _CPU_LIST, "final": _CPU_LIST}),
})  # fmt: skip

_HOOKS = array(record({
    "path!": text,
    "args": texts,
    "env": texts,
    "timeout": integer(1, 2**31 - 1),
}))  # fmt: skip

_DEVICE_NUMBERS: "dict[str, Shape]" = {"major!": _INT64, "minor!": _INT64}
_THROTTLES = array(record({**_DEVICE_NUMBERS, "rate": _UINT64}))

RESOURCES = record({
    "unified": mapping(text),
    "devices": array(record({
        "allow!": flag,
        "type": choice("", "a", "b", "c"),
        "major": _INT64,
        "minor": _INT64,
        "access": made_of("rwm", "made of r, w and m"),
    })),
    "pids": record({"limit!": _INT64}),
    "memory": record({
        "limit": _INT64,
        "reservation": _INT64,
        "swap": _INT64,
        "kernel": _INT64,
        "kernelTCP": _INT64,
        "swappiness": integer(0, 100),
        "disableOOMKiller": flag,
        "useHierarchy": flag,
        "checkBeforeUpdate": flag,
    }),
    "cpu": record({
        "shares": _UINT64,
        "quota": _INT64,
        "burst": _UINT64,
        "period": _UINT64,
        "realtimeRuntime": _INT64,
        "realtimePeriod": _UINT64,
        "cpus": text,
        "mems": text,
        "idle": _INT64,
    }),
    "blockIO": record({
        "weight": _UINT16,
        "leafWeight": _UINT16,
        "weightDevice": array(record({
            **_DEVICE_NUMBERS, "weight": _UINT16, "leafWeight": _UINT16,
        })),
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    }),
    "hugepageLimits": array(record({
        "pageSize!": _page_size,
        "limit!": _UINT64,
    })),
    "network": record({
        "classID": _UINT32,
        "priorities": array(record({"name!": text, "priority!": _UINT32})),
    }),
    "rdma": mapping(record({"hcaHandles": _UINT32, "hcaObjects": _UINT32})),
})  # fmt: skip

_ACTION = choice(*seccomp.ACTIONS)
_OFFSET = record({"secs": _INT64, "nanosecs": integer(0, 999_999_999)})

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
        "major": _INT64,
        "minor": _INT64,
        # The schema has permissions only, yet podman writes the type of the file too.
        "fileMode": integer(0, 0o177777),
        "uid": _UINT32,
        "gid": _UINT32,
    })),
    "netDevices": mapping(record({"name": text})),
    "cgroupsPath": text,
    "resources": RESOURCES,
    # The schema knows no recursive ones, yet containerd writes them and runc takes them.
    "rootfsPropagation": choice(
        "private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable",
        "",
    ),
    "seccomp": record({
        "defaultAction!": _ACTION,
        "defaultErrnoRet": _UINT32,
        "flags": array(choice(*seccomp.FLAGS)),
        "listenerPath": text,
        "listenerMetadata": text,
        "architectures": array(choice(*seccomp.ARCHITECTURES)),
        "syscalls": array(record({
            "names!": texts,
            "action!": _ACTION,
            "errnoRet": _UINT32,
            "args": array(record({
                "index!": integer(0, 5),
                "value!": _UINT64,
                "valueTwo": _UINT64,
                "op!": choice(*seccomp.OPERATORS),
            })),
        })),
    }),
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
