"""A container's start: everything it holds while it runs, taken in order.

Done by a starter, a process that the container's monitor forks for it. When it fails all is
released in reverse; else descriptors (root filesystem, network namespace) go away with the starter,
what the monitor needs is handed over to it, and the rest (cgroup, addresses, socket) is found by
the container's record when it has ended.
"""

import json
import os
import signal
import time
from contextlib import ExitStack, suppress

from ketch import cgroups
from ketch.cgroups import oom
from ketch.cgroups import telling as cgroup_telling
from ketch.engine import host, user_namespaces
from ketch.engine.configuration import bundle, devices, mounts, realtime, sharing
from ketch.engine.containers.releasing import remove_cgroup
from ketch.engine.files import at_rest
from ketch.engine.monitor import (
    deadlines,
    filtering,
    health,
    installers,
    name_files,
    subject,
    telling,
)
from ketch.engine.monitor.supervision import Streams
from ketch.engine.networks import pins, releasing, resolution, uplinks, wiring
from ketch.engine.requests import launch, wire
from ketch.errors import ConflictError, NotFoundError, UnavailableError, in_words
from ketch.linux import beneath, process, procfs, removetree
from ketch.linux.scopes import owned
from ketch.network import nameserver
from ketch.runtime import create, init
from ketch.runtime.plan import Plan
from ketch.runtime.process import ProcessSetup
from ketch.runtime.validate import validate
from ketch.spec import passwd, runtime_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from ketch.engine.engine import Engine
    from ketch.engine.monitor import other_runtime
    from ketch.engine.monitor.handover import Channel
    from ketch.engine.records.rows import Container
    from ketch.engine.requests.client import Client
    from ketch.engine.settings import Settings
    from ketch.engine.user_namespaces import UserNamespace
    from ketch.spec import container as api
    from ketch.spec.container import Request
    from ketch.spec.runtime import Config, Mount, Resources
    from ketch.spec.told import Say

_USER_DATABASE_BYTES_MAX = 4 * 1024 * 1024
# What Docker's record says of a start that failed before there was a program.
_NEVER_RAN = 128


class Manner:
    """How a container is to be started.

    Args:
        client: who asked, or None.
        attached: whether the client stays attached.
        gives: whether its input goes to the program.
        explain: takes what is told of each step, when it begins, from init as well.
        hold: whether the client has a last word before the program runs.
        lifetime: whether the container ends when the client's process does.
        restarting: whether its monitor starts it again, and listens already.
        checkpoint: directory of the checkpoint that it goes on from, or empty.
        window: height and width of its terminal, None for those that it was made with.
    """

    __slots__ = (
        "attached", "checkpoint", "client", "explain", "gives", "hold", "lifetime", "restarting",
        "window",
    )  # fmt: skip

    def __init__(
        self,
        *,
        client: "Client | None" = None,
        attached: bool = False,
        gives: bool = False,
        explain: "Say | None" = None,
        hold: bool = False,
        lifetime: bool = False,
        restarting: bool = False,
        checkpoint: str = "",
        window: list[int] | None = None,
    ) -> None:
        self.client = client
        self.attached = attached
        self.gives = gives
        self.explain = explain
        self.hold = hold
        self.lifetime = lifetime
        self.restarting = restarting
        self.checkpoint = checkpoint
        self.window = window


class Begun:
    """A run that has begun.

    Attributes:
        handed: descriptors that the monitor has now as well.
        held: what owns them, and would undo the start.
    """

    __slots__ = ("handed", "held")

    def __init__(self, handed: list[int], held: ExitStack) -> None:
        self.handed = handed
        self.held = held


def start(engine: "Engine", container: "Container", channel: "Channel", manner: Manner) -> Begun:
    """Start a container whose keeper is the caller's parent, and hand it over to that.

    Args:
        engine: where it is recorded.
        container: the container, which does not run.
        channel: to its monitor.
        manner: how.

    Raises:
        StartError: the program cannot be run.
        KetchError: something that the container needs cannot be had.
        OSError: the kernel refused a step.
    """
    directory = engine.settings.container_directory(container.id)
    look = manner.client.check_interest if manner.client is not None else _go_on
    with ExitStack() as held:
        try:
            held.enter_context(at_rest.left(directory, look))
            handed = _start(engine, container, channel, manner, held)
        except BaseException as error:
            held.close()
            status = getattr(error, "exit_status", _NEVER_RAN)
            with suppress(ConflictError, NotFoundError):  # in other hands, who know better
                engine.containers.mark_start_failed(container.id, status, in_words(error))
            raise
        return Begun(handed, held.pop_all())  # the descriptors among it go with this process


