"""A container as the Docker Engine API describes it: what was asked for, in the API's own keys.

The command line, the API and the library all arrive at this form, and ``inspect`` shows it, so that
an option means one thing whoever gave it. Source: Docker Engine API 1.50, ``ContainerCreate``.
Types only: imported under ``TYPE_CHECKING``.
"""

from typing import NotRequired, TypedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.image import Healthcheck


class Request(TypedDict):
    """What makes a container: its own configuration and what it gets of the host."""

    Config: "Config"
    HostConfig: "HostConfig"
    NetworkingConfig: NotRequired["NetworkingConfig"]
    Platform: NotRequired[str]
    Mounts: NotRequired[list["MountPoint"]]


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
    HealthcheckOnFailureAction: str
    OnBuild: list[str]
    Shell: list[str]
    MacAddress: str
    NetworkDisabled: bool
    ArgsEscaped: bool
    SystemdMode: bool  # ketch's and podman's: what was found, and no request


class HostConfig(TypedDict, total=False):
    """What the container gets of the host. Sizes in bytes, CPU times in microseconds."""

    Annotations: dict[str, str]
    AutoRemove: bool
    Binds: list[str]
    BlkioDeviceReadBps: list["ThrottleDevice"]
    BlkioDeviceReadIOps: list["ThrottleDevice"]
    BlkioDeviceWriteBps: list["ThrottleDevice"]
    BlkioDeviceWriteIOps: list["ThrottleDevice"]
    BlkioWeight: int
    BlkioWeightDevice: list["WeightDevice"]
    CapAdd: list[str]
    CapDrop: list[str]
    CgroupParent: str
    CgroupnsMode: str
    ConsoleSize: list[int]
    ContainerIDFile: str
    CpuPeriod: int
    CpuQuota: int
    CpuRealtimePeriod: int
    CpuRealtimeRuntime: int
    CpuShares: int
    CpusetCpus: str
    CpusetMems: str
    DeviceCgroupRules: list[str]
    DeviceRequests: list["DeviceRequest"]
    Devices: list["DeviceMapping"]
    Dns: list[str]
    DnsOptions: list[str]
    DnsSearch: list[str]
    ExtraHosts: list[str]
    GroupAdd: list[str]
    IdleTimeout: int
    Init: bool
    IpcMode: str
    IOMaximumBandwidth: int
    IOMaximumIOps: int
    Isolation: str
    KernelMemory: int
    Links: list[str]
    LogConfig: "LogConfig"
    MaskedPaths: list[str]
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
    PortBindings: dict[str, list["PortBinding"]]
    Privileged: bool
    PublishAllPorts: bool
    PublishDefaultIp: str  # ketch's own
    ReadonlyPaths: list[str]
    ReadonlyRootfs: bool
    RestartPolicy: "RestartPolicy"
    Runtime: str
    SecurityOpt: list[str]
    ShmSize: int
    StorageOpt: dict[str, str]
    Sysctls: dict[str, str]
    Systemd: str  # ketch's own
    Timeout: int
    Tmpfs: dict[str, str]
    UTSMode: str
    Ulimits: list["Ulimit"]
    UsernsMode: str
    VolumeDriver: str
    VolumesFrom: list[str]


class Creation(Config, total=False):
    """What a client asks for, in one document: the body of ``ContainerCreate``."""

    HostConfig: "HostConfig"
    NetworkingConfig: "NetworkingConfig"


class NetworkingConfig(TypedDict, total=False):
    """The networks that the container is connected to at its start, by name."""

    EndpointsConfig: dict[str, "EndpointSettings"]


class EndpointSettings(TypedDict, total=False):
    """What a container asks for on one network."""

    IPAMConfig: "IpamConfig"
    Links: list[str]
    Aliases: list[str]
    MacAddress: str
    DriverOpts: dict[str, str]
    GwPriority: int


class IpamConfig(TypedDict, total=False):
    """The addresses that an endpoint is to have."""

    IPv4Address: str
    IPv6Address: str
    LinkLocalIPs: list[str]


class PortBinding(TypedDict):
    """Where on the host a port is published; empty for every address, or a free port."""

    HostIp: str
    HostPort: str


class RestartPolicy(TypedDict, total=False):
    """When a container that ended is started again."""

    Name: str
    MaximumRetryCount: int


class LogConfig(TypedDict, total=False):
    """A logging driver and its options."""

    Type: str
    Config: dict[str, str]


class WeightDevice(TypedDict):
    """A block device and the container's weight on it, 10 to 1000."""

    Path: str
    Weight: int


class ThrottleDevice(TypedDict):
    """A block device and the most that the container may do with it in a second."""

    Path: str
    Rate: int


class DeviceRequest(TypedDict, total=False):
    """Devices that a driver hands out; a ``Count`` of -1 asks for all."""

    Driver: str
    Count: int
    DeviceIDs: list[str] | None
    Capabilities: list[list[str]] | None
    Options: dict[str, str] | None


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
    """A mount; ``Type`` is bind, volume, tmpfs or image."""

    Type: str
    Source: str
    Target: str
    ReadOnly: bool
    Consistency: str
    BindOptions: "BindOptions"
    VolumeOptions: "VolumeOptions"
    ImageOptions: "ImageOptions"
    TmpfsOptions: "TmpfsOptions"


class MountPoint(TypedDict):
    """A mount as ``inspect`` shows it, and what asked for it; ``Name`` is a volume's."""

    Type: str
    Name: NotRequired[str]
    Source: str
    Destination: str
    Driver: NotRequired[str]
    Mode: str
    RW: bool
    Propagation: str
    Spec: Mount


class BindOptions(TypedDict, total=False):
    """How a bind mount behaves; ``IdMap``, ``Chown`` and ``CopyOnWrite`` are not of Docker."""

    Propagation: str
    NonRecursive: bool
    CreateMountpoint: bool
    ReadOnlyNonRecursive: bool
    ReadOnlyForceRecursive: bool
    IdMap: str
    Chown: bool
    CopyOnWrite: int


class VolumeOptions(TypedDict, total=False):
    """How a volume is mounted, and made where it is missing."""

    NoCopy: bool
    Labels: dict[str, str]
    DriverConfig: "DriverConfig"
    Subpath: str
    IdMap: str
    Chown: bool


class DriverConfig(TypedDict, total=False):
    """A volume's driver and the options it is made with."""

    Name: str
    Options: dict[str, str]


class ImageOptions(TypedDict, total=False):
    """Which part of an image is mounted."""

    Subpath: str


class TmpfsOptions(TypedDict, total=False):
    """A tmpfs's size in bytes, its root's permission bits, and further mount options."""

    SizeBytes: int
    Mode: int
    Options: list[list[str]]
    Chown: bool


class EndpointChange(TypedDict, total=False):
    """Which container is connected to a network, or disconnected from it."""

    Container: str
    EndpointConfig: EndpointSettings
    Force: bool


class ExecStart(TypedDict, total=False):
    """How an exec session is started."""

    Detach: bool
    Tty: bool
    ConsoleSize: list[int]  # rows, columns


class ExecConfig(TypedDict, total=False):
    """Another program to run in a running container."""

    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    ConsoleSize: list[int]  # rows, columns
    DetachKeys: str
    Tty: bool
    Env: list[str]
    Cmd: list[str]
    Privileged: bool
    User: str
    WorkingDir: str
