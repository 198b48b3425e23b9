"""Every option of a container, stated once: its flag, its API field, its check and its help.

These are Docker's, but for those of Windows and Swarm, and a few more (``explain``,
``health-on-failure``). What this kernel lacks is refused when the container is made or started,
by name; nothing is ignored without a word.
"""

import os.path

from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.spec import values
from ketch.spec.flag import EXPLAIN, Flag, later
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set
    from typing import Any

    from ketch.spec.container import Mount, Request
    from ketch.spec.flag import Value


class Option(Flag):
    """A container's option.

    Args:
        name: as for Flag, and the same for all that Flag has.
        field: the API field that it sets, ``Config.User`` or ``HostConfig.Memory``; empty where the
            option concerns the command alone, or ``request`` treats it by itself.
        assemble: turns the flag's value into the field's; a value serves as it is where this is
            None.
    """

    __slots__ = ("assemble", "field")

    def __init__(
        self,
        name: str,
        shorthand: str = "",
        kind: str = "string",
        help: str = "",  # noqa: A002 - the field's own word
        *,
        field: str = "",
        default: "Value | None" = None,
        metavar: str = "",
        aliases: tuple[str, ...] = (),
        convert: "Callable[[str], str | int] | None" = None,
        assemble: "Callable[[Any], object] | None" = None,
    ) -> None:
        super().__init__(
            name, shorthand, kind, help,
            default=default, metavar=metavar, aliases=aliases, convert=convert,
        )  # fmt: skip
        self.field = field
        self.assemble = assemble


def _checked(read: "Callable[[str], object]") -> "Callable[[str], str]":
    """A conversion that keeps the text once ``read`` has understood it."""

    def convert(text: str) -> str:
        read(text)
        return text

    return convert


def _one_of(
    name: str, kind: str, *choices: str, others: "Sequence[str]" = ()
) -> "Callable[[str], str]":
    """A mode's check; it runs with the request, since Docker reports modes after all flags.

    Args:
        name: of the option.
        kind: what Docker calls the mode.
        choices: what it may be.
        others: forms that it may have as well, which somebody else has looked for.
    """

    def check(mode: str) -> str:
        if mode in choices:
            return mode
        raise InvalidArgumentError(
            f"--{name}: invalid {kind} mode",
            f"one of {', '.join([*filter(None, choices), *others])}",
        )

    return check


def _each(read: "Callable[[str], object]") -> "Callable[[list[str]], list[object]]":
    """Assembles a list field of what each of the option's values says."""
    return lambda given: [read(text) for text in given]


def _stream(name: str) -> str:
    if name.lower() not in {"stdin", "stdout", "stderr"}:
        raise InvalidArgumentError("valid streams are STDIN, STDOUT and STDERR")
    return name.lower()


def _namespace(
    name: str, kind: str, *choices: str, others: "Sequence[str]" = ()
) -> "Callable[[str], str]":
    """The check of a mode that may also name another container's namespace."""
    check = _one_of(name, kind, *choices, others=[*others, "container:NAME"])

    def checked(mode: str) -> str:
        container = mode.startswith("container:") and mode != "container:"
        return mode if container else check(mode)

    return checked


def _user_namespace(mode: str) -> str:
    """Docker's ``host`` and podman's others; which details these may have, the engine says."""
    if mode.startswith(("auto:size=", "keep-id:")):
        return mode
    return _namespace(
        "userns", "USER", "", "host", "auto", "keep-id", "nomap",
        others=["auto:size=N", "keep-id:uid=N,gid=N"],
    )(mode)  # fmt: skip


def _storage(given: list[str]) -> dict[str, str]:
    if not all("=" in text for text in given):
        raise InvalidArgumentError("invalid storage option")
    mapping: dict[str, str] = _MAPPING(given)
    return mapping


def _swappiness(percent: int) -> int:
    if not -1 <= percent <= 100:
        raise InvalidArgumentError(
            f"invalid value: {percent}. Valid memory swappiness range is 0-100"
        )
    return percent


def _tmpfs(given: list[str]) -> dict[str, str]:
    return {path: options for path, _, options in (text.partition(":") for text in given)}


def _entrypoint(program: str) -> list[str]:
    return [program]  # An empty one takes the image's entrypoint away.


def _network(text: str) -> str:
    return later("endpoints", "network")(text) if "=" in text else text