class _Parts:
    """What a start is made of, as far as it has come.

    Attributes:
        streams: the program's streams.
        cgroup: the container's cgroup.
        init: its first process.
        resolver: the connection that keeps its names answered, or None.
        uplink: what leads out of the network of the engine's containers.
        wires: what it holds of networks.
    """

    __slots__ = ("cgroup", "init", "resolver", "streams", "uplink", "wires")

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.cgroup: cgroups.Manager
        self.init: create.Container | other_runtime.Program
        self.resolver: _socket.socket | None = None
        self.uplink: uplinks.Uplink
        self.wires: wiring.Wiring


def _start(
    engine: "Engine", container: "Container", channel: "Channel", manner: Manner, held: ExitStack
) -> list[int]:
    config: api.Config = container.record["Config"]
    parts = _Parts(
        Streams.make(interactive=config.get("OpenStdin", False), terminal=config.get("Tty", False))
    )
    held.callback(parts.streams.close)
    _create(engine, container, parts, held, manner)
    handed = _hand_over(engine, container, channel, manner, held, parts)
    client = manner.client
    if client is not None:
        if manner.hold:
            client.created(container.id)
            client.await_go()
        client.check_interest()
    # Read before the program runs: it may end at once, and a zombie has none.
    start_time = procfs.process_start_time(parts.init.pid) or 0
    if not manner.checkpoint:  # else it runs
        parts.init.start()
    engine.containers.mark_started(
        container.id,
        parts.init.pid,
        start_time,
        time.time_ns(),
        freezer=parts.cgroup.freezer_file(),
        health=health.beginning() if health.check_of(container) else "",
    )
    if client is None:
        channel.tell({"at": "started"})
        return handed
    client.started(container.id)
    client.drain()
    fields: dict[str, wire.Value] = {"at": "started", "gives": manner.gives}
    if manner.explain:
        fields["explain"] = True  # the end as well
    channel.tell(fields, [client.fileno()] if manner.attached and not client.gone else [])
    return handed


def _hand_over(
    engine: "Engine",
    container: "Container",
    channel: "Channel",
    manner: Manner,
    held: ExitStack,
    parts: _Parts,
) -> list[int]:
    """Give the monitor what it needs to watch over the program, or to end it should we fail.

    Returns:
        The descriptors that it has from now on as well.
    """
    settings = engine.settings
    parts.streams.started(parts.init.console)
    config: api.Config = container.record["Config"]
    outputs = parts.streams.outputs_by_name()
    watched = [*outputs, ("init", parts.init.pidfd)]
    if parts.resolver is not None:
        watched.append(("resolver", parts.resolver.fileno()))
    if parts.uplink.connection is not None:
        watched.append(("uplink", parts.uplink.connection.fileno()))
    if not manner.restarting:
        listener = _listen(settings, container.id)
        held.callback(removetree.remove_tree, settings.runtime_directory(container.id))
        held.callback(listener.close)
        watched.append(("listener", listener.fileno()))
    if manner.lifetime and manner.client is not None:
        watched.append(("creator", manner.client.open_process()))
    kept: list[tuple[str, int]] = []
    if shortage := oom.watch(parts.cgroup):
        watched.append(("shortage", shortage[0]))
        if shortage[1] != oom.NO_COUNTER:
            kept.append(("kills", shortage[1]))
    if parts.streams.input is not None and parts.streams.console is None:
        kept.append(("input", parts.streams.input))
    if parts.wires.sandbox is not None:
        kept.append(("network", parts.wires.sandbox.descriptor))
    if (index := engine.store.share_index()) >= 0:
        kept.append(("index", index))
    about_log = subject.fields(container)
    schedule = health.schedule(health.check_of(container))
    ends_after = deadlines.seconds(container.record["HostConfig"])
    fields: dict[str, wire.Value] = {
        **settings.fields,
        "container": container.id,
        "between": parts.init.between,
        "cgroup": parts.cgroup.path,
        "once": bool(config.get("StdinOnce")) and not config.get("Tty"),
        "health": schedule,
        "ends_after": ends_after,
        "descriptors": [name for name, _ in watched + kept],
        **about_log,
    }
    at_once = bool(schedule or ends_after or parts.init.between or about_log["record"])
    head = bytes((at_once, len(watched), len(outputs)))
    handed = [descriptor for _, descriptor in watched + kept]
    channel.tell(fields, handed, head)
    if index >= 0:  # the store's own
        handed.remove(index)
    # It opens the log, which may be a connection to somebody who is not there.
    answer = channel.hear()
    if answer is None:
        raise UnavailableError(f"the monitor of container {container.id} has gone")
    if failure := answer[0].get("failure"):
        told = wire.encode_failure(
            None, str(failure), str(answer[0]["hint"]), str(answer[0]["class"])
        )
        raise wire.error(told)
    # While these are open, nobody else of the host can have the published ports.
    channel.hand_ports(parts.wires.taken)
    return [*handed, *parts.wires.taken]


