"""Every option of a container, stated once: its flag, its API field, its check and its help.

Only what ketch does is here; an option that is not is refused, never ignored.
"""

import os.path

from ketch.errors import InvalidArgumentError
from ketch.spec import devices, environment, hosts, mounts, sysctls, values
from ketch.spec.flag import Flag
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set
    from typing import Any

    from ketch.spec.container import Request
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


def _one_of(name: str, kind: str, *choices: str) -> "Callable[[str], str]":
    """A mode's check; it runs with the request, since Docker reports modes after all flags."""

    def check(mode: str) -> str:
        if mode in choices:
            return mode
        raise InvalidArgumentError(f"--{name}: invalid {kind} mode", f"one of {', '.join(choices)}")

    return check


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


OPTIONS = (
    Option("add-host", kind="list", field="HostConfig.ExtraHosts", convert=hosts.extra_host,
           help="Add a line to /etc/hosts (name:address, or name:host-gateway)"),
    Option("annotation", kind="list", metavar="map", field="HostConfig.Annotations",
           assemble=environment.mapping,
           help="Hand an annotation (name=value) to the runtime"),
    Option("cap-add", kind="list", field="HostConfig.CapAdd", help="Add Linux capabilities"),
    Option("cap-drop", kind="list", field="HostConfig.CapDrop", help="Drop Linux capabilities"),
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
    Option("device", kind="list", field="HostConfig.Devices",
           assemble=lambda given: [devices.device(text) for text in given],
           help="Add a device of the host (host[:container][:rwm])"),
    Option("device-cgroup-rule", kind="list", field="HostConfig.DeviceCgroupRules",
           convert=_checked(devices.cgroup_rule),
           help="Allow devices by number ('c 10:* rwm')"),
    Option("dns", kind="list", field="HostConfig.Dns", convert=hosts.address,
           help="Set custom DNS servers"),
    Option("dns-option", kind="list", field="HostConfig.DnsOptions", aliases=("dns-opt",),
           help="Set DNS options"),
    Option("dns-search", kind="list", field="HostConfig.DnsSearch", convert=hosts.search_domain,
           help="Set custom DNS search domains"),
    Option("domainname", field="Config.Domainname", help="Container NIS domain name"),
    Option("entrypoint", field="Config.Entrypoint", assemble=_entrypoint,
           help="Program to run instead of the image's ENTRYPOINT"),
    Option("env", "e", "list", convert=environment.variable, help="Set environment variables"),
    Option("env-file", kind="list", help="Read environment variables from a file"),
    Option("explain", kind="bool",
           help="Say on standard error how the container is made, step by step"),
    Option("group-add", kind="list", field="HostConfig.GroupAdd",
           help="Add groups for the process to join"),
    Option("hostname", "h", field="Config.Hostname", help="Container host name"),
    Option("init", kind="bool", field="HostConfig.Init",
           help="Run an init as PID 1 that passes signals on and reaps processes"),
    Option("interactive", "i", "bool", field="Config.OpenStdin",
           help="Keep STDIN open even if not attached"),
    Option("ipc", field="HostConfig.IpcMode",
           help="IPC namespace: 'private' (default), 'shareable', 'none' (no /dev/shm) or 'host'"),
    Option("label", "l", "list", convert=environment.label, help="Set metadata on the container"),
    Option("label-file", kind="list", help="Read labels from a file"),
    Option("memory", "m", metavar="bytes", default=0, field="HostConfig.Memory",
           convert=values.size, help="Memory limit"),
    Option("memory-reservation", metavar="bytes", default=0, field="HostConfig.MemoryReservation",
           convert=values.size, help="Memory soft limit"),
    Option("memory-swap", metavar="bytes", default=0, field="HostConfig.MemorySwap",
           convert=values.swap_size,
           help="Limit of memory and swap together: '-1' for unlimited swap"),
    Option("memory-swappiness", kind="int", default=-1, field="HostConfig.MemorySwappiness",
           assemble=_swappiness, help="How readily to swap (0 to 100)"),
    Option("mount", kind="list", metavar="mount", convert=_checked(mounts.mount),
           help="Mount a directory or file of the host, or a tmpfs (type=bind|tmpfs,...)"),
    Option("name", help="Assign a name to the container"),
    Option("network", metavar="network", field="HostConfig.NetworkMode", aliases=("net",),
           help="Network to connect to: 'bridge' (default), 'none' or 'host'"),
    Option("oom-kill-disable", kind="bool", field="HostConfig.OomKillDisable",
           help="Disable the OOM killer"),
    Option("oom-score-adj", kind="int", field="HostConfig.OomScoreAdj",
           help="Preference of the host's OOM killer (-1000 to 1000)"),
    Option("pid", field="HostConfig.PidMode", assemble=_one_of("pid", "PID", "", "host"),
           help="PID namespace: 'host' to share the host's"),
    Option("pids-limit", kind="int", field="HostConfig.PidsLimit",
           help="How many processes and threads there may be (-1 for unlimited)"),
    Option("privileged", kind="bool", field="HostConfig.Privileged",
           help="Give the container nearly all that the host's root has"),
    Option("read-only", kind="bool", field="HostConfig.ReadonlyRootfs",
           help="Mount the container's root filesystem read-only"),
    Option("rm", kind="bool", field="HostConfig.AutoRemove",
           help="Remove the container when it exits"),
    Option("security-opt", kind="list",
           help="Security options (seccomp=FILE|unconfined, no-new-privileges)"),
    Option("shm-size", metavar="bytes", default=0, field="HostConfig.ShmSize",
           convert=values.size, help="Size of /dev/shm"),
    Option("sig-proxy", kind="bool", default=True, help="Pass received signals on to the process"),
    Option("stop-signal", field="Config.StopSignal", help="Signal that stops the container"),
    Option("stop-timeout", kind="int", field="Config.StopTimeout",
           help="Seconds to wait after the stop signal before killing"),
    Option("sysctl", kind="list", metavar="map", field="HostConfig.Sysctls",
           convert=sysctls.sysctl, assemble=environment.mapping,
           help="Set kernel parameters of the container's namespaces"),
    Option("tmpfs", kind="list", field="HostConfig.Tmpfs",
           assemble=_tmpfs,
           help="Mount a tmpfs (path[:options])"),
    Option("tty", "t", "bool", field="Config.Tty", help="Allocate a pseudo-TTY"),
    Option("ulimit", kind="list", metavar="ulimit", field="HostConfig.Ulimits",
           convert=_checked(values.ulimit),
           assemble=lambda given: [values.ulimit(text) for text in given],
           help="Set resource limits (name=soft[:hard])"),
    Option("user", "u", field="Config.User",
           help="Username or UID (format: <name|uid>[:<group|gid>])"),
    Option("uts", field="HostConfig.UTSMode", assemble=_one_of("uts", "UTS", "", "host"),
           help="UTS namespace: 'host' to share the host's"),
    Option("volume", "v", "list",
           help="Mount a directory or file of the host (source:target[:ro,...])"),
    Option("workdir", "w", field="Config.WorkingDir",
           help="Working directory inside the container"),
)  # fmt: skip
"""Sorted by name."""


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
    attached = not given["detach"]
    config["AttachStdout"] = config["AttachStderr"] = attached
    config["AttachStdin"] = config["StdinOnce"] = attached and bool(given["interactive"])
    if listed["volume"]:
        host["Binds"] = [mounts.volume(text, caller.directory) for text in listed["volume"]]
    if listed["mount"]:
        host["Mounts"] = [mounts.mount(text, caller.directory) for text in listed["mount"]]
    if listed["security-opt"]:
        host["SecurityOpt"] = [_security(text, caller) for text in listed["security-opt"]]
    return {"Config": config, "HostConfig": host}  # type: ignore[typeddict-item]


def _environment(listed: "dict[str, list[str]]", caller: Caller) -> list[str]:
    entries = []
    for name in listed["env-file"]:
        entries += environment.read_file(name, caller.content(name), caller.environment)
    return entries + environment.resolve(listed["env"], caller.environment)


def _labels(listed: "dict[str, list[str]]", caller: Caller) -> dict[str, str]:
    entries = []
    for name in listed["label-file"]:
        entries += environment.read_file(name, caller.content(name))
    return environment.mapping([*entries, *listed["label"]])


def _security(text: str, caller: Caller) -> str:
    """Checks a security option and puts a seccomp profile's text in place of its file's name."""
    name, separator, value = text.partition("=")
    if name == "no-new-privileges" or text.startswith("no-new-privileges:"):
        return text
    if not separator:
        name, separator, value = text.partition(":")
    if not value:
        raise InvalidArgumentError(f"invalid --security-opt: {quoted(text)}")
    if name != "seccomp" or value in {"unconfined", "builtin"}:
        return text
    try:
        return f"seccomp={caller.content(value).decode()}"
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"opening seccomp profile ({value}) failed: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"seccomp profile ({value}) is not UTF-8 text") from error