_ADDRESS = later("hosts", "address")
_MAPPING = later("environment", "mapping")
_WEIGHT = later("blkio", "weight_device")
_BYTE_RATE = later("blkio", "byte_rate")
_OPERATION_RATE = later("blkio", "operation_rate")
_PERIOD = later("health", "period")
_GPUS = later("gpus", "request")
_MOUNT = later("mount_flag", "mount")

OPTIONS = (
    Option("add-host", kind="list", field="HostConfig.ExtraHosts",
           convert=later("hosts", "extra_host"),
           help="Add a line to /etc/hosts (name:address, or name:host-gateway)"),
    Option("annotation", kind="list", metavar="map", field="HostConfig.Annotations",
           assemble=_MAPPING,
           help="Hand an annotation (name=value) to the runtime"),
    Option("attach", "a", "list", convert=_stream, help="Attach to STDIN, STDOUT or STDERR"),
    Option("blkio-weight", metavar="uint16", default=0, field="HostConfig.BlkioWeight",
           convert=values.unsigned16,
           help="Block I/O weight relative to others (10 to 1000), 0 to disable"),
    Option("blkio-weight-device", kind="list", field="HostConfig.BlkioWeightDevice",
           convert=_checked(_WEIGHT), assemble=_each(_WEIGHT),
           help="Block I/O weight on one device (path:weight)"),
    Option("cap-add", kind="list", field="HostConfig.CapAdd",
           help="Add Linux capabilities"),
    Option("cap-drop", kind="list", field="HostConfig.CapDrop",
           help="Drop Linux capabilities"),
    Option("cgroup-parent", field="HostConfig.CgroupParent",
           help="Cgroup under which to make the container's"),
    Option("cgroupns", field="HostConfig.CgroupnsMode",
           assemble=_one_of("cgroupns", "CGROUP", "", "private", "host"),
           help="Cgroup namespace: 'private' (default), or 'host' to share the host's"),
    Option("cidfile", field="HostConfig.ContainerIDFile",
           help="Write the container's ID to a file, which must not exist"),
    Option("cpu-period", kind="int", field="HostConfig.CpuPeriod",
           help="Period of the CPU quota, in microseconds"),
    Option("cpu-quota", kind="int", field="HostConfig.CpuQuota",
           help="CPU time in each period, in microseconds"),
    Option("cpu-rt-period", kind="int", field="HostConfig.CpuRealtimePeriod",
           help="Period of real-time CPU time, in microseconds"),
    Option("cpu-rt-runtime", kind="int", field="HostConfig.CpuRealtimeRuntime",
           help="Real-time CPU time in each period, in microseconds"),
    Option("cpu-shares", "c", "int", field="HostConfig.CpuShares", aliases=("cpushare",),
           help="CPU shares (relative weight)"),
    Option("cpus", metavar="decimal", default=0, field="HostConfig.NanoCpus", convert=values.cpus,
           help="Number of CPUs"),
    Option("cpuset-cpus", field="HostConfig.CpusetCpus", aliases=("cpuset",),
           help="CPUs on which to run (0-3, 0,1)"),
    Option("cpuset-mems", field="HostConfig.CpusetMems",
           help="Memory nodes from which to allocate (0-3, 0,1)"),
    Option("detach", "d", "bool", help="Run in the background and print the container's ID"),
    Option("detach-keys", help="Key sequence that detaches from the container's terminal"),
    Option("device", kind="list",
           help="Add a device of the host (host[:container][:rwm], or a CDI name)"),
    Option("device-cgroup-rule", kind="list", field="HostConfig.DeviceCgroupRules",
           convert=_checked(later("devices", "cgroup_rule")),
           help="Allow devices by number ('c 10:* rwm')"),
    *(
        Option(f"device-{word}-{unit}", kind="list", convert=_checked(read), assemble=_each(read),
               field=f"HostConfig.BlkioDevice{word.title()}{key}",
               help=f"Limit how fast a device is {done} (path:{rate})")
        for word, done in (("read", "read"), ("write", "written"))
        for unit, key, read, rate in (
            ("bps", "Bps", _BYTE_RATE, "bytes a second"),
            ("iops", "IOps", _OPERATION_RATE, "operations a second"),
        )
    ),
    Option("disable-content-trust", kind="bool", default=True,
           help="Skip image verification; ketch has no other way"),
    Option("dns", kind="list", field="HostConfig.Dns", convert=_ADDRESS,
           help="Set custom DNS servers"),
    Option("dns-option", kind="list", field="HostConfig.DnsOptions", aliases=("dns-opt",),
           help="Set DNS options"),
    Option("dns-search", kind="list", field="HostConfig.DnsSearch",
           convert=later("hosts", "search_domain"),
           help="Set custom DNS search domains"),
    Option("domainname", field="Config.Domainname", help="Container NIS domain name"),
    Option("entrypoint", field="Config.Entrypoint", assemble=_entrypoint,
           help="Program to run instead of the image's ENTRYPOINT"),
    Option("env", "e", "list", convert=later("environment", "variable"),
           help="Set environment variables"),
    Option("env-file", kind="list", help="Read environment variables from a file"),
    Option(EXPLAIN.name, kind=EXPLAIN.kind, default=EXPLAIN.default, metavar=EXPLAIN.metavar,
           convert=EXPLAIN.convert, help=EXPLAIN.help),
    Option("expose", kind="list", help="Expose a port or a range of ports"),
    Option("gidmap", kind="list", metavar="ids",
           help="Group ids of its own: [+ug]inside:[@]outside[:count] (also of users, without "
                "--uidmap)"),
    Option("gpus", metavar="gpu-request", kind="list", convert=_checked(_GPUS),
           help="GPUs to add to the container ('all' for every one)"),
    Option("group-add", kind="list", field="HostConfig.GroupAdd",
           help="Add groups for the process to join ('keep-groups' for the caller's own)"),
    Option("health-cmd", help="Command to run to check health"),
    Option("health-interval", metavar="duration", default=0, convert=_PERIOD,
           help="Time between checks (ms|s|m|h)"),
    Option("health-on-failure", field="Config.HealthcheckOnFailureAction",
           convert=later("health", "on_failure"),
           help="What to do once the container is unhealthy (none|kill|restart|stop)"),
    Option("health-retries", kind="int", help="Consecutive failures that mean unhealthy"),
    Option("health-start-interval", metavar="duration", default=0, convert=_PERIOD,
           help="Time between checks during the start period (ms|s|m|h)"),
    Option("health-start-period", metavar="duration", default=0, convert=_PERIOD,
           help="Time to start up, in which failures do not count (ms|s|m|h)"),
    Option("health-timeout", metavar="duration", default=0, convert=_PERIOD,
           help="How long one check may take (ms|s|m|h)"),
    Option("hostname", "h", field="Config.Hostname", help="Container host name"),
    Option("idle-timeout", kind="int", field="HostConfig.IdleTimeout",
           help="Seconds in which nobody uses the container (exec, cp, ...) before it is killed"),
    Option("init", kind="bool", field="HostConfig.Init",
           help="Run an init as PID 1 that passes signals on and reaps processes"),
    Option("interactive", "i", "bool", field="Config.OpenStdin",
           help="Keep STDIN open even if not attached"),
    Option("ip", help="IPv4 address"),
    Option("ip6", help="IPv6 address"),
    Option("ipc", field="HostConfig.IpcMode",
           help="IPC namespace: 'private' (default), 'shareable', 'none' (no /dev/shm), "
                "'container:NAME' or 'host'"),
    Option("isolation", field="HostConfig.Isolation",
           help="Isolation technology; 'default' is the only one on Linux"),
    Option("kernel-memory", metavar="bytes", default=0, field="HostConfig.KernelMemory",
           convert=values.size, help="Kernel memory limit, which Linux has no more"),
    Option("label", "l", "list", convert=later("environment", "label"),
           help="Set metadata on the container"),
    Option("label-file", kind="list", help="Read labels from a file"),
    Option("link", kind="list", field="HostConfig.Links", convert=later("endpoints", "link"),
           help="Link to another container (name[:alias])"),
    Option("link-local-ip", kind="list", help="Link-local addresses of the container"),
    Option("log-driver", help="Logging driver of the container"),
    Option("log-opt", kind="list", help="Options of the logging driver (name=value)"),
    Option("mac-address", help="Address of the container's link (92:d0:c6:0a:29:33)"),
    Option("memory", "m", metavar="bytes", default=0, field="HostConfig.Memory",
           convert=values.size, help="Memory limit"),
    Option("memory-reservation", metavar="bytes", default=0, field="HostConfig.MemoryReservation",
           convert=values.size, help="Memory soft limit"),
    Option("memory-swap", metavar="bytes", default=0, field="HostConfig.MemorySwap",
           convert=values.swap_size,
           help="Limit of memory and swap together: '-1' for unlimited swap"),
    Option("memory-swappiness", kind="int", default=-1, field="HostConfig.MemorySwappiness",
           assemble=_swappiness, help="How readily to swap (0 to 100)"),
    Option("mount", kind="list", metavar="mount", convert=_checked(_MOUNT),
           help="Mount something into the container (type=bind|volume|tmpfs|image,...)"),
    Option("name", help="Assign a name to the container"),
    Option("network", kind="list", metavar="network", aliases=("net",), convert=_network,
           help="Network to connect to: a name, 'bridge' (default), 'none', 'host', "
                "'container:NAME', 'pasta[:OPTIONS]', 'slirp4netns[:OPTIONS]', or with options: "
                "name=NAME,alias=NAME,ip=ADDRESS"),
    Option("network-alias", kind="list", aliases=("net-alias",),
           help="Further name of the container on its network"),
    Option("no-healthcheck", kind="bool", help="Disable the image's health check"),
    Option("oom-kill-disable", kind="bool", field="HostConfig.OomKillDisable",
           help="Disable the OOM killer"),
    Option("oom-score-adj", kind="int", field="HostConfig.OomScoreAdj",
           help="Preference of the host's OOM killer (-1000 to 1000)"),
    Option("pid", field="HostConfig.PidMode", assemble=_namespace("pid", "PID", "", "host"),
           help="PID namespace: 'host' to share the host's, 'container:NAME' another's"),
    Option("pids-limit", kind="int", field="HostConfig.PidsLimit",
           help="How many processes and threads there may be (-1 for unlimited)"),
    Option("platform", help="Platform of the image, such as linux/amd64"),
    Option("privileged", kind="bool", field="HostConfig.Privileged",
           help="Give the container nearly all that the host's root has"),
    Option("publish", "p", "list",
           help="Publish a port on the host ([[address:]port:]port[/protocol])"),
    Option("publish-all", "P", "bool", field="HostConfig.PublishAllPorts",
           help="Publish all exposed ports on free ports of the host"),
    Option("publish-default-ip", field="HostConfig.PublishDefaultIp", convert=_ADDRESS,
           help="Address of the host for ports that are published without one"),
    Option("pull", default="missing", help="Pull the image before (always|missing|never)"),
    Option("quiet", "q", "bool", help="Say nothing of what is pulled"),
    Option("read-only", kind="bool", field="HostConfig.ReadonlyRootfs",
           help="Mount the container's root filesystem read-only"),
    Option("restart", default="no", field="HostConfig.RestartPolicy",
           assemble=later("restart", "policy"),
           help="When to start the container again (no|always|unless-stopped|on-failure[:n])"),
    Option("rm", kind="bool", field="HostConfig.AutoRemove",
           help="Remove the container and its anonymous volumes when it exits"),
    Option("runtime", field="HostConfig.Runtime",
           help="Runtime of the container: ketch, or another one by name or path"),
    Option("security-opt", kind="list",
           help="Security options (seccomp=FILE|sandbox|unconfined, no-new-privileges, label=..., "
                "apparmor=..., systempaths=unconfined, writable-cgroups=true)"),
    Option("shm-size", metavar="bytes", default=0, field="HostConfig.ShmSize",
           convert=values.size, help="Size of /dev/shm"),
    Option("sig-proxy", kind="bool", default=True, help="Pass received signals on to the process"),
    Option("stop-signal", field="Config.StopSignal", help="Signal that stops the container"),
    Option("stop-timeout", kind="int", field="Config.StopTimeout",
           help="Seconds to wait after the stop signal before killing"),
    Option("storage-opt", kind="list", field="HostConfig.StorageOpt", assemble=_storage,
           help="Options of the writable layer (size=10G)"),
    Option("sysctl", kind="list", metavar="map", field="HostConfig.Sysctls",
           convert=later("sysctls", "sysctl"), assemble=_MAPPING,
           help="Set kernel parameters of the container's namespaces"),
    Option("systemd", field="HostConfig.Systemd",
           assemble=_one_of("systemd", "systemd", "auto", "true", "always", "false"),
           help="What systemd needs as PID 1: 'auto' (default, also 'true') where the program is "
                "systemd or init, 'always', or 'false'"),
    Option("timeout", kind="int", field="HostConfig.Timeout",
           help="Seconds that the container may run before it is killed"),
    Option("tmpfs", kind="list", field="HostConfig.Tmpfs",
           assemble=_tmpfs,
           help="Mount a tmpfs (path[:options])"),
    Option("tty", "t", "bool", field="Config.Tty", help="Allocate a pseudo-TTY"),
    Option("uidmap", kind="list", metavar="ids",
           help="User ids of its own: [+ug]inside:[@]outside[:count] (also of groups, without "
                "--gidmap)"),
    Option("ulimit", kind="list", metavar="ulimit", field="HostConfig.Ulimits",
           convert=_checked(values.ulimit),
           assemble=lambda given: [values.ulimit(text) for text in given],
           help="Set resource limits (name=soft[:hard])"),
    Option("use-api-socket", kind="bool",
           help="Give the container ketch's API socket and the caller's registry credentials"),
    Option("user", "u", field="Config.User",
           help="Username or UID (format: <name|uid>[:<group|gid>])"),
    Option("userns", field="HostConfig.UsernsMode", assemble=_user_namespace,
           help="User namespace: 'host' to share the host's, 'auto[:size=N]' for ids of its own, "
                "'keep-id[:uid=N,gid=N]' for the user's own id inside, 'nomap' for none of it, "
                "'container:NAME' for another's"),
    Option("uts", field="HostConfig.UTSMode", assemble=_one_of("uts", "UTS", "", "host"),
           help="UTS namespace: 'host' to share the host's"),
    Option("volume", "v", "list",
           help="Mount a volume, or a directory or file of the host ([source:]target[:ro,...])"),
    Option("volume-driver", field="HostConfig.VolumeDriver",
           help="Driver of the volumes that the container makes"),
    Option("volumes-from", kind="list", field="HostConfig.VolumesFrom",
           help="Mount the volumes of another container (name[:ro])"),
    Option("workdir", "w", field="Config.WorkingDir",
           help="Working directory inside the container"),
)  # fmt: skip
"""Sorted by name."""

