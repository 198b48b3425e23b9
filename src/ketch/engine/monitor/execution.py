"""``exec``: another program in a running container, watched over by a monitor of its own."""

import _socket
import json
import os
from contextlib import ExitStack, contextmanager, suppress

from ketch.engine import host, user_namespaces
from ketch.engine.configuration import cgroup_paths
from ketch.engine.containers.execs import check_running
from ketch.engine.engine import Engine
from ketch.engine.monitor import filtering, handover
from ketch.engine.monitor.running import read_beneath
from ketch.engine.monitor.supervision import Streams, Supervisor
from ketch.engine.networks import linking
from ketch.engine.processes import await_readable, open_process
from ketch.engine.requests import launch, wire
from ketch.engine.requests.client import Client
from ketch.engine.settings import Settings
from ketch.errors import ENGINE_FAILED, ConflictError, InvalidArgumentError, KetchError, StartError
from ketch.linux import process
from ketch.linux.scopes import owned
from ketch.runtime import enter
from ketch.runtime.process import ProcessSetup
from ketch.spec import capabilities, environment, passwd, runtime_names
from ketch.spec.user_namespaces import is_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ketch.engine.containers.execs import Exec
    from ketch.engine.monitor.attending import Gatekeeper
    from ketch.engine.monitor.other_runtime import Program
    from ketch.engine.monitor.supervision import Log
    from ketch.engine.records.rows import Container
    from ketch.linux.memory_image import Image
    from ketch.runtime.create import Container as Entered
    from ketch.spec.container import ExecConfig, Request
    from ketch.spec.runtime import Config, Process
    from ketch.spec.told import Say


_CANNOT_RUN = 126
_KINDS = {"AttachStdout": wire.OUTPUT, "AttachStderr": wire.ERRORS}


def execute(
    engine: "Engine",
    session: "Exec",
    client: "Client",
    *,
    detached: bool,
    explain: "Say | None" = None,
    gate: "Gatekeeper | None" = None,
) -> int:
    """Run a session's program in its container until it ends.

    Args:
        engine: where the container is.
        session: what to run, and which streams its client has; the caller has claimed it.
        client: who asked; is told when the program runs, and stays attached unless detached.
        detached: whether that is all the client wants.
        explain: takes what is told of each step, when it begins.
        gate: by which the program comes into the container, where it suits; None for a way of its
            own.

    Returns:
        The program's exit status.

    Raises:
        NotFoundError: no such container.
        ConflictError: it does not run.
        StartError: the program cannot be run.
    """
    container = engine.containers.find(session.container_id)
    try:
        with ExitStack() as held:
            supervisor = start(engine, container, session, held, client, explain=explain, gate=gate)
            if detached:
                client.close()
            else:
                client.starter = True
                asked = session.config
                takes = tuple(kind for name, kind in _KINDS.items() if asked.get(name))
                supervisor.attach(client, gives=bool(asked.get("AttachStdin")), takes=takes)
            status = supervisor.run()
    except BaseException as error:
        engine.execs.mark_ended(session, container, getattr(error, "exit_status", ENGINE_FAILED))
        raise
    engine.execs.mark_ended(session, container, status)
    return status


def _end(fields: "Mapping[str, wire.Value]", status: int) -> None:
    """Record what a session's program ended with."""
    process.set_name("ketch-finisher")
    settings = Settings.told(fields)
    engine = Engine(settings)
    container, session = str(fields["container"]), engine.execs.find(str(fields["session"]))
    engine.execs.mark_ended(session, engine.containers.find(container), status)
    path = f"{settings.runtime_directory(container)}/{launch.exec_socket(session.id)}.socket"
    with suppress(FileNotFoundError):
        os.unlink(path)


