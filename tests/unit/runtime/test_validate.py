import copy
import json
import pathlib
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.runtime.validate import validate, validate_process
from ketch.spec import capabilities
from ketch.spec.seccomp import to_oci
from ketch.spec.seccomp_default import default_profile

SCHEMAS = pathlib.Path(__file__).parents[2] / "reference/oci_runtime.json"

ID_MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]
DEVICE = {"major": 8, "minor": 0}

# Every field of the specification, with a value that is right.
FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "host",
    "domainname": "domain",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {
            "destination": "/data", "source": "/srv", "options": ["rbind", "ro"],
            "uidMappings": ID_MAP, "gidMappings": ID_MAP,
        },
    ],
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {
            "uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4], "username": "me",
        },
        "args": ["sh", "-c", "true"],
        "env": ["PATH=/bin", "TERM=xterm", "EMPTY="],
        "cwd": "/",
        "capabilities": {
            "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2**64 - 1}],
        "noNewPrivileges": True,
        "apparmorProfile": "profile",
        "selinuxLabel": "label",
        "oomScoreAdj": -500,
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "scheduler": {
            "policy": "SCHED_DEADLINE", "nice": 0, "priority": 0, "runtime": 1, "deadline": 2,
            "period": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        },
        "execCPUAffinity": {"initial": "0-3", "final": "1, 3-4"},
    },
    "hooks": {
        moment: [{"path": "/hook", "args": ["hook"], "env": ["A=b"], "timeout": 5}]
        for moment in (
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        )
    },
    "annotations": {"org.example.key": "value"},
    "linux": {
        "namespaces": [
            {"type": "pid"}, {"type": "network", "path": "/run/netns/n"}, {"type": "ipc"},
            {"type": "uts"}, {"type": "mount"}, {"type": "user"}, {"type": "cgroup"},
            {"type": "time"},
        ],
        "uidMappings": ID_MAP,
        "gidMappings": ID_MAP,
        "timeOffsets": {
            "monotonic": {"secs": -5, "nanosecs": 1}, "boottime": {"secs": 1, "nanosecs": 0},
        },
        "devices": [
            {
                "type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438,
                "uid": 0, "gid": 0,
            },
            {"type": "p", "path": "/dev/pipe"},
        ],
        "netDevices": {"eth0": {"name": "container0"}, "eth1": {}},
        "cgroupsPath": "/ketch/1",
        "resources": {
            "unified": {"memory.high": "max"},
            "devices": [{"allow": False, "access": "rwm"},
                        {"allow": True, "type": "c", "major": 1, "minor": -1, "access": "r"}],
            "pids": {"limit": -1},
            "memory": {
                "limit": 2**30, "reservation": 2**29, "swap": -1, "kernel": -1, "kernelTCP": -1,
                "swappiness": 60, "disableOOMKiller": False, "useHierarchy": True,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 1024, "quota": 50000, "burst": 1000, "period": 100000,
                "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "0-1", "mems": "0", "idle": 0,
            },
            "blockIO": {
                "weight": 500, "leafWeight": 500,
                "weightDevice": [{**DEVICE, "weight": 300, "leafWeight": 200}],
                "throttleReadBpsDevice": [{**DEVICE, "rate": 1}],
                "throttleWriteBpsDevice": [{**DEVICE, "rate": 2}],
                "throttleReadIOPSDevice": [{**DEVICE, "rate": 3}],
                "throttleWriteIOPSDevice": [{**DEVICE, "rate": 4}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
        },
        "rootfsPropagation": "slave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent",
            "listenerMetadata": "m",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["read", "write"], "action": "SCMP_ACT_ALLOW",
                    "args": [
                        {"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"},
                    ],
                },
                {"names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            ],
        },
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "1", "fs/mqueue/msg_max": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "label",
        "intelRdt": {
            "closID": "group", "schemata": ["L3:0=1"], "l3CacheSchema": "L3:0=1",
            "memBwSchema": "MB:0=20", "enableMonitoring": True,
        },
        "memoryPolicy": {
            "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"],
        },
        "personality": {"domain": "LINUX32", "flags": []},
    },
}  # fmt: skip

