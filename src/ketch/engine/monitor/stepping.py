"""A program that runs on an image's files without being a container: a step of a build.

It has all that a container's program has of the runtime (namespaces, capabilities, filter, limits,
masked paths), and no record, name, log or restarts. The process that runs it, forked for this
alone, is its parent; who asked has the other ends of its streams and keeps the connection, whose
end, by whatever end of that process, is the program's. What forks it has what a step needs loaded,
and serves one build (``fork_for_each``): a zygote has not, which containers' monitors descend from.

The request is a JSON object:

==============  ==================================================================================
``directory``   the prepared root (``Snapshotter.prepare``) that the program writes to
``config``      the API's ``Config``, as far as it says what runs: ``Cmd``, ``User``, ``Env`` ...
``host``        the API's ``HostConfig``: limits, ``Privileged``, ``NetworkMode`` ...
``network``     number of the descriptor of a network namespace to be in, or null
``named``       whether that has the engine's name server
``gateways``    the host's addresses there, for ``host-gateway``
``variables``   more of the environment, which is in no error message: secrets
``mounts``      what is mounted, see ``step_mounts``
==============  ==================================================================================

Descriptors come beside it: the program's standard output, its standard error, and those that the
request names by their number among all.

While it lives, a symlink in the state directory says what there is to be taken away, should this
process be killed: ``steps/ID`` names its pid, start time, boot and control group. A symlink is
there with all its content or not at all.
"""

import _socket
import json
import os
import select
from contextlib import ExitStack, contextmanager, suppress

from ketch import cgroups
from ketch.engine import host, mishaps, user_namespaces
from ketch.engine.configuration import bundle, configuration, devices, realtime
from ketch.engine.containers.ledger import Keeper
from ketch.engine.containers.releasing import remove_cgroup
from ketch.engine.home import entering
from ketch.engine.monitor import filtering, installers, step_mounts, stubs
from ketch.engine.monitor.running import read_beneath
from ketch.engine.networks import resolution
from ketch.engine.records import names as identifiers
from ketch.engine.requests import wire
from ketch.linux import process, procfs, signals
from ketch.linux.scopes import owned
from ketch.network import names
from ketch.network.sandbox import connections
from ketch.runtime import create, init
from ketch.runtime.plan import Plan
from ketch.runtime.process import ProcessSetup
from ketch.runtime.validate import validate
from ketch.spec import environment, passwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.requests.client import Client
    from ketch.spec.container import Request
    from ketch.spec.runtime import Config

_OUTPUTS = 2
_USUAL_FILES = ("/etc/resolv.conf", "/etc/hosts")


def fork_for_each(client: "Client", serve: "Callable[[_socket.socket], object]") -> None:
    """Fork a process for each connection that is handed over, until the client leaves.

    Args:
        client: who builds.
        serve: what a process does with its connection; it ends when this returns.
    """
    process.set_name("ketch-steps")
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)
    while True:
        try:
            descriptors = client.read_descriptors()
        except (OSError, wire.ProtocolError):
            client.let_go()
            return
        for descriptor in descriptors:
            if os.fork() == 0:
                _become_step(client, descriptor, serve)
            os.close(descriptor)


def _become_step(
    client: "Client", descriptor: int, serve: "Callable[[_socket.socket], object]"
) -> None:
    status = 1
    try:
        signals.signal(signals.SIGCHLD, signals.SIG_DFL)
        process.set_name("ketch-step")
        client.let_go()
        serve(_socket.socket(fileno=descriptor))
        status = 0
    except BaseException as error:  # noqa: BLE001 - no way back into the loop above
        mishaps.note("a build's step", error)
    os._exit(status)


def run(client: "Client", engine: "Engine", asked: "Mapping[str, Any]", machine: host.Host) -> None:
    """Run a step's program to its end, and tell how it ended.

    Args:
        client: who asked.
        engine: whose snapshots and settings.
        asked: see above.
        machine: where it runs.

    Raises:
        StartError: the program cannot be run.
        KetchError: something that it needs cannot be had.
        OSError: the kernel refused a step.
    """
    descriptors = client.read_descriptors()
    if asked["network"] is not None:
        entering.enter_network(engine.settings)
    with ExitStack() as held:
        ended = _run(client, engine, asked, machine, descriptors, held)
        client.ended_as(json.dumps(ended).encode())
        client.drain()


