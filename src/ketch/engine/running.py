"""A container's start: everything it holds while it runs, taken in order and released in reverse.

What is held are descriptors (root filesystem, network namespace, terminal) that go away with this
process, and what the next command can find and clean by the container's record: its cgroup and its
addresses.
"""

import json
import os
import time
from contextlib import ExitStack

from ketch import cgroups
from ketch.engine import bundle, devices, host, logs, mishaps, resolution
from ketch.engine.supervision import Streams, Supervisor
from ketch.errors import ENGINE_FAILED, KetchError, UnavailableError
from ketch.linux import beneath, procfs
from ketch.network import names, nameserver
from ketch.network.sandbox import Sandbox
from ketch.runtime import create, init, seccomp
from ketch.runtime.plan import Plan
from ketch.runtime.process import ProcessSetup
from ketch.runtime.validate import validate
from ketch.spec import passwd
from ketch.spec.hosts import HOST_GATEWAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.engine.client import Client
    from ketch.engine.engine import Engine
    from ketch.engine.records import Container
    from ketch.network.sandbox import Endpoint
    from ketch.spec.container import Request
    from ketch.spec.runtime import Config

_USER_DATABASE_BYTES_MAX = 4 * 1024 * 1024


def run(
    engine: "Engine",
    container: "Container",
    client: "Client",
    *,
    detached: bool,
    explain: "Callable[[str], None] | None" = None,
) -> int:
    """Start a container, watch over it, and record and release it when it has ended.

    Args:
        engine: where it is recorded.
        container: the container, which does not run.
        client: who asked; is told when the program runs.
        detached: whether that is all the client wants; else it stays attached.
        explain: takes each step's description as it happens, from init as well.

    Returns:
        The program's exit status.

    Raises:
        StartError: the program cannot be run.
        KetchError: something that the container needs cannot be had.
        OSError: the kernel refused a step.
    """
    request: Request = container.record  # type: ignore[assignment]
    with ExitStack() as held:
        try:
            streams = Streams(
                interactive=request["Config"].get("OpenStdin", False),
                terminal=request["Config"].get("Tty", False),
            )
            held.callback(streams.close)
            cgroup, init_process = _start(engine, container, streams, held, explain)
            directory = engine.settings.container_directory(container.id)
            log = logs.writer(container, directory)
            if log is not None:
                held.callback(_close_log, log)
            client.check_interest()
            # Read before the program runs: it may end at once, and a zombie has none.
            start_time = procfs.process_start_time(init_process.pid) or 0
            init_process.start()
            streams.started(init_process.console)
            engine.containers.mark_started(
                container.id, init_process.pid, start_time, time.time_ns()
            )
        except BaseException as error:
            held.close()
            status = getattr(error, "exit_status", ENGINE_FAILED)
            engine.containers.mark_start_failed(container.id, status, str(error))
            raise
        client.started(container.id)
        if detached:
            client.close()
        attached = None if detached else client
        status = Supervisor(init_process.pidfd, streams, attached, log).run()
        finished_ns = time.time_ns()
        oom_killed = False
        try:
            oom_killed = cgroup.oom_kills() > 0
            held.close()
        except (KetchError, OSError) as error:
            # The program has ended all the same, and its status must not be lost.
            mishaps.note(f"release what container {container.id} held", error)
    engine.containers.mark_exited(
        container.id, status, oom_killed=oom_killed, finished_ns=finished_ns
    )
    return status


def _start(
    engine: "Engine",
    container: "Container",
    streams: Streams,
    held: ExitStack,
    explain: "Callable[[str], None] | None",
) -> "tuple[cgroups.Manager, create.Container]":
    """Take all that the container holds while it runs, and create it up to its program's start."""
    settings = engine.settings
    request: Request = container.record  # type: ignore[assignment]
    say = explain or _keep_quiet
    directory = settings.container_directory(container.id)
    driver = engine.networks.find(request["HostConfig"]["NetworkMode"]).driver
    sandbox = None
    addresses: Sequence[str] = ()
    if driver != "host":
        say("new network namespace, loopback up · unshare(2) CLONE_NEWNET, rtnetlink(7)")
        sandbox = held.enter_context(Sandbox())
    if driver == "bridge" and sandbox is not None:
        held.callback(engine.networks.release, container.id)
        endpoint = _lease(engine, container.id)
        say(
            f"link {endpoint.interface} to bridge {endpoint.bridge.name}, "
            f"address {endpoint.addresses[0]} · rtnetlink(7), nft(8)"
        )
        sandbox.connect(endpoint)
        say(f"name server {nameserver.ADDRESS} · bpf(2) BPF_PROG_TYPE_SK_LOOKUP")
        registration = resolution.register(settings, container.id, sandbox.descriptor)
        held.callback(registration.close)
        addresses = [str(address.ip) for address in endpoint.addresses]
    files = _write_name_files(engine, directory, request, addresses)
    say(f"stack a writable layer on those of {container.image_reference} · fsopen(2) overlay")
    rootfs = engine.images.snapshotter.mount(directory)
    with ExitStack() as until_attached:
        until_attached.callback(os.close, rootfs)
        config = _configure(request, container.id, rootfs, files, sandbox)
        _write(f"{directory}/config.json", json.dumps(config, separators=(",", ":")))
        validate(config)
        section = config["linux"].get("seccomp")
        filter_ = seccomp.prepare(section, f"{settings.root}/seccomp") if section else None
        layout = cgroups.detect()
        cgroup = cgroups.manager(config["linux"]["cgroupsPath"], layout)
        held.callback(_remove_cgroup, cgroup)
        say(f"make and limit the control group {cgroup.path} · cgroups(7)")
        cgroup.create()
        cgroup.set(config["linux"]["resources"])
        birth = init.Birth(
            Plan(config, layout),
            ProcessSetup(config["process"], filter_),
            directory,
            rootfs=rootfs,
            streams=streams.given,
            under_init=config.get("annotations", {}).get(bundle.INIT_ANNOTATION) == "true",
            die_with_parent=True,
            container_id=container.id,
            explain=explain,
        )
        if sandbox is not None:
            sandbox.settle()
        created = create.create(birth, cgroup)
        held.callback(created.close)
    return cgroup, created