SMALL: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "args": ["sh"]},
    "linux": {"namespaces": [{"type": "mount"}]},
}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the field at a path such as ``linux.devices.0.uid`` set, or with ... removed."""
    copied = copy.deepcopy(document)
    target: Any = copied
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    if value is ...:
        del target[last]
    elif isinstance(target, list) and last == len(target):
        target.append(value)
    else:
        target[last] = value
    return copied


def refused(document: object) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        validate(document)
    return caught.value.message


def test_what_is_right_passes() -> None:
    for document in (FULL, SMALL):
        assert validate(document) is document
    assert validate(changed(SMALL, "future", {"unknown": 1}))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ociVersion", ..., "ociVersion: is required"),
        ("ociVersion", "2.0.0", "ociVersion: must be a version 1.x.y"),
        ("ociVersion", "1.0", "ociVersion: must be a version 1.x.y"),
        ("root", ..., "root: is required"),
        ("root/path", "", "root.path: must not be empty"),
        ("root/path", 7, "root.path: must be a string, not 7"),
        ("root/path", "a\0b", "root.path: must not contain a NUL"),
        ("root/path", "\ud800", "root.path: is not Unicode text"),
        ("annotations//", {}, "annotations"),
        ("process", ..., "process: is required"),
        ("process/cwd", "tmp", "process.cwd: must be an absolute path, not 'tmp'"),
        ("process/args", [], "process.args: must name a program"),
        ("process/args/1", 5, "process.args[1]: must be a string, not 5"),
        ("process/env/1", "TERM", "process.env[1]: must be NAME=value"),
        ("process/env/1", "=x", "process.env[1]: must be NAME=value"),
        ("process/user/uid", -1, "process.user.uid: must be from 0 to 4294967295, not -1"),
        ("process/user/uid", True, "process.user.uid: must be an integer, not True"),
        ("process/user/uid", 2**32 - 1, "process.user.uid: 4294967295 is not an id"),
        ("process/user/gid", 2**32 - 1, "process.user.gid: 4294967295 is not an id"),
        ("process/user/additionalGids/1", 2**32 - 1, "process.user.additionalGids[1]: 4294967295"),
        ("process/user/umask", 0o1000, "process.user.umask: must be from 0 to 511"),
        ("process/consoleSize/width", 65536, "process.consoleSize: must be from 0 to 65535"),
        ("process/consoleSize/height", ..., "process.consoleSize.height: is required"),
        ("process/rlimits/0/type", "RLIMIT_FOO", "process.rlimits[0].type: RLIMIT_FOO is no limit"),
        ("process/rlimits/0/soft", 2**64, "process.rlimits[0].soft: must be from 0"),
        ("process/rlimits/0/hard", 5, "process.rlimits[0].soft: must not be above the hard limit"),
        ("process/rlimits/1", {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
         "process.rlimits[1].type: RLIMIT_NOFILE is there twice"),
        ("process/oomScoreAdj", 1001, "process.oomScoreAdj: must be from -1000 to 1000"),
        ("process/ioPriority/class", "HIGH", "process.ioPriority.class: must be one of"),
        ("process/ioPriority/priority", 8, "process.ioPriority.priority: must be from 0 to 7"),
        ("process/scheduler/policy", ..., "process.scheduler.policy: is required"),
        ("process/scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice"),
        ("process/scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.priority: must be from"),
        ("process/scheduler", {"policy": "SCHED_BATCH", "priority": 1}, "process.scheduler.priori"),
        ("process/scheduler", {"policy": "SCHED_RR", "priority": 1, "period": 1},
         "process.scheduler.period: is for SCHED_DEADLINE alone"),
        ("process/execCPUAffinity/initial", "3-1", "process.execCPUAffinity.initial: must be a li"),
        ("process/execCPUAffinity/final", "a", "process.execCPUAffinity.final: must be a list"),
        ("mounts/0/destination", "", "mounts[0].destination: must not be empty"),
        ("mounts/0/type", ..., "mounts[0].type: is required"),
        ("mounts/1/gidMappings", ..., "mounts[1]: uidMappings and gidMappings go together"),
        ("mounts/1/options", ["ro"], "mounts[1].type: is required"),
        ("mounts/1/options/0", 1, "mounts[1].options[0]: must be a string, not 1"),
        ("hooks/prestart/0/path", "hook", "hooks.prestart[0].path: must be an absolute path"),
        ("hooks/poststop/0/timeout", 0, "hooks.poststop[0].timeout: must be from 1"),
        ("hostname", "x" * 65, "hostname: must not be longer than 64 bytes"),
        ("linux/namespaces/3", {"type": "pid"}, "linux.namespaces[3].type: the pid namespace is t"),
        ("linux/namespaces/3", {"type": "mnt"}, "linux.namespaces[3].type: must be one of mount"),
        ("linux/namespaces/1/path", "ns", "linux.namespaces[1].path: must be an absolute path"),
        ("linux/gidMappings", ..., "linux.gidMappings: is required for a new user namespace"),
        ("linux/uidMappings/0/size", 0, "linux.uidMappings[0].size: must not be 0"),
        ("linux/uidMappings/0/hostID", 2**32 - 2, "linux.uidMappings[0]: reaches beyond"),
        ("linux/uidMappings/0", {"containerID": 1, "hostID": 0, "size": 2**32 - 1},
         "linux.uidMappings[0]: reaches beyond"),
        ("linux/uidMappings/1", {"containerID": 65535, "hostID": 1, "size": 1},
         "linux.uidMappings[1].containerID: overlaps"),
        ("linux/uidMappings/1", {"containerID": 65536, "hostID": 165535, "size": 9},
         "linux.uidMappings[1].hostID: overlaps"),
        ("linux/namespaces/7", ..., "linux.timeOffsets: needs a new time namespace"),
        ("linux/namespaces/7/path", "/ns", "linux.timeOffsets: needs a new time namespace"),
        ("linux/timeOffsets/realtime", {}, "linux.timeOffsets.realtime: time_namespaces(7) knows"),
        ("linux/timeOffsets/monotonic/nanosecs", 10**9, "linux.timeOffsets.monotonic.nanosecs"),
        ("linux/devices/0/path", "dev/x", "linux.devices[0].path: must be an absolute path"),
        ("linux/devices/0/path", "//a/..", "linux.devices[0].path: / is the container's root"),
        ("linux/devices/0/major", ..., "linux.devices[0].major: is required"),
        ("linux/devices/0/minor", 2**20, "linux.devices[0].minor: must be from 0 to 1048575"),
        ("linux/devices/0/uid", 2**32 - 1, "linux.devices[0]: 4294967295 is not an id"),
        ("linux/devices/0/type", "d", "linux.devices[0].type: must be one of c, b, u, p"),
        ("linux/devices/0/fileMode", 2**16, "linux.devices[0].fileMode: must be from 0 to 65535"),
        ("linux/netDevices/eth1/name", "a/b", "linux.netDevices.eth1: 'a/b' cannot be"),
        ("linux/netDevices/eth1/name", "container0", "linux.netDevices.eth1: two devices would"),
        ("linux/netDevices/an-interface-name", {}, "linux.netDevices.an-interface-name: 'an-int"),
        ("linux/cgroupsPath", "/a/../../b", "linux.cgroupsPath: must not lead upwards"),
        ("linux/resources/unified", {"../x": "1"}, "linux.resources.unified: '../x' is no file"),
        ("linux/resources/devices/1/major", -2, "linux.resources.devices[1]: a device number"),
        ("linux/resources/devices/1/access", "x", "linux.resources.devices[1].access: must be ma"),
        ("linux/resources/pids", {}, "linux.resources.pids.limit: is required"),
        ("linux/resources/memory/swappiness", 101, "linux.resources.memory.swappiness: must be"),
        ("linux/resources/cpu/cpus", "1-", "linux.resources.cpu.cpus: must be a list such as"),
        ("linux/resources/cpu/cpus", "0-40000000", "linux.resources.cpu.cpus: must be a list such"),
        ("linux/resources/cpu/mems", "0-8193", "linux.resources.cpu.mems: must be a list such as"),
        ("linux/memoryPolicy/nodes", "0-40000000", "linux.memoryPolicy.nodes: must be a list such"),
        (
            "process/execCPUAffinity/initial", "0-20000000",
            "process.execCPUAffinity.initial: must be a list such as 0-3,7, of numbers up to 8192",
        ),
        ("process/execCPUAffinity/final", "0,\u00b2", "process.execCPUAffinity.final: must be a"),
        ("linux/resources/blockIO/weightDevice/0", DEVICE, "linux.resources.blockIO.weightDevice["),
        ("linux/resources/blockIO/throttleReadBpsDevice/0", DEVICE,
         "linux.resources.blockIO.throttleReadBpsDevice[0].rate: is required"),
        ("linux/resources/hugepageLimits/0/pageSize", "2M", "linux.resources.hugepageLimits[0].pa"),
        ("linux/resources/rdma/mlx5_1", {}, "linux.resources.rdma.mlx5_1: needs hcaHandles or"),
        ("linux/rootfsPropagation", "loose", "linux.rootfsPropagation: must be one of private"),
        ("linux/seccomp/defaultAction", "SCMP_ACT_ALLOW", "linux.seccomp.defaultErrnoRet: SCMP_AC"),
        ("linux/seccomp/defaultAction", "ALLOW", "linux.seccomp.defaultAction: must be one of"),
        ("linux/seccomp/syscalls/0/names", [], "linux.seccomp.syscalls[0].names: must name"),
        ("linux/seccomp/syscalls/0/names", ["read", None], "linux.seccomp.syscalls[0].names[1]: "),
        ("linux/seccomp/syscalls/0/errnoRet", 1, "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_A"),
        ("linux/seccomp/syscalls/1/errnoRet", 65536, "linux.seccomp.syscalls[1].errnoRet: must be"),
        ("linux/seccomp/syscalls/0/args/0/index", 6, "linux.seccomp.syscalls[0].args[0].index: mu"),
        ("linux/seccomp/syscalls/0/action", "SCMP_ACT_NOTIFY", "linux.seccomp.syscalls[0]: SCMP_A"),
        ("linux/seccomp/listenerPath", ..., "linux.seccomp.listenerMetadata: needs listenerPath"),
        ("linux/sysctl", {"kernel.core_pattern": "x"}, "linux.sysctl.kernel.core_pattern: would c"),
        ("linux/sysctl", {"vm/swappiness": "1"}, "linux.sysctl.vm/swappiness: would change the ho"),
        ("linux/sysctl", {"net.//.kernel.core_pattern": "x"}, "linux.sysctl.net.//.kernel.core_p"),
        ("linux/sysctl", {"net/../kernel/core_pattern": "x"}, "linux.sysctl.net/../kernel/core_p"),
        ("linux/sysctl", {"kernel.hostname": "x"}, "linux.sysctl.kernel.hostname: is what the fi"),
        ("linux/sysctl", {"net.x": 1}, "linux.sysctl.net.x: must be a string, not 1"),
        ("linux/maskedPaths/0", "proc", "linux.maskedPaths[0]: must be an absolute path"),
        ("linux/readonlyPaths/0", "proc", "linux.readonlyPaths[0]: must be an absolute path"),
        ("linux/intelRdt/closID", "../x", "linux.intelRdt.closID: must be a directory's name"),
        ("linux/intelRdt/memBwSchema", "MB:1\nL3:", "linux.intelRdt.memBwSchema: must be one line"),
        ("linux/memoryPolicy/mode", "MPOL_LOCAL", "linux.memoryPolicy.nodes: must be empty under"),
        ("linux/memoryPolicy/nodes", "", "linux.memoryPolicy.nodes: is required under MPOL_BIND"),
        ("linux/memoryPolicy/flags", ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"],
         "linux.memoryPolicy.flags"),
        ("linux/personality/flags", ["x"], "linux.personality.flags: the specification defines no"),
        ("linux/personality/domain", ..., "linux.personality.domain: is required"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_field(path: str, value: Any, message: str) -> None:
    document = changed(FULL, path.rstrip("/") if path.endswith("//") else path, value)
    if path == "annotations//":
        document = changed(FULL, "annotations", {"": "x"})
    assert refused(document).startswith(message)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("hostname", "x", "uts"),
        ("domainname", "x", "uts"),
        ("linux/uidMappings", ID_MAP, "user"),
        ("linux/sysctl", {"net.core.somaxconn": "1"}, "network"),
        ("linux/sysctl", {"kernel.shmmax": "1"}, "ipc"),
        ("linux/sysctl", {"kernel.domainname": "x"}, "uts"),
        ("linux/netDevices", {"eth0": {}}, "network"),
        ("linux/maskedPaths", ["/x"], "mount"),
        ("linux/readonlyPaths", ["/x"], "mount"),
    ],
)
def test_what_needs_a_namespace(field: str, value: Any, kind: str) -> None:
    document = changed(changed(SMALL, "linux/namespaces", []), field, value)
    assert f"needs a {kind} namespace of the container's own" in refused(document)


def test_namespaces_that_are_joined_count_as_the_containers_own() -> None:
    joined = [{"type": "uts", "path": "/proc/1/ns/uts"}, {"type": "mount"}]
    validate(changed(changed(SMALL, "linux/namespaces", joined), "hostname", "x"))


def test_kernel_hostname_without_a_uts_namespace_would_change_the_host() -> None:
    assert "would change the host" in refused(
        changed(SMALL, "linux/sysctl", {"kernel.hostname": "x"})
    )


def test_console_size_is_ignored_without_a_terminal() -> None:
    size = {"height": 2**40, "width": 1}
    validate(changed(SMALL, "process/consoleSize", size))


def test_relative_destinations_are_let_pass() -> None:
    validate(changed(FULL, "mounts/0/destination", "proc"))


def test_what_podman_writes_passes() -> None:
    null = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20666}
    document = changed(SMALL, "linux/rootfsPropagation", "rslave")
    assert validate(changed(document, "linux/devices", [null]))


def test_fields_that_are_null_are_absent() -> None:
    document = copy.deepcopy(FULL)
    document["hooks"] = document["process"]["rlimits"] = document["linux"]["devices"] = None
    config = validate(document)
    assert "hooks" not in config
    assert "rlimits" not in config["process"]
    assert "devices" not in config["linux"]
    document["root"] = None
    with pytest.raises(InvalidArgumentError, match=r"root: is required"):
        validate(document)


def test_a_process_is_validated_alone() -> None:
    validate_process(FULL["process"])
    with pytest.raises(InvalidArgumentError, match=r"^process\.user\.uid: "):
        validate_process(changed(FULL["process"], "user/uid", -1))
    with pytest.raises(InvalidArgumentError, match=r"^process: must be an object"):
        validate_process(None)
    with pytest.raises(InvalidArgumentError, match=r"^process\.cwd: must be an absolute"):
        validate_process({"cwd": "", "args": ["x"]})


@pytest.mark.parametrize("document", [None, [], "x", 1, {}])
def test_no_document_at_all(document: object) -> None:
    assert refused(document)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_deep_nesting_is_no_traceback() -> None:
    assert refused(changed(SMALL, "process/args", nested(100_000)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(["", "/", "\0", "\ud800", "0-", "9" * 5000, "MB:", "RLIMIT_X", "..", "="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return found
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def without_nulls(value: Any) -> Any:
    """Take out the fields that are null, which are absent ones to Go."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