_OF_RUN = ("detach", "detach-keys", "sig-proxy")
CREATE_OPTIONS = tuple(option for option in OPTIONS if option.name not in _OF_RUN)
"""What ``create`` has of them: not what concerns a start."""


API_SOCKET = "/run/ketch.sock"
"""Where ``ketch serve`` listens unless told otherwise."""


class Caller:
    """Whom the request comes from: what relative names and bare variables refer to.

    Args:
        directory: the working directory.
        environment: the environment variables.
        read: returns a file's bytes, the name being relative to ``directory`` or absolute; raises
            OSError.
    """

    __slots__ = ("directory", "environment", "read")

    def __init__(
        self,
        directory: str,
        environment: "Mapping[str, str]",
        read: "Callable[[str], bytes]",
    ) -> None:
        self.directory = directory
        self.environment = environment
        self.read = read

    def content(self, name: str) -> bytes:
        """Reads a file that an option names."""
        try:
            return self.read(os.path.join(self.directory, name))
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise InvalidArgumentError(f"open {name}: {reason}") from error


def request(
    given: "Mapping[str, Value]",
    names: "Set[str]",
    arguments: "Sequence[str]",
    caller: Caller,
) -> "Request":
    """Turns a parsed ``run`` or ``create`` command line into the API's request.

    Args:
        given: the flags' values by long name, defaults included.
        names: the flags that were given.
        arguments: the image, then the command and its arguments.
        caller: whom the request comes from.

    Raises:
        InvalidArgumentError: a value that is refused only after all flags have been read.
        UnsupportedError: something that Docker has and ketch does not.
    """
    sections: dict[str, dict[str, Any]] = {"Config": {}, "HostConfig": {}}
    for option in OPTIONS:
        if option.field and option.name in names:
            value: object = given[option.name]
            section, _, key = option.field.partition(".")
            sections[section][key] = option.assemble(value) if option.assemble else value
    config, host = sections["Config"], sections["HostConfig"]
    config["Image"] = arguments[0]
    if arguments[1:]:
        config["Cmd"] = [*arguments[1:]]
    listed = {name: value for name, value in given.items() if isinstance(value, list)}
    config["Env"] = _environment(listed, caller)
    config["Labels"] = _labels(listed, caller)
    config |= _attached(given, listed["attach"])
    _take_mounts(listed, given, config, host, caller)
    _take_devices(listed, host)
    if listed["uidmap"] or listed["gidmap"]:
        if host.get("UsernsMode"):
            raise InvalidArgumentError("conflicting options: --userns and --uidmap or --gidmap")
        from ketch.spec import user_namespaces  # noqa: PLC0415 - see later

        host["UsernsMode"] = user_namespaces.mode_of_maps(listed["uidmap"], listed["gidmap"])
    if listed["security-opt"]:
        _take_security(listed["security-opt"], host, caller)
    _take_ports(listed, config, host)
    _take_health(given, config)
    _take_logging(given, listed["log-opt"], host)
    if host.get("RestartPolicy", {}).get("Name", "no") not in {"", "no"} and given["rm"]:
        raise InvalidArgumentError("conflicting options: cannot specify both --restart and --rm")
    if not given["disable-content-trust"]:
        raise UnsupportedError(
            "--disable-content-trust=false: ketch cannot verify signatures of images",
            "name the image by its digest: NAME@sha256:...",
        )
    made: dict[str, Any] = {"Config": config, "HostConfig": host}
    if networking := _networking(given, listed, host):
        made["NetworkingConfig"] = networking
    if given["platform"]:
        made["Platform"] = given["platform"]
    return made  # type: ignore[return-value]