def _run(
    client: "Client",
    engine: "Engine",
    asked: "Mapping[str, Any]",
    machine: host.Host,
    descriptors: list[int],
    held: ExitStack,
) -> "dict[str, Any]":
    """Returns how it ended, as ``build.steps.Outcome`` has it, and what is left in its network."""
    step_id = identifiers.new_id()
    request = _complete(asked, step_id, machine)
    with ExitStack() as until_end:
        snapshotter = engine.images.snapshotter
        mounts = step_mounts.Mounts(snapshotter, asked["mounts"], descriptors)
        rootfs = snapshotter.mount(asked["directory"], passing=True)
        until_end.callback(os.close, rootfs)
        place = f"{engine.settings.state}/steps"
        os.makedirs(place, 0o700, exist_ok=True)
        records = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, records)
        mounts.prepare(place)
        left = stubs.missing(rootfs, [*_USUAL_FILES, *installers.targets(rootfs), *mounts.targets])
        config = _configure(
            asked, machine, request, rootfs, mounts, step_id, descriptors, until_end
        )
        validate(config)
        process = config["process"]
        filter_, notified = filtering.prepare(
            engine.settings, config["linux"].get("seccomp"), process
        )
        layout = cgroups.usable(config["linux"]["cgroupsPath"])
        cgroup = cgroups.manager(config["linux"]["cgroupsPath"], layout)
        _record(records, step_id, cgroup.path)
        held.callback(_take_away, records, step_id, cgroup)
        cgroup.create()
        realtime.provide(cgroup.path, config["linux"]["resources"], layout)
        cgroup.set(config["linux"]["resources"])
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        until_end.callback(os.close, null)
        birth = init.Birth(
            Plan(config, layout, place),
            ProcessSetup(process, filter_),
            place,
            rootfs=rootfs,
            streams=(null, descriptors[0], descriptors[1]),
            die_with_parent=True,
            notified=notified,
            container_id=step_id,
        )
        program = create.create(birth, cgroup)
        try:
            for descriptor in descriptors[:_OUTPUTS]:
                os.close(descriptor)  # or their end would not be the program's
            stubs.made(rootfs, left)
            client.check_interest()
            if mounts.listeners:
                client.hand_over(
                    b"", *(mounts.listeners[number].fileno() for number in sorted(mounts.listeners))
                )
            program.start()
            client.started(step_id)
        except BaseException:
            program.abandon()
            raise
        status = _await_end(client, program)
        program.close()
        joined = asked["network"]
        remaining = connections(descriptors[joined]) if joined is not None else 0
        for descriptor in descriptors[_OUTPUTS:]:
            os.close(descriptor)  # locks of caches among them
        stubs.remove(rootfs, left)
    return {
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status),
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "oom": bool(cgroup.oom_kills()),
        "connections": remaining,
    }


def _complete(asked: "Mapping[str, Any]", step_id: str, machine: host.Host) -> "Request":
    request: Request = {"Config": asked["config"], "HostConfig": asked["host"]}
    return configuration.complete(request, {}, step_id, machine)[0]


