"""A container as the Docker Engine API describes it: what was asked for, in the API's own keys.

The command line, the API and the library all arrive at this form, and ``inspect`` shows it, so that
an option means one thing whoever gave it. Source: Docker Engine API 1.50, ``ContainerCreate``.
Types only: imported under ``TYPE_CHECKING``.
"""

from typing import TypedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.image import Healthcheck


class Request(TypedDict):
    """What makes a container: its own configuration and what it gets of the host."""

    Config: "Config"
    HostConfig: "HostConfig"


class Config(TypedDict, total=False):
    """What does not depend on the host; an image holds the same fields as defaults."""

    Hostname: str
    Domainname: str
    User: str
    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    Tty: bool
    OpenStdin: bool
    StdinOnce: bool
    Env: list[str]
    Cmd: list[str]
    Image: str
    Volumes: dict[str, dict[str, object]]
    ExposedPorts: dict[str, dict[str, object]]
    WorkingDir: str
    Entrypoint: list[str]
    Labels: dict[str, str]
    StopSignal: str
    StopTimeout: int
    Healthcheck: "Healthcheck"


class HostConfig(TypedDict, total=False):
    """What the container gets of the host. Sizes in bytes, CPU times in microseconds."""

    Annotations: dict[str, str]
    AutoRemove: bool
    Binds: list[str]
    CapAdd: list[str]
    CapDrop: list[str]
    CgroupParent: str
    CgroupnsMode: str
    ContainerIDFile: str
    CpuPeriod: int
    CpuQuota: int
    CpuShares: int
    CpusetCpus: str
    CpusetMems: str
    DeviceCgroupRules: list[str]
    Devices: list["DeviceMapping"]
    Dns: list[str]
    DnsOptions: list[str]
    DnsSearch: list[str]
    ExtraHosts: list[str]
    GroupAdd: list[str]
    Init: bool
    IpcMode: str
    Memory: int
    MemoryReservation: int
    MemorySwap: int
    MemorySwappiness: int
    Mounts: list["Mount"]
    NanoCpus: int
    NetworkMode: str
    OomKillDisable: bool
    OomScoreAdj: int
    PidMode: str
    PidsLimit: int
    Privileged: bool
    ReadonlyRootfs: bool
    SecurityOpt: list[str]
    ShmSize: int
    Sysctls: dict[str, str]
    Tmpfs: dict[str, str]
    UTSMode: str
    Ulimits: list["Ulimit"]


class DeviceMapping(TypedDict):
    """A host's device, where it appears, and what of r, w and m is allowed on it."""

    PathOnHost: str
    PathInContainer: str
    CgroupPermissions: str


class Ulimit(TypedDict):
    """A resource limit by its short name; -1 is unlimited."""

    Name: str
    Soft: int
    Hard: int


class Mount(TypedDict, total=False):
    """A mount; ``Type`` is bind or tmpfs."""

    Type: str
    Source: str
    Target: str
    ReadOnly: bool
    Consistency: str
    BindOptions: "BindOptions"
    TmpfsOptions: "TmpfsOptions"


class BindOptions(TypedDict, total=False):
    """How a bind mount behaves."""

    Propagation: str
    NonRecursive: bool
    CreateMountpoint: bool
    ReadOnlyNonRecursive: bool
    ReadOnlyForceRecursive: bool


class TmpfsOptions(TypedDict, total=False):
    """A tmpfs's size in bytes and its root's permission bits."""

    SizeBytes: int
    Mode: int