def _close_log(log: "logs.Writer") -> None:
    log.close(time.time_ns())


def _keep_quiet(_words: str) -> None:
    """Nobody asked for an explanation."""


def _configure(
    request: "Request",
    container_id: str,
    rootfs: int,
    files: bundle.Files,
    sandbox: Sandbox | None,
) -> "Config":
    """Build the runtime's configuration, with users and groups looked up in the image."""
    group_text = read_beneath(rootfs, "/etc/group")
    user = passwd.look_up(
        request["Config"].get("User", ""), read_beneath(rootfs, "/etc/passwd"), group_text
    )
    return bundle.build(
        request,
        container_id=container_id,
        user=user,
        extra_groups=passwd.group_ids(request["HostConfig"].get("GroupAdd", ()), group_text),
        files=files,
        devices=devices.gather(request["HostConfig"]),
        host=host.examine(),
        network_namespace="" if sandbox is None else f"/proc/self/fd/{sandbox.descriptor}",
    )


def _lease(engine: "Engine", container_id: str) -> "Endpoint":
    """Lease an address, if need be one that a container no longer uses whose end nobody saw."""
    try:
        return engine.networks.lease(container_id)
    except UnavailableError:
        alive = {container.id for container in engine.containers.list()}
        engine.networks.reclaim(alive | {container_id})
        return engine.networks.lease(container_id)


def _write_name_files(
    engine: "Engine", directory: str, request: "Request", addresses: "Sequence[str]"
) -> bundle.Files:
    """Write what becomes the container's /etc/hosts, /etc/hostname and /etc/resolv.conf."""
    config, resources = request["Config"], request["HostConfig"]
    in_host_network = resources["NetworkMode"] == "host"
    extra = resources.get("ExtraHosts", ())
    gateways: Sequence[str] = ()
    if any(entry.endswith(f":{HOST_GATEWAY}") for entry in extra):
        gateways = [str(engine.networks.find("bridge").gateway)]
    if in_host_network:
        hosts = names.host_hosts(_read("/etc/hosts"), extra, gateways)
    else:
        domain = config.get("Domainname", "")
        hosts = names.hosts(addresses, config["Hostname"], domain, extra, gateways)
    resolv_conf = _read(names.RESOLV_CONF)
    if names.is_stub(resolv_conf):
        resolv_conf = _read(names.SYSTEMD_RESOLV_CONF) or resolv_conf
    resolv_conf = names.resolv_conf(
        resolv_conf,
        servers=resources.get("Dns", ()),
        search=resources.get("DnsSearch", ()),
        options=resources.get("DnsOptions", ()),
        host_network=in_host_network,
        name_server=nameserver.ADDRESS if addresses else "",
    )
    files = bundle.Files(f"{directory}/hosts", f"{directory}/hostname", f"{directory}/resolv.conf")
    _write(files.hosts, hosts)
    _write(files.hostname, names.hostname(config["Hostname"]))
    _write(files.resolv_conf, resolv_conf)
    return files


def _remove_cgroup(cgroup: "cgroups.Manager") -> None:
    """Remove the container's cgroup, with whatever still lives in it.

    In a PID namespace of its own everything died with init; elsewhere what it started may live on.
    """
    if cgroup.processes():
        cgroup.kill()
    # The directory above is the engine's, and goes with its last container.
    cgroup.delete(empty_parents=1)


def read_beneath(root: int, path: str) -> str:
    """A text file of the image, resolved beneath its root; empty where there is none."""
    data = beneath.read_file(root, path, _USER_DATABASE_BYTES_MAX)
    return data.decode(errors="replace")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