def last(
    connection: "_socket.socket",
    serve: "Callable[[_socket.socket, handover.Channel], object]",
    memory: "Image",
    end: "Callable[[Mapping[str, wire.Value], int], None]" = _end,
) -> None:
    """Watch over a program that may last, and have all else done by processes that end.

    As a container's monitor does, and for the same reason: see ``handover``.

    Args:
        connection: to the client; its request has not been read yet.
        serve: what is done by the process that begins it: in the end, ``begin``.
        memory: the calling process's, as it was when it was forked.
        end: records what the program has ended with, by what ``begin`` has told of it.
    """
    pid, channel = handover.fork(lambda channel: serve(connection, channel))
    heard = channel.hear()
    channel.close()
    os.waitpid(pid, 0)
    if heard is None:  # the client has been told why
        connection.close()
        return
    fields, (program, *descriptors) = heard
    if between := int(fields["between"]):  # type: ignore[arg-type]
        with suppress(ChildProcessError):
            os.waitpid(between, 0)
    streams = Streams()
    listener = None
    names = fields["descriptors"]
    assert isinstance(names, list)
    for name, descriptor in zip(names, descriptors, strict=True):
        if name == "listener":
            listener = _socket.socket(fileno=descriptor)
            listener.setblocking(False)
        else:
            streams.adopt(name, descriptor)
    connection.setblocking(False)
    client = Client(connection)
    client.asked = client.starter = True
    identifier = str(fields["session"])
    supervisor = Supervisor(
        program, streams, listener=listener, identifier=identifier, memory=memory
    )
    takes = fields["takes"]
    assert isinstance(takes, list)
    kinds = tuple(kind for name, kind in _KINDS.items() if name in takes)
    supervisor.attach(client, gives=bool(fields["gives"]), takes=kinds)
    status = ENGINE_FAILED
    try:
        status = supervisor.run()
    finally:
        pid, channel = handover.fork(lambda _channel: end(fields, status))
        channel.hear()
        channel.close()
        os.waitpid(pid, 0)
        os.close(program)
    client.ended(status)
    client.close()


def begin(engine: "Engine", session: "Exec", client: "Client", channel: handover.Channel) -> None:
    """Run a session's program, and hand it over to the process that forked the caller: ``last``.

    Raises:
        KetchError: it cannot be run.
    """
    container = engine.containers.find(session.container_id)
    try:
        with ExitStack() as held:
            pidfd = _opened(container, held)
            with _checked(container, pidfd):
                made = _start(engine, container, session, held, client, pidfd, sibling=True)
            client.drain()
            asked = session.config
            watched = made.streams.outputs_by_name()
            if made.streams.input is not None and made.streams.console is None:
                watched.append(("input", made.streams.input))
            if made.listener is not None:
                watched.append(("listener", made.listener.fileno()))
            fields: dict[str, wire.Value] = {
                **engine.settings.fields, "session": session.id, "container": container.id,
                "between": made.entered.between, "gives": bool(asked.get("AttachStdin")),
                "takes": [name for name in _KINDS if asked.get(name)],
                "descriptors": [name for name, _ in watched],
            }  # fmt: skip
            channel.tell(fields, [made.entered.pidfd, *(number for _, number in watched)])
            os._exit(0)  # what is held is another one's now
    except BaseException as error:
        engine.execs.mark_ended(session, container, getattr(error, "exit_status", ENGINE_FAILED))
        raise


def start(
    engine: "Engine",
    container: "Container",
    session: "Exec",
    held: ExitStack,
    client: "Client | None" = None,
    *,
    log: "Log | None" = None,
    explain: "Say | None" = None,
    gate: "Gatekeeper | None" = None,
) -> Supervisor:
    """Run a session's program.

    Args:
        engine: where the container is.
        container: the container.
        session: what to run; the caller has claimed it.
        held: owns what is needed as long as it runs.
        client: who is told, or None.
        log: where its output goes, or None.
        explain: takes what is told of each step, when it begins.
        gate: as for ``execute``.

    Returns:
        Who watches over it, to be run.

    Raises:
        ConflictError: the container does not run.
        KetchError: the program cannot be run; ``exit_status`` says what a shell would.
    """
    pidfd = _opened(container, held)
    with _checked(container, pidfd):
        made = _start(engine, container, session, held, client, pidfd, explain, gate=gate)
    return Supervisor(
        made.entered.pidfd, made.streams, log, listener=made.listener, identifier=session.id
    )


def _opened(container: "Container", held: ExitStack) -> int:
    """Open the first process of a container that runs."""
    check_running(container)
    pidfd = held.enter_context(open_process(container.init_pid, container.init_start_time))
    if pidfd is None:
        raise ConflictError(f"container {container.id} is not running")
    return pidfd


