"""The runtime specification's documents as types: ``config.json``, the state, the features.

Runtime-spec 1.3, Linux only; keys keep their wire spelling. What the specification's JSON schema
does not require is NotRequired. Nothing here exists for running code: import it under
``TYPE_CHECKING``. What a document must satisfy beyond its types is in ``ketch.runtime.validate``.
"""

from typing import Literal, NotRequired, TypedDict

NamespaceType = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]
Status = Literal["creating", "created", "running", "stopped"]


class Config(TypedDict):
    """A container's ``config.json``."""

    ociVersion: str
    root: NotRequired["Root"]
    mounts: NotRequired[list["Mount"]]
    process: NotRequired["Process"]
    hostname: NotRequired[str]
    domainname: NotRequired[str]
    hooks: NotRequired["Hooks"]
    annotations: NotRequired[dict[str, str]]
    linux: NotRequired["Linux"]


class Root(TypedDict):
    """The root filesystem: absolute, or relative to the bundle."""

    path: str
    readonly: NotRequired[bool]


class Mount(TypedDict):
    """One mount; ``options`` mixes flags with the filesystem's own data, as mount(8) does.

    ``shown`` is ketch's own: what people are told of a source that is ``/proc/self/fd/N``.
    """

    destination: str
    source: NotRequired[str]
    type: NotRequired[str]
    options: NotRequired[list[str]]
    uidMappings: NotRequired[list["IdMapping"]]
    gidMappings: NotRequired[list["IdMapping"]]
    shown: NotRequired[str]


class IdMapping(TypedDict):
    """A range of ids of a user namespace, or of an id-mapped mount."""

    containerID: int
    hostID: int
    size: int


class Process(TypedDict):
    """The container's process, or one that exec adds."""

    cwd: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    terminal: NotRequired[bool]
    consoleSize: NotRequired["ConsoleSize"]
    user: NotRequired["User"]
    capabilities: NotRequired["Capabilities"]
    rlimits: NotRequired[list["Rlimit"]]
    noNewPrivileges: NotRequired[bool]
    apparmorProfile: NotRequired[str]
    selinuxLabel: NotRequired[str]
    oomScoreAdj: NotRequired[int]
    ioPriority: NotRequired["IoPriority"]
    scheduler: NotRequired["Scheduler"]
    execCPUAffinity: NotRequired["ExecCpuAffinity"]


class ConsoleSize(TypedDict):
    """A terminal's size in characters."""

    height: int
    width: int


class User(TypedDict):
    """Numeric ids; ``umask`` in decimal as JSON has it."""

    uid: NotRequired[int]
    gid: NotRequired[int]
    umask: NotRequired[int]
    additionalGids: NotRequired[list[int]]
    username: NotRequired[str]


class Capabilities(TypedDict, total=False):
    """The five sets of capabilities(7), as ``CAP_*`` names."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """One limit of getrlimit(2); ``type`` is its ``RLIMIT_*`` name."""

    type: str
    soft: int
    hard: int


IoPriority = TypedDict("IoPriority", {"class": str, "priority": NotRequired[int]})
"""ioprio_set(2): an ``IOPRIO_CLASS_*`` name and a level within it."""


class Scheduler(TypedDict):
    """sched_setattr(2); ``runtime``, ``deadline`` and ``period`` in nanoseconds."""

    policy: str
    nice: NotRequired[int]
    priority: NotRequired[int]
    flags: NotRequired[list[str]]
    runtime: NotRequired[int]
    deadline: NotRequired[int]
    period: NotRequired[int]


class ExecCpuAffinity(TypedDict, total=False):
    """CPU lists (``0-3,7``) for a process that exec adds: before and after it joins the cgroup."""

    initial: str
    final: str


class Hooks(TypedDict, total=False):
    """Programs to run at points of the container's life."""

    prestart: list["Hook"]
    createRuntime: list["Hook"]
    createContainer: list["Hook"]
    startContainer: list["Hook"]
    poststart: list["Hook"]
    poststop: list["Hook"]


class Hook(TypedDict):
    """One program; ``args`` includes argv[0]; ``timeout`` in seconds."""

    path: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    timeout: NotRequired[int]


class Linux(TypedDict, total=False):
    """What is particular to Linux."""

    namespaces: list["Namespace"]
    uidMappings: list[IdMapping]
    gidMappings: list[IdMapping]
    timeOffsets: dict[str, "TimeOffset"]
    devices: list["Device"]
    netDevices: dict[str, "NetDevice"]
    cgroupsPath: str
    resources: "Resources"
    rootfsPropagation: str
    seccomp: "Seccomp"
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: "IntelRdt"
    memoryPolicy: "MemoryPolicy"
    personality: "Personality"


class Namespace(TypedDict):
    """A namespace to make, or with ``path`` to join."""

    type: NamespaceType
    path: NotRequired[str]


class TimeOffset(TypedDict, total=False):
    """An offset of a clock (``monotonic`` or ``boottime``) of a new time namespace."""

    secs: int
    nanosecs: int


class Device(TypedDict):
    """A device node: ``type`` is c, b, u (as c) or p; ``fileMode`` in decimal as JSON has it."""

    type: str
    path: str
    major: NotRequired[int]
    minor: NotRequired[int]
    fileMode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]


class NetDevice(TypedDict, total=False):
    """A host's network device to move in, and its name there."""

    name: str