PLACES = places(FULL)


@pytest.fixture(scope="module")
def schema() -> Any:
    import jsonschema
    import referencing
    from referencing.jsonschema import DRAFT4

    documents: dict[str, Any] = json.loads(SCHEMAS.read_bytes())
    # What podman and containerd write, and every runtime takes, beyond the letter.
    documents["defs.json"]["definitions"]["FileMode"]["maximum"] = 0o177777
    documents["defs-linux.json"]["definitions"]["RootfsPropagation"]["enum"] += [
        "rprivate", "rshared", "rslave", "runbindable", "",
    ]  # fmt: skip
    # Of the other platforms only the references are there.
    for platform in ("solaris", "windows", "vm", "zos", "freebsd"):
        documents[f"config-{platform}.json"] = {platform: {}}
    resources = [
        (name, referencing.Resource.from_contents(document, default_specification=DRAFT4))
        for name, document in documents.items()
    ]
    registry: Any = referencing.Registry().with_resources(resources)
    return jsonschema.Draft4Validator(documents["config-schema.json"], registry=registry)


def test_the_full_example_is_full(schema: Any) -> None:
    assert list(schema.iter_errors(FULL)) == []


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON | st.just(...), second=st.sampled_from(PLACES))
def test_whatever_the_schema_refuses_is_refused(
    schema: Any, place: tuple[Any, ...], value: Any, second: tuple[Any, ...]
) -> None:
    document = copy.deepcopy(FULL)
    target: Any = document
    for key in place[:-1]:
        target = target[key]
    if value is ...:
        del target[place[-1]]
    elif isinstance(target, dict) and isinstance(value, str) and len(second) % 2:
        target[value] = target.pop(place[-1])
    else:
        target[place[-1]] = value
    fits = schema.is_valid(without_nulls(document))
    try:
        validate(document)
    except InvalidArgumentError:
        return
    assert fits


def test_a_docker_like_document_takes_less_than_a_millisecond() -> None:
    names = capabilities.to_names(capabilities.DEFAULT)
    document = copy.deepcopy(FULL)
    document["linux"]["seccomp"] = to_oci(default_profile(), names, "x86_64", "6.1.0")
    durations = []
    for _ in range(30):
        start = time.perf_counter()
        validate(document)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.001