def pull_policy(given: "Mapping[str, Value]") -> str:
    """Returns ``always``, ``missing`` or ``never``: whether to pull the image first.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    policy = str(given["pull"] or "missing")
    if policy not in {"always", "missing", "never"}:
        raise InvalidArgumentError(
            f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"'
        )
    return policy


def _attached(given: "Mapping[str, Value]", attach: list[str]) -> dict[str, bool]:
    """Which streams somebody is attached to from the start."""
    if given.get("detach"):
        if attach:
            raise InvalidArgumentError(
                "conflicting options: cannot specify both --attach and --detach"
            )
        return dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"), False)
    interactive = bool(given["interactive"])
    stdin = interactive or "stdin" in attach
    return {
        "AttachStdin": stdin,
        "AttachStdout": not attach or "stdout" in attach,
        "AttachStderr": not attach or "stderr" in attach,
        "StdinOnce": interactive and stdin,
    }


def _take_mounts(
    listed: "dict[str, list[str]]",
    given: "Mapping[str, Value]",
    config: "dict[str, Any]",
    host: "dict[str, Any]",
    caller: Caller,
) -> None:
    from ketch.spec import mounts  # noqa: PLC0415 - see later

    specifications = [mounts.volume(text, caller.directory) for text in listed["volume"]]
    if binds := [text for text in specifications if ":" in text]:
        host["Binds"] = binds
    if anonymous := [text for text in specifications if ":" not in text]:
        config["Volumes"] = {path: {} for path in anonymous}
    asked = [_MOUNT(text, caller.directory) for text in listed["mount"]]
    if given["use-api-socket"]:
        asked += _api_socket(caller, config["Env"])
    if asked:
        host["Mounts"] = asked


def _api_socket(caller: Caller, variables: list[str]) -> "list[Mount]":
    """The API's socket, and the caller's registry credentials where there are any."""
    address = caller.environment.get("DOCKER_HOST") or f"unix://{API_SOCKET}"
    scheme, _, path = address.partition("://")
    if scheme != "unix":
        raise InvalidArgumentError(
            f"flag --use-api-socket can't be used with remote host: {address}"
        )
    found: list[Mount] = [
        {"Type": "bind", "Source": path, "Target": "/var/run/docker.sock", "BindOptions": {}}
    ]
    home = caller.environment.get("HOME", "/root")
    directory = caller.environment.get("DOCKER_CONFIG") or f"{home}/.docker"
    credentials = os.path.join(caller.directory, directory, "config.json")
    try:
        caller.content(credentials)
    except InvalidArgumentError:
        return found
    variables.append("DOCKER_CONFIG=/run/secrets/docker")
    target = "/run/secrets/docker/config.json"
    bound: Mount = {"Type": "bind", "Source": credentials, "Target": target, "ReadOnly": True}
    return [*found, bound]


def _take_devices(listed: "dict[str, list[str]]", host: "dict[str, Any]") -> None:
    from ketch.spec import devices  # noqa: PLC0415 - see later

    named = [text for text in listed["device"] if devices.is_cdi(text)]
    if paths := [text for text in listed["device"] if text not in named]:
        host["Devices"] = [devices.device(text) for text in paths]
    requests = [_GPUS(text) for text in listed["gpus"]]
    if named:
        requests.append({"Driver": "cdi", "DeviceIDs": named})
    if requests:
        host["DeviceRequests"] = requests


def _take_ports(
    listed: "dict[str, list[str]]", config: "dict[str, Any]", host: "dict[str, Any]"
) -> None:
    if not listed["publish"] and not listed["expose"]:
        return
    from ketch.spec import ports  # noqa: PLC0415 - see later

    if published := ports.published(listed["publish"]):
        host["PortBindings"] = published
    config["ExposedPorts"] = {
        **{port: {} for port in published},
        **ports.exposed(listed["expose"]),
    }


def _take_health(given: "Mapping[str, Value]", config: "dict[str, Any]") -> None:
    if any(given[option.name] for option in OPTIONS if "health" in option.name):
        from ketch.spec import health  # noqa: PLC0415 - see later

        if check := health.healthcheck(given):
            config["Healthcheck"] = check


def _take_logging(given: "Mapping[str, Value]", options: list[str], host: "dict[str, Any]") -> None:
    driver = given["log-driver"]
    if driver == "none" and options:
        raise InvalidArgumentError("invalid logging opts for driver none")
    if driver or options:
        host["LogConfig"] = {"Type": driver, "Config": _MAPPING(options)}


def _networking(
    given: "Mapping[str, Value]", listed: "dict[str, list[str]]", host: "dict[str, Any]"
) -> "dict[str, Any]":
    names = ("network-alias", "link", "ip", "ip6", "link-local-ip", "mac-address")
    options = {name: given[name] for name in names if given[name]}
    networks = listed["network"]
    if not options and not any("=" in text for text in networks) and len(networks) < 2:
        # The usual case needs no more than the name.
        mode = networks[0] if networks else ""
        if networks and not mode.strip():
            raise InvalidArgumentError("no name set for network")
        if mode:
            host["NetworkMode"] = mode
        return {}
    from ketch.spec import endpoints  # noqa: PLC0415 - see later

    mode, wanted = endpoints.networking(networks, options)
    if networks:
        host["NetworkMode"] = mode
    return {"EndpointsConfig": wanted} if wanted else {}


def _environment(listed: "dict[str, list[str]]", caller: Caller) -> list[str]:
    from ketch.spec import environment  # noqa: PLC0415 - see later

    entries = []
    for name in listed["env-file"]:
        entries += environment.read_file(name, caller.content(name), caller.environment)
    return entries + environment.resolve(listed["env"], caller.environment)


def _labels(listed: "dict[str, list[str]]", caller: Caller) -> dict[str, str]:
    from ketch.spec import environment  # noqa: PLC0415 - see later

    entries = []
    for name in listed["label-file"]:
        entries += environment.read_file(name, caller.content(name))
    return environment.mapping([*entries, *listed["label"]])


def _take_security(given: list[str], host: "dict[str, Any]", caller: Caller) -> None:
    options = [_security(text, caller) for text in given]
    if "systempaths=unconfined" in options:
        host["MaskedPaths"] = host["ReadonlyPaths"] = []
        options = [option for option in options if option != "systempaths=unconfined"]
    host["SecurityOpt"] = options


def _security(text: str, caller: Caller) -> str:
    """Checks a security option and puts a seccomp profile's text in place of its file's name."""
    name, separator, value = text.partition("=")
    if name == "no-new-privileges" or text.startswith("no-new-privileges:"):
        return text
    if not separator:
        name, separator, value = text.partition(":")
    if not value:
        raise InvalidArgumentError(f"Invalid --security-opt: {quoted(text)}")
    if name != "seccomp" or value in {"unconfined", "builtin", "sandbox"}:
        return text
    try:
        return f"seccomp={caller.content(value).decode()}"
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"opening seccomp profile ({value}) failed: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"seccomp profile ({value}) is not UTF-8 text") from error