def _listen(settings: "Settings", container_id: str) -> "_socket.socket":
    """Make the socket where the monitor takes clients."""
    place = settings.runtime_directory(container_id)
    os.makedirs(place, mode=0o700, exist_ok=True)
    with owned(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        return launch.listen(directory, launch.MONITOR)


def _create(
    engine: "Engine",
    container: "Container",
    parts: _Parts,
    held: ExitStack,
    manner: Manner,
) -> None:
    """Take all that the container holds while it runs, and create it up to its program's start."""
    settings = engine.settings
    request: Request = container.record  # type: ignore[assignment]
    say = manner.explain
    directory = settings.container_directory(container.id)
    shared = sharing.join(engine, request, held)
    request = shared.request(request)
    if manner.window:
        sized = {**request["HostConfig"], "ConsoleSize": manner.window}
        request = {**request, "HostConfig": sized}  # type: ignore[typeddict-item]
    apart = shared.user_namespace or user_namespaces.make(container, held)
    if apart is None and not user_namespaces.mounts_map_ids():
        apart = _apart_for_user(engine, request, directory, held)
        request = user_namespaces.named(request, apart)
    if apart is not None:
        if say and shared.user_namespace is None:
            say(telling.of_user_namespace(apart))
        shared.joined["user"] = apart.path
        user_namespaces.give(parts.streams.given, (apart.uids, apart.gids))
    owner = apart.descriptor if apart is not None else None
    held.callback(releasing.release, engine.store, settings, container.id)
    home = shared.network_home or container
    mode = home.record["HostConfig"]["NetworkMode"]
    joined = shared.network_home is not None
    parts.uplink = uplink = uplinks.leave_for(settings, mode, joined=joined)
    held.callback(uplink.close)
    parts.wires = wires = held.enter_context(
        wiring.prepare(engine, container, uplink, say, owner=owner)
    )
    sandbox = wires.sandbox
    if shared.network_home is not None and pins.is_free(request):
        wiring.free(engine, shared.network_home)
    if sandbox is not None and wires.named:
        if say:
            say(telling.of_name_server(nameserver.ADDRESS))
        parts.resolver = resolution.register(settings, container.id, sandbox.descriptor)
        held.callback(parts.resolver.close)
    files = shared.files(engine) or name_files.write(directory, request, wires, apart, say)
    if say:
        say(engine.images.snapshotter.describe(directory, container.image_reference))
    mapping = apart.mapping if apart is not None else None
    rootfs = _mounted_already(directory, container, mapping)
    if rootfs < 0:
        rootfs = engine.images.snapshotter.mount(directory, mapping, passing=container.auto_remove)
    with ExitStack() as until_attached:
        until_attached.callback(os.close, rootfs)
        if sandbox is not None:
            shared.joined["network"] = f"/proc/self/fd/{sandbox.descriptor}"
        linked = [variable for link in wires.links for variable in link.variables]
        config = _configure(engine, container, request, rootfs, files, shared, linked, held, apart)
        config["mounts"] += installers.mounts(
            rootfs, lambda name, text: _write_beside(directory, name, text)
        )
        _write(f"{directory}/config.json", json.dumps(config, separators=(",", ":")))
        validate(config)
        process = config["process"]
        filter_, notified = filtering.prepare(settings, config["linux"].get("seccomp"), process)
        place = config["linux"]["cgroupsPath"]
        layout = cgroups.usable(place)
        parts.cgroup = cgroup = cgroups.manager(place, layout)
        held.callback(remove_cgroup, cgroup)
        _limit(cgroup, config["linux"]["resources"], layout, say)
        if runtime_names.is_other(container.record):
            from ketch.engine.containers import driven  # noqa: PLC0415 wanted by few
            from ketch.engine.monitor import other_runtime  # noqa: PLC0415 wanted by few

            _settle(wires, manner)
            parts.init = other_runtime.create(
                settings, container, config, rootfs=rootfs, streams=parts.streams.given,
                look=_go_on if manner.client is None else manner.client.check_interest,
            )  # fmt: skip
            held.callback(driven.forget, settings, container.id)
            held.callback(parts.init.abandon)
            return
        if say and config["linux"].get("seccomp"):
            say(telling.of_filter(config["linux"]["seccomp"]))
        if manner.checkpoint:
            from ketch.engine.monitor import restoring  # noqa: PLC0415 wanted by few

            assert sandbox is not None
            _settle(wires, manner)
            parts.init = restoring.restore(
                settings, container, manner.checkpoint, config, cgroup,
                rootfs=rootfs, network=sandbox.descriptor, streams=parts.streams.given,
            )  # fmt: skip
            held.callback(_give_up, parts.init)
            return
        birth = init.Birth(
            Plan(config, layout, directory),
            ProcessSetup(process, filter_),
            directory,
            rootfs=rootfs,
            streams=parts.streams.given,
            under_init=bundle.init_of(config),
            die_with_parent=True,
            notified=notified,
            sibling=True,
            container_id=container.id,
            explain=manner.explain,
        )
        _settle(wires, manner)
        parts.init = create.create(birth, cgroup)
        held.callback(_give_up, parts.init)


def _limit(
    cgroup: "cgroups.Manager", resources: "Resources", layout: "cgroups.Layout", say: "Say | None"
) -> None:
    """Make the container's control group, and limit it."""
    if say and layout.hierarchies:
        say(cgroup_telling.of_making(cgroup))
    cgroup.create()
    realtime.provide(cgroup.path, resources, layout)
    if say is None:
        cgroup.set(resources)
        return
    written: list[tuple[str, str]] = []
    cgroup.set(resources, lambda path, value: written.append((path, value)))
    if written:
        say(cgroup_telling.of_limits(written))


def _mounted_already(directory: str, container: "Container", mapping: int | None) -> int:
    """A copy of the root that ``ketch mount`` has mounted; negative where it has not."""
    if not os.path.exists(f"{directory}/mounted"):
        return -1
    from ketch.engine.files import mounting  # noqa: PLC0415 wanted by few

    tree = mounting.copy_of(directory)
    if tree is None:
        return -1
    if mapping is not None:
        os.close(tree)
        raise ConflictError(
            f"container {container.name} is mounted, and has ids of its own: it cannot be both",
            f"ketch umount {container.name}",
        )
    return tree


def _settle(wires: "wiring.Wiring", manner: Manner) -> None:
    """Wait for what the container needs of networks, and tell what it does without."""
    wires.settle()
    if wires.warning and manner.client is not None:
        manner.client.warn(f"WARNING: {wires.warning}")


def _give_up(created: create.Container) -> None:
    """Kill a container that its monitor is not going to watch over, and which it reaps."""
    with suppress(ProcessLookupError):
        process.pidfd_send_signal(created.pidfd, signal.SIGKILL)
    created.close()


def _go_on() -> None:
    """Nobody is there who could lose interest."""


def _configure(
    engine: "Engine",
    container: "Container",
    request: "Request",
    rootfs: int,
    files: bundle.Files,
    shared: sharing.Shared,
    linked: list[str],
    held: ExitStack,
    apart: "UserNamespace | None",
) -> "Config":
    """Build the runtime's configuration, with users and groups looked up in the image."""
    group_text = read_beneath(rootfs, "/etc/group")
    user = passwd.look_up(
        request["Config"].get("User", ""), read_beneath(rootfs, "/etc/passwd"), group_text
    )
    configuration = bundle.build(
        request,
        container_id=container.id,
        user=user,
        extra_groups=passwd.group_ids(request["HostConfig"].get("GroupAdd", ()), group_text),
        files=files,
        devices=devices.gather(request["HostConfig"]),
        host=host.examine(),
        joined=shared.joined,
        linked=linked,
        sources={**shared.sources, **mounts.attach(engine, container, user, held, apart)},
    )
    for mount in configuration["mounts"]:
        if mount["destination"] == "/run" and mount["type"] == "tmpfs":
            _open_to_all(mount, engine, container)
    # For whoever has nothing but the container's files, the database being lost.
    configuration.setdefault("annotations", {})[bundle.NAME_ANNOTATION] = container.name
    return configuration


def _open_to_all(mount: "Mount", engine: "Engine", container: "Container") -> None:
    """Give a tmpfs Docker's mode where it covers nothing of the image's, nor of systemd's.

    The runtime takes the mode of what it covers, and ``/run`` is there for a mark of the engine's.
    """
    options = mount["options"]
    if "tmpcopyup" in options or any(option.startswith("mode=") for option in options):
        return
    if engine.images.snapshotter.is_added(engine.settings.container_directory(container.id), "run"):
        options.append("mode=1777")


def _apart_for_user(
    engine: "Engine", request: "Request", directory: str, held: ExitStack
) -> "UserNamespace | None":
    """Make the namespace of a program that is not root, where its user can be nobody else."""
    resources = request["HostConfig"]
    name = request["Config"].get("User", "")
    if not name or resources.get("Privileged") or resources.get("PidMode") == "host":
        return None
    with owned(engine.images.snapshotter.mount(directory)) as root:
        user = passwd.look_up(
            name, read_beneath(root, "/etc/passwd"), read_beneath(root, "/etc/group")
        )
    return user_namespaces.make_alone(user, held)


def read_beneath(root: int, path: str) -> str:
    """A text file of the image, resolved beneath its root; empty where there is none."""
    data = beneath.read_file(root, path, _USER_DATABASE_BYTES_MAX)
    return data.decode(errors="replace")


def _write_beside(directory: str, name: str, text: str) -> str:
    _write(f"{directory}/{name}", text)
    return f"{directory}/{name}"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