@contextmanager
def _checked(container: "Container", pidfd: int) -> "Iterator[None]":
    """What goes wrong with running a program is told as what it means."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError) as error:
        if await_readable(pidfd, 0):  # it has ended meanwhile
            raise ConflictError(f"container {container.id} is not running") from error
        raise
    except KetchError as error:
        if not isinstance(error, (ConflictError, StartError)):
            error.exit_status = _CANNOT_RUN  # type: ignore[attr-defined]
        raise


def _start(
    engine: "Engine",
    container: "Container",
    session: "Exec",
    held: ExitStack,
    client: "Client | None",
    pidfd: int,
    explain: "Say | None" = None,
    *,
    sibling: bool = False,
    gate: "Gatekeeper | None" = None,
) -> "_Begun":
    asked = session.config
    config = gate.config if gate is not None else configuration(engine, container)
    linked = [
        variable
        for link in linking.links_of(engine, container, running=True)
        for variable in link.variables
    ]
    specification = specify(container, config, asked, linked)
    terminal = asked.get("Tty", False)
    streams = Streams.make(interactive=asked.get("AttachStdin", False), terminal=terminal)
    held.callback(streams.close)
    if is_apart(container.record["HostConfig"].get("UsernsMode", "")):
        user_namespaces.give(streams.given, user_namespaces.of_process(container.init_pid))
    entered: Entered | Program
    if runtime_names.is_other(container.record):
        from ketch.engine.monitor import other_runtime  # noqa: PLC0415 wanted by few

        entered = other_runtime.enter(
            engine.settings, container, session.id, specification, streams.given,
            sibling=sibling,
        )  # fmt: skip
    elif gate is not None and gate.suits(specification):
        entered = gate.enter(specification, streams.given)
    else:
        section = None if asked.get("Privileged") else config["linux"].get("seccomp")
        filter_, notified = filtering.prepare(engine.settings, section, specification)
        entered = enter.enter(
            container.init_pid,
            pidfd,
            specification,
            ProcessSetup(specification, filter_),
            cgroup_paths.manager(engine.settings, container),
            streams.given,
            config=config,
            container_id=container.id,
            explain=explain,
            notified=notified,
            sibling=sibling,
        )
    held.callback(entered.close)
    listener = _listen(engine.settings, session, held) if terminal else None
    if client is not None:
        client.check_interest()
    engine.execs.mark_started(session, container, entered.pid)
    entered.start()
    streams.started(entered.console)
    if client is not None:
        client.started(session.id)
    return _Begun(entered, streams, listener)


class _Begun:
    """A program that has begun, and what there is of it outside."""

    __slots__ = ("entered", "listener", "streams")

    def __init__(
        self, entered: "Entered | Program", streams: Streams, listener: "_socket.socket | None"
    ) -> None:
        self.entered = entered
        self.streams = streams
        self.listener = listener


def _listen(settings: "Settings", session: "Exec", held: ExitStack) -> "_socket.socket | None":
    """Make the socket where the session's terminal is resized."""
    try:
        directory = os.open(
            settings.runtime_directory(session.container_id),
            os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
        )
    except FileNotFoundError:
        return None  # the container has just ended
    held.callback(os.close, directory)
    name = launch.exec_socket(session.id)
    listener = launch.listen(directory, name)
    listener.setblocking(False)
    held.callback(listener.close)
    held.callback(_unlink, f"{name}.socket", directory)
    return listener


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def configuration(engine: "Engine", container: "Container") -> "Config":
    """Read a container's configuration."""
    directory = engine.settings.container_directory(container.id)
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        config: Config = json.load(file)
    return config


def specify(
    container: "Container", config: "Config", asked: "ExecConfig", linked: list[str]
) -> "Process":
    """The container's process, changed as asked, with the variables of links as they are now."""
    request: Request = container.record  # type: ignore[assignment]
    terminal = asked.get("Tty", False)
    process: Process = {**config["process"], "args": asked["Cmd"], "terminal": terminal}
    if size := asked.get("ConsoleSize"):
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    if asked.get("WorkingDir") and not os.path.isabs(asked["WorkingDir"]):
        raise InvalidArgumentError(
            f"the working directory {asked['WorkingDir']} is invalid: it must be an absolute path"
        )
    user_name = asked.get("User") or request["Config"].get("User", "")
    with owned(
        os.open(f"/proc/{container.init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ) as root:
        group_text = read_beneath(root, "/etc/group")
        user = passwd.look_up(user_name, read_beneath(root, "/etc/passwd"), group_text)
    if asked.get("User"):
        added = passwd.group_ids(request["HostConfig"].get("GroupAdd") or (), group_text)
        own = [user.gid, *user.groups] if host.examine().sets_groups else []
        groups = list(dict.fromkeys([*own, *added]))
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": groups}
    process["env"] = environment.of_container(
        [*linked, *request["Config"].get("Env", ()), *(asked.get("Env") or ())],
        # Of whose network it is in, where it has none of its own; of the host, with its names.
        hostname=request["Config"].get("Hostname") or config.get("hostname") or os.uname().nodename,
        home=user.home,
        terminal=terminal,
    )
    if asked.get("WorkingDir"):
        process["cwd"] = asked["WorkingDir"]
    if asked.get("Privileged"):
        every = capabilities.to_names(host.examine().capabilities)
        process["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
    return process