class Resources(TypedDict, total=False):
    """Limits, by cgroup controller; ``unified`` holds cgroup v2 files verbatim."""

    devices: list["DeviceRule"]
    memory: "Memory"
    cpu: "Cpu"
    pids: "Pids"
    blockIO: "BlockIo"
    hugepageLimits: list["HugepageLimit"]
    network: "NetworkResources"
    rdma: dict[str, "Rdma"]
    unified: dict[str, str]


class DeviceRule(TypedDict):
    """A rule of the device cgroup; ``access`` is made of r, w and m; no number, or -1, is all."""

    allow: bool
    type: NotRequired[str]
    major: NotRequired[int]
    minor: NotRequired[int]
    access: NotRequired[str]


class Memory(TypedDict, total=False):
    """Bytes; -1 is unlimited; ``swap`` counts memory and swap together."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class Cpu(TypedDict, total=False):
    """Times in microseconds; ``shares`` on cgroup v1's scale."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict):
    """How many tasks there may be; -1 is unlimited."""

    limit: int


class BlockIo(TypedDict, total=False):
    """Weights (10 to 1000) and throttles of block devices."""

    weight: int
    leafWeight: int
    weightDevice: list["WeightDevice"]
    throttleReadBpsDevice: list["ThrottleDevice"]
    throttleWriteBpsDevice: list["ThrottleDevice"]
    throttleReadIOPSDevice: list["ThrottleDevice"]
    throttleWriteIOPSDevice: list["ThrottleDevice"]


class WeightDevice(TypedDict):
    """A device's weights."""

    major: int
    minor: int
    weight: NotRequired[int]
    leafWeight: NotRequired[int]


class ThrottleDevice(TypedDict):
    """A device's rate, in bytes or operations a second."""

    major: int
    minor: int
    rate: NotRequired[int]


class HugepageLimit(TypedDict):
    """Bytes of huge pages of one size, such as ``2MB``."""

    pageSize: str
    limit: int


class NetworkResources(TypedDict, total=False):
    """The net_cls and net_prio controllers."""

    classID: int
    priorities: list["InterfacePriority"]


class InterfacePriority(TypedDict):
    """A priority for the traffic that leaves by one interface."""

    name: str
    priority: int


class Rdma(TypedDict, total=False):
    """Limits of one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class Seccomp(TypedDict):
    """A system call filter."""

    defaultAction: str
    defaultErrnoRet: NotRequired[int]
    architectures: NotRequired[list[str]]
    flags: NotRequired[list[str]]
    listenerPath: NotRequired[str]
    listenerMetadata: NotRequired[str]
    syscalls: NotRequired[list["SeccompRule"]]


class SeccompRule(TypedDict):
    """What happens to some system calls when all of ``args`` hold."""

    names: list[str]
    action: str
    errnoRet: NotRequired[int]
    args: NotRequired[list["SeccompArg"]]


class SeccompArg(TypedDict):
    """A comparison of one argument; ``value`` is the mask under SCMP_CMP_MASKED_EQ."""

    index: int
    value: int
    op: str
    valueTwo: NotRequired[int]


class IntelRdt(TypedDict, total=False):
    """Cache and memory bandwidth allocation through resctrl."""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class MemoryPolicy(TypedDict, total=False):
    """set_mempolicy(2)."""

    mode: str
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    """personality(2); the specification defines no flags yet."""

    domain: str
    flags: list[str]


class State(TypedDict):
    """A container's state, as hooks and ``state`` receive it; no ``pid`` once stopped."""

    ociVersion: str
    id: str
    status: Status
    pid: NotRequired[int]
    bundle: str
    annotations: NotRequired[dict[str, str]]


class ContainerProcessState(TypedDict):
    """What a seccomp listener receives beside ``fds`` in the same order (SCM_RIGHTS)."""

    ociVersion: str
    fds: list[str]
    pid: int
    metadata: NotRequired[str]
    state: State


class Features(TypedDict):
    """What a runtime can do."""

    ociVersionMin: str
    ociVersionMax: str
    hooks: NotRequired[list[str]]
    mountOptions: NotRequired[list[str]]
    linux: NotRequired["LinuxFeatures"]
    annotations: NotRequired[dict[str, str]]
    potentiallyUnsafeConfigAnnotations: NotRequired[list[str]]


class LinuxFeatures(TypedDict, total=False):
    """What a runtime can do on Linux."""

    namespaces: list[NamespaceType]
    capabilities: list[str]
    cgroup: "CgroupFeatures"
    seccomp: "SeccompFeatures"
    apparmor: "Enabled"
    selinux: "Enabled"
    intelRdt: "Enabled"
    mountExtensions: "MountExtensions"
    netDevices: "Enabled"


class CgroupFeatures(TypedDict, total=False):
    """The cgroup managers a runtime has."""

    v1: bool
    v2: bool
    systemd: bool
    systemdUser: bool
    rdma: bool


class SeccompFeatures(TypedDict, total=False):
    """The seccomp vocabulary a runtime has."""

    enabled: bool
    actions: list[str]
    operators: list[str]
    archs: list[str]
    knownFlags: list[str]
    supportedFlags: list[str]


class Enabled(TypedDict):
    """Whether a runtime has something at all."""

    enabled: bool


class MountExtensions(TypedDict, total=False):
    """What a runtime can do to mounts beyond mount(2)."""

    idmap: Enabled