def _configure(
    asked: "Mapping[str, Any]",
    machine: host.Host,
    request: "Request",
    rootfs: int,
    mounts: "step_mounts.Mounts",
    step_id: str,
    descriptors: list[int],
    held: ExitStack,
) -> "Config":
    """Build the runtime's configuration, with users and groups looked up in the image."""
    resources = request["HostConfig"]
    named = bool(asked["named"])
    hosts = names.sandbox_hosts(
        request["Config"]["Hostname"], resources.get("ExtraHosts", ()), asked["gateways"]
    )
    files = bundle.Files(
        mounts.write("hosts", hosts),
        "",  # what a step writes to /etc/hostname is its result
        mounts.write("resolv.conf", resolution.resolv_conf(resources, named=named)),
        read_only=True,
    )
    user = passwd.look_up(
        request["Config"].get("User", ""),
        read_beneath(rootfs, "/etc/passwd"), read_beneath(rootfs, "/etc/group"),
    )  # fmt: skip
    network = asked["network"]
    joined = {} if network is None else {"network": f"/proc/self/fd/{descriptors[network]}"}
    apart = None if machine.maps_ids else user_namespaces.make_alone(user, held)
    if apart is not None:
        request = user_namespaces.named(request, apart)
        joined["user"] = apart.path
    found = devices.gather(resources)
    config = bundle.build(
        request, container_id=step_id, user=user, extra_groups=[], files=files,
        devices=found, host=machine, joined=joined, sysfs=apart is None or network is None,
    )  # fmt: skip
    if apart is not None and network is not None:
        # Whose network it is has a say there, and the step's root has none.
        sysctls = config["linux"]["sysctl"]
        config["linux"]["sysctl"] = {
            key: value for key, value in sysctls.items() if not key.startswith("net.")
        }
    own = environment.mapping([
        *request["Config"].get("Env", ()), *found.variables,
        *asked["variables"],
    ])  # fmt: skip
    # Unlike a container's, a step's environment says nothing of its host name.
    values = {"PATH": environment.DEFAULT_PATH, **own}
    values["HOME"] = values.get("HOME") or user.home
    config["process"]["env"] = [f"{name}={value}" for name, value in values.items()]
    config["mounts"] += installers.mounts(rootfs, mounts.write)
    config["mounts"] += mounts.specifications()
    return config


def _record(records: int, step_id: str, cgroup: str) -> None:
    """Write down what is to be taken away of a step."""
    keeper = Keeper()
    facts = f"{keeper.pid} {keeper.start_time} {procfs.boot_id()} {cgroup}"
    os.symlink(facts, step_id, dir_fd=records)


def _take_away(records: int, step_id: str, cgroup: cgroups.Manager) -> None:
    remove_cgroup(cgroup)
    os.unlink(step_id, dir_fd=records)


def _await_end(client: "Client", program: create.Container) -> int:
    """Wait for the program's end, or kill it when nobody wants it any more.

    With the first process of its PID namespace all others have died, so that nothing writes to the
    step's files any more.

    Returns:
        How it ended, as waitpid(2) has it.
    """
    poll = select.poll()
    poll.register(program.pidfd, select.POLLIN)
    poll.register(client, select.POLLIN)
    while program.pidfd not in {descriptor for descriptor, _ in poll.poll()}:
        client.receive()
        if client.gone:
            with suppress(ProcessLookupError):
                process.pidfd_send_signal(program.pidfd, signals.SIGKILL)
            break
    return os.waitpid(program.pid, 0)[1]


def running(state: str) -> list[int]:
    """Returns the pids of the processes of steps that run, by what is in a state directory."""
    with _recorded(state) as found:
        return [one.pid for one in found if one.is_running]


def clean(state: str) -> None:
    """Take away what is left of steps whose process was killed."""
    with _recorded(state) as found:
        for one in found:
            if not one.is_running:
                remove_cgroup(cgroups.manager(one.cgroup, cgroups.usable(one.cgroup)))
                one.forget()


class _Record:
    """What is written down of a step that runs, or was killed.

    Args:
        records: descriptor of where.
        name: its name there.
        facts: what it says.
    """

    __slots__ = ("_name", "_records", "_start_time", "boot_id", "cgroup", "pid")

    def __init__(self, records: int, name: str, facts: str) -> None:
        self._records = records
        self._name = name
        pid, start_time, self.boot_id, self.cgroup = facts.split(" ", 3)
        self.pid = int(pid)
        self._start_time = int(start_time)

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.boot_id == procfs.boot_id() and procfs.is_running(self.pid, self._start_time)

    def forget(self) -> None:
        """Remove it; gone already will do."""
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._records)


@contextmanager
def _recorded(state: str) -> "Iterator[list[_Record]]":
    """What is written down of steps."""
    found: list[_Record] = []
    try:
        records = os.open(f"{state}/steps", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield found
        return
    with owned(records):
        for name in os.listdir(records):
            with suppress(FileNotFoundError):
                found.append(_Record(records, name, os.readlink(name, dir_fd=records)))
        yield found
